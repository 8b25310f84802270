"""What a trained classifier sees of a user turn: hashed n-grams of its words and characters, and facts around it.

Hashing is arithmetic on whole arrays of characters, one pass per length of n-gram, so that it costs microseconds a turn
and a model is one vector of weights per class (feature hashing: Weinberger et al., arXiv 0902.2206, without signs).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import polars as pl

from tilth.transforms.feedback.mining import score_turns
from tilth.transforms.feedback.patterns import CONTEXTS
from tilth.transforms.feedback.rules import FeedbackRules
from tilth.transforms.feedback.speech import BLANK
from tilth.transforms.feedback.turns import user_turns

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

FACTS: Final = ("words", "similar", "repeats", *CONTEXTS)
SCORES: Final = ("sat", "dsat")
_CHARS: Final = (3, 4, 5)  # lengths of character n-grams
_BLOCK: Final = 2_048  # turns hashed at once: their arrays stay in the processor's cache
_BASE: Final = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2^64
_INVERSE: Final = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
_MIX: Final = np.uint64(0xBF58476D1CE4E5B9)
_BEYOND_ASCII: Final = 128


class Turns(NamedTuple):
    """User turns that follow a reply, row for row.

    `keys`: conversation_id, message_index. `texts`: what the user says in their own voice, in lower case. `facts`: one
    row per turn, the columns of `fact_names`.
    """

    keys: pl.DataFrame
    texts: pl.Series
    facts: NDArray[np.float64]


def fact_names(rule_scores: bool) -> tuple[str, ...]:
    """The columns of `Turns.facts`, in order."""
    return (*FACTS, *SCORES) if rule_scores else FACTS


def turns_of(conversations: pl.DataFrame, rule_scores: bool, rules: FeedbackRules) -> Turns:
    """The user turns of `conversations` (id and messages are read) that follow a reply, in order.

    With `rule_scores` the rules score each turn too, which takes several times as long as everything else.
    """
    turns = user_turns(conversations, rules)
    ids = conversations.get_column("id").gather(turns.get_column("row"))
    keys = turns.select(ids.alias("conversation_id"), "message_index")
    said = turns.get_column("spoken").str.replace_all(f"{BLANK}+", BLANK).str.replace_all(r"\s+", " ")
    facts = turns.select(
        pl.col("words").log1p(),
        *(pl.col(name).cast(pl.Float64) for name in FACTS[1:]),
    )
    if rule_scores:
        facts = facts.hstack(score_turns(conversations, rules).select(SCORES))
    return Turns(keys, said, facts.to_numpy().astype(np.float64))


def ngram_matrix(texts: pl.Series, bits: int) -> csr_matrix:
    """One row per text, 2^bits columns: how often n-grams of a bucket occur, over the root of how many there are."""
    from scipy.sparse import csr_matrix, vstack

    shape = 1 << bits
    blocks = [
        csr_matrix((values, (rows, buckets)), shape=(count, shape))
        for rows, buckets, values, count in _blocks(texts, bits)
    ]
    return csr_matrix(vstack(blocks)) if blocks else csr_matrix((0, shape))


def ngram_scores(texts: pl.Series, weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """`ngram_matrix(texts) @ weights` without the matrix; `weights` has 2^bits rows and a column per class."""
    bits = int(weights.shape[0]).bit_length() - 1
    scored = [
        np.stack(
            [np.bincount(rows, weights[buckets, at] * values, count) for at in range(weights.shape[1])],
            axis=1,
        )
        for rows, buckets, values, count in _blocks(texts, bits)
    ]
    return np.concatenate(scored).astype(np.float64) if scored else np.zeros((0, weights.shape[1]))


def _blocks(
    texts: pl.Series, bits: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], int]]:
    """Per block of texts: the row and the bucket of each n-gram, its value, and how many texts there are."""
    for start in range(0, len(texts), _BLOCK):
        block = texts.slice(start, _BLOCK)
        kinds = [_valued(rows, hashes, bits, len(block)) for rows, hashes in _hashes(block)]
        rows, buckets, values = (np.concatenate(part) for part in zip(*kinds, strict=True))
        yield rows, buckets, values, len(block)


def _valued(
    rows: NDArray[np.int64], hashes: NDArray[np.uint64], bits: int, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    hashes ^= hashes >> np.uint64(32)
    hashes *= _MIX
    buckets = (hashes >> np.uint64(64 - bits)).astype(np.int64)
    size = np.maximum(np.bincount(rows, minlength=count), 1)
    return rows, buckets, (1 / np.sqrt(size)).astype(np.float32)[rows]


def _hashes(texts: pl.Series) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint64]]]:
    """Rows and 64-bit hashes of word 1-grams and 2-grams together, then of character n-grams of all lengths."""
    # A space at either end, so that "no" as a whole turn differs from "no" within one; NUL ends a text.
    framed = texts.to_frame("t").select(pl.concat_str([pl.lit(" "), pl.col("t"), pl.lit(" \0")])).to_series()
    chars = np.frombuffer("".join(framed.to_list()).encode("utf-32-le"), np.uint32).astype(np.uint64)
    rows = np.repeat(np.arange(len(texts)), framed.str.len_chars().to_numpy())
    yield _words(chars, rows)
    yield _characters(chars, rows)


def _characters(
    chars: NDArray[np.uint64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    found: list[tuple[NDArray[np.int64], NDArray[np.uint64]]] = []
    hashes = chars
    for length in range(2, max(_CHARS) + 1):
        hashes = hashes[:-1] * _BASE + chars[length - 1 :]
        if length in _CHARS:
            # The NUL that ends a text is in no n-gram, and an n-gram that spans two texts would hold it.
            within = rows[: len(hashes)] == np.append(rows, -1)[length : length + len(hashes)]
            found.append((rows[: len(hashes)][within], hashes[within]))
    return np.concatenate([r for r, _ in found]), np.concatenate([h for _, h in found])


def _words(
    chars: NDArray[np.uint64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    starts, ends = _edges(chars)
    # Prefix sums of c[i] * B^i; what stands between two places, over B^start, is the word's own hash anywhere.
    powers = np.cumprod(np.full(len(chars), _BASE, np.uint64))
    inverse = np.cumprod(np.full(len(chars), _INVERSE, np.uint64))
    sums = np.append(np.zeros(1, np.uint64), np.cumsum(chars * powers, dtype=np.uint64))
    words = (sums[ends] - sums[starts]) * inverse[starts]
    at = rows[starts]
    pairs = at[1:] == at[:-1]
    both = (words[:-1] * _MIX + words[1:])[pairs]
    return np.concatenate([at, at[1:][pairs]]), np.concatenate([words, both])


def _edges(chars: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where words start and end (exclusive): runs of letters, digits and apostrophes; beyond ASCII, of anything."""
    inside = (_WORDLY[np.minimum(chars, _BEYOND_ASCII).astype(np.int64)]).astype(np.int8)
    steps = np.diff(inside, prepend=0, append=0)
    return np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)


_WORDLY: Final = np.array(
    [chr(code).isalnum() or chr(code) in ("'", BLANK) for code in range(_BEYOND_ASCII)] + [True]
)
