"""Rubrics for reward functions and judges, in the columns of those who read them."""

from __future__ import annotations

import json
from typing import Any  # Any: rows of rubrics

import polars as pl

from tilth.schemas.formats.turns import query


def grpo_rubric(rubrics: pl.DataFrame) -> pl.DataFrame:
    """A prompt a row with its rubric for reward functions: id, prompt, rubric, ground_truth, dataset, programs, split.

    `rubric` is the list of title, description and weight of Rubrics as Rewards (arXiv 2507.17746), with weights below 0
    for mistakes; a criterion without a title has an empty one. `ground_truth` and `dataset` are what open-instruct's
    verifier of rubrics reads: JSON {"query", "rubrics": [{"description", "weight"}]} and "rubric". `programs` is a JSON
    list of the criteria that a program checks: {"program", "weight"}. TRL's GRPO hands every column but the prompt to
    the reward functions.
    """
    criterion = pl.element().struct
    weight, description = criterion.field("weight"), criterion.field("description")
    title = criterion.field("title").fill_null("").alias("title")
    programs = [_programs(criteria) for criteria in rubrics.get_column("criteria")]
    return rubrics.select(
        "id",
        "prompt",
        rubric=pl.col("criteria").list.eval(pl.struct(title, description, weight)),
        ground_truth=_truth(),
        dataset=pl.lit("rubric"),
        programs=pl.Series(programs, dtype=pl.String),
        split="split",
    )


def open_instruct(rubrics: pl.DataFrame) -> pl.DataFrame:
    """A prompt a row for open-instruct's RLVR: id, messages, ground_truth, dataset, split; its rubric verifier reads
    `ground_truth` as `grpo_rubric` tells of it."""
    return rubrics.select(
        "id", messages="prompt", ground_truth=_truth(), dataset=pl.lit("rubric"), split="split"
    )


def _truth() -> pl.Expr:
    criterion = pl.element().struct
    listed = pl.col("criteria").list.eval(
        pl.struct(criterion.field("description"), criterion.field("weight"))
    )
    return pl.struct(query=query("prompt"), rubrics=listed).struct.json_encode()


def _programs(criteria: pl.Series) -> str:
    checked = [one for one in criteria if one["program"] is not None]
    return _json([{"program": json.loads(one["program"]), "weight": one["weight"]} for one in checked])


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _points() -> pl.Expr:
    criterion = pl.element().struct
    fields = (
        criterion.field("description").alias("criterion"),
        criterion.field("weight").alias("points"),
        criterion.field("tags"),
    )
    return pl.col("criteria").list.eval(pl.struct(*fields))


def healthbench(rubrics: pl.DataFrame) -> pl.DataFrame:
    """A prompt a row as in HealthBench (arXiv 2505.08775): prompt, prompt_id, rubrics of criterion, points and tags."""
    return rubrics.select("prompt", "prompt_id", rubrics=_points())


def verl(rubrics: pl.DataFrame) -> pl.DataFrame:
    """A prompt a row for verl: data_source, prompt, ability, reward_model, extra_info; id.

    `reward_model` is {style: "rubric", ground_truth, rubrics}: what `grpo_rubric` calls ground_truth, and HealthBench's
    criteria with points. A reward function finds its rows by `data_source`, "tilth/rubric". `extra_info` is {split,
    index}, a row's place in its split.
    """
    return rubrics.select(
        "id",
        data_source=pl.lit("tilth/rubric"),
        prompt="prompt",
        ability=pl.lit("chat"),
        reward_model=pl.struct(style=pl.lit("rubric"), ground_truth=_truth(), rubrics=_points()),
        extra_info=pl.struct("split", index=pl.int_range(pl.len()).over("split")),
    )


def verifiers(rubrics: pl.DataFrame) -> pl.DataFrame:
    """A prompt a row for environments of verifiers: id, prompt, answer, info, split.

    `answer` is empty: a rubric has no reference. `info` is JSON {"criteria": [{"name", "text", "weight", "choices"}],
    "programs"}. Choices go from worst to best; weights may not be below 0, so a mistake has its weight's size and the
    best answer "no". `programs` as in `grpo_rubric`, signed.
    """
    listed = rubrics.get_column("criteria")
    told = [_json({"criteria": _judged(one), "programs": json.loads(_programs(one))}) for one in listed]
    return rubrics.select(
        "id", "prompt", answer=pl.lit(""), info=pl.Series(told, dtype=pl.String), split="split"
    )


def _judged(criteria: pl.Series) -> list[dict[str, Any]]:
    return [
        {
            "name": one["id"],
            "text": one["description"],
            "weight": abs(one["weight"]),
            "choices": ["yes", "no"] if one["weight"] < 0 else ["no", "yes"],
        }
        for one in criteria
    ]
