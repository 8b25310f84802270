"""Histograms and averages: what they say of a table, and that they add up."""

from __future__ import annotations

import itertools
import math

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import polars_schema
from tilth.schemas.contracts import RATIO_EDGES, measure
from tilth.schemas.metrics import Bins, Histogram

NUMBERS = st.floats(0.01, 100)


def histogram(numbers: list[float]) -> Histogram:
    bins = Bins.of_numbers(pl.col("n"), RATIO_EDGES)
    return bins.count(
        pl.DataFrame({"n": numbers}, schema={"n": pl.Float64}).select(bins.place).to_series().alias("n")
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(NUMBERS, min_size=1), st.lists(NUMBERS, min_size=1))
def test_histograms_add_up(one: list[float], other: list[float]) -> None:
    """Two histograms together are the histogram of all numbers, and each number is in the bin between its edges."""
    assert histogram(one).merge(histogram(other)) == histogram([*one, *other])
    counts = histogram(one).counts
    ends = [0.0, *RATIO_EDGES, math.inf]
    wanted = [sum(low <= number < high for number in one) for low, high in itertools.pairwise(ends)]
    assert list(counts) == wanted


@settings(max_examples=60, deadline=None)
@given(st.lists(NUMBERS, min_size=1), st.sampled_from([10, 50, 90]))
def test_quantiles_lie_in_the_right_bin(numbers: list[float], percent: int) -> None:
    """A quantile drawn from bins lies in the bin of the true one."""
    ranked = sorted(numbers)
    true = ranked[max(math.ceil(len(ranked) * percent / 100) - 1, 0)]
    found = histogram(numbers).quantile(percent)
    assert found is not None
    low = max([edge for edge in RATIO_EDGES if edge <= true], default=RATIO_EDGES[0])
    high = min([edge for edge in RATIO_EDGES if edge > true], default=RATIO_EDGES[-1])
    assert low - 1e-6 <= found <= high + 1e-6


def test_words_have_shares() -> None:
    """The largest, the others and what is in no bin make up the whole; no rows have no shares."""
    bins = Bins.of_words(pl.col("w"), ("en", "de", "fr"))
    places = pl.DataFrame({"w": ["en", "en", "de", None, "tlh"]}).select(bins.place).to_series()
    row = dict(bins.count(places).row("language", 5))
    assert row["language=en"] == 2
    shares = [row[f"language_{kind}_share"] for kind in ("largest", "other", "unknown")]
    assert shares == pytest.approx([0.4, 0.2, 0.4])
    assert dict(bins.count(places.clear()).row("language", 0))["language_largest_share"] is None


def pair(chosen: str, rejected: str, **more: object) -> dict[str, object]:
    sides = {"chosen": chosen, "rejected": rejected}
    return {name: [{"role": "assistant", "content": text}] for name, text in sides.items()} | more


def test_lengths_of_pairs_are_what_they_say() -> None:
    """The mean of logarithms, the shares beyond twice and half, and the median of the ratio, worked out by hand."""
    schema = polars_schema("pairs")
    lengths = [(99, 24), (24, 99), (49, 49), (49, 46)]  # with 1 added: ratios 4, 1/4, 1 and 50/47
    made = [{**dict.fromkeys(schema), **pair("x" * one, "y" * other)} for one, other in lengths]
    row = measure("pairs", pl.DataFrame(made, schema=schema)).row()
    assert row["log_length_ratio_mean"] == pytest.approx(math.log(50 / 47) / 4, abs=1e-6)
    assert (row["twice_as_long_share"], row["half_as_long_share"]) == (0.25, 0.25)
    assert row["chosen_longer_share"] == 0.5
    assert row["length_ratio=1..1.1"] == 2
