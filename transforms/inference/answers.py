"""Answers go back to the rows that they are for: joined by id alone, every row answered or set aside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple  # Any: parsed JSON

import orjson
import polars as pl

from tilth.schemas import ConfigError
from tilth.transforms.inference.render import FAILED, ROW
from tilth.transforms.inference.requests import demand_settled
from tilth.transforms.inference.sampling import choice_probabilities
from tilth.transforms.inference.structured import parse_schema

PROBABILITY_COLUMNS: Final = ("id", "sample_index", "seed", "temperature", "choices")  # of requests
_QUARANTINE: Final = ("quarantine_reason", "quarantine_detail")
_PLAIN: Final = {
    "string": pl.String(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "boolean": pl.Boolean(),
}
_KEY: Final = "requests#id="  # what the step `Ask` puts before the id of a request that it sets aside


class Joined(NamedTuple):
    """A part of the table with its answers, and what has none."""

    answered: pl.DataFrame
    failed: pl.DataFrame


class Part(NamedTuple):
    """What became of one part of the rows. `failed` has the columns of `FAILED`."""

    rows: pl.DataFrame
    asked: pl.DataFrame
    requests: pl.DataFrame
    completions: pl.DataFrame
    failed: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Answers:
    """What columns answers add to a table."""

    answer_schema: str | None = None
    choices: tuple[str, ...] | None = None
    probabilities: bool = False
    samples: int = 1

    @property
    def names(self) -> list[str]:
        """The columns that are added, in order."""
        names = ["completion"]
        names += ["answer"] if self.answer_type is not None else []
        names += ["choice_probabilities", "probabilities_from"] if self.probabilities else []
        names += ["sample_index"] if self.samples > 1 else []
        return [*names, "finish_reason", "prompt_tokens", "completion_tokens", "model"]

    @property
    def answer_type(self) -> pl.DataType | None:
        """The type of the column `answer`: of a schema of an object with plain fields, else null."""
        return None if self.answer_schema is None else _object(parse_schema(self.answer_schema))

    def check(self, columns: Sequence[str]) -> None:
        """Raises `ConfigError` when a column of the table bears a name that is needed."""
        taken = [name for name in (*self.names, *_QUARANTINE, ROW) if name in columns]
        if taken:
            raise ConfigError(
                "columns of the input bear names that the output needs",
                found=", ".join(taken),
                do="rename them in the input",
            )

    def join(self, part: Part) -> Joined:
        """One part's rows with their answers, in the order of rows and samples; what has none, with the reason.

        Raises `TilthError` when an answer belongs to no row, or a row has neither an answer nor a reason.
        """
        demand_settled(
            "answers", part.asked, part.completions, part.failed, do="nothing was written; please report this"
        )
        # Names of the table and names of ours meet in the last join alone, which `check` has made safe.
        answers = part.completions.rename({"text": "completion"})
        answered = part.asked.join(answers, on="id", how="inner", maintain_order="left")
        failed = part.asked.join(part.failed, on="id", how="inner", maintain_order="left")
        samples = ["sample_index"] if self.samples > 1 else []
        reasons = [pl.col("reason").alias(_QUARANTINE[0]), pl.col("detail").alias(_QUARANTINE[1])]
        return Joined(
            _beside(part.rows, self._with_shape(answered, part).select(ROW, *self.names)),
            _beside(part.rows, failed.select(ROW, *samples, *reasons)),
        )

    def _with_shape(self, answered: pl.DataFrame, part: Part) -> pl.DataFrame:
        if (kind := self.answer_type) is not None:
            texts = answered.get_column("completion")
            decoded = [_fit(orjson.loads(text), kind) for text in texts]
            answered = answered.with_columns(pl.Series("answer", decoded, dtype=kind))
        if self.probabilities:
            known = choice_probabilities(part.requests, part.completions)
            named = _by_choice(known, self.choices or ())
            answered = answered.join(named, on="id", how="left", maintain_order="left")
        return answered


def _beside(rows: pl.DataFrame, settled: pl.DataFrame) -> pl.DataFrame:
    return rows.join(settled, on=ROW, how="inner", maintain_order="left_right").drop(ROW)


def set_aside(quarantine: pl.DataFrame) -> pl.DataFrame:
    """What the step `Ask` set aside, as `FAILED`."""
    return quarantine.select(pl.col("key").str.strip_prefix(_KEY).alias("id"), "reason", "detail").cast(
        FAILED
    )


def _by_choice(known: pl.DataFrame, choices: Sequence[str]) -> pl.DataFrame:
    fields = [pl.col("probabilities").list.get(n).alias(choice) for n, choice in enumerate(choices)]
    shares = pl.when(pl.col("probabilities").is_not_null()).then(pl.struct(fields))
    return known.select("id", shares.alias("choice_probabilities"), probabilities_from="method")


# The column `answer`


def _object(schema: Mapping[str, Any]) -> pl.DataType | None:
    kind = _kind(schema)
    return kind if isinstance(kind, pl.Struct) else None


def _kind(schema: Mapping[str, Any]) -> pl.DataType | None:
    """The type of a plain schema's values; null for one that leaves more than one type open."""
    if schema.keys() & {"$ref", "anyOf", "oneOf", "allOf", "not", "if", "patternProperties"}:
        return None
    named = schema.get("type")
    names: list[Any] = [name for name in (named if isinstance(named, list) else [named]) if name != "null"]
    if names == ["object"]:
        return _struct(schema.get("properties", {}))
    if names == ["array"]:
        items = schema.get("items")
        inner = _kind(items) if isinstance(items, Mapping) else None
        return None if inner is None else pl.List(inner)
    if names == [None]:
        texts = [*schema.get("enum", []), *([schema["const"]] if "const" in schema else [])]
        return pl.String() if texts and all(isinstance(text, str) for text in texts) else None
    return _PLAIN.get(names[0]) if len(names) == 1 else None


def _struct(properties: Mapping[str, Any]) -> pl.DataType | None:
    kinds = {name: _kind(one) if isinstance(one, Mapping) else None for name, one in properties.items()}
    fields = {name: kind for name, kind in kinds.items() if kind is not None}
    return pl.Struct(fields) if fields and len(fields) == len(kinds) else None


def _fit(value: Any, kind: pl.DataType) -> Any:
    """A parsed answer as a value of `kind`; what does not go into the type (a number of 30 digits) is null."""
    if isinstance(kind, pl.Struct) and isinstance(value, dict):
        return {field.name: _fit(value.get(field.name), field.dtype) for field in kind.fields}  # pyright: ignore[reportArgumentType]
    if isinstance(kind, pl.List) and isinstance(value, list):
        return [_fit(item, kind.inner) for item in value]  # pyright: ignore[reportArgumentType]
    if isinstance(kind, pl.Float64) and isinstance(value, int):
        return float(value)
    if isinstance(kind, pl.Int64) and isinstance(value, float | int) and not isinstance(value, bool):
        return int(value) if -(2**63) <= value < 2**63 and value == int(value) else None
    return value
