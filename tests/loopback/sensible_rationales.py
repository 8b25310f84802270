"""Answers of a sensible model that writes rationales, and judges by a rationale alone; see `loopback.sensible`.

What it writes is right, unless a reply holds a mark such as `[write=invent]`: then it makes that mistake (`MISTAKES`).
A judge reads nothing but the claims of a remark: which words it praises or blames, and which reply has them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple  # Any: JSON

from loopback.sensible import Habits, Question, _asked, _erring, _scale, _system, better_of, key_word, quality

MISTAKES: Final = ("position", "invent", "swap", "copy", "empty")
INVENTED: Final = "the moon is made of old cheese"
CONTENT: Final = 8  # a reply that is marked as this good, or better, satisfies a judge who sees it alone

_RECOVERS: Final = "from the remark, read by itself"
_TOLD: Final = re.compile(r"^Reply ([12]) is the better reply", re.MULTILINE)
_MISTAKE: Final = re.compile(rf"\[write=({'|'.join(MISTAKES)})\]")
_TOKEN: Final = r"[^\s\"“”„«»`]"
_PRAISE, _BLAME = "answers what was asked", "misses the point"
_CLAIM: Final = re.compile(rf'reply (?:says "([^"]+)"|speaks of (\w+)), which ({_PRAISE}|{_BLAME})')


class Shown(NamedTuple):
    """What a request shows: the request of the user, the replies, and which mistake to make, if any."""

    prompt: str
    replies: list[str]
    mistake: str | None


def rationale_answer(question: Question, habits: Habits) -> dict[str, Any] | None:
    """The answer, where this is asked; else null."""
    title = str((question.schema or {}).get("title", ""))
    if title in _WRITERS:
        return _WRITERS[title](question)
    if title == "tilth.judge.pairwise" and _RECOVERS in _system(question):
        return _recover(question, habits)
    return None


def piece(text: str, other: str) -> str | None:
    """A few words of a text, as they stand there, around the longest word that `other` does not have; null for none.

    >>> piece("Sow them five centimetres deep.", "Sow them deep.")
    'Sow them five centimetres deep.'
    """
    word = key_word(text, other)
    around = rf"(?:{_TOKEN}+[ ]){{0,3}}{_TOKEN}*\b{re.escape(word)}\b{_TOKEN}*(?:[ ]{_TOKEN}+){{0,3}}"
    found = re.search(around, text, re.IGNORECASE) if word else None
    return found[0][:200] if found and found[0] not in other else None


# What is read from a request


def _shown(question: Question) -> Shown:
    found = _asked(question)
    said = [block.text for block in found if block.role == "user"]
    replies = [block.text for block in found if block.lead.startswith(("Reply ", "The reply:"))]
    mistakes = [mark[1] for reply in replies if (mark := _MISTAKE.search(reply))]
    return Shown(said[-1] if said else "", replies, mistakes[0] if mistakes else None)


def _told_better(question: Question) -> int:
    """Which reply the request says is better; the line stands last, so that no reply can forge it."""
    asked = next(message for message in question.messages if message["role"] == "user")
    return int(_TOLD.findall(str(asked["content"]))[-1]) - 1


# Writing


def _general(question: Question) -> dict[str, Any]:
    shown = _shown(question)
    better, weaker = _sides(question, shown)
    text = (
        f"The better reply speaks of {key_word(better, weaker)}, which {_PRAISE}. "
        f"The weaker reply speaks of {key_word(weaker, better)}, which {_BLAME}."
    )
    invented = f'{text} The better reply even says "{INVENTED}".'
    return {"reason": _mistaken(shown, invented if shown.mistake == "invent" else text, better)}


def _specific(question: Question) -> dict[str, Any]:
    shown = _shown(question)
    better, weaker = _sides(question, shown)
    praised, blamed = piece(better, weaker), piece(weaker, better)
    claims = [f'The better reply says "{praised}", which {_PRAISE}.'] if praised else []
    claims += [f'The weaker reply says "{blamed}", which {_BLAME}.'] if blamed else []
    cited = [
        {"reply": shown.replies.index(reply) + 1, "quote": INVENTED if shown.mistake == "invent" else quote}
        for reply, quote in ((better, praised), (weaker, blamed))
        if quote
    ]
    return {"evidence": cited, "reason": _mistaken(shown, " ".join(claims), better)}


def _sides(question: Question, shown: Shown) -> tuple[str, str]:
    better = _told_better(question)
    if shown.mistake == "swap":
        better = 1 - better
    return shown.replies[better], shown.replies[1 - better]


def _judgment(question: Question) -> dict[str, Any]:
    shown = _shown(question)
    reply = shown.replies[0]
    if (quality(reply) or 0) >= CONTENT:
        return {"evidence": [], "satisfied": True, "reason": ""}
    said = _marked_end(reply) or piece(reply, shown.prompt) or ""
    found = _PRAISE if shown.mistake == "swap" else _BLAME
    cited = INVENTED if shown.mistake == "invent" else said
    text = _mistaken(shown, f'The reply says "{said}", which {found}.', reply)
    return {"evidence": [cited] if cited else [], "satisfied": False, "reason": text}


def _marked_end(reply: str) -> str | None:
    """The words before the mark of a reply, with it: no other reply has them."""
    found = re.search(rf"(?:{_TOKEN}+[ ]){{0,4}}\[q=\d+\]", reply)
    return found[0] if found else None


def _option(question: Question) -> dict[str, Any]:
    shown = _shown(question)
    best = better_of(*shown.replies)
    if best is None and all(quality(reply) is None for reply in shown.replies):
        best = int(_lot(shown.replies[1]) > _lot(shown.replies[0]))  # a guess, whatever the order
    if shown.mistake == "swap" and best is not None:
        best = 1 - best
    premise = INVENTED if shown.mistake == "invent" else piece(shown.prompt, "")
    answer: dict[str, Any] = {"premises": [premise] if premise else []}
    for place, (reply, other) in enumerate((shown.replies, shown.replies[::-1])):
        found = _PRAISE if place == best else _BLAME
        text = f"This reply speaks of {key_word(reply, other)}, which {found}."
        cited = [1] if premise else []
        answer |= {
            f"supports_{place + 1}": cited if place == best else [],
            f"contradicts_{place + 1}": [] if place == best else cited,
            f"analysis_{place + 1}": _mistaken(shown, text, reply),
        }
    return {**answer, "best": "tie" if best is None else str(best + 1)}


def _lot(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _mistaken(shown: Shown, text: str, copied: str) -> str:
    match shown.mistake:
        case "position":
            return f"{text} So the first answer is clearer."
        case "copy":
            return copied[:800]
        case "empty":
            return ""
        case _:
            return text


# Judging


def _recover(question: Question, habits: Habits) -> dict[str, Any]:
    found = _asked(question)
    replies = [block.text for block in found if block.lead.startswith("Reply ")]
    remark = next(block.text for block in found if block.lead == "The remark:")
    better = _erring(question, habits, claimed(remark, replies))
    low, high = _scale(question, "score_1")
    scores = {None: (low, low), 0: (high, low), 1: (low, high)}[better]
    verdict = {None: "tie", 0: "1", 1: "2"}[better]
    evidence = "By what the remark says."
    return {"evidence": evidence, "score_1": scores[0], "score_2": scores[1], "verdict": verdict}


def claimed(remark: str, replies: list[str]) -> int | None:
    """Which of two replies a remark speaks for, 0 or 1, by the words that only one of them has; null for neither."""
    points = [0, 0]
    for quote, word, verdict in _CLAIM.findall(remark):
        has = [quote in reply if quote else word in re.findall(r"\w+", reply.lower()) for reply in replies]
        if has[0] != has[1]:
            points[has.index(True)] += 1 if verdict == _PRAISE else -1
    return None if points[0] == points[1] else int(points[1] > points[0])


_WRITERS: Final[Mapping[str, Callable[[Question], dict[str, Any]]]] = {
    "tilth.rationale.general": _general,
    "tilth.rationale.specific": _specific,
    "tilth.rationale.judgment": _judgment,
    "tilth.rationale.option": _option,
}
