"""From files to read tasks: what shape each file has, and into which ranges it is cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

from tilth.schemas import BadInput, ConfigError
from tilth.transforms.ingest import column_map
from tilth.transforms.ingest.containers import chunks, container_of, record_of, row_group_ranges
from tilth.transforms.ingest.detection import Detection, detect
from tilth.transforms.ingest.record import Refused, SetAside
from tilth.transforms.ingest.shapes import SHAPES
from tilth.transforms.ingest.sources import SourceFile

RANGE_BYTES: Final = 32 << 20
_SAMPLE_ROWS: Final = 100
_SAMPLE_SEEN: Final = 10_000


def plan(
    files: Sequence[SourceFile],
    shape: str | None = None,
    mapping: str | None = None,
    range_bytes: int = RANGE_BYTES,
) -> list[dict[str, Any]]:
    """Options of read tasks (`tilth.transforms.stage.Task.options`): JSON values that `read` understands.

    Uncompressed JSONL is cut into ranges of about `range_bytes`, Parquet into row groups, other files are read
    whole; all message-per-row files of one source are one task. `shape` is a name in `SHAPES`, `mapping` the URI of
    a column map; without both, each file's shape is detected.

    Raises `ConfigError` for an unknown shape, `BadInput` for a file whose rows have no known shape.
    """
    loaded = _mapping(shape, mapping)
    read = [_described(file, shape, loaded) for file in files]
    trees = [one for one in read if one["shape"] == "oasst"]
    tasks = [task for one in read if one["shape"] != "oasst" for task in _ranges(one, range_bytes)]
    return tasks + list(_by_source(trees))


def _mapping(shape: str | None, mapping: str | None) -> dict[str, Any] | None:
    if shape is not None and shape not in SHAPES:
        raise ConfigError(f"the format {shape!r}", wanted=f"one of {', '.join(SHAPES)}")
    if (shape == "map") != (mapping is not None) and shape is not None:
        raise ConfigError("a column map and the format `map` go together", found=f"format {shape!r}")
    return None if mapping is None else column_map.load(mapping)


def _described(file: SourceFile, shape: str | None, mapping: dict[str, Any] | None) -> dict[str, Any]:
    container = container_of(file)
    one = {**file.to_dict(), "container": container, "compression": file.compression}
    if mapping is not None:
        return _task(file, [one], "map", None, mapping)
    found = sniff(one)
    if shape is None and found.shape is None and found.confidence >= 0:
        raise _unknown(file, found)
    fits = shape is None or shape == found.shape
    return _task(file, [one], shape or found.shape, found.turns if fits else None, None)


def sniff(file: dict[str, Any]) -> Detection:
    """The shape of the first rows of a file; confidence -1 when it has no row that can be read."""
    rows = list(_sample(file))
    return detect(rows) if rows else replace(detect([]), confidence=-1.0)


def _sample(file: dict[str, Any]) -> Iterator[dict[str, Any]]:
    seen = found = 0
    for chunk in chunks(file):
        for index in range(0 if isinstance(chunk, SetAside) else len(chunk)):
            seen += 1
            try:
                yield record_of(chunk, index)  # type: ignore[arg-type]  (a chunk, by the range above)
                found += 1
            except Refused:
                pass
            if found == _SAMPLE_ROWS or seen == _SAMPLE_SEEN:
                return


def _unknown(file: SourceFile, found: Detection) -> BadInput:
    return BadInput(
        f"the rows of {file.uri!r} have no known shape",
        found="; ".join(found.reasons),
        wanted=f"one of {', '.join(SHAPES)}",
        do="name the shape with --format, or describe it in a column map with --map",
    )


def _task(
    file: SourceFile, files: list[dict[str, Any]], shape: str | None, turns: str | None, mapping: Any
) -> dict[str, Any]:
    return {"source": file.source, "files": files, "shape": shape, "turns": turns, "map": mapping}


def _ranges(task: dict[str, Any], range_bytes: int) -> Iterator[dict[str, Any]]:
    (file,) = task["files"]
    if file["container"] == "parquet":
        spans: Iterable[dict[str, Any]] = [
            {"row_groups": list(span)} for span in row_group_ranges(file["uri"]) or []
        ]
    elif file["container"] == "jsonl" and file["compression"] is None:
        bounds = [*range(0, file["size_bytes"], range_bytes), file["size_bytes"]]
        spans = [{"bytes": [a, b]} for a, b in pairwise(bounds)]
    else:
        spans = []
    for span in spans or [{}]:
        yield {**task, "files": [{**file, **span}]}


def _by_source(trees: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for source in dict.fromkeys(task["source"] for task in trees):
        own = [task for task in trees if task["source"] == source]
        yield {**own[0], "files": [file for task in own for file in task["files"]]}
