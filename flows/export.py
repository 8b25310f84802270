"""`tilth export`: a dataset of the catalog in the columns that a trainer reads. Thin: the projections are pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any  # Any: JSON values

import fsspec
import polars as pl

from tilth.catalog import Catalog, Version, open_catalog, releases_behind
from tilth.schemas import BadInput
from tilth.schemas.formats import FORMATS, Format, Made, Projection
from tilth.transforms.inference.tables import WRITES, TableWriter


def export(
    workspace: str, name: str, format_name: str, output: str | None, split: str | None
) -> dict[str, Any]:
    """Writes a dataset, `FAMILY.TABLE[@VERSION]`, in a training format; each file appears whole or not at all.

    `output` is a file, named after dataset and format here by default, or a folder, which gets one Parquet file for
    each split; on any fsspec file system. With `split`, only its rows. Returns what was written, and how many rows of
    the dataset were left out, by reason. Raises `BadInput` for a format that is not made of this table, a file that its
    trainer does not read, or without any row.
    """
    form = _format(format_name)
    with open_catalog(workspace, create=False) as catalog:
        version = catalog.resolve(name)
        projection = _projection(form, version)
        frames = _frames(catalog, version, projection)
    target = output or f"{version.name}-{version.version}.{form.name}.parquet"
    made = {
        uri: projection.make(version.table, {**frames, version.table: rows})
        for uri, rows in _parts(form, target, frames[version.table], split).items()
    }
    left_out = sum((Counter(one.left_out) for one in made.values()), Counter[str]())
    _refuse_nothing(form, split, made, left_out)
    for uri, one in made.items():
        with TableWriter(uri) as out:
            out.write(one.rows)
    beside = [_add_entries(form, file, version, list(made)) for file in form.beside]
    files = {uri: one.rows.height for uri, one in made.items()}
    told = {"dataset": version.name, "version": version.version, "format": form.name, "split": split}
    rows_in = frames[version.table].filter(_of_split(split)).height
    counts = {"rows_in": rows_in, "left_out": dict(left_out), "rows": sum(files.values())}
    columns = next(iter(made.values())).rows.columns
    return {**told, **counts, "output": target, "files": files, "beside": beside, "columns": columns}


def formats() -> list[dict[str, str]]:
    """The formats that there are: name, the tables each can be made of, what it is for."""
    return [{"format": one.name, "of": ", ".join(one.of), "is for": one.describe} for one in FORMATS.values()]


def _format(name: str) -> Format:
    if name not in FORMATS:
        do = "tilth export --list says what each is for"
        raise BadInput("unknown format", found=name, wanted=", ".join(FORMATS), do=do)
    return FORMATS[name]


def _projection(form: Format, version: Version) -> Projection:
    if version.table not in form.of:
        wanted = f"a dataset of {' or '.join(form.of)}, as FAMILY.{next(iter(form.of))}"
        fitting = [one.name for one in FORMATS.values() if version.table in one.of]
        do = f"of {version.table}: {', '.join(fitting) or 'none'}"
        raise BadInput(f"the format {form.name}", found=version.name, wanted=wanted, do=do)
    return form.of[version.table]


def _frames(catalog: Catalog, version: Version, projection: Projection) -> dict[str, pl.DataFrame]:
    """The dataset, and the other tables that the format reads, from its release and those it was made from."""
    from tilth.catalog.parts import scan

    behind = releases_behind(catalog, version)
    frames = {version.table: scan(version.table, version.files).collect()}
    for table in projection.needs:
        uris = [uri for files in behind for uri in files.get(table, ())]
        frames[table] = scan(table, uris).collect()
    return frames


def _of_split(split: str | None) -> pl.Expr:
    return pl.lit(True) if split is None else pl.col("split") == split


def _parts(form: Format, target: str, rows: pl.DataFrame, split: str | None) -> dict[str, pl.DataFrame]:
    """The rows of the dataset by the file that they go to: all to a file, or each split to one of a folder."""
    chosen = rows.filter(_of_split(split))
    if _is_folder(target):
        named = chosen.with_columns(pl.col("split").fill_null("train"))
        parts = named.partition_by("split", as_dict=True, maintain_order=True)
        return {f"{target.rstrip('/')}/{of}.parquet": part for (of,), part in parts.items()}
    ending = target.lower().rpartition(".")[2]
    if f".{ending}" in WRITES and f".{ending}" not in form.forms:
        wanted = " or ".join(form.forms)
        raise BadInput(f"a file that {form.name} is not read from", found=f".{ending}", wanted=wanted)
    return {target: chosen}


def _is_folder(target: str) -> bool:
    fs, path = fsspec.core.url_to_fs(target)
    return target.endswith("/") or "." not in target.rpartition("/")[2] or fs.isdir(path)


def _refuse_nothing(
    form: Format, split: str | None, made: Mapping[str, Made], left_out: Mapping[str, int]
) -> None:
    if any(one.rows.height for one in made.values()):
        return
    why = "; ".join(f"{count} left out: {reason}" for reason, count in left_out.items())
    found = f"no row for {form.name}, split {split or 'any'}" + (f"; {why}" if why else "")
    do = "see what there is: tilth catalog query 'select split, count(*) from ... group by 1'"
    raise BadInput("nothing to export", found=found, do=do)


def _add_entries(form: Format, file: str, version: Version, uris: list[str]) -> str:
    """Adds an entry for each file of rows to a JSON file beside them; entries of other files stay."""
    folder = uris[0].rpartition("/")[0]
    uri = f"{folder}/{file}" if folder else file
    fs, path = fsspec.core.url_to_fs(uri)
    entries = _object(fs.cat_file(path), uri) if fs.exists(path) else {}
    for each in uris:
        name = each.rpartition("/")[2]
        entry = form.beside[file](version.table, name)
        entries[name.rpartition(".")[0]] = entry
    fs.pipe_file(path, json.dumps(entries, indent=2, sort_keys=True, ensure_ascii=False).encode())
    return uri


def _object(data: bytes, uri: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BadInput(
            f"{uri} is in the way", found="not a JSON object", do="move it, or name another folder"
        )
    return found


def print_export(told: Mapping[str, Any]) -> None:
    """Says what was written, and what was left out and why."""
    from tilth.flows.show import print_rows

    keys = ("dataset", "version", "format", "rows_in", "rows", "output")
    print_rows([{"": key.replace("_", " "), "what": told[key]} for key in keys], "")
    if list(told["files"]) != [told["output"]]:
        print_rows([{"file": uri, "rows": rows} for uri, rows in told["files"].items()], "")
    if told["beside"]:
        print_rows([{"beside": uri} for uri in told["beside"]], "")
    if told["left_out"]:
        print_rows([{"rows": rows, "left out because": why} for why, rows in told["left_out"].items()], "")
