"""Which patterns can match a text at all: by the words that every match of a pattern must hold.

Without it each text would be scanned with every pattern of the lexicon. One Aho-Corasick pass over the rare words of
all patterns leaves few candidates.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final

import polars as pl

from tilth.transforms.feedback.patterns import EDGE, Pattern, lexicon, load

_RARE: Final = 0.3  # patterns whose words are expected in a larger share of texts are tried on every text
_NOTHING: Final[frozenset[str]] = frozenset()
_TOKEN: Final = re.compile(
    re.escape(EDGE) + r"|\(\?:|[()|]|\[(?:\\.|[^\]\\])*\]|\\x[0-9a-f]{2}|\\.|[*+?]|\{\d+,?\d*\}|.", re.DOTALL
)


@cache
def patterns() -> Sequence[Pattern]:
    """All patterns in one order."""
    return [pattern for label in lexicon().values() for pattern in label]


def candidates(texts: pl.Series) -> Mapping[int, pl.Series]:
    """Positions of the texts that may match, by position in `patterns()`; a pattern that is missing may match any."""
    owners = _owners()
    words = owners.get_column("word").unique().to_list()
    found = texts.str.extract_many(words, overlapping=True).rename("word").to_frame().with_row_index("at")
    hits = found.filter(pl.col("word").list.len() > 0).explode("word").join(owners, on="word")
    each = hits.select("pattern", "at").unique().sort("pattern", "at").partition_by("pattern", as_dict=True)
    nothing = pl.Series("at", [], dtype=pl.UInt32)
    return {at: each[at,].get_column("at") if (at,) in each else nothing for at in rare_patterns()}


def rare_patterns() -> frozenset[int]:
    """Positions in `patterns()` of those that `candidates` knows."""
    return frozenset(_owners().get_column("pattern"))


@cache
def _owners() -> pl.DataFrame:
    """The rare words and the positions of the patterns that need one of them."""
    pairs = [
        (word, at)
        for at, pattern in enumerate(patterns())
        if _share(words := required_words(pattern.regex)) < _RARE
        for word in words
    ]
    return pl.DataFrame(pairs, schema={"word": pl.String, "pattern": pl.Int64}, orient="row")


def required_words(regex: str) -> frozenset[str]:
    """A set of strings of which every match of `regex` holds at least one, as rare as can be; empty if there is none.

    >>> sorted(required_words("(?:a(?:b|cd)?efg|hij)"))
    ['efg', 'hij']
    """
    return _alternatives(deque(_TOKEN.findall(regex)))


def _alternatives(tokens: deque[str]) -> frozenset[str]:
    options = [_sequence(tokens)]
    while tokens and tokens[0] == "|":
        tokens.popleft()
        options.append(_sequence(tokens))
    return _NOTHING.union(*options) if all(options) else _NOTHING


def _sequence(tokens: deque[str]) -> frozenset[str]:
    best, run = _NOTHING, ""
    while tokens and tokens[0] not in "|)":
        token = tokens.popleft()
        inside = _group(tokens) if token in ("(", "(?:") else _NOTHING
        quantifier = tokens.popleft() if tokens and tokens[0][0] in "*+?{" else ""
        optional = quantifier[:1] in ("*", "?") or quantifier.startswith("{0")
        if _is_letter(token) and not optional:
            run += token
        if quantifier or not _is_letter(token):
            best, run = _rarer(best, frozenset({run} if run else ())), ""
        best = best if optional else _rarer(best, inside)
    return _rarer(best, frozenset({run} if run else ()))


def _group(tokens: deque[str]) -> frozenset[str]:
    inside = _alternatives(tokens)
    tokens.popleft()
    return inside


def _is_letter(token: str) -> bool:
    return len(token) == 1 and token not in "^$.()|"


def _rarer(one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
    return min(one, other, key=_share)


def _share(words: frozenset[str]) -> float:
    """A guess of the share of texts that hold one of `words`; infinite for none."""
    return sum(map(_word_share, words)) if words else float("inf")


def _word_share(word: str) -> float:
    if word in _common() or len(word) <= 2:
        return 0.3
    return 0.02 if len(word) == 3 else 0.003


@cache
def _common() -> frozenset[str]:
    return frozenset(load("_similarity")["function_words"].split())
