"""Where a policy is asked for the replies that rubrics are tried on."""

from __future__ import annotations

import polars as pl

from tilth.schemas import Reason
from tilth.transforms.pairs.candidates import Ruled, quarantined
from tilth.transforms.responses.candidates import PLACES


def rollout_places(prompts: pl.DataFrame) -> Ruled:
    """`PROMPTS` as `PLACES`, after the last message of each; those with tools in them are set aside.

    The definitions of tools are not known, so no model can be asked to go on after them. Prompts of one conversation
    are told apart by their length: they are openings of it.
    """
    tools = pl.col("prompt").list.eval(pl.element().struct.field("role") == "tool").list.any()
    placed = prompts.with_columns(
        target_index=pl.col("prompt").list.len(),
        preferences=pl.lit([], pl.List(pl.String)),
        source=pl.format("conversations#id={}", "conversation_id"),
        reason=pl.when(tools).then(pl.lit(Reason.UNSUPPORTED_CONTENT.value)),
        id=pl.format("rubrics#prompt={}", "prompt_id"),
        detail=pl.lit("tools were called before the reply"),
    )
    kept = placed.filter(pl.col("reason").is_null())
    lost = placed.filter(pl.col("reason").is_not_null())
    return Ruled(
        kept.select(pl.col(name).cast(kind) for name, kind in PLACES.items()).sort(
            "conversation_id", "prompt_id"
        ),
        quarantined(lost, "policy", ["prompt_id", "conversation_id"]),
    )
