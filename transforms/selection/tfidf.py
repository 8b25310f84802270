"""TF-IDF vectors of texts without a vocabulary: what counts as alike where no model says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple  # Any: scikit-learn and scipy are typed in part

import polars as pl

_FEATURES: Final = 2**17
_CHARS: Final = 2_000  # of a prompt's user turns, from the end: what is wanted stands there


class Space(NamedTuple):
    """Texts as sparse rows of unit length, and how other texts are placed among them.

    A text without a word is a row of zeros, like nothing, itself included. `place` weighs by the texts that the space
    was made of, so that where a text stands depends on it and on them alone.
    """

    vectors: Any
    place: Callable[[Sequence[str]], Any]


def user_words(prompt: str) -> pl.Expr:
    """What the user says in each prompt of a column of messages, its last 2,000 characters."""
    said = pl.element().filter(pl.element().struct.field("role") == "user").struct.field("content")
    return pl.col(prompt).list.eval(said).list.join("\n").str.tail(_CHARS)


def space(texts: Sequence[str]) -> Space:
    """The space of `texts`: words in the one half, runs of 4 characters in the other, hashed to 2^17 features.

    Case, punctuation and white space make no other text. Memory: about 35 KB for a text of 2,000 characters.
    """
    from sklearn.feature_extraction.text import TfidfTransformer

    counts = _counts(texts)
    weighers = [TfidfTransformer(sublinear_tf=True).fit(half) for half in counts]

    def weighed(halves: Sequence[Any]) -> Any:
        return _joined([one.transform(half) for one, half in zip(weighers, halves, strict=True)])

    return Space(weighed(counts), lambda others: weighed(_counts(others)))


def _counts(texts: Sequence[str]) -> list[Any]:
    import numpy as np
    from sklearn.feature_extraction.text import HashingVectorizer

    # Hashing: a vocabulary of runs of characters would take more memory than the vectors. No norm: the logarithm of
    # sublinear counts is for counts, and below 0 for shares of them.
    shared: dict[str, Any] = {"n_features": _FEATURES // 2, "alternate_sign": False, "norm": None}
    shared["dtype"] = np.float32
    words = HashingVectorizer(token_pattern=r"(?u)\w+", **shared)
    runs = HashingVectorizer(analyzer="char_wb", ngram_range=(4, 4), **shared)
    plain = pl.Series(texts, dtype=pl.String).str.to_lowercase().str.replace_all(r"\W+", " ").to_list()
    return [one.transform(plain) for one in (words, runs)]


def _joined(halves: Sequence[Any]) -> Any:
    from scipy.sparse import hstack
    from sklearn.preprocessing import normalize

    return normalize(hstack(halves, format="csr"))
