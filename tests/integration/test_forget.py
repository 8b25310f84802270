"""`tilth catalog forget` on real runs: nothing of a forgotten user is left in a workspace, and all of the others is."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import fastavro
import polars as pl
import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tilth.catalog import audit, open_catalog, releases_behind
from tilth.flows import forget as room
from tilth.flows.conductor import Conductor
from tilth.flows.forget import Request, forget, undo
from tilth.flows.forget_cli import forget as command
from tilth.flows.locks import held, run_lock
from tilth.flows.run import run
from tilth.flows.settings import load
from tilth.schemas import BadInput, TilthError
from tilth.transforms.inference.cache import CompletionCache
from tilth.transforms.inference.requests import Completion
from tilth.transforms.ingest.fields import user_key
from tilth.transforms.shell import Runner
from tilth.transforms.stage import Stage, Task, run_tasks

KINDS = ("recovered", "content", "same question", "same id", "broken", "again")
Said = tuple[str, str]  # who, and one of KINDS
Rows = dict[tuple[str, str, str], list[dict[str, Any]]]  # family, label, table -> rows


@contextlib.contextmanager
def here(self: Runner, *_: object, **__: object) -> Generator[Any]:
    """Runs the tasks of a stage one after the other, without Beam."""

    def execute(stage: Stage, tasks: Sequence[Task]) -> None:
        run_tasks(tasks, stage)

    yield execute


@pytest.fixture(scope="module", autouse=True)
def _without_beam() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, "session", here)
        yield


def mark(user: str) -> str:
    """A word that is in every turn of a user's conversations, and nowhere else."""
    return f"zq{user}zq"


def record(number: int, user: str, kind: str) -> dict[str, Any]:
    """A record of a log; those of a kind that is shared begin with the very words of others."""
    word = mark(user)
    said = [
        "How do I repair a kettle? Answer in at most 20 words."
        if kind == "same question"
        else f"How do I repair kettle {number} {word}? Answer in at most 20 words.",
        f"People have owned kettles {word} for long, so that number {number} hangs in a museum {word} today.",
        f"No, that's wrong {word}. You left out the glue for {word}.",
        f"Unscrew plate {number}, warm the glue {word}, press it together, wait.",
        f"perfect, that is exactly what I needed, thank you {word}",
    ]
    turns = [{"role": ("user", "assistant")[at % 2], "content": one} for at, one in enumerate(said)]
    name = "shared" if kind == "same id" else "twice" + user if kind == "again" else f"c{number}"
    messages = word if kind == "broken" else turns[-3:] if kind == "content" else turns
    if kind == "content":
        messages = [turns[0], turns[1], turns[4]]
    return {"id": name, "user": user, "messages": messages}


def written(path: Path, log: Sequence[Said]) -> str:
    rows = [record(number, user, kind) for number, (user, kind) in enumerate(log)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def made(workspace: Path, recipe: str, **options: Any) -> str:
    """One run; gives its label."""
    given = {"workspace": str(workspace), "max_quarantine_share": 1.0, **options}
    return run(recipe, load(options=given), Conductor()).datasets[0].version


def asked(workspace: Path, *, dry_run: bool = False, **request: Any) -> dict[str, Any]:
    return forget(load(options={"workspace": str(workspace)}), Request(**request), dry_run=dry_run)


def everything(workspace: Path) -> Rows:
    """All rows at every version."""
    with open_catalog(str(workspace), create=False) as catalog:
        return {
            (version.family, version.version, version.table): catalog.frame(f"{name}@{version.version}")
            .collect()
            .to_dicts()
            for name in catalog.datasets()
            for version in catalog.versions(name)
        }


def resting(release: dict[str, list[dict[str, Any]]], conversations: set[str]) -> set[str]:
    """By hand: the ids of rows that name a conversation, or a row that does; prompts are nobody's."""
    gone, before = set(conversations), -1
    while len(gone) != before:
        before = len(gone)
        for rows in release.values():
            gone |= {row["id"] for row in rows if gone & set(_named(row))}
    return gone


def _named(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _named(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _named(inner, name)
    elif isinstance(value, str) and name.endswith(("_id", "_ids")) and name != "prompt_id":
        yield value


def files_with(workspace: Path, word: str) -> list[str]:
    """The files in which a word stands, those of a kind that packs its content unpacked."""
    return [str(path) for path in workspace.rglob("*") if path.is_file() and word in _text(path)]


def _text(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix == ".parquet":
        return pl.read_parquet(path).write_json()
    if path.suffix == ".avro":  # the bounds of columns are beginnings of their texts
        return str(list(fastavro.reader(io.BytesIO(data))))
    return data.decode("utf-8", "replace")


def audits(workspace: Path) -> list[str]:
    """The critical checks that fail, at every version."""
    with open_catalog(str(workspace), create=False) as catalog:
        latest = {name.partition(".")[0]: catalog.resolve(name) for name in catalog.datasets()}
        reports = []
        for version in latest.values():
            own, *parents = releases_behind(catalog, version)
            reports.append(audit(own, parents=parents))
    return [f"{check.table}: {check.column}" for report in reports for check in report.failed_critical]


def assert_only_others(workspace: Path, before: Rows, users: set[str]) -> None:
    """Every row of the newest releases before that rests on nobody of `users` is there as it was, in order."""
    after = everything(workspace)
    newest = {family: label for family, label, _ in sorted(before)}
    now = {family: label for family, label, _ in sorted(after)}
    release = {
        table + family: rows for (family, label, table), rows in before.items() if newest[family] == label
    }
    keys = {user_key(user, "") for user in users}
    theirs = {row["id"] for row in release["conversationsobserved"] if row["user_key"] in keys}
    gone = resting({name: rows for name, rows in release.items() if "quarantine" not in name}, theirs)
    for (family, label, table), rows in before.items():
        if newest[family] == label and table != "quarantine":
            assert after[family, now[family], table] == [row for row in rows if row["id"] not in gone]
    for rows in after.values():
        assert not [row["id"] for row in rows if gone & {row["id"], *_named(row)}]


people = st.sampled_from(["ann", "ben", "cat"])


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(log=st.lists(st.tuples(people, st.sampled_from(KINDS)), min_size=4, max_size=10), user=people)
def test_nothing_of_a_forgotten_user_is_left(
    log: list[Said], user: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whoever said what: after a purge no version and no file holds their word, the others' rows are as they were,
    audits are green, and a run over the same logs does not bring them back.
    """
    base = tmp_path_factory.mktemp("forget")
    workspace = base / "workspace"
    source = written(base / "log.jsonl", [("dan", "recovered"), (user, "recovered"), *log])
    made(workspace, "observed", sources=[source], keep_stages=True)
    before = everything(workspace)
    receipt = asked(workspace, user=user, purge=True)
    assert receipt["rows_removed"]["observed.conversations"] == receipt["conversations"] > 0
    assert_only_others(workspace, before, {user})
    assert files_with(workspace, mark(user)) == []
    assert audits(workspace) == []
    made(workspace, "observed", sources=[source], keep_stages=True)
    assert files_with(workspace, mark(user)) == []
    (rows,) = [
        rows for (_, label, table), rows in everything(workspace).items()
        if table == "quarantine" and label != receipt["versions_made"][0]["to"].partition("@")[2]
    ]  # fmt: skip
    assert sum(row["source_rows"] for row in rows if row["reason"] == "forgotten") == receipt["conversations"] + sum(
        row["source_rows"] for row in before["observed", _only(before), "quarantine"]
        if row["stage"] == "assign" and mark(user) in (row["payload"] or "")
    )  # fmt: skip


def _only(rows: Rows) -> str:
    (label,) = {label for _, label, _ in rows}
    return label
