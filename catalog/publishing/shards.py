"""The files of a publication: Parquet shards by config and split, equal bytes for equal rows, and what they hold."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl
import pyarrow as pa

from tilth.catalog.parts import scan
from tilth.catalog.publishing.plan import Plan
from tilth.catalog.versions import Version
from tilth.schemas import PARQUET, TABLES, BadInput, ChecksFailed, TilthError

SHARD_BYTES: Final = 420 << 20  # of a file, before its last row group: the Hub's own uploader stops at 500 MB
GROUP_BYTES: Final = (
    32 << 20
)  # of a row group in memory, or twice that: the Hub's viewer wants 100 MB at most
GROUP_ROWS: Final = 10_000
_HASHED_ROWS: Final = 20_000
_WITHOUT_SPLIT: Final = "train"
# Where the owner's files lie is nobody's business.
_WITHHELD: Final = {"conversations": ("source",)}
_COUNTED: Final = {  # columns whose few values say what a table is made of; none holds a text of a user
    "feedback": ("polarity", "labels"),
    "pairs": ("origin", "verdict"),
    "unpaired": ("label",),
    "rationales": ("kind",),
    "rubrics": ("method",),
    "responses": ("role",),
    "judgments": ("kind", "verdict"),
}


class Shard(NamedTuple):
    """One file: where it goes, where it lies now."""

    path: str  # below the root of the publication
    local: Path
    split: str
    rows: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Config:
    """One dataset as it is published."""

    name: str
    version: Version
    shards: tuple[Shard, ...]
    memory_bytes: Mapping[str, int]  # split -> in Arrow's form
    personal: Mapping[str, int]  # kind of personal data -> rows that hold it
    left_out: int  # rows with personal data that are not published
    counted: Mapping[str, Mapping[str, int]]  # column -> value -> rows
    digests: Mapping[str, str]  # split -> of its rows

    @property
    def rows(self) -> dict[str, int]:
        """Rows by split."""
        found: Counter[str] = Counter()
        for shard in self.shards:
            found[shard.split] += shard.rows
        return dict(found)

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(shard.size_bytes for shard in self.shards)


@dataclass(frozen=True, slots=True)
class Bundle:
    """Everything of a publication but its card."""

    plan: Plan
    configs: tuple[Config, ...]

    @property
    def shards(self) -> list[Shard]:
        """The files of all configs."""
        return [shard for config in self.configs for shard in config.shards]

    @property
    def digest(self) -> str:
        """What the published rows are known by, however they are cut into files.

        Two publications of one version are the same when their digests are; a card may have changed.
        """
        known = {config.name: dict(config.digests) for config in self.configs}
        return "sha256:" + hashlib.sha256(json.dumps([1, known], sort_keys=True).encode()).hexdigest()

    def refusals(self) -> list[TilthError]:
        """All that forbids to publish this."""
        found = self.plan.refusals()
        personal = {config.name: config.personal for config in self.configs if any(config.personal.values())}
        if personal and not self.plan.choice.drop_pii:
            what = f"personal data in what would be published of {self.plan.title}"
            told = "; ".join(f"{name}: {_counts(counts)}" for name, counts in personal.items())
            do = "add --drop-pii to leave those rows out, or clean the sources and run again"
            found.append(ChecksFailed(what, found=told, wanted="none", do=do))
        return found


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} in {rows} rows" for kind, rows in counts.items() if rows)


def write(plan: Plan, directory: Path) -> Bundle:
    """Writes the files of a plan below `directory`; the same version gives the same bytes.

    Configs of which nothing is left are left out. Raises `BadInput` when that are all of them.
    """
    configs = [_write_config(plan, version, directory) for version in plan.versions]
    kept = tuple(config for config in configs if config.shards)
    if not kept:
        found = f"{sum(config.left_out for config in configs)} rows, all with personal data"
        raise BadInput(f"nothing of {plan.title} is left to publish", found=found)
    return Bundle(plan, kept)


def _write_config(plan: Plan, version: Version, directory: Path) -> Config:
    name = plan.config(version)
    splits: dict[str, _Split] = {}
    personal: Counter[str] = Counter()
    counted: dict[str, Counter[str]] = {column: Counter() for column in _COUNTED.get(version.table, ())}
    left_out = 0
    for uri in version.files:
        frame = scan(version.table, [uri]).collect()
        frame, flags, lost = _without_personal(version.table, frame, drop=plan.choice.drop_pii)
        personal.update(flags)
        left_out += lost
        for column, counter in counted.items():
            counter.update(_values(frame, column))
        for split, rows in _by_split(_withheld(version.table, frame)):
            if split not in splits:
                splits[split] = _Split(version.table, split, directory / name)
            splits[split].add(rows)
    ordered = [splits[split] for split in sorted(splits, key=_split_order)]
    return Config(
        name,
        version,
        tuple(shard for split in ordered for shard in split.close(name)),
        {split.name: split.memory_bytes for split in ordered},
        dict(personal),
        left_out,
        counted,
        {split.name: split.rows_digest.hexdigest() for split in ordered},
    )


def _without_personal(
    table: str, frame: pl.DataFrame, *, drop: bool
) -> tuple[pl.DataFrame, dict[str, int], int]:
    """The rows that may go out, how many hold which kind of personal data, and how many were left out."""
    from tilth.schemas.pii import pii_flags

    flags = frame.select(flag.fill_null(False).alias(name) for name, flag in pii_flags(table).items())
    counts = {name: int(flags.get_column(name).sum()) for name in flags.columns}
    if not drop or not any(counts.values()):
        return frame, counts, 0
    kept = frame.filter(~flags.select(pl.any_horizontal(pl.all())).to_series())
    return kept, counts, frame.height - kept.height


def _withheld(table: str, frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.lit(None, pl.String).alias(column) for column in _WITHHELD.get(table, ()))


def _values(frame: pl.DataFrame, column: str) -> dict[str, int]:
    values = frame.get_column(column)
    flat = values.explode(empty_as_null=False) if isinstance(values.dtype, pl.List) else values
    counts = flat.drop_nulls().cast(pl.String).value_counts(name="rows")
    return dict(counts.select(column, "rows").iter_rows())


def _by_split(frame: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    split = pl.col("split").fill_null(_WITHOUT_SPLIT)
    for name in frame.select(split.unique(maintain_order=True)).to_series():
        yield name, frame.filter(split == name)


def _split_order(split: str) -> tuple[int, str]:
    known = ("train", "validation", "test")
    return known.index(split) if split in known else len(known), split


class _Split:
    """The shards of one split as they grow."""

    def __init__(self, table: str, name: str, directory: Path) -> None:
        self.name, self.memory_bytes, self.rows_digest = name, 0, hashlib.sha256()
        self._schema = TABLES[table]
        self._directory = directory
        self._waiting: list[pl.DataFrame] = []
        self._waiting_bytes = 0
        self._written: list[tuple[Path, int]] = []  # file, rows
        self._open: _File | None = None

    def add(self, rows: pl.DataFrame) -> None:
        """Takes rows, in order."""
        row_bytes = max(1, int(rows.estimated_size()) // rows.height)
        for piece in rows.iter_slices(max(1, min(GROUP_ROWS, GROUP_BYTES // row_bytes))):
            self._waiting.append(piece)
            count = sum(one.height for one in self._waiting)
            self._waiting_bytes += piece.height * row_bytes
            if count >= GROUP_ROWS or self._waiting_bytes >= GROUP_BYTES:
                self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._write(pl.concat(self._waiting))
        self._waiting, self._waiting_bytes = [], 0

    def _write(self, rows: pl.DataFrame) -> None:
        for piece in rows.iter_slices(_HASHED_ROWS):
            lines = io.BytesIO()
            piece.write_ndjson(lines)
            self.rows_digest.update(lines.getbuffer())
        arrow = rows.rechunk().to_arrow().cast(self._schema)
        self.memory_bytes += arrow.nbytes
        if self._open is None:
            self._open = _File(self._directory / f"{self.name}-{len(self._written):05d}", self._schema)
        if self._open.write(arrow) >= SHARD_BYTES:
            self._finish()

    def _finish(self) -> None:
        if self._open:
            self._written.append(self._open.close())
            self._open = None

    def close(self, config: str) -> list[Shard]:
        """Writes what is left, and gives the files the names that count them."""
        self._flush()
        self._finish()
        shards: list[Shard] = []
        for number, (file, rows) in enumerate(self._written):
            name = f"{self.name}-{number:05d}-of-{len(self._written):05d}.parquet"
            local = file.rename(file.with_name(name))
            with local.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            shards.append(Shard(f"{config}/{name}", local, self.name, rows, local.stat().st_size, digest))
        return shards


class _File:
    """One Parquet file as the Hub likes it: with a page index, and cut by content, so that versions share chunks."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._rows = path, 0
        self._sink = path.open("wb")
        self._writer = pq.ParquetWriter(self._sink, schema, **PARQUET)

    def write(self, rows: pa.Table) -> int:
        """Adds one row group; gives the size of the file."""
        self._writer.write_table(rows, row_group_size=rows.num_rows)
        self._rows += rows.num_rows
        return self._sink.tell()

    def close(self) -> tuple[Path, int]:
        """Gives the file and its rows."""
        self._writer.close()
        self._sink.close()
        return self._path, self._rows
