"""From a table of anybody's to parts of requests: rows get an id, a prompt is rendered over each."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final  # Any: cells on their way to an id

import orjson
import polars as pl

from tilth.schemas import BadInput, ConfigError, Reason
from tilth.transforms.inference.prompts import Prompt
from tilth.transforms.inference.requests import Sampling
from tilth.transforms.inference.sampling import request_id, requests_frame
from tilth.transforms.inference.tables import batches
from tilth.transforms.stage import Output, Task, rows_of

ROW: Final = "tilth_row"  # the column that names a row while it is on its way
ASKED: Final = pl.Schema({"id": pl.String, ROW: pl.String, "sample_index": pl.Int32})
FAILED: Final = pl.Schema({"id": pl.String, "reason": pl.String, "detail": pl.String})
_ID_OPTIONS: Final = orjson.OPT_NON_STR_KEYS | orjson.OPT_SORT_KEYS


@dataclass(frozen=True, slots=True)
class ReadRows:
    """Reads a table into parts, and gives each row an id.

    Options of the one task: `uri`, `digest`. Writes `rows`: the table's columns and `tilth_row`, which is the `key`
    column's text, or without one the hash of the row's content (equal rows are numbered).
    """

    name: ClassVar[str] = "read"
    version: ClassVar[str] = "1"
    key: str = ""
    part_rows: int = 2000

    def run(self, task: Task, out: Output) -> None:
        """One task over the whole table, because equal rows may stand anywhere in it."""
        seen: Counter[str] = Counter()
        for frame in batches(task.options["uri"], self.part_rows):
            ids = _numbered(_keys(frame, self.key), seen, self.key)
            out.write("rows", frame.with_columns(pl.Series(ROW, ids, dtype=pl.String)))
            out.count("rows_in", frame.height)


def _keys(frame: pl.DataFrame, key: str) -> list[str | None]:
    if key:
        return frame.get_column(key).cast(pl.String).to_list()
    return [_content(row) for row in frame.iter_rows(named=True)]


def _content(row: Mapping[str, Any]) -> str:
    data = orjson.dumps(row, default=_plain, option=_ID_OPTIONS)
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _plain(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _numbered(keys: list[str | None], seen: Counter[str], column: str) -> list[str]:
    if column and (None in keys or len(set(keys)) < len(keys) or any(key in seen for key in keys)):
        raise BadInput(
            f"column {column!r} does not name rows",
            found="nulls or repeated values",
            wanted="a value of its own for each row",
            do="name another --key, or none: rows are then known by their content",
        )
    ids: list[str] = []
    for key in map(str, keys):
        ids.append(f"{key}.{seen[key]}" if seen[key] else key)
        seen[key] += 1
    return ids


@dataclass(frozen=True, slots=True)
class Render:
    """Renders a prompt over rows.

    Input: `rows` parts. Writes `requests` (`REQUESTS`), `asked` (`ASKED`: which row and sample each request id stands
    for, in the order of the rows) and `failed` (`FAILED`: requests of rows over which the prompt cannot be rendered).
    """

    name: ClassVar[str] = "render"
    version: ClassVar[str] = "1"
    prompt: Prompt
    sampling: Sampling = field(default_factory=Sampling)
    answer_schema: str | None = None
    choices: tuple[str, ...] | None = None
    samples: int = 1
    seed: int = 0
    probabilities: bool = False

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        rows = rows_of(task, "rows")
        requests, failures = self._requests(rows)
        out.write("asked", self._asked(rows))
        out.write("failed", self._failed(failures))
        out.write("requests", requests)
        out.count("rows_unfit", len(failures))

    def _requests(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, Mapping[str, str]]:
        """The requests, and by id what is wrong with the rows over which the prompt cannot be rendered."""
        try:
            return self.requests(rows), {}
        except (BadInput, ConfigError):
            problems = {row[ROW]: self._problem(row) for row in rows.iter_rows(named=True)}
            failures = {id_: said for id_, said in problems.items() if said is not None}
            if not failures:  # then it is the settings that are wrong
                raise
            return self.requests(rows.filter(~pl.col(ROW).is_in(list(failures)))), failures

    def requests(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The requests of rows that have ids."""
        return requests_frame(
            self.prompt,
            rows,
            ROW,
            self.sampling,
            schema=self.answer_schema,
            choices=self.choices,
            samples=self.samples,
            run_seed=self.seed,
            want_logprobs=self.probabilities,
        )

    def _problem(self, row: Mapping[str, Any]) -> str | None:
        try:
            self.prompt.render(row)
        except (BadInput, ConfigError) as error:
            return error.what
        return None

    def _asked(self, rows: pl.DataFrame) -> pl.DataFrame:
        ids = rows.get_column(ROW).to_list()
        data = [(request_id(id_, self.prompt.id, n), id_, n) for id_ in ids for n in range(self.samples)]
        return pl.DataFrame(data, schema=ASKED, orient="row")

    def _failed(self, failures: Mapping[str, str]) -> pl.DataFrame:
        data = [
            (request_id(id_, self.prompt.id, n), Reason.WRONG_TYPE.value, said)
            for id_, said in failures.items()
            for n in range(self.samples)
        ]
        return pl.DataFrame(data, schema=FAILED, orient="row")
