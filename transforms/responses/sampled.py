"""Prompts from logs, who replies to them, and which of the replies are rated together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import polars as pl

from tilth.schemas import Reason, content_ids
from tilth.schemas.ids import messages_key
from tilth.transforms.hygiene.hashing import mixed, text_hashes
from tilth.transforms.judging.items import items
from tilth.transforms.pairs.candidates import normalised, quarantined, replies
from tilth.transforms.responses.candidates import PLACES
from tilth.transforms.responses.places import answerable

Which = Literal["first", "last", "every"]
_PLACE = ["conversation_id", "target_index"]
_GROUP = ["prompt_id", "conversation_id"]


class Rated(NamedTuple):
    """What is rated together (`ITEMS`), the responses in it, and rows of `quarantine` without `id` for the others."""

    items: pl.DataFrame
    responses: pl.DataFrame
    dropped: pl.DataFrame


def reply_places(conversations: pl.DataFrame, which: Which) -> pl.DataFrame:
    """`PLACES` where an assistant answered a user: in each conversation the first of them, the last, or every one.

    Left out are turns that another conversation of the same record owns, and places with tools in what leads there.
    """
    turns = conversations.unique("id", keep="first").select(
        pl.int_ranges(0, pl.col("messages").list.len()).alias("index"),
        pl.col("owned_from").fill_null(0),
        conversation_id="id",
    )
    owned = turns.explode("index").filter(pl.col("index") >= pl.col("owned_from")).drop("owned_from")
    found = replies(owned, conversations)
    asked = found.filter(pl.col("prompt").list.last().struct.field("role") == "user")
    named = asked.with_columns(
        content_ids(asked, "prompts", [messages_key("prompt")]).alias("prompt_id"),
        target_index=pl.col("index").cast(pl.Int32),
        preferences=pl.lit([], pl.List(pl.String)),
    )
    ordered = answerable(named).sort(_PLACE)
    if which != "every":
        ordered = ordered.unique("conversation_id", keep=which, maintain_order=True)
    return ordered.select(pl.col(name).cast(kind) for name, kind in PLACES.items())


def one_per_prompt(places: pl.DataFrame) -> pl.DataFrame:
    """`conversation_id`, `target_index` of one place for each prompt: that of the smallest conversation id."""
    return (
        places.sort("prompt_id", *_PLACE)
        .unique("prompt_id", keep="first", maintain_order=True)
        .select(_PLACE)
    )


def asked_of(
    places: pl.DataFrame, policy: str, policies: Sequence[str], per_prompt: int, seed: int
) -> pl.DataFrame:
    """The places that `policy` replies at, where each prompt draws `per_prompt` of `policies` (0 for all of them).

    The draw follows from the seed, the prompt and the names alone. UltraFeedback draws 4 of 17 models a prompt.
    """
    if not per_prompt or per_prompt >= len(policies):
        return places
    lots = {name: _lots(places, name, seed) for name in policies}
    before = sum((lots[name] < lots[policy]).cast(pl.UInt32) for name in policies if name != policy)
    return places.filter(before < per_prompt)


def _lots(places: pl.DataFrame, policy: str, seed: int) -> pl.Series:
    return mixed(text_hashes(places.get_column("prompt_id") + f"\0{policy}"), seed)


def rated_together(responses: pl.DataFrame) -> Rated:
    """Replies to one prompt in one conversation as one item; equal texts (case and white space aside) once.

    A copy is set aside as `duplicate`; the only reply of a prompt as `no_candidate`, or as `identical_sides` where it
    had copies: there is nothing to prefer it to.
    """
    rows = responses.unique("id", keep="first").sort("id").with_columns(_text=normalised("completion"))
    marked = rows.with_columns(
        copy=~pl.col("_text").is_first_distinct().over(_GROUP),
        texts=pl.col("_text").n_unique().over(_GROUP),
        all=pl.len().over(_GROUP),
    ).drop("_text")
    kept = marked.filter(~pl.col("copy") & (pl.col("texts") > 1)).select(responses.columns)
    lists = kept.group_by(_GROUP, maintain_order=True).agg(
        pl.col("prompt", "split").first(),
        replies=pl.col("completion"),
        response_ids=pl.col("id"),
        checklist=pl.lit([], pl.List(pl.String)),
    )
    return Rated(items(lists), kept, _unrated(marked.filter(pl.col("copy") | (pl.col("texts") < 2))))


def _unrated(rows: pl.DataFrame) -> pl.DataFrame:
    alone, same = pl.col("all") == 1, pl.col("texts") < 2
    why = [
        (alone, Reason.NO_CANDIDATE, "there is no other reply to the prompt"),
        (same & ~pl.col("copy"), Reason.IDENTICAL_SIDES, "all replies to the prompt say the same"),
        (pl.lit(value=True), Reason.DUPLICATE, "another reply to the prompt says the same"),
    ]
    reason, detail = pl.lit(None, pl.String), pl.lit(None, pl.String)
    for found, one, text in reversed(why):
        reason = pl.when(found).then(pl.lit(one.value)).otherwise(reason)
        detail = pl.when(found).then(pl.lit(text)).otherwise(detail)
    told = rows.with_columns(reason=reason, detail=detail, source=pl.format("responses#id={}", "id"))
    return quarantined(told, "rate", ["prompt", "completion"])
