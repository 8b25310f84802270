"""Answers of a sensible model that writes criteria, and judges by one criterion; see `loopback.sensible`.

What it writes can be checked by a word in quotes. It is right, unless what it is shown holds a mark such as
`[write=copy]`: then it makes that mistake (`MISTAKES`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final  # Any: JSON

from loopback.sensible import UNMARKED, Habits, Question, _asked, _draw, _system, quality

MISTAKES: Final = ("position", "invent", "swap", "copy", "empty")
"""Speaks of the first reply, proposes a program with a value that it cannot have, calls what a reply avoids a mistake,
says a thing twice, says nothing."""
_GRADES: Final = "against one criterion"
_MISTAKE: Final = re.compile(rf"\[write=({'|'.join(MISTAKES)})\]")
_MARK: Final = re.compile(r"\[[^\]\s]*\]")
_WORD: Final = re.compile(r"[^\W\d_]{4,}")
_QUOTED: Final = re.compile(r'"(\w+)"')


def rubric_answer(question: Question, habits: Habits) -> dict[str, Any] | None:
    """The answer, where this is asked; else null."""
    title = str((question.schema or {}).get("title", ""))
    if title in _WRITERS:
        return _WRITERS[title](question)
    if title == "tilth.judge.pointwise" and _GRADES in _system(question):
        return _grade(question, habits)
    return None


def meets(reply: str, criterion: str) -> bool:
    """Whether the reply has the word that the criterion quotes; without one word in quotes, whether it is good enough.

    >>> meets("Sow peas deep.", 'Mentions "peas".'), meets("Sow them deep.", 'Mentions "peas".')
    (True, False)
    """
    quoted = _QUOTED.search(criterion)
    if quoted:
        return quoted[1].lower() in re.findall(r"\w+", reply.lower())
    needed = 3 + hashlib.blake2b(criterion.encode(), digest_size=1).digest()[0] % 6
    return (quality(reply) or UNMARKED) >= needed


def words(text: str, without: str = "") -> list[str]:
    """Words of four letters or more that do not stand in `without`, each once, in lower case, the longest first.

    >>> words("Sow peas five centimetres deep, peas!", "Deep")
    ['centimetres', 'peas', 'five']
    """
    said, other = (dict.fromkeys(_WORD.findall(_MARK.sub(" ", one).lower())) for one in (text, without))
    return sorted((word for word in said if word not in other), key=len, reverse=True)


# Writing


def _contrast(question: Question) -> dict[str, Any]:
    """What the better reply of the first pair speaks of and the weaker does not, what both do, and the reverse."""
    leads = {block.lead: block.text for block in reversed(_asked(question))}
    better, weaker = leads["The better reply:"], leads["The weaker reply:"]
    new, gone = words(better, weaker), words(weaker, better)
    shared = [word for word in words(better) if word not in new]
    importance = ("essential", "important")
    made = [_mentions(word, level) for word, level in zip(new, importance, strict=False)]
    made += [_mentions(word, "optional") for word in shared[:1]]
    made += [_mentions(word, "pitfall") for word in gone[:1]]
    return _answer(question, [*made, _short(len(better.split()) + 5)])


def _from_prompt(question: Question) -> dict[str, Any]:
    """What a reply to the last turn of the user would speak of."""
    importance = ("essential", "important", "optional")
    made = [
        _mentions(word, level) for word, level in zip(words(_request(question)), importance, strict=False)
    ]
    return _answer(question, [*made, _mentions("sorry", "pitfall"), _short(200)])


def _request(question: Question) -> str:
    said = [block.text for block in _asked(question) if block.role == "user"]
    return said[-1] if said else ""


def _mentions(word: str, importance: str) -> dict[str, Any]:
    kind = "hard_rule" if importance == "essential" else "principle"
    return _criterion(f"Speaks of {word[:40]}", f'Mentions "{word[:60]}".', kind, importance)


def _short(limit: int) -> dict[str, Any]:
    title, said = "Short enough", f"Is at most {limit} words long."
    return _criterion(title, said, "hard_rule", "important") | {"verifier": "max_words", "value": str(limit)}


def _criterion(title: str, description: str, kind: str, importance: str) -> dict[str, Any]:
    said = {"title": title, "description": description, "kind": kind, "importance": importance}
    return {**said, "verifier": "none", "value": ""}


def _answer(question: Question, made: list[dict[str, Any]]) -> dict[str, Any]:
    """The criteria, and the mistake that what is shown asks for; never more than fit."""
    marks = [mark[1] for block in _asked(question) if (mark := _MISTAKE.search(block.text))]
    wrong = {
        "position": [_criterion("As it was", "Is as clear as the first reply.", "principle", "optional")],
        "invent": [_short(100) | {"description": "Is of a decent length.", "value": "a hundred or so"}],
        "swap": [_criterion("No jargon", "Avoids jargon.", "principle", "pitfall")],
        "copy": made[:1],
    }
    if "empty" in marks:
        return {"criteria": []}
    assert question.schema is not None
    most = question.schema["properties"]["criteria"]["maxItems"]
    return {"criteria": [*(one for mark in marks[:1] for one in wrong[mark]), *made][:most]}


def _orbit(question: Question) -> dict[str, Any]:
    """Points for what the request speaks of, the most for its longest word, and a mistake."""
    found = words(_request(question))[:8] or ["this"]
    wanted = [{"criterion": f'Mentions "{word[:60]}".', "points": 9 - n} for n, word in enumerate(found)]
    return {"criteria": [*wanted, {"criterion": 'Says "sorry" instead of an answer.', "points": -4}]}


# Judging


def _grade(question: Question, habits: Habits) -> dict[str, Any]:
    """By the word; where the judge errs by place it is lenient: met whatever is said; by ties, it cannot tell."""
    leads = {block.lead: block.text for block in _asked(question)}
    reply, criterion = leads["The reply:"], leads["The criterion:"]
    lenient = _draw(question, habits, "place", by_seed=True) < habits.position_bias
    unsure = "[n/a]" in reply or _draw(question, habits, "tie", by_seed=True) < habits.tie_share
    rating = None if unsure else int(lenient or meets(reply, criterion))
    return {"evidence": "By what it says.", "rating_1": rating}


_WRITERS: Final[Mapping[str, Callable[[Question], dict[str, Any]]]] = {
    "tilth.rubric.contrast": _contrast,
    "tilth.rubric.prompt": _from_prompt,
    "tilth.rubric.orbit": _orbit,
}
