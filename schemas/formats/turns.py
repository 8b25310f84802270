"""Lists of messages in expressions: what formats make of prompts and replies, and which of them they cannot hold."""

from __future__ import annotations

from typing import Final

import polars as pl

from tilth.schemas.formats.form import Tables, Unfit
from tilth.schemas.tables import PL_MESSAGES

ROLE: Final = pl.element().struct.field("role")
CONTENT: Final = pl.element().struct.field("content")


def conversation(prompt: str) -> pl.Expr:
    """All turns as one text, each after its role."""
    turn = pl.concat_str([ROLE, CONTENT], separator=": ")
    return pl.col(prompt).list.eval(turn).list.join("\n\n")


def query(prompt: str) -> pl.Expr:
    """A prompt as one text: of a single turn its content, of several each after its role."""
    alone = pl.col(prompt).list.first().struct.field("content")
    return pl.when(pl.col(prompt).list.len() == 1).then(alone).otherwise(conversation(prompt))


def spoken(side: str) -> pl.Expr:
    """What the assistant says in a reply."""
    said = pl.when(ROLE == "assistant").then(CONTENT)
    return pl.col(side).list.eval(said).list.drop_nulls().list.join("\n")


def message(role: str, content: pl.Expr) -> pl.Expr:
    """One message as a list of messages."""
    return pl.concat_list(pl.struct(role=pl.lit(role), content=content)).cast(PL_MESSAGES)


def whole(reply: str) -> pl.Expr:
    """The conversation that a reply ends."""
    return pl.concat_list("prompt", reply).cast(PL_MESSAGES)


def _of_tools(column: str) -> pl.Expr:
    return pl.col(column).list.eval(ROLE == "tool").list.any()


# No format has a column for the calls of a turn, and a turn of a tool without its call breaks most chat templates.
_TOOLS: Final = "a tool is called, and the format has no column for calls"
NO_TOOLS_IN_PROMPT: Final[Unfit] = {_TOOLS: lambda _: _of_tools("prompt")}


def no_tools(*replies: str) -> Unfit:
    """Leaves out rows with calls of tools, in the prompt or the replies."""
    return {
        _TOOLS: lambda _: pl.any_horizontal(
            pl.col("tool_calls_json").is_not_null(), *map(_of_tools, ("prompt", *replies))
        )
    }


def without_tools(pairs: pl.DataFrame) -> pl.DataFrame:
    """Pairs in which no tool is called."""
    called = no_tools("chosen", "rejected")[_TOOLS]({})
    return pairs.filter(~called.fill_null(False))


def _pair_has_tools(tables: Tables) -> pl.Expr:
    pairs = tables["pairs"]
    plain = without_tools(pairs).get_column("id").implode()
    return pl.col("pair_id").is_in(pairs.get_column("id").implode()) & ~pl.col("pair_id").is_in(plain)


NO_TOOLS_IN_PAIR: Final[Unfit] = {_TOOLS: _pair_has_tools}
