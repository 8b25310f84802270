"""Answers that make sense, for what Tilth asks models: a function of the request alone, like all others here.

The schema's title says what is asked; the blocks of material in the prompt say about what. A judge knows the better
reply, and errs only as its `Habits` say: by the place that a reply is shown at, by ties, by answers that are no JSON.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple  # Any: JSON

import orjson

UNMARKED: Final = 5  # what a reply without a mark of quality is worth
GARBLED: Final = "Both replies have their merits, so it depends."

_BLOCK: Final = re.compile(r"<<material (\w+)(?: (\w+))?>>\n(.*?)\n<</material \1>>", re.DOTALL)
_MARK: Final = re.compile(r"\[q=(\d+)\]")
_TURN: Final = re.compile(r"Turn (\d+)(, asked about)?:")
_NUMBERED: Final = re.compile(r"\d+\.")
_WORD: Final = re.compile(r"\w+")
_SENTENCE: Final = re.compile(r"[^.!?\n]+[.!?]*")
_REFUSED: Final = re.compile(r"I (?:can't|cannot|won't|will not)\b")
_HARM: Final = re.compile(r"\bbombs?\b", re.IGNORECASE)
_SIGNS: Final = {
    "satisfaction": {
        "gratitude": re.compile(r"\bthank(?:s| you)\b", re.IGNORECASE),
        "praise": re.compile(r"\b(?:perfect|great|excellent)\b", re.IGNORECASE),
    },
    "dissatisfaction": {
        "negative_feedback": re.compile(
            r"\b(?:wrong|incorrect|useless)\b|\bnot what i\b|\bno,|\bdoesn't work\b", re.IGNORECASE
        ),
        "revision": re.compile(r"\b(?:try|do it) again\b", re.IGNORECASE),
        "insufficient_detail": re.compile(r"\bmore detail", re.IGNORECASE),
        "style": re.compile(r"\btoo (?:long|short)\b", re.IGNORECASE),
    },
}


@dataclass(frozen=True, slots=True)
class Habits:
    """How judges err. Shares in [0, 1]; drawn from seed, model and content, so that the same request errs the same.

    Args:
        position_bias: how often the reply that is shown first is preferred, whatever it says.
        tie_share: how often no reply is preferred, whatever they say; drawn first.
        garble_share: how often the answer is no JSON, also when it is asked for again.
        seed: of the draws.
    """

    position_bias: float = 0.0
    tie_share: float = 0.0
    garble_share: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Question:
    """One request as the server reads it."""

    messages: Sequence[Mapping[str, Any]]
    model: str = "loopback"
    seed: int | None = None
    schema: Mapping[str, Any] | None = None


class Block(NamedTuple):
    """One block of material; `lead` is the line that it stands after."""

    lead: str
    role: str
    text: str


def sensible_answer(question: Question, habits: Habits = Habits()) -> str | None:
    """What a sensible model answers; null where it does not know what is asked (a schema of another title)."""
    if question.schema is None:
        return _reply(question)
    # Imported here: they read requests with what stands above.
    from loopback.sensible_rationales import rationale_answer
    from loopback.sensible_rubrics import rubric_answer

    title = str(question.schema.get("title", ""))
    if title.startswith("tilth.judge.") and _draw(question, habits, "garble") < habits.garble_share:
        return GARBLED
    answer = rationale_answer(question, habits) or rubric_answer(question, habits)
    if answer is None and title in _ANSWERS:
        answer = _ANSWERS[title](question, habits)
    return None if answer is None else orjson.dumps(answer).decode()


def blocks(text: str) -> list[Block]:
    """The blocks of material in a message.

    >>> blocks("Reply 1:\\n<<material ab>>\\nHi\\n<</material ab>>")
    [Block(lead='Reply 1:', role='', text='Hi')]
    """
    found, end = list[Block](), 0
    for block in _BLOCK.finditer(text):
        lead = text[end : block.start()].strip().rpartition("\n")[2]
        found.append(Block(lead, block[2] or "", block[3]))
        end = block.end()
    return found


def quality(text: str) -> int | None:
    """The quality that a reply is marked with, as in `[q=7]`; null without a mark."""
    mark = _MARK.search(text)
    return None if mark is None else int(mark[1])


def key_word(text: str, without: str = "") -> str:
    """The longest word of a text that does not stand in `without`, the first of equally long ones, in lower case."""
    words = _WORD.findall(text.lower())
    other = set(_WORD.findall(without.lower()))
    return max([word for word in words if word not in other] or words or [""], key=len)


def marker(wish: str) -> str:
    """The word by which a reply shows that it knows a wish: the one in quotes, else the key word."""
    quote = re.search(r'"([^"]+)"', wish)
    return quote[1].lower() if quote else key_word(wish)


# What is read from a request


def _opening(question: Question) -> list[Mapping[str, Any]]:
    """Messages up to the first of a user: what is asked, without tries that did not fit."""
    roles = [message["role"] for message in question.messages]
    return list(question.messages[: roles.index("user") + 1 if "user" in roles else None])


def _asked(question: Question) -> list[Block]:
    return blocks(_opening(question)[-1]["content"])


def _system(question: Question) -> str:
    first = question.messages[0]
    return str(first["content"]) if first["role"] == "system" else ""


def _draw(question: Question, habits: Habits, what: str, *, by_seed: bool = False) -> float:
    """A number in [0, 1)."""
    said = [[message["role"], message["content"]] for message in _opening(question)]
    seed = question.seed if by_seed else None
    return _share_of(orjson.dumps([habits.seed, question.model, said, seed, what]))


def _share_of(data: bytes) -> float:
    return int.from_bytes(hashlib.blake2b(data, digest_size=7).digest()) / 2**56


# Replies


def _reply(question: Question) -> str:
    """A reply to the conversation, marked with a quality; of one that was told wishes, with a word of each."""
    said = [[message["role"], message["content"]] for message in question.messages]
    data = orjson.dumps([question.model, said, question.seed])
    letters = hashlib.blake2b(data, digest_size=16).hexdigest()
    wishes = [block.text for block in blocks(_system(question)) if _NUMBERED.fullmatch(block.lead)]
    low, high = (5, 9) if wishes else (1, 6)
    mark = low + int(_share_of(data) * (high - low + 1))
    minded = [f"It minds {', '.join(marker(wish) for wish in wishes)}."] if wishes else []
    about = key_word(str(question.messages[-1]["content"]))
    return " ".join([f"On {about}: {letters[:8]} {letters[8:16]}.", *minded, f"[q={mark}]"])


# Judging


def worth(reply: str, wishes: Sequence[str]) -> int:
    """The mark of a reply, and two for each wish whose marker it has."""
    words = set(_WORD.findall(reply.lower()))
    marked = quality(reply)
    return (UNMARKED if marked is None else marked) + 2 * sum(marker(wish) in words for wish in wishes)


def better_of(one: str, other: str, wishes: Sequence[str] = ()) -> int | None:
    """Which of two replies is better, 0 or 1; null for neither. Marks decide where both have one."""
    marks = [quality(one), quality(other)]
    values = [worth(reply, wishes) for reply in (one, other)]
    first, second = values if None in marks else [mark or 0 for mark in marks]
    return None if first == second else int(second > first)


def _replies(question: Question) -> tuple[list[str], list[str]]:
    """Replies as they are shown, and what the user wants of them."""
    found = _asked(question)
    replies = [block.text for block in found if block.lead.startswith("Reply ")]
    return replies, [block.text for block in found if _NUMBERED.fullmatch(block.lead)]


def _erring(question: Question, habits: Habits, right: int | None) -> int | None:
    if _draw(question, habits, "tie", by_seed=True) < habits.tie_share:
        return None
    return 0 if _draw(question, habits, "place", by_seed=True) < habits.position_bias else right


def _compare(question: Question, habits: Habits) -> dict[str, Any]:
    replies, wishes = _replies(question)
    better = _erring(question, habits, better_of(replies[0], replies[1], wishes))
    low, high = _scale(question, "score_1")
    up, down = low + round(0.8 * (high - low)), low + round(0.2 * (high - low))
    scores = {None: (up, up), 0: (up, down), 1: (down, up)}[better]
    said = {None: "Neither is better.", 0: "Reply 1 serves better.", 1: "Reply 2 serves better."}[better]
    verdict = {None: "tie", 0: "1", 1: "2"}[better]
    return {"evidence": said, "score_1": scores[0], "score_2": scores[1], "verdict": verdict}


def _rate(question: Question, habits: Habits) -> dict[str, Any]:
    """By worth; where the judge errs by place, the first has the highest rating, and by ties, all have the same."""
    replies, wishes = _replies(question)
    low, high = _scale(question, "rating_1")
    rated = [low + round((high - low) * (min(max(worth(one, wishes), 1), 10) - 1) / 9) for one in replies]
    given: list[int | None] = [
        None if "[n/a]" in reply else rating for reply, rating in zip(replies, rated, strict=True)
    ]
    match _erring(question, habits, 1):
        case None:
            given = [low + (high - low) // 2 for _ in replies]
        case 0:
            given = [high, *given[1:]]
        case _:
            pass
    return {"evidence": "By what they say.", **{f"rating_{n + 1}": one for n, one in enumerate(given)}}


def _scale(question: Question, name: str) -> tuple[int, int]:
    assert question.schema is not None
    shape = question.schema["properties"][name]
    number = next(
        (one for one in shape.get("anyOf", [shape]) if "minimum" in one), {"minimum": 1, "maximum": 10}
    )
    return number["minimum"], number["maximum"]


# Feedback


def _label(question: Question, habits: Habits) -> dict[str, Any]:
    turns = {int(lead[1]): (block, bool(lead[2])) for block, lead in _turns(question)}
    return {"turns": [_entry(number, turns) for number, (_, asked) in turns.items() if asked]}


def _turns(question: Question) -> list[tuple[Block, re.Match[str]]]:
    leads = [(block, _TURN.fullmatch(block.lead)) for block in _asked(question)]
    return [(block, lead) for block, lead in leads if lead is not None]


def _entry(number: int, turns: Mapping[int, tuple[Block, bool]]) -> dict[str, Any]:
    text = turns[number][0].text
    found = {
        side: [name for name, sign in signs.items() if sign.search(text)] for side, signs in _SIGNS.items()
    }
    before = [n for n, (block, _) in turns.items() if n < number and block.role == "assistant"]
    target = max(before, default=0)
    refused = bool(before) and _REFUSED.match(turns[target][0].text) is not None
    spans = [sign.search(text) for signs in _SIGNS.values() for sign in signs.values()]
    places = [span.start() for span in spans if span is not None]
    state = "feedback" if found["dissatisfaction"] else "closing" if found["satisfaction"] else "continuation"
    return {
        "turn": number,
        **found,
        "state": state,
        "target": target,
        "evidence": _sentence(text, min(places))[:300] if places else "",
        "refusal_was_right": refused and bool(found["dissatisfaction"]),
    }


def _sentence(text: str, place: int) -> str:
    around = (one[0].strip() for one in _SENTENCE.finditer(text) if one.start() <= place < one.end())
    return next(around, text)


def _preferences(question: Question, habits: Habits) -> dict[str, Any]:
    """One wish, with a word of the complaint that the reply does not have."""
    text = str(_opening(question)[-1]["content"])
    turns = {int(lead[1]): block.text for block, lead in _turns(question)}
    target = re.search(r"dissatisfied with is turn (\d+)", text)
    said = re.search(r"says so in: turn (\d+)", text)
    complaint = turns.get(int(said[1]), "") if said else ""
    word = key_word(complaint, turns.get(int(target[1]), "") if target else "")
    return {"preferences": [f'Is about "{word[:60]}".'] if word else []}


def _moderate(question: Question, habits: Habits) -> dict[str, Any]:
    return {"flags": ["weapons"] if any(_HARM.search(block.text) for block in _asked(question)) else []}


# SPUR


def _extract(question: Question, habits: Habits) -> dict[str, Any]:
    """One reason for each sign in the user's turns, of the side that the conversation is known to be on."""
    side = "dissatisfaction" if "dissatisfied with the assistant" in _system(question) else "satisfaction"
    text = "\n".join(block.text for block in _asked(question) if block.role == "user")
    spans = [sign.search(text) for sign in _SIGNS[side].values()]
    return {"reasons": [f'The user says "{span[0].lower()}".' for span in spans if span is not None][:3]}


def _merge(question: Question, habits: Habits) -> dict[str, Any]:
    """The rubric so far, then an item for each new quoted word."""
    found = _asked(question)
    named = [(one.text, two.text) for one, two in itertools.pairwise(found) if two.lead == ":"]
    reasons = [block.text for block in found if block.lead != ":" and not _NUMBERED.fullmatch(block.lead)]
    items = dict(named) | {marker(reason): reason for reason in reasons}
    return {"items": [{"name": name, "description": text} for name, text in list(items.items())[:10]]}


def _score(question: Question, habits: Habits) -> dict[str, Any]:
    """An item is present when the user's turns have its name; impacts follow from item and turns."""
    said = "\n".join(block.text.lower() for block in _asked(question) if block.role == "user")
    names = {
        block.lead.rstrip(":"): block.text for block in blocks(_system(question)) if block.lead.endswith(":")
    }
    assert question.schema is not None
    present = {
        name: bool(names.get(name)) and names[name].lower() in said for name in question.schema["properties"]
    }
    return {
        name: {"present": one, "impact": _impact(name, said) if one else 0} for name, one in present.items()
    }


def _impact(name: str, said: str) -> int:
    return 1 + int(10 * _share_of(orjson.dumps([name, said])))


_ANSWERS: Final[Mapping[str, Callable[[Question, Habits], dict[str, Any]]]] = {
    "tilth.judge.pairwise": _compare,
    "tilth.judge.pointwise": _rate,
    "tilth.judge.listwise": _rate,
    "tilth.feedback.label": _label,
    "tilth.feedback.preferences": _preferences,
    "tilth.moderation": _moderate,
    "tilth.spur.extract": _extract,
    "tilth.spur.merge": _merge,
    "tilth.spur.score": _score,
}
