"""`tilth catalog forget` on real runs: nothing of a forgotten user is left in a workspace, and all of the others is."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
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

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_beam_or_gx")]

KINDS = ("recovered", "content", "same question", "same id", "broken", "again")
Said = tuple[str, str]  # who, and one of KINDS
Rows = dict[tuple[str, str, str], list[dict[str, Any]]]  # family, label, table -> rows


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
            gone |= {one["id"] for row in rows if row["id"] in gone for one in row.get("criteria", ())}
    return gone


def _named(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _named(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _named(inner, name)
    elif isinstance(value, str) and name.endswith(("_id", "_ids", "attribute")) and name != "prompt_id":
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


@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(log=st.lists(st.tuples(people, st.sampled_from(KINDS)), min_size=6, max_size=10), user=people)
def test_nothing_of_a_forgotten_user_is_left(
    log: list[Said], user: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whoever said what: after a purge no version and no file holds their word, the others' rows are as they were,
    and audits are green.
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


def test_everything_that_was_made_of_a_user_goes(tmp_path: Path) -> None:
    """Derived families, older and dropped versions, staged parts, stages that were kept, answers: all of it
    goes; what was made of others stays, and its references resolve.
    """
    workspace = tmp_path / "workspace"
    log = [(user, "recovered") for user in ("ann", "ben", "cat")] + [
        ("ann", "same question"),
        ("ben", "same question"),
    ]
    old = made(workspace, "observed", sources=[written(tmp_path / "old.jsonl", log[:2])], keep_stages=True)
    made(workspace, "rationales", dataset="observed.pairs", keep_stages=True)
    made(workspace, "observed", sources=[written(tmp_path / "log.jsonl", log)], keep_stages=True)
    made(workspace, "rubrics", dataset="observed.pairs", keep_stages=True)
    with open_catalog(str(workspace)) as catalog:
        staged = Path(catalog.staging("observed", "pairs", "failed")) / "0.parquet"
        staged.parent.mkdir(parents=True)
        catalog.frame(f"observed.pairs@{old}").collect().write_parquet(staged)
    cached = f"sqlite:///{workspace}/cache/answers.sqlite"
    with CompletionCache(cached) as cache:
        cache.put("key", "model", Completion(f"as {mark('ann')} said", "stop", 1, 1))
    (workspace / "sheet.csv").write_text("for people")
    before = everything(workspace)
    forecast = asked(workspace, user="ann", purge=True, dry_run=True)
    assert everything(workspace) == before
    receipt = asked(workspace, user="ann", purge=True)
    assert_only_others(workspace, before, {"ann"})
    assert files_with(workspace, mark("ann")) == []
    assert audits(workspace) == []
    assert receipt["rows_removed"] == forecast["rows_removed"]
    assert len(receipt["versions_made"]) == len(receipt["versions_expired"]) == 4
    assert (receipt["answers_deleted"], "sheet.csv" in receipt["not_searched"]) == (1, True)
    assert files_with(workspace, '"ann"') == []  # nor the raw id, in ledger and receipt
    assert asked(workspace, user="ann", purge=True)["status"] == "nothing to do"
    again = made(workspace, "observed", sources=[str(tmp_path / "log.jsonl")], keep_stages=True)
    assert files_with(workspace, mark("ann")) == []
    aside = everything(workspace)["observed", again, "quarantine"]
    assert sum(row["source_rows"] for row in aside if row["reason"] == "forgotten") == 2


def test_without_purge_old_versions_stay_until_one(tmp_path: Path) -> None:
    """Forgetting alone leaves the old version, which a rollback brings back; the same request with purge ends it."""
    workspace = tmp_path / "workspace"
    source = written(tmp_path / "log.jsonl", [("ann", "recovered"), ("ben", "recovered")])
    old = made(workspace, "observed", sources=[source])
    before = everything(workspace)
    first = asked(workspace, key=user_key("ann", ""))
    assert first["versions_expired"] == []
    assert {key: rows for key, rows in everything(workspace).items() if key[1] == old} == before
    second = asked(workspace, key=user_key("ann", ""), purge=True)
    assert second["versions_expired"] == [f"observed@{old}"]
    assert second["versions_made"] == []
    assert files_with(workspace, mark("ann")) == []
    undo(str(workspace), first["receipt"])
    made(workspace, "observed", sources=[source])
    assert files_with(workspace, mark("ann")) != []


def test_a_purge_that_was_cut_off_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the versions went and before files did, the same command deletes what is left."""
    workspace = tmp_path / "workspace"
    made(
        workspace,
        "observed",
        sources=[written(tmp_path / "log.jsonl", [("ann", "recovered"), ("ben", "content")])],
    )
    with open_catalog(str(workspace)) as catalog:
        staged = Path(catalog.staging("observed", "pairs", "failed")) / "0.parquet"
        staged.parent.mkdir(parents=True)
        catalog.frame("observed.pairs").collect().write_parquet(staged)
    real = room.expired

    def killed(*given: Any) -> set[str]:
        real(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(room, "expired", killed)
        with pytest.raises(KeyboardInterrupt):
            asked(workspace, user="ann", purge=True)
    assert files_with(workspace, mark("ann")) == [str(staged)]
    assert asked(workspace, user="ann", purge=True)["status"] == "forgotten"
    assert files_with(workspace, mark("ann")) == []
    assert asked(workspace, user="ann", purge=True)["status"] == "nothing to do"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of which each test forgets somebody else."""
    base = tmp_path_factory.mktemp("shared")
    log = [("ann", "recovered"), ("ben", "content"), ("cat", "recovered"), ("cat", "content")]
    made(base / "workspace", "observed", sources=[written(base / "log.jsonl", log)])
    return base / "workspace"


def test_a_purge_waits_for_nobody(shared: Path) -> None:
    """While a run is at work a purge is refused, and nothing has changed."""
    before = everything(shared)
    with held(run_lock(str(shared), "some-run")):
        with pytest.raises(TilthError, match="some-run"):
            asked(shared, user="ann", purge=True)
        assert everything(shared) == before


def test_one_conversation_is_forgotten(shared: Path) -> None:
    """What rests on it goes, the user's others stay; an id of another kind is refused without being repeated."""
    rows = _conversations(shared)
    gone = next(row for row in rows if row["user_key"] == user_key("cat", ""))
    receipt = asked(shared, conversation=gone["id"])
    assert receipt["rows_removed"]["observed.conversations"] == 1
    assert _conversations(shared) == [row for row in rows if row != gone]
    with pytest.raises(BadInput) as raised:
        asked(shared, conversation="ann@example.org")
    assert "ann@" not in str(raised.value)


def _conversations(workspace: Path) -> list[dict[str, Any]]:
    with open_catalog(str(workspace), create=False) as catalog:
        return catalog.frame("observed.conversations").collect().to_dicts()


def test_the_command(shared: Path) -> None:
    """--dry-run prints the receipt that would be; a purge with nobody to ask needs --yes; --json prints JSON alone."""
    app = typer.Typer()
    app.command()(command)
    line = ["--user-id", "ben", "-w", str(shared)]
    seen = json.loads(CliRunner().invoke(app, [*line, "--dry-run", "--json"]).stdout)
    assert (seen["status"], seen["asked"]["users"]) == ("forecast", [user_key("ben", "")])
    refused = CliRunner().invoke(app, [*line, "--purge"])
    assert (refused.exit_code, "--yes" in refused.output) == (2, True)
    done = json.loads(CliRunner().invoke(app, [*line, "--purge", "--yes", "--json"]).stdout)
    assert done["rows_removed"] == seen["rows_removed"]
    kept = json.loads((shared / "catalog" / "receipts" / f"{done['receipt']}.json").read_text())
    assert kept == done
    assert "nothing to do" in CliRunner().invoke(app, line).stdout
