"""The evaluation set: prompts that stand for many, never one that was trained on, whatever the order of rows."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from tilth.schemas import TABLES, ConfigError, polars_schema
from tilth.schemas.contracts import CONTRACTS
from tilth.schemas.ids import content_id
from tilth.transforms.selection.representatives import Representatives, representatives

TOPICS = {
    "garden": ["peas", "soil", "compost", "seedlings", "mulch", "harvest", "pruning", "roses"],
    "python": ["decorator", "asyncio", "traceback", "dataclass", "generator", "import", "lambda", "typing"],
    "cooking": ["simmer", "garlic", "oven", "dough", "whisk", "saffron", "broth", "skillet"],
}
NOBODY = pl.Series([], dtype=pl.String)
SMALL = Representatives(clusters=3, per_cluster=4, max_similarity=0.95)


def row(text: str, name: str, split: str = "test", **more: Any) -> dict[str, Any]:
    given = {
        "prompt": [{"role": "user", "content": text}],
        "prompt_id": content_id("p", text),
        "checklist": ["be short", "cite a source"],
        "reference": [{"role": "assistant", "content": "as logged"}],
        "feedback_ids": [content_id("f", name)],
        "conversation_id": content_id("c", name),
        "split": split,
    }
    return {**given, **more}


def rows_of(per_topic: int = 12) -> list[dict[str, Any]]:
    """Prompts of three topics, none like another word for word."""
    return [
        row(
            f"{words[n % 8]} {words[(n * 3 + 1) % 8]} {topic} {words[(n * 5 + 2) % 8]} case {n}",
            f"{topic}-{n}",
        )
        for topic, words in TOPICS.items()
        for n in range(per_topic)
    ]


def chosen(
    rows: list[dict[str, Any]], config: Representatives = SMALL, trained: pl.Series = NOBODY
) -> pl.DataFrame:
    return representatives(pl.DataFrame(rows), config, trained)


def topic_of(frame: pl.DataFrame) -> pl.Series:
    said = pl.col("prompt").list.first().struct.field("content")
    return frame.select(said.str.extract(f"({'|'.join(TOPICS)})")).to_series()


def test_each_group_of_like_prompts_is_represented() -> None:
    """Every topic has its own cluster, the nearest of each are taken, and nearer rows come first."""
    found = chosen(rows_of())
    by_cluster = (
        found.with_columns(topic_of(found).alias("topic")).group_by("cluster").agg(pl.col("topic").n_unique())
    )
    assert by_cluster.get_column("topic").to_list() == [1, 1, 1]
    assert found.group_by("cluster").len().get_column("len").to_list() == [4, 4, 4]
    assert found.select((pl.col("distance").diff().over("cluster").fill_null(0) >= 0).all()).item()


def test_rows_fit_their_table_and_its_contract() -> None:
    """The set has the exact columns of `evaluation`, and no defect that its contract knows."""
    found = chosen(rows_of())
    assert found.schema == polars_schema("evaluation")
    assert found.columns == TABLES["evaluation"].names
    counts = CONTRACTS["evaluation"].measure(found).counts
    assert {name: count for name, count in counts.items() if count} == {}
    assert found.get_column("id").n_unique() == found.height


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_order_of_rows_decides_nothing(seed: int) -> None:
    """Permuted rows, and rows that stand there twice, give the same set."""
    rows = rows_of()
    shuffled = pl.DataFrame(rows * 2).sample(fraction=1.0, shuffle=True, seed=seed)
    assert representatives(shuffled, SMALL, NOBODY).equals(chosen(rows))


def test_prompts_of_training_pairs_are_never_taken() -> None:
    """A prompt that stands in a training pair is left out, whatever the split of the row."""
    rows = rows_of()
    trained = pl.Series([one["prompt_id"] for one in rows[::2]])
    found = chosen(rows, trained=trained)
    assert found.height > 0
    assert not set(found.get_column("prompt_id")) & set(trained)


def test_only_held_out_splits_qualify() -> None:
    """Rows of `train` never qualify; those of `validation` do when they are asked for."""
    rows = [row(f"soil and compost {n}", str(n), ("train", "validation", "test")[n % 3]) for n in range(9)]
    splits = ("validation", "test")
    assert set(chosen(rows).get_column("split")) == {"test"}
    wide = Representatives(splits=splits, max_similarity=1.0)
    assert set(chosen(rows, wide).get_column("split")) == set(splits)
    with pytest.raises(ConfigError):
        Representatives(splits=("train",))


def test_near_duplicates_are_taken_once() -> None:
    """Of prompts that differ in case and a stop, one is taken; nothing takes the other's place."""
    twins = [row("How deep do I sow peas?", "one"), row("how deep do I sow peas", "two")]
    assert chosen(twins).height == 1
    assert chosen([*twins, row("Explain asyncio to me", "three")]).height == 2


def test_one_prompt_has_one_row() -> None:
    """Of rows with one prompt, that of the smallest conversation id counts."""
    rows = [row("How deep do I sow peas?", str(n), checklist=[f"want {n}"]) for n in range(5)]
    found = chosen(rows)
    assert found.get_column("conversation_id").to_list() == [min(one["conversation_id"] for one in rows)]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_prompts_are_all_taken(count: int) -> None:
    """Fewer prompts than clusters are no error, nor is none."""
    few = pl.DataFrame(rows_of()[:3]).head(count)
    found = representatives(few, Representatives(), NOBODY)
    assert found.height == count
    assert found.schema == polars_schema("evaluation")


def test_more_prompts_than_the_bound_are_drawn_by_seed() -> None:
    """`max_rows` bounds what is looked at; another seed draws others, the same seed the same."""
    sets = [set(chosen(rows_of(), Representatives(max_rows=6, seed=s))["prompt_id"]) for s in (1, 1, 2)]
    assert [len(ids) for ids in sets] == [6, 6, 6]
    assert sets[0] == sets[1] != sets[2]
