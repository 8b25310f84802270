"""A judge for tests that sees a remark and two replies, and favours the reply whose words the praise shares."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_CLAUSES: Final = re.compile(r"[.;?!]\s|,? (?:whereas|while|where|but) |, (?:and|when) ")
_NAMED: Final = re.compile(r"\b(better|weaker) reply\b")
_QUOTES: Final = re.compile(r"[\"“„`]([^\"“”„`]+)[\"”“`]")
_BLAME: Final = re.compile(
    r"\b(?:wrong|false|never|no|nothing|cannot|too|threatens|contradicts?|lost|leaves out|omits|misses)\b"
)


def prefers_praised_words(remark: str, one: str, other: str) -> bool | None:
    """Whether the remark, read by itself, favours `one` over `other`; None where it favours neither.

    A word that only one of the replies has speaks for it in praise and against it in blame; so does a quotation, as
    five words. A clause is about the reply that it names, else that its neighbour names; a remark that names none is
    blame where it denies something.
    """
    score = 0
    for stance, clause in _judged(remark):
        score += stance * (_shared(clause, one, other) - _shared(clause, other, one))
    return None if score == 0 else score > 0


def _shared(clause: str, here: str, there: str) -> int:
    quotes = [quote for quote in _QUOTES.findall(clause) if quote in here and quote not in there]
    return len(_words(clause) & (_words(here) - _words(there))) + 5 * len(quotes)


def _judged(remark: str) -> Iterator[tuple[int, str]]:
    first = _NAMED.search(remark)
    stance = _stance(first) if first else -1 if _BLAME.search(remark) else 1
    for clause in _CLAUSES.split(remark):
        cuts = [match.start() for match in _NAMED.finditer(clause)][1:]
        for part in (clause[start:end] for start, end in zip([0, *cuts], [*cuts, None], strict=True)):
            named = _NAMED.search(part)
            stance = _stance(named) if named else stance
            yield stance, part


def _stance(named: re.Match[str]) -> int:
    return 1 if named[1] == "better" else -1


def _words(text: str) -> set[str]:
    return {word for word in re.findall(r"\w+", text.casefold()) if len(word) > 2}
