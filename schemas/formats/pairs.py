"""Preferences in the columns of trainers of policies and of reward models."""

from __future__ import annotations

from typing import Any, Final  # Any: JSON values

import polars as pl

from tilth.schemas.formats.form import Unfit
from tilth.schemas.formats.turns import ROLE, no_tools, whole

_TAGS: Final = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}


def preferences(pairs: pl.DataFrame) -> pl.DataFrame:
    """A preference a row, explicit prompt: id, prompt, chosen, rejected, margin, split; the sides are replies alone.

    TRL's DPO ignores the margin; OpenRLHF's and TRL's reward models subtract it.
    """
    return pairs.select("id", "prompt", "chosen", "rejected", "margin", "split")


def conversations(pairs: pl.DataFrame) -> pl.DataFrame:
    """A preference a row, implicit prompt: id, chosen, rejected, split; each side is the whole conversation."""
    return pairs.select("id", chosen=whole("chosen"), rejected=whole("rejected"), split="split")


def reward(pairs: pl.DataFrame) -> pl.DataFrame:
    """As `conversations`, with the margin that a reward model is to keep: id, chosen, rejected, margin, split."""
    return pairs.select(
        "id", chosen=whole("chosen"), rejected=whole("rejected"), margin="margin", split="split"
    )


def nemo_rl(pairs: pl.DataFrame) -> pl.DataFrame:
    """A preference a row for NeMo-RL: id, context, completions (rank, completion), task_name, split; rank 0 wins."""
    ranked = [
        pl.struct(rank=pl.lit(rank, pl.Int64), completion=side)
        for rank, side in enumerate(("chosen", "rejected"))
    ]
    return pairs.select(
        "id",
        context="prompt",
        completions=pl.concat_list(ranked),
        task_name=pl.lit("preference"),
        split="split",
    )


def llama_factory(pairs: pl.DataFrame) -> pl.DataFrame:
    """A preference a row for LLaMA-Factory: id, prompt, chosen, rejected, split; each side is one message, no list."""
    chosen, rejected = (pl.col(side).list.first() for side in ("chosen", "rejected"))
    return pairs.select("id", "prompt", chosen=chosen, rejected=rejected, split="split")


def llama_factory_entry(table: str, file: str) -> dict[str, Any]:
    """What dataset_info.json says of a file of rows."""
    if table == "pairs":
        columns = {"messages": "prompt", "chosen": "chosen", "rejected": "rejected"}
        return {
            "file_name": file, "formatting": "sharegpt", "ranking": True, "columns": columns, "tags": _TAGS
        }  # fmt: skip
    columns = {"messages": "messages", "kto_tag": "label"}
    return {"file_name": file, "formatting": "sharegpt", "columns": columns, "tags": _TAGS}


def _spoken() -> pl.Expr:
    """A prompt without the system's turn that may lead it."""
    led = pl.col("prompt").list.first().struct.field("role") == "system"
    return pl.col("prompt").list.slice(led.cast(pl.Int64))


def _not_in_turn() -> pl.Expr:
    first = pl.int_range(pl.len()) % 2 == 0
    asks, answers = ROLE == "user", ROLE == "assistant"
    turns = _spoken().list.eval(pl.when(first).then(asks).otherwise(answers))
    return ~turns.list.all() | (turns.list.len() % 2 == 0)


IN_TURN: Final[Unfit] = {
    "the prompt is no odd number of turns, user and assistant by turns": lambda _: _not_in_turn()
}
ONE_MESSAGE: Final[Unfit] = {
    "a side is more than one message": lambda _: (
        (pl.col("chosen").list.len() != 1) | (pl.col("rejected").list.len() != 1)
    )
}
NO_MARGIN: Final[Unfit] = {"it has no margin": lambda _: pl.col("margin").is_null()}
NO_TOOLS: Final[Unfit] = no_tools("chosen", "rejected")
