"""`tilth export`: a dataset of the catalog in the columns that a trainer reads. Thin: the projections are pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any  # Any: JSON values

import polars as pl

from tilth.catalog import Catalog, Version, open_catalog, releases_behind
from tilth.schemas import BadInput
from tilth.schemas.formats import FORMATS, Format
from tilth.transforms.inference.tables import TableWriter


def export(
    workspace: str, name: str, format_name: str, output: str | None, split: str | None
) -> dict[str, Any]:
    """Writes a dataset, `FAMILY.TABLE[@VERSION]`, in a training format; the file appears whole or not at all.

    `output` is a `.parquet` or `.jsonl` on any fsspec file system, by default named after dataset and format here.
    With `split`, only its rows. Raises `BadInput` for a format that is not made of this table, or without any row.
    """
    form = _format(format_name)
    with open_catalog(workspace, create=False) as catalog:
        version = catalog.resolve(name)
        if version.table != form.table:
            wanted = f"a dataset of {form.table}, as FAMILY.{form.table}"
            do = f"of {version.table}: {', '.join(_formats_of(version.table)) or 'none'}"
            raise BadInput(f"the format {form.name}", found=version.name, wanted=wanted, do=do)
        frames = _frames(catalog, version, form)
    if split is not None:
        frames[form.table] = frames[form.table].filter(pl.col("split") == split)
    rows = form.project(frames)
    if rows.is_empty():
        do = "see what there is: tilth catalog query 'select split, count(*) from ... group by 1'"
        raise BadInput("nothing to export", found=f"no row for {form.name}, split {split or 'any'}", do=do)
    target = output or f"{version.name}-{version.version}.{form.name}.parquet"
    with TableWriter(target) as out:
        out.write(rows)
    told = {"dataset": version.name, "version": version.version, "format": form.name, "split": split}
    return {**told, "output": target, "rows": rows.height, "columns": rows.columns}


def formats() -> list[dict[str, str]]:
    """The formats that there are: name, the table each is made of, what it is for."""
    return [{"format": one.name, "table": one.table, "is for": one.describe} for one in FORMATS.values()]


def _format(name: str) -> Format:
    if name not in FORMATS:
        do = "tilth export --list says what each is for"
        raise BadInput("unknown format", found=name, wanted=", ".join(FORMATS), do=do)
    return FORMATS[name]


def _formats_of(table: str) -> list[str]:
    return [one.name for one in FORMATS.values() if one.table == table]


def _frames(catalog: Catalog, version: Version, form: Format) -> dict[str, pl.DataFrame]:
    """The dataset, and the other tables that the format reads, from its release and those it was made from."""
    from tilth.catalog.parts import scan

    behind = releases_behind(catalog, version)
    frames = {form.table: scan(form.table, version.files).collect()}
    for table in form.needs:
        uris = [uri for files in behind for uri in files.get(table, ())]
        frames[table] = scan(table, uris).collect()
    return frames


def print_export(told: Mapping[str, Any]) -> None:
    """Says what was written."""
    from tilth.flows.show import print_rows

    print_rows(
        [{"": key, "what": told[key]} for key in ("dataset", "version", "format", "rows", "output")], ""
    )
