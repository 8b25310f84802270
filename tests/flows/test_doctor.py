"""The doctor names what is wrong and what to do, and says no secret."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from tilth.catalog import open_catalog
from tilth.flows import doctor
from tilth.flows.doctor import Finding, Status, examine
from tilth.flows.doctor_cli import doctor as command
from tilth.flows.locks import held, run_lock


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, an empty home, no server."""
    monkeypatch.chdir(tmp_path)
    for name in ("PREFECT_API_URL", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path


def _found(check: str, *, sources: bool = False) -> Finding:
    return next(one for one in examine(None, None, sources=sources) if one.check == check)


def test_a_new_folder_is_in_order() -> None:
    """Where nothing has run yet, nothing has failed; and what is not ok says what to do."""
    findings = examine(None, None)
    assert not [one for one in findings if one.status is Status.failed]
    assert all(one.do for one in findings if one.status is not Status.ok)
    assert not Path("tilth-workspace").exists(), "a doctor changes nothing"


def test_versions_that_do_not_fit_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package outside of the pins fails by name; with fastapi comes what that breaks."""
    honest = metadata.version
    changed = {"fastapi": "0.160.0", "polars": "1.9.0", "sqlalchemy": "2.1.9"}
    monkeypatch.setattr(metadata, "version", lambda name: changed.get(name) or honest(name))
    wrong = {one.check: one for one in examine(None, None) if one.status is Status.failed}
    assert set(wrong) == {"package fastapi", "package polars", "package sqlalchemy"}
    assert "schedules no run" in wrong["package sqlalchemy"].do
    assert "0.160.0" in wrong["package fastapi"].found
    assert "server does not start" in wrong["package fastapi"].do
    assert "polars<3,>=2.1" in wrong["package polars"].do


def test_a_token_is_found_and_never_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token of the Hub is looked for where its client looks; only the place is told."""
    assert _found("Hub token").status is Status.warning
    (folder / "hf").mkdir()
    (folder / "hf" / "token").write_text("hf_verysecret")
    assert _found("Hub token").status is Status.ok
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    findings = examine(None, None)
    assert "in HF_TOKEN" in [one.found for one in findings]
    assert "verysecret" not in repr(findings)


def test_a_server_that_does_not_answer_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """PREFECT_API_URL without a server behind it would fail every run."""
    assert _found("Prefect server").status is Status.ok
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert _found("Prefect server").status is Status.failed


def test_mistakes_in_the_settings_are_found(folder: Path) -> None:
    """A key that nobody knows fails, and so does a schedule that could not begin."""
    file = folder / "tilth.yaml"
    file.write_text("sorces: [a]\n")
    assert "sources" in _found("settings").do
    file.write_text("schedules: {a: {recipe: observed, every: 5m}, b: {recipe: rubrics, every: 5m}}\n")
    assert _found("schedule a").status is Status.failed
    assert "--from" in _found("schedule b").do


def test_sources_are_asked_for_only_when_told(folder: Path) -> None:
    """--sources says how many files there are, and which address holds none."""
    (folder / "a.jsonl").write_text("{}")
    settings = {"recipe": "observed", "every": "5m", "settings": {"sources": ["gone/*.jsonl"]}}
    (folder / "tilth.yaml").write_text(json.dumps({"sources": ["*.jsonl"], "schedules": {"a": settings}}))
    assert "sources" not in [one.check for one in examine(None, None)]
    assert _found("sources", sources=True).found == "1 files"
    assert _found("sources of a", sources=True).status is Status.failed


def test_the_catalog_is_tried_and_left_as_it_was(folder: Path) -> None:
    """A catalog that can be written is ok and unchanged; while another process writes, that is said, not waited for."""
    open_catalog("tilth-workspace").close()
    path = folder / "tilth-workspace" / "catalog" / "catalog.db"
    before = path.read_bytes()
    assert _found("catalog").status is Status.ok
    assert path.read_bytes() == before
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("begin immediate")
        assert "another process" in _found("catalog").found
    other.close()


def test_a_catalog_that_is_broken_fails(folder: Path) -> None:
    """What is no database is a failure, not a crash of the doctor."""
    path = folder / "tilth-workspace" / "catalog" / "catalog.db"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database" * 100)
    assert _found("catalog").status is Status.failed


def test_runs_left_unfinished_are_counted(folder: Path) -> None:
    """Stages of a run that nobody works on are a warning; those of a live run are not."""
    home = folder / "tilth-workspace"
    for run in ("one", "two"):
        (home / "runs" / run / "stages").mkdir(parents=True)
    with held(run_lock(str(home), "one")):
        found = _found("runs")
    assert (found.status, found.found[:28]) == (Status.warning, "1 at work, 1 left unfinished")


@pytest.mark.parametrize(("gib", "status"), [(50, "ok"), (2, "warning"), (0.1, "failed")])
def test_a_full_disk_is_seen(gib: float, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Little room is a warning, next to none a failure."""
    usage = SimpleNamespace(free=int(gib * (1 << 30)))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    assert _found("disk").status == status


def test_a_driver_that_hangs_does_not_hang_the_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    """nvidia-smi that gives no answer is a warning."""

    def hung(command: list[str], **options: object) -> None:
        raise subprocess.TimeoutExpired(command, 1.5)

    monkeypatch.setattr(doctor.subprocess, "run", hung)
    assert _found("GPU").status is Status.warning


def test_the_exit_code_is_that_of_failures(folder: Path) -> None:
    """Warnings exit with 0, failures with 1; --json is a list of findings and nothing else."""
    app = typer.Typer()
    app.command()(command)
    good = CliRunner().invoke(app, ["--json"])
    assert good.exit_code == 0
    assert {"check", "status", "found", "do"} == set(json.loads(good.stdout)[0])
    (folder / "tilth.yaml").write_text("sorces: [a]\n")
    bad = CliRunner().invoke(app, [])
    assert bad.exit_code == 1
    assert "failed" in bad.output
