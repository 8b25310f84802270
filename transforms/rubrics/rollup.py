"""Hierarchical rubrics: a tree of weighted nodes whose leaves are graded, rolled up to one score."""

from __future__ import annotations

from typing import Final

import polars as pl

from tilth.schemas import BadInput

TREE: Final = pl.Schema(
    {
        "node": pl.String,
        "parent": pl.String,  # null for a root
        "weight": pl.Float64,  # below 0 for a mistake, which takes from its parent
    }
)
LEAVES: Final = pl.Schema(
    {
        "response_id": pl.String,
        "node": pl.String,
        "value": pl.Float64,  # met 1, not met 0, or any score; null where it could not be told
    }
)
NODES: Final = pl.Schema(
    {
        "response_id": pl.String,
        "node": pl.String,
        "score": pl.Float64,  # null where nothing under it was graded
        "graded": pl.Int32,  # leaves under it that were
        "ungraded": pl.Int32,  # leaves under it that were not
    }
)


def rolled_up(tree: pl.DataFrame, leaves: pl.DataFrame) -> pl.DataFrame:
    """The score of every node for every reply that `leaves` names, as `NODES`, sorted; row order decides nothing.

    A node's score is sum(w s) / sum of the positive w over its children that have a score s: the mean by weight, from
    which mistakes are taken off, as in HealthBench's rule for a flat rubric. Children without a score are left out of
    both sums and counted (`ungraded`); a node without a scored child of positive weight has no score either. Nothing
    is clipped. With weights of 1 it is BiGGen-Bench's report: the plain mean of the means of capabilities.

    Args:
        tree: `TREE`, one or more roots; a row that is there twice counts once.
        leaves: `LEAVES`; a leaf that a reply has no row of is ungraded.

    Raises `BadInput` for a node with two parents or weights, a parent that is no node, a circle, a weight that is 0 or
    no number, and values that contradict each other or are of an inner node.
    """
    nodes, values = tree.select(TREE.names()).unique(), leaves.select(LEAVES.names()).unique()
    depths = _depths(nodes)
    ends = nodes.join(nodes, left_on="node", right_on="parent", how="anti").select("node")
    _refuse(values.join(ends, on="node", how="anti").height, "values of a node that is no leaf of the tree")
    _refuse(values.height - values.n_unique(["response_id", "node"]), "several values of one leaf")
    asked = values.select("response_id").unique().join(ends, how="cross")
    known = asked.join(values, on=["response_id", "node"], how="left").select(
        "response_id",
        "node",
        score="value",
        graded=pl.col("value").is_not_null().cast(pl.Int32),
        ungraded=pl.col("value").is_null().cast(pl.Int32),
    )
    for depth in range(int(str(depths.get_column("depth").max() or 0)), 0, -1):
        below = depths.filter(pl.col("depth") == depth)
        known = pl.concat([known, _parents(known.join(below, on="node"))])
    return known.select(pl.col(name).cast(kind) for name, kind in NODES.items()).sort("response_id", "node")


def _parents(children: pl.DataFrame) -> pl.DataFrame:
    """The nodes right above; leaves that stand at other depths are joined in when theirs is due."""
    weight, score = pl.col("weight"), pl.col("score")
    possible = pl.max_horizontal(weight, 0.0).filter(score.is_not_null()).sum()
    return (
        children.sort("response_id", "node")
        .group_by("response_id", node="parent", maintain_order=True)
        .agg(
            score=pl.when(possible > 0).then((weight * score).sum() / possible),
            graded=pl.col("graded").sum(),
            ungraded=pl.col("ungraded").sum(),
        )
    )


def _depths(nodes: pl.DataFrame) -> pl.DataFrame:
    """`nodes` with their distance from the root."""
    _refuse(nodes.height - nodes.n_unique("node"), "nodes with several parents or weights")
    weight = pl.col("weight")
    odd = nodes.filter(~(weight.is_finite() & (weight != 0)).fill_null(value=False))
    _refuse(odd.height, "weights that are 0 or no number")
    inner = nodes.filter(pl.col("parent").is_not_null())
    lost = inner.join(nodes, left_on="parent", right_on="node", how="anti")
    _refuse(lost.height, "nodes whose parent is no node")
    level, found = nodes.filter(pl.col("parent").is_null()), list[pl.DataFrame]()
    while level.height:
        found.append(level.with_columns(depth=pl.lit(len(found), pl.Int32)))
        level = inner.join(level.select(parent="node"), on="parent")
    ranked = pl.concat(found) if found else nodes.clear().with_columns(depth=pl.lit(0, pl.Int32))
    _refuse(nodes.height - ranked.height, "nodes in a circle")
    return ranked


def _refuse(count: int, what: str) -> None:
    if count:
        raise BadInput("a tree of criteria", found=f"{count} {what}", wanted="a tree; see rolled_up")
