"""Several samples of one rationale become one: a vote on the label, and the sample most like the others.

Source: MC-CoT (arXiv 2311.14109) averages the logits of several passes over an image and a question; this is what it
comes to for texts that are already drawn: self-consistency, a majority of answers and the medoid of those that gave it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import polars as pl

from tilth.schemas import BadInput, Reason

_GROUP: Final = ("pair_id", "kind", "side")
_TOKEN: Final = re.compile(r"\w+")


class Voted(NamedTuple):
    """What a vote left: `kept`, one sample a group; `dropped`, samples with `reason` and `detail`; and how many more
    samples spoke for the label and were `merged` into those that are kept.
    """

    kept: pl.DataFrame
    dropped: pl.DataFrame
    merged: int


def vote(samples: pl.DataFrame) -> Voted:
    """Keeps, of the samples for one pair, kind and side, the medoid of those from which the label was recovered.

    That needs more than half of the samples drawn for it, those that failed before included: `vote_share`, with
    `samples` the number drawn. The other samples that recover it are merged into the medoid, as they say the same: they
    are in neither frame, only in the count. All others are dropped, LABEL_NOT_RECOVERED; a null verdict recovers
    nothing. Rows repeated under one id vote once; neither their order nor other groups change anything.

    Args:
        samples: `id`, `pair_id`, `kind`, `side`, `text`, `sample_index`, `recovers_label`, `drawn`; other columns stay.

    Raises `BadInput` for more samples in a group than were drawn for it: no share can be told.
    """
    once = samples.sort("id").unique("id", keep="first", maintain_order=True)
    counted = once.with_columns(
        samples=pl.col("drawn").max().over(_GROUP).cast(pl.Int32),
        there=pl.len().over(_GROUP),
        votes=pl.col("recovers_label").fill_null(value=False).sum().over(_GROUP),
    ).with_columns(vote_share=pl.col("votes") / pl.col("samples"))
    over = counted.filter(~(pl.col("there") <= pl.col("samples")).fill_null(value=False)).height
    if over:
        raise BadInput("more samples of a rationale than were drawn", found=f"{over} rows", wanted="none")
    for_it = counted.filter(pl.col("recovers_label") & (pl.col("vote_share") > 0.5))
    kept = for_it.filter(pl.col("id").is_in(_medoids(for_it).implode()))
    return Voted(
        kept.drop("there", "votes"),
        _dropped(counted.join(for_it, on="id", how="anti")).drop("there", "votes"),
        for_it.height - kept.height,
    )


def _medoids(rows: pl.DataFrame) -> pl.Series:
    """The id of each group's medoid; of samples with its text, that of the first id."""
    groups = rows.sort("id").group_by(_GROUP, maintain_order=True).agg("id", "text")
    chosen = [ids[medoid(texts)] for ids, texts in groups.select("id", "text").iter_rows()]
    return pl.Series("id", chosen, dtype=pl.String)


def _dropped(rows: pl.DataFrame) -> pl.DataFrame:
    counts = pl.format("{} of {} samples recover the label", "votes", "samples")
    won = pl.when(pl.col("vote_share") > 0.5).then(pl.lit(", this one does not")).otherwise(pl.lit(""))
    return rows.with_columns(reason=pl.lit(Reason.LABEL_NOT_RECOVERED.value), detail=counts + won)


def medoid(texts: Sequence[str]) -> int:
    """Where the text stands that is most like the others: of the largest mean token F1 with them, whatever the order.

    Ties go to the text that sorts first, and of equal texts to the first place. Raises `BadInput` without a text.
    """
    if not texts:
        raise BadInput("the medoid of no texts", found=0, wanted="at least 1")
    tokens = [Counter(_TOKEN.findall(text.casefold())) for text in texts]
    # fsum is exact, so that sums do not hang on the order of what is added
    likeness = [math.fsum(_f1(mine, other) for other in tokens) for mine in tokens]
    return min(range(len(texts)), key=lambda at: (-likeness[at], texts[at], at))


def _f1(one: Counter[str], other: Counter[str]) -> float:
    """F1 of the tokens that two texts share, each as often as both have it (as for SQuAD, arXiv 1606.05250, section 6);
    1 where neither has any.
    """
    every = one.total() + other.total()
    return 2 * (one & other).total() / every if every else 1.0
