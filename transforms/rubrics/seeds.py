"""The seed pool: rubrics that experts wrote, by which a model sees what a good one looks like."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Final  # Any: JSON on its way to a case

import fsspec
import orjson
import polars as pl
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
)

from tilth.schemas import PL_MESSAGES, BadInput, NotFound, content_ids
from tilth.schemas.contracts import ROLES
from tilth.transforms.inference.tables import batches, digest, form

POINTS: Final = 10
"""Points of a criterion are whole or broken numbers from -10 to 10, and never 0."""
SEEDS: Final = pl.Schema(
    {
        "seed_id": pl.String,
        "prompt": PL_MESSAGES,  # ends with a user turn
        "criteria": pl.List(pl.Struct({"criterion": pl.String, "points": pl.Float64})),
    }
)
"""One case of the pool: a prompt and its rubric, by `seed_id`."""
POOL: Final = pl.Schema(
    {
        "criterion_id": pl.String,
        "criterion": pl.String,
        "wanted": pl.Boolean,  # false for a mistake
        "seed_ids": pl.List(pl.String),  # the cases whose rubric holds it
    }
)
"""One criterion of the pool, whichever cases hold it."""
SAME: Final = pl.Schema({"prompt_id": pl.String, "seed_id": pl.String})
_ROWS: Final = 1_000
_WORD: Final = re.compile(r"\w+")


def read_seeds(uri: str, scale: float = 1.0) -> pl.DataFrame:
    """`SEEDS` of a file, by `seed_id`; any fsspec URI.

    `.jsonl` holds rows of HealthBench (`prompt_id`, `prompt`, `rubrics` of `criterion` and `points`; other fields are
    passed over), `.jsonl` and `.parquet` rows of the table `rubrics` (`criteria` of `description` and `weight`), of
    which those outside the split `train` are left out: what is evaluated on is shown to no model.

    Args:
        uri: the file.
        scale: what points or weights are multiplied with; 10 for rubrics whose weights are at most 1.

    Raises `NotFound`, and `BadInput` naming the line (of Parquet the row) and the field, never its text.
    """
    _demand(uri)
    rows = _parquet(uri) if form(uri, (".jsonl", ".parquet")) == ".parquet" else _lines(uri)
    return _seeds(rows, uri.rpartition("/")[2], scale)


def digest_of(uri: str) -> str:
    """128 bits in hex of the bytes of a seed pool. Raises `NotFound`."""
    _demand(uri)
    return digest(uri)


def _demand(uri: str) -> None:
    fs, path = fsspec.core.url_to_fs(uri)
    if not fs.isfile(path):
        raise NotFound("no such seed pool", found=uri, wanted="a file of rubrics, .jsonl or .parquet")


# Cases


def _points(value: float, info: ValidationInfo) -> float:
    points = value * (info.context or {})["scale"]
    if not 0 < abs(points) <= POINTS:
        raise ValueError(f"points are from -{POINTS} to {POINTS}, and not 0")
    return points


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("blank")
    return text


def _role(role: str) -> str:
    if role not in ROLES:
        raise ValueError(f"none of {', '.join(ROLES)}")
    return role


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Message(_Strict):
    role: Annotated[str, AfterValidator(_role)]
    content: str


class _Criterion(_Strict):
    criterion: Annotated[str, AfterValidator(_said)] = Field(
        validation_alias=AliasChoices("criterion", "description")
    )
    points: Annotated[float, AfterValidator(_points)] = Field(
        validation_alias=AliasChoices("points", "weight")
    )


def _ends_with_user(prompt: list[_Message]) -> list[_Message]:
    if prompt[-1].role != "user" or not prompt[-1].content.strip():
        raise ValueError("does not end with a user turn that has text")
    return prompt


def _rewards(rubric: list[_Criterion]) -> list[_Criterion]:
    if all(one.points < 0 for one in rubric):
        raise ValueError("no criterion has points above 0, so no reply could be scored")
    return rubric


class _Case(_Strict):
    prompt_id: Annotated[str, AfterValidator(_said)]
    prompt: Annotated[list[_Message], Field(min_length=1), AfterValidator(_ends_with_user)]
    rubrics: Annotated[list[_Criterion], AfterValidator(_rewards)] = Field(
        min_length=1, validation_alias=AliasChoices("rubrics", "criteria")
    )


def _lines(uri: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    fs, path = fsspec.core.url_to_fs(uri)
    data: bytes = fs.cat_file(path)
    for number, line in enumerate(data.splitlines(), 1):
        if line.strip():
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError:
                row = None
            if not isinstance(row, dict):
                raise BadInput(f"a seed pool, line {number}", found="no JSON object")
            yield f"line {number}", row


def _parquet(uri: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    number = 0
    for frame in batches(uri, _ROWS):
        for row in frame.iter_rows(named=True):
            yield f"row {number}", row
            number += 1


def _seeds(rows: Iterable[tuple[str, Mapping[str, Any]]], name: str, scale: float) -> pl.DataFrame:
    if not 0 < scale < math.inf:
        raise BadInput("the scale of a seed pool", found=scale, wanted="above 0")
    cases = dict[str, _Case]()
    for where, row in rows:
        if row.get("split") in (None, "train"):
            case = _case(row, f"{name}, {where}", scale)
            if case.prompt_id in cases:
                raise BadInput(
                    f"{name}, {where}, prompt_id", found="one that stands above", wanted="each once"
                )
            cases[case.prompt_id] = case
    if not cases:
        raise BadInput(
            f"{name}: a seed pool without a case", wanted="one rubric or more, of no other split than train"
        )
    return pl.DataFrame([_row(case) for _, case in sorted(cases.items())], schema=SEEDS, orient="row")


def _row(case: _Case) -> tuple[object, ...]:
    rubric = [one.model_dump() for one in case.rubrics]
    return case.prompt_id, [message.model_dump() for message in case.prompt], rubric


def _case(row: Mapping[str, Any], where: str, scale: float) -> _Case:
    try:
        return _Case.model_validate(row, context={"scale": scale})
    except ValidationError as error:
        # The first alone, and without its value, which is text of somebody.
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        field = ".".join(str(step) for step in first["loc"])
    raise BadInput(f"{where}, {field}", found=first["msg"], wanted="a row of HealthBench or of table rubrics")


# Criteria


def criterion_key(column: str) -> pl.Expr:
    """The text of a criterion without regard to case, white space and the full stop: what makes two the same."""
    spaced = pl.col(column).str.to_lowercase().str.replace_all(r"\s+", " ")
    return spaced.str.strip_chars(" .;")


def criterion_pool(seeds: pl.DataFrame) -> pl.DataFrame:
    """The criteria of `SEEDS` as `POOL`, each once, by id.

    The id is a hash of `criterion_key`; of several spellings the one that sorts first stands for all. What is wanted in
    some cases and a mistake in others is what the sum of its points says.
    """
    spread = seeds.explode("criteria").unnest("criteria")
    named = spread.with_columns(criterion_ids(spread, "criterion").alias("criterion_id"))
    pooled = named.group_by("criterion_id").agg(
        pl.col("criterion").sort().first(),
        wanted=pl.col("points").sum() > 0,
        seed_ids=pl.col("seed_id").unique().sort(),
    )
    return pooled.select(pl.col(name).cast(kind) for name, kind in POOL.items()).sort("criterion_id")


def criterion_ids(rows: pl.DataFrame, column: str) -> pl.Series:
    """The id in the pool that a text has, or would have."""
    return content_ids(rows, "seed_criteria", [criterion_key(column)])


# The same case


def same_cases(
    prompts: pl.DataFrame, seeds: pl.DataFrame, ngram: int = 8, coverage: float = 0.5
) -> pl.DataFrame:
    """`SAME`: which prompt is a seed, or so near to one that the seed's rubric would be the answer.

    Compared are the words of the user's turns, without regard to case, punctuation and Unicode form. A prompt is the
    same case as a seed when more than `coverage` of the words of either stand inside runs of `ngram` words that the
    other has as well (the rule by which open-instruct's decontamination scores a document; there of the one side
    alone); with fewer words on either side, when they are equal.

    Args:
        prompts: with `prompt_id` and `prompt`.
        seeds: `SEEDS`.
        ngram: words of a run, 1 or more.
        coverage: [0, 1]; at 1 only equal words are the same.
    """
    known = [(id_, _words(turns)) for id_, turns in seeds.select("seed_id", "prompt").iter_rows()]
    whole = defaultdict[tuple[str, ...], set[str]](set)
    runs = defaultdict[tuple[str, ...], list[tuple[int, int]]](list)
    for number, (id_, words) in enumerate(known):
        whole[words].add(id_)
        for at, run in _runs(words, ngram):
            runs[run].append((number, at))
    found = list[tuple[str, str]]()
    for prompt_id, turns in prompts.select("prompt_id", "prompt").iter_rows():
        words = _words(turns)
        near = {known[n][0] for n, share in _covered(words, known, runs, ngram) if share > coverage}
        found += [(prompt_id, seed_id) for seed_id in sorted(near | whole.get(words, set()))]
    return pl.DataFrame(found, schema=SAME, orient="row")


def _words(turns: Iterable[Mapping[str, str]]) -> tuple[str, ...]:
    said = " ".join(turn["content"] for turn in turns if turn["role"] == "user")
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", said).lower()))


def _runs(words: tuple[str, ...], ngram: int) -> Iterator[tuple[int, tuple[str, ...]]]:
    return ((at, words[at : at + ngram]) for at in range(len(words) - ngram + 1))


def _covered(
    words: tuple[str, ...],
    known: list[tuple[str, tuple[str, ...]]],
    runs: Mapping[tuple[str, ...], list[tuple[int, int]]],
    ngram: int,
) -> Iterator[tuple[int, float]]:
    """Seeds that share a run, by number, each with the larger share of words in shared runs, of both sides."""
    here, there = (defaultdict[int, set[int]](set) for _ in range(2))
    for at, run in _runs(words, ngram):
        for number, place in runs.get(run, ()):
            here[number].update(range(at, at + ngram))
            there[number].update(range(place, place + ngram))
    for number in here:
        yield number, max(len(here[number]) / len(words), len(there[number]) / len(known[number][1]))
