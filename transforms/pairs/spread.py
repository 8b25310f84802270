"""An order for unpaired rows in which neighbours share neither prompt nor, but by chance, label."""

from __future__ import annotations

import polars as pl

from tilth.transforms.hygiene import id_hashes, mixed


def spread(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    """`rows` (`id`, `prompt_id`, …) shuffled by a function of ids and `seed`, rows of one prompt far apart.

    KTO estimates its KL term by pairing each prompt with the completion of its neighbour (TRL
    `kto_trainer.py`), so neighbours with one prompt poison it. With k rows of the most frequent prompt among
    n, the order is k blocks with at most one row of any prompt in each, and all blocks list prompts in one
    order: rows of one prompt are at least n // k - 1 places apart, and never neighbours where that can be
    avoided. Where all prompts differ it is a plain shuffle.
    """
    if rows.is_empty():
        return rows
    keyed = rows.with_columns(
        _prompt=mixed(id_hashes(rows.get_column("prompt_id")), seed),
        _row=mixed(id_hashes(rows.get_column("id")), seed),
        _same=pl.len().over("prompt_id"),
    )
    blocks = keyed.get_column("_same").max()
    frequent_first = keyed.sort(
        "_same", "_prompt", "prompt_id", "_row", "id", descending=[True, *[False] * 4]
    )
    place = pl.int_range(pl.len())
    dealt = frequent_first.with_columns(_block=place % blocks, _place=place // blocks)
    return dealt.sort("_block", "_place").drop("_prompt", "_row", "_same", "_block", "_place")


def shuffled(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    """`rows` in an order that is a function of `id` and `seed` only."""
    order = mixed(id_hashes(rows.get_column("id")), seed)
    return rows.with_columns(order.alias("_order")).sort("_order", "id").drop("_order")
