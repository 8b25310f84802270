"""Single replies: labelled ones for KTO, good ones for supervised training."""

from __future__ import annotations

from collections import Counter
from typing import Final

import polars as pl

from tilth.schemas.formats.form import Unfit
from tilth.schemas.formats.turns import no_tools, whole
from tilth.schemas.ids import content_id, messages_key

NO_TOOLS: Final[Unfit] = no_tools("completion")
ONE_MESSAGE: Final[Unfit] = {
    "the reply is more than one message": lambda _: pl.col("completion").list.len() != 1
}
BAD: Final[Unfit] = {"its label is not good": lambda _: ~pl.col("label").fill_null(False)}


def kto(unpaired: pl.DataFrame) -> pl.DataFrame:
    """A labelled reply a row: id, prompt, completion, label, split; in an order that suits KTO.

    KTO estimates its KL term from each prompt beside a neighbour's completion, and reads rows as they lie: so they are
    neither grouped by prompt nor by label, the replies to one prompt are spread over all rows, and no two of them are
    neighbours unless a prompt has more than half of the rows. The order follows from ids alone. Source: TRL's
    `KTOTrainer` (sequential sampling, completions rotated within a batch).
    """
    return _spread(unpaired).select("id", "prompt", "completion", "label", "split")


def llama_factory(unpaired: pl.DataFrame) -> pl.DataFrame:
    """A labelled reply a row for LLaMA-Factory's KTO: id, messages, label, split; in the order of `kto`."""
    return _spread(unpaired).select("id", messages=whole("completion"), label="label", split="split")


def _spread(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with the replies to a prompt as far apart as can be, in an order drawn from ids."""
    lots = [content_id("kto", id_) for id_ in rows.get_column("id")]
    drawn = rows.with_columns(pl.Series("lot", lots, dtype=pl.String), asked=messages_key("prompt")).sort(
        "lot"
    )
    share = pl.col("lot").str.slice(0, 12).str.to_integer(base=16, strict=False) / 16**12
    nth = (pl.int_range(pl.len()) + share.first()) / pl.len()
    placed = drawn.with_columns(place=nth.over("asked")).sort("place", "lot")
    order = _apart(placed.get_column("asked").to_list())
    return placed[order]


def _apart(asked: list[str]) -> list[int]:
    """Places of rows, such that no two neighbours ask the same wherever that is possible.

    The second of two such neighbours is moved to the nearest gap between rows that ask otherwise. A gap exists unless
    one prompt has more than half of the rows, and each move leaves one such pair less.
    """
    order = list(range(len(asked)))
    crowded = {prompt for prompt, count in Counter(asked).items() if 2 * count > len(asked) + 1}
    at = 1
    while at < len(order):
        prompt = asked[order[at]]
        if prompt != asked[order[at - 1]] or prompt in crowded:
            at += 1
            continue
        row = order.pop(at)
        gap = _nearest_gap(order, asked, prompt, at)
        order.insert(gap, row)
        at = max(1, min(at, gap))
    return order


def _nearest_gap(order: list[int], asked: list[str], prompt: str, at: int) -> int:
    def free(gap: int) -> bool:
        sides = order[max(0, gap - 1) : gap + 1]
        return all(asked[side] != prompt for side in sides)

    for step in range(len(order) + 1):
        for gap in (at + step, at - step):
            if 0 <= gap <= len(order) and free(gap):
                return gap
    return at


def best_chosen(pairs: pl.DataFrame) -> pl.DataFrame:
    """The best chosen reply to each prompt: id (of its pair), prompt, completion, split.

    Best by its score, then by id, among chosen replies that no pair of the prompt rejects.
    """
    keyed = pairs.with_columns(
        asked=messages_key("prompt"), won=messages_key("chosen"), lost=messages_key("rejected")
    )
    rejected = keyed.select("asked", won="lost").unique()
    good = keyed.join(rejected, on=["asked", "won"], how="anti")
    best = good.sort("chosen_score", "id", descending=[True, False], nulls_last=True)
    once = best.unique(["asked", "split"], keep="first", maintain_order=True).sort("id")
    return once.select("id", "prompt", completion="chosen", split="split")


def labelled_good(unpaired: pl.DataFrame) -> pl.DataFrame:
    """A reply a row: id, prompt, completion, split; equal replies to a prompt once."""
    keyed = unpaired.with_columns(asked=messages_key("prompt"), said=messages_key("completion")).sort("id")
    once = keyed.unique(["asked", "said", "split"], keep="first", maintain_order=True)
    return once.select("id", "prompt", "completion", "split")


def best_rated(ratings: pl.DataFrame) -> pl.DataFrame:
    """The best rated reply to each prompt: id, prompt, completion, split; best by rating, then by id."""
    keyed = ratings.with_columns(asked=messages_key("prompt"))
    best = keyed.sort("rating", "id", descending=[True, False], nulls_last=True)
    once = best.unique(["asked", "split"], keep="first", maintain_order=True).sort("id")
    return once.select("id", "prompt", "completion", "split")
