"""Criteria as rows: one row is one criterion for one prompt, from whatever source; a rubric is the rows of a prompt.

Sources hand over rows of `CRITERIA`; `rubric_rows` makes rows of the table `rubrics` of them, `criteria_of` goes back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

import polars as pl

from tilth.schemas import PL_MESSAGES, conform, content_ids
from tilth.schemas.ids import content_id, messages_key

CRITERION: Final = pl.Schema(
    {
        "id": pl.String,
        "title": pl.String,
        "description": pl.String,
        "weight": pl.Float64,
        "kind": pl.String,
        "check": pl.String,
        "program": pl.String,
        "tags": pl.List(pl.String),
        "source": pl.String,
        "feedback_ids": pl.List(pl.String),
        "pass_rate": pl.Float64,
        "discrimination": pl.Float64,
    }
)
"""The fields of a criterion, as the table `rubrics` holds them."""
CRITERIA: Final = pl.Schema(
    {"prompt_id": pl.String, **CRITERION, "model": pl.String, "prompt_version": pl.String}
)
"""One criterion for one prompt; model and prompt_version are of what wrote it, null where a rule did."""
PROMPTS: Final = pl.Schema(
    {
        "prompt_id": pl.String,
        "prompt": PL_MESSAGES,
        "pair_ids": pl.List(pl.String),  # may be empty
        "conversation_id": pl.String,
        "split": pl.String,
    }
)
"""What a rubric is for: each prompt once."""
REPLIES: Final = pl.Schema(
    {
        "response_id": pl.String,
        "prompt_id": pl.String,
        "prompt": PL_MESSAGES,
        "completion": PL_MESSAGES,
        "conversation_id": pl.String,
        "split": pl.String,
    }
)
"""What is graded: each reply to a prompt once."""
GRADES: Final = pl.Schema(
    {
        "prompt_id": pl.String,
        "criterion_id": pl.String,
        "response_id": pl.String,
        "judge": pl.String,  # its name in the panel; `program` for a program
        "met": pl.Boolean,  # null where it could not be told
    }
)
"""Whether a reply meets a criterion, by one judge."""
SIDES: Final = pl.Schema(
    {"pair_id": pl.String, "prompt_id": pl.String, "chosen_id": pl.String, "rejected_id": pl.String}
)
"""The replies of a pair by their `response_id`."""
PROGRAM: Final = "program"


def program_json(verifier: str, arguments: Mapping[str, object]) -> str:
    """How a program stands in the table: canonical JSON, so that equal programs are equal texts.

    >>> program_json("max_words", {"limit": 100})
    '{"arguments":{"limit":100},"verifier":"max_words"}'
    """
    return json.dumps(
        {"verifier": verifier, "arguments": dict(arguments)},
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
    )


def criteria_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows as `CRITERIA`: what is missing becomes null (lists become empty), ids follow from prompt and content.

    Equal criteria of one prompt (description without regard to case and white space, and program) have one id.
    """
    wanted = [
        (pl.col(name) if name in rows.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in CRITERIA.items()
    ]
    listed = pl.col("tags", "feedback_ids").fill_null(pl.lit([], pl.List(pl.String)))
    whole = rows.select(wanted).with_columns(listed)
    said = pl.col("description").str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()
    return whole.with_columns(
        content_ids(whole, "criteria", [pl.col("prompt_id"), said, pl.col("program")]).alias("id")
    )


def rubric_rows(criteria: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
    """Rows of the table `rubrics`, one for each prompt that has a criterion, sorted by prompt; the order of rows
    decides nothing.

    Criteria stand by weight, the heaviest first, mistakes last. Columns of quality are left null:
    `tilth.transforms.rubrics.quality` measures them.

    Args:
        criteria: `CRITERIA`; a criterion that is there twice counts once.
        prompts: `PROMPTS`, and where known `retrieved_ids`.
    """
    ordered = criteria.unique("id", keep="first", maintain_order=True).sort(
        "prompt_id", "weight", "id", descending=[False, True, False]
    )
    fed = pl.col("feedback_ids").explode(empty_as_null=False).drop_nulls().unique().sort()
    listed = ordered.group_by("prompt_id", maintain_order=True).agg(
        criteria=pl.struct(CRITERION.names()),
        feedback_ids=fed,
        model=pl.col("model").drop_nulls().unique().sort().str.join(", "),
        prompt_version=pl.col("prompt_version").drop_nulls().unique().sort().str.join(", "),
        method=pl.when(pl.col("model").is_not_null().any())
        .then(pl.lit("model"))
        .otherwise(pl.lit("rules"))
        .first(),
    )
    rows = listed.join(prompts, on="prompt_id").with_columns(
        pl.when(pl.col(name) != "").then(pl.col(name)).alias(name) for name in ("model", "prompt_version")
    )
    members = pl.col("criteria").list.eval(pl.element().struct.field("id")).list.join(",")
    ids = content_ids(rows, "rubrics", [pl.col("prompt_id"), members])
    return conform(rows.with_columns(ids.alias("id")), "rubrics").sort("prompt_id")


def criteria_of(rubrics: pl.DataFrame) -> pl.DataFrame:
    """The criteria of rubrics, as `CRITERIA`, in their order."""
    rows = rubrics.select("prompt_id", "criteria", "model", "prompt_version")
    spread = rows.explode("criteria", empty_as_null=False, keep_nulls=False).unnest("criteria")
    return spread.select(pl.col(name).cast(kind) for name, kind in CRITERIA.items())


def prompts_of(pairs: pl.DataFrame) -> pl.DataFrame:
    """The prompts of pairs, as `PROMPTS`, sorted; conversation and split are those of the pair with the smallest id."""
    ordered = pairs.sort("id")
    firsts = ordered.group_by("prompt_id", maintain_order=True).agg(
        pl.col("prompt", "conversation_id", "split").first(), pair_ids=pl.col("id")
    )
    return firsts.select(PROMPTS.names()).sort("prompt_id")


def sides_of(pairs: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The replies of pairs (`REPLIES`, each once) and which pair holds which (`SIDES`).

    A reply that stands in several pairs of its prompt is one reply.
    """
    ids = {
        side: content_ids(pairs, "replies", [pl.col("prompt_id"), messages_key(side)])
        for side in ("chosen", "rejected")
    }
    sides = pairs.select("prompt_id", pair_id="id").with_columns(
        **{f"{side}_id": values for side, values in ids.items()}
    )
    stacked = pl.concat(
        pairs.select("prompt_id", "prompt", "conversation_id", "split", completion=side).with_columns(
            response_id=ids[side]
        )
        for side in ("chosen", "rejected")
    )
    replies = stacked.select(pl.col(name).cast(kind) for name, kind in REPLIES.items())
    ordered = replies.sort("response_id", "conversation_id")
    return ordered.unique("response_id", keep="first", maintain_order=True), sides.select(SIDES.names())


def replies_of_sides(replies: pl.DataFrame) -> pl.DataFrame:
    """`REPLIES` of pairs as rows of the table `responses`, role `side`: what judges' verdicts refer to."""
    rows = replies.rename({"response_id": "id"}).with_columns(
        role=pl.lit("side"), guided=pl.lit(value=False), method=pl.lit("observed"), sample_index=pl.lit(0)
    )
    return conform(rows, "responses").sort("id")


def criterion_id(prompt_id: str, description: str, program: str | None) -> str:
    """The id that `criteria_rows` gives."""
    return content_id("criteria", prompt_id, " ".join(description.lower().split()), program or "")
