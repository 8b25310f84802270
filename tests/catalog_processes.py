"""Processes that change one catalog at the same time, and what must be true of it then, on any database."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tilth.catalog import open_catalog

WORKER = """
import datetime, json, sys, pathlib, os
import polars as pl
import pyarrow.parquet as pq
from tilth.catalog import Release, collect, open_catalog
from tilth.schemas import TABLES, NotFound, BadInput, polars_schema

how = json.loads(sys.argv[1])
DAY = datetime.date(2026, 11, 21)

def row(table, run):
    schema = polars_schema(table)
    frame = pl.DataFrame([{**dict.fromkeys(schema), "id": run}], schema=schema)
    return frame.to_arrow().cast(TABLES[table])

def publish(catalog, family, run):
    files = {}
    for table in how["tables"]:
        directory = pathlib.Path(catalog.staging(family, table, run))
        directory.mkdir(parents=True)
        uri = str(directory / "0.parquet")
        pq.write_table(row(table, run), uri)
        os.utime(uri, (0, 0))  # old enough to be swept, were it not for the live run
        files[table] = [uri]
    return catalog.publish(Release(family, run, files, date=DAY))[0]

with open_catalog(how["workspace"], database=how["database"], warehouse=how["warehouse"]) as catalog:
    print("ready", flush=True)
    sys.stdin.readline()  # all begin at once
    for number in range(how["count"]):
        run = f"w{how['worker']}-{number}"
        if how["does"] == "publish":
            made = publish(catalog, "observed", run)
        elif how["does"] == "publish and tag":
            made = publish(catalog, "observed", run)
            catalog.tag("observed", made.version, f"tag-{run}")
            catalog.tag("observed", made.version, "latest-of-all", move=True)
        elif how["does"] == "publish and drop":
            made = publish(catalog, "observed", run)
            catalog.drop("observed", made.version)
            if number % 2:
                catalog.restore("observed", made.version)
        elif how["does"] == "rename":
            try:
                catalog.rename("observed", f"name_{run.replace('-', '_')}")
            except NotFound:  # renamed by another, and not made again yet
                pass
        elif how["does"] == "collect":
            zero = datetime.timedelta(0)
            collect(catalog, how["workspace"], grace=zero, live=lambda _, run: run.startswith("w"))
"""


def _together(workspace: Path, jobs: list[tuple[str, int]], database: str | None = None) -> None:
    """Runs one process for each (what it does, how often), all at once."""
    how = {"workspace": str(workspace), "database": database, "tables": ["pairs", "unpaired"]}
    how["warehouse"] = str(workspace / "house")
    commands = [
        [sys.executable, "-c", WORKER, json.dumps({**how, "does": does, "count": count, "worker": number})]
        for number, (does, count) in enumerate(jobs)
    ]
    pipe = subprocess.PIPE
    workers = [
        subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=pipe) for command in commands
    ]
    for worker in workers:
        assert worker.stdout
        worker.stdout.readline()
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        _, errors = worker.communicate(timeout=240)
        assert worker.returncode == 0, errors


def _runs(jobs: list[tuple[str, int]], does: str) -> set[str]:
    return {f"w{n}-{i}" for n, (done, count) in enumerate(jobs) if done == does for i in range(count)}


def check_publishes(workspace: Path, count: int, database: str | None = None) -> None:
    """Eight processes publish: every version, in every table, with its row, under one label each and no gap."""
    jobs = [("publish", count)] * 8
    _together(workspace, jobs, database)
    with open_catalog(str(workspace), database=database, warehouse=str(workspace / "house")) as catalog:
        expected = [f"2026.11.21.{number}" for number in range(8 * count, 0, -1)]
        rows = []
        for table in ("pairs", "unpaired"):
            versions = catalog.versions(f"observed.{table}")
            assert [version.version for version in versions] == expected
            assert {version.rows for version in versions} == {1}
            refs = catalog._iceberg.load_table(("observed", table)).refs()
            assert set(expected) == refs.keys() - {"main"}
            rows.append(
                {v.version: catalog.arrow(f"{v.name}@{v.version}")["id"][0].as_py() for v in versions}
            )
        assert rows[0] == rows[1]
        assert set(rows[0].values()) == _runs(jobs, "publish")


def check_changes(workspace: Path, count: int, database: str | None = None) -> None:
    """Publishing, tagging, dropping, restoring and collecting at once: each does what it does alone."""
    jobs = [("publish and tag", count), ("publish and tag", count)]
    jobs += [("publish and drop", count + 1), ("collect", 2 * count)]
    _together(workspace, jobs, database)
    with open_catalog(str(workspace), database=database, warehouse=str(workspace / "house")) as catalog:
        found = {v.properties["tilth.run_id"]: v for v in catalog.versions("observed.pairs")}
        dropped = {run for run in _runs(jobs, "publish and drop") if int(run.rpartition("-")[2]) % 2 == 0}
        everything = _runs(jobs, "publish and tag") | _runs(jobs, "publish and drop")
        assert found.keys() == everything - dropped
        for run, version in found.items():
            for table in ("pairs", "unpaired"):
                name = f"observed.{table}@{version.version}"
                assert catalog.arrow(name)["id"].to_pylist() == [run]
        tagged = {f"tag-{run}": found[run].version for run in _runs(jobs, "publish and tag")}
        tags = catalog.tags("observed")
        assert tags.pop("latest-of-all") in tagged.values()
        assert tags == tagged
        expired = {left.run_id for left in catalog._iceberg.labels("observed").expired.values()}
        left = {
            catalog._iceberg.labels("observed").dropped[label].run_id for label in catalog.dropped("observed")
        }
        assert expired | left == dropped


def check_renames(workspace: Path, count: int, database: str | None = None) -> None:
    """While a family is renamed again and again, every run is published once, whole, somewhere."""
    jobs = [("publish", count)] * 2 + [("rename", count)]
    _together(workspace, jobs, database)
    with open_catalog(str(workspace), database=database, warehouse=str(workspace / "house")) as catalog:
        found = []
        for name in catalog.datasets():
            for version in catalog.versions(name):
                assert len(catalog.release(version)) == 2
                assert catalog.arrow(f"{name}@{version.version}").num_rows == 1
                if version.table == "pairs":
                    found.append(version.properties["tilth.run_id"])
                    assert catalog.resolve(f"observed.pairs@{version.version}") == version
        assert sorted(found) == sorted(_runs(jobs, "publish"))
