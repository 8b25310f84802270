"""Does a rationale, read by itself, say that the chosen reply is better? A panel that sees only it is asked.

Ours: Data-Centric Human Preference with Rationales (arXiv 2407.14477) checks none of its rationales. The panel, its two
orders and its verdicts are those of `tilth.transforms.judging`; the judge sees the rationale and the replies, never the
request, so that it cannot answer from what it would prefer itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

import polars as pl

from tilth.schemas import PL_MESSAGES
from tilth.transforms.inference.prompts import packaged_prompt
from tilth.transforms.judging.aggregate import by_panel
from tilth.transforms.judging.items import items
from tilth.transforms.judging.protocol import Judging, Protocol
from tilth.transforms.judging.votes import votes_of
from tilth.transforms.rubrics.criteria import sides_of

LINKS: Final = pl.Schema({"id": pl.String, "item_id": pl.String})
"""Which item a rationale is judged as; rationales of one pair with the same words are one item."""


class Recovering(NamedTuple):
    """What judges are asked (`ITEMS`), and for which rationales (`LINKS`)."""

    items: pl.DataFrame
    links: pl.DataFrame


def recovery_protocol(judging: Judging, seed: int = 0) -> Protocol:
    """The panel of `judging`, for pairs, asked with the packaged prompt `recover`, whatever template it names."""
    pairwise = replace(judging, prompt_file="").pairwise(seed)
    return replace(pairwise, prompt=packaged_prompt("tilth.transforms.rationales", "recover"))


def recovery_items(candidates: pl.DataFrame, pairs: pl.DataFrame) -> Recovering:
    """Items of rationales: the two replies of the pair, the chosen one first, and the rationale as their checklist.

    The replies are known as in `tilth.transforms.rubrics.criteria.sides_of`. Judges see both orders. Rationales of
    pairs that are not there are left out.
    """
    _, sides = sides_of(pairs)
    known = pairs.select("prompt", "chosen", "rejected", pair_id="id").join(sides, on="pair_id")
    about = candidates.select("id", "pair_id", "text", "conversation_id", "split")
    rows = about.join(known, on="pair_id", maintain_order="left")
    both = [[chosen, rejected] for chosen, rejected in rows.select("chosen", "rejected").iter_rows()]
    asked = items(
        rows.with_columns(
            pl.Series("replies", both, dtype=pl.List(PL_MESSAGES)),
            response_ids=pl.concat_list("chosen_id", "rejected_id"),
            checklist=pl.concat_list("text"),
        )
    )
    named = asked.select(
        "item_id",
        "prompt_id",
        "conversation_id",
        chosen_id=pl.col("response_ids").list.first(),
        rejected_id=pl.col("response_ids").list.last(),
        text=pl.col("checklist").list.first(),
    )
    keys = ["prompt_id", "conversation_id", "chosen_id", "rejected_id", "text"]
    links = rows.join(named, on=keys, maintain_order="left")
    return Recovering(asked, links.select(LINKS.names()).sort("id"))


def recovered(
    candidates: pl.DataFrame, links: pl.DataFrame, judgments: pl.DataFrame, protocol: Protocol
) -> pl.DataFrame:
    """`candidates` with `recovers_label` and `judgment_ids`, joined by item alone.

    True only where the panel names the chosen reply in both orders, whatever rule the protocol sums up by. A tie, the
    other reply and judges who contradict themselves or each other are false; null where the panel came to no verdict,
    because judges failed or none was asked.

    Args:
        candidates: with `id`; what they held in the two columns is replaced.
        links: `LINKS`.
        judgments: rows of the table; those of other items are passed over.
        protocol: what they were asked with.
    """
    told = judgments.join(links, on="item_id", how="semi")
    verdicts = by_panel(votes_of(told), protocol.aggregation.strict, protocol.weights)
    said = verdicts.filter(pl.col("verdict") != "failed").select(
        "item_id", recovers_label=pl.col("verdict") == "win"
    )
    named = told.group_by("item_id").agg(judgment_ids=pl.col("id").sort())
    found = links.join(said, on="item_id", how="left").join(named, on="item_id", how="left").drop("item_id")
    bare = candidates.drop("recovers_label", "judgment_ids", strict=False)
    return bare.join(found, on="id", how="left", maintain_order="left")
