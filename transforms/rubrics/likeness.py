"""How alike two criteria are in their words: ORBIT's measure (arXiv 2510.15859, Table 8)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final  # Any: scipy is typed in part

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZES: Final = (1, 2)
_WORD: Final = re.compile(r"\w+")
_BLOCK: Final = 256
Grams = tuple[frozenset[tuple[str, ...]], ...]


def words(text: str) -> list[str]:
    """The words of a text in lower case, in order; scripts without spaces give whole runs of characters."""
    return _WORD.findall(text.lower())


def content_words(text: str) -> list[str]:
    """The words without stop words (scikit-learn's English list)."""
    stops = _stops()
    return [word for word in words(text) if word not in stops]


@cache
def _stops() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)


def grams(tokens: Sequence[str]) -> Grams:
    """The sets of 1-grams and of 2-grams."""
    return tuple(frozenset(_runs(tokens, size)) for size in SIZES)


def _runs(tokens: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[at : at + size]) for at in range(len(tokens) - size + 1)]


def likeness(one: Grams, other: Grams) -> float:
    """The mean Jaccard likeness of 1-grams and 2-grams, [0, 1]; a size that neither has takes no part; 0 without any.

    >>> likeness(grams(words("Names the capital")), grams(words("names the river")))
    0.41666666666666663
    """
    found = [len(a & b) / len(a | b) for a, b in zip(one, other, strict=True) if a or b]
    return sum(found) / len(found) if found else 0.0


def nearest_elsewhere(tokens: Sequence[Sequence[str]], groups: Sequence[int]) -> NDArray[np.float64]:
    """For each text its highest `likeness` to a text of another group; 0 where there is none.

    Quadratic in time; memory is 256 rows of likenesses at a time.
    """
    where, best = np.asarray(groups), np.zeros(len(tokens))
    tables = [_presence([_runs(one, size) for one in tokens]) for size in SIZES]
    for start in range(0, len(tokens), _BLOCK):
        rows = slice(start, start + _BLOCK)
        alike = _likenesses(tables, rows)
        alike[where[rows, None] == where[None, :]] = 0.0
        best[rows] = alike.max(axis=1)
    return best


def _presence(gram_lists: Sequence[Sequence[tuple[str, ...]]]) -> Any:
    """Which text (row) holds which gram (column), as a sparse matrix of 0 and 1."""
    from scipy.sparse import csr_matrix

    codes = dict[tuple[str, ...], int]()
    held = [sorted({codes.setdefault(gram, len(codes)) for gram in grams}) for grams in gram_lists]
    ends = np.cumsum([0, *map(len, held)])
    places = np.fromiter((code for one in held for code in one), np.int64)
    return csr_matrix((np.ones(len(places)), places, ends), shape=(len(held), max(1, len(codes))))


def _likenesses(tables: Sequence[Any], rows: slice) -> NDArray[np.float64]:
    """`likeness` of some texts (rows) to all (columns)."""
    alike, levels = 0.0, 0.0
    for table in tables:
        sizes = np.asarray(table.sum(axis=1)).ravel()
        common = (table[rows] @ table.T).toarray()
        union = sizes[rows, None] + sizes[None, :] - common
        alike = alike + common / np.maximum(union, 1)
        levels = levels + (union > 0)
    return np.asarray(alike / np.maximum(levels, 1), dtype=np.float64)
