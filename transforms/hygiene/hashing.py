"""Hashes of 64 bits that are the same in every process, version and machine, unlike polars' own."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl
import xxhash

_MASK: Final = 2**64 - 1


def text_hashes(texts: pl.Series) -> pl.Series:
    """XXH3-64 of each text as UTF-8; null stays null."""
    values = [None if text is None else xxhash.xxh3_64_intdigest(text) for text in texts.cast(pl.Binary)]
    return pl.Series(texts.name, values, dtype=pl.UInt64)


def mixed(values: pl.Series, seed: int) -> pl.Series:
    """Each 64-bit value mixed with `seed`: uniform and unrelated between seeds (SplitMix64, Steele 2014).

    >>> values = pl.Series([1, 2], dtype=pl.UInt64)
    >>> mixed(values, 0).to_list() == mixed(values, 1).to_list()
    False
    """
    start = np.uint64(((seed & _MASK) * 0xD1342543DE82EF95 + 0x9E3779B97F4A7C15) & _MASK)
    state = values.cast(pl.UInt64).to_numpy() + start
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return pl.Series(values.name, state ^ (state >> np.uint64(31)), dtype=pl.UInt64)


def id_hashes(ids: pl.Series) -> pl.Series:
    """The first 64 bits of hex ids (`tilth.schemas.content_ids`) as numbers."""
    return ids.str.slice(0, 16).str.to_integer(base=16, dtype=pl.UInt64)
