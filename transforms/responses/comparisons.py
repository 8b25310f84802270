"""Which replies are compared: the side that may become chosen, and the logged or plain one that may become rejected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import polars as pl

from tilth.schemas import PL_MESSAGES, Reason
from tilth.transforms.judging.items import items
from tilth.transforms.pairs.candidates import DROPPED

Against = Literal["logged", "plain"]

COMPARISONS: Final = pl.Schema(
    {
        "item_id": pl.String,
        "conversation_id": pl.String,
        "target_index": pl.Int32,
        "prompt_id": pl.String,
        "prompt": PL_MESSAGES,
        "chosen": PL_MESSAGES,  # the side that is meant to be better; a judge decides
        "rejected": PL_MESSAGES,
        "chosen_id": pl.String,
        "rejected_id": pl.String,
        "models": pl.Struct({"chosen": pl.String, "rejected": pl.String}),
        "origin": pl.String,  # expert | on_policy
        "user_preferences": pl.List(pl.String),
        "feedback_ids": pl.List(pl.String),
        "flags": pl.List(pl.String),  # of either side
        "calls_tools": pl.Boolean,
        "tool_calls_json": pl.String,
        "source": pl.String,
        "split": pl.String,
    }
)


@dataclass(frozen=True, slots=True)
class Compared:
    """What each kind of candidate is compared with.

    WildFeedback (arXiv 2408.15549, section 3): `expert` replies with the logged one, replies of the policy with a plain
    sample of the same policy, which has not seen the user's preferences.
    """

    expert_against: Against = "logged"
    policy_against: Against = "plain"

    def pairs(self) -> list[tuple[str, str]]:
        """Role of the candidate, role of the other side."""
        return [("expert", self.expert_against), ("on_policy", self.policy_against)]


def comparisons(places: pl.DataFrame, responses: pl.DataFrame, compared: Compared) -> pl.DataFrame:
    """`COMPARISONS` of replies at the same place, joined by conversation and prompt, never by position.

    Args:
        places: `PLACES` with `feedback_ids`, `calls_tools` and `tool_calls_json` (of the prompt).
        responses: rows of the table; of one role at one place, each sample of the candidate is compared with the same
            sample of the other side, and with its only one where there is one.
        compared: which roles meet.
    """
    made = [_meet(places, responses, role, other) for role, other in compared.pairs()]
    rows = pl.concat(made)
    if rows.is_empty():
        return pl.DataFrame(schema=COMPARISONS)
    named = comparison_items(rows).select(
        "item_id",
        "conversation_id",
        "prompt_id",
        chosen_id=pl.col("response_ids").list.first(),
        rejected_id=pl.col("response_ids").list.last(),
    )
    ids = ["conversation_id", "prompt_id", "chosen_id", "rejected_id"]
    joined = rows.join(named, on=ids, maintain_order="left")
    return joined.select(pl.col(name).cast(kind) for name, kind in COMPARISONS.items()).sort("item_id")


def _meet(places: pl.DataFrame, responses: pl.DataFrame, role: str, other: str) -> pl.DataFrame:
    keys = ["conversation_id", "prompt_id"]
    columns = ("role", "completion", "sample_index", "flags")
    side = responses.select(
        *keys, *columns, written_by="model", response_id="id"
    )  # `model`: who wrote the log
    better, worse = side.filter(pl.col("role") == role), side.filter(pl.col("role") == other)
    met = better.join(worse, on=keys, suffix="_other")
    alone = pl.len().over([*keys, "response_id"]) == 1
    same = pl.col("sample_index") == pl.col("sample_index_other")
    none = pl.lit([], pl.List(pl.String))
    flags = pl.col("flags").fill_null(none).list.set_union(pl.col("flags_other").fill_null(none))
    return places.join(met.filter(alone | same), on=keys, maintain_order="left").with_columns(
        chosen="completion",
        rejected="completion_other",
        chosen_id="response_id",
        rejected_id="response_id_other",
        models=pl.struct(chosen="written_by", rejected="written_by_other"),
        origin=pl.lit(role),
        user_preferences="preferences",
        flags=flags.list.sort(),
    )


def uncompared(places: pl.DataFrame, responses: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of quarantine without `id`: places without a comparison, and candidates that met no other side.

    Args:
        places: as for `comparisons`.
        responses: the same.
        rows: what `comparisons` made of them.
    """
    keys = ["conversation_id", "prompt_id"]
    bare = places.join(rows, on=keys, how="anti").select(
        "source",
        key=pl.format("conversations#id={}&message={}", "conversation_id", "target_index"),
        detail=pl.lit("no candidate reply to compare: none was given, or tools were called before it"),
        payload=pl.struct("conversation_id", "target_index").struct.json_encode(),
    )
    met = rows.select(*keys).unique()
    candidates = responses.filter(pl.col("role").is_in(("expert", "on_policy"))).join(
        met, on=keys, how="semi"
    )
    alone = candidates.join(rows, left_on="id", right_on="chosen_id", how="anti")
    sources = places.select(*keys, "source")
    lost = alone.join(sources, on=keys).select(
        "source",
        key=pl.format("responses#id={}", "id"),
        detail=pl.lit("the sample that it would be compared with was not given"),
        payload=pl.struct("id", "conversation_id", "role", "sample_index").struct.json_encode(),
    )
    fixed = {
        "stage": pl.lit("compare"),
        "reason": pl.lit(Reason.NO_CANDIDATE.value),
        "source_rows": pl.lit(0, pl.Int32),
    }
    named = pl.concat([bare, lost]).with_columns(**fixed)
    return named.select(pl.col(name).cast(kind) for name, kind in DROPPED.items())


def comparison_items(rows: pl.DataFrame) -> pl.DataFrame:
    """What judges see of `COMPARISONS`: `ITEMS`, the side that may become chosen first."""
    return items(
        rows.with_columns(
            _both(rows),
            response_ids=pl.concat_list("chosen_id", "rejected_id"),
            checklist="user_preferences",
        )
    )


def _both(rows: pl.DataFrame) -> pl.Series:
    """Both sides of each row as a list of replies."""
    pairs = rows.select("chosen", "rejected").iter_rows()
    return pl.Series("replies", [list(pair) for pair in pairs], dtype=pl.List(PL_MESSAGES))
