"""`tilth up` as its users have it: a process with a server and a runner below it, over a folder that logs arrive in."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tilth.catalog import open_catalog
from tilth.flows.prefect_api import Api
from warm import warm_tilth

pytestmark = [
    pytest.mark.slow,
    pytest.mark.prefect,
    pytest.mark.xdist_group("prefect"),
    pytest.mark.timeout(900),
]
LOGS = Path(__file__).resolve().parents[2] / "samples" / "logs"
PATIENCE_S = 240.0  # on a machine that does much else
GONE_S = 10.0  # what Ctrl-C and kill -9 may take
TILTH = (sys.executable, "-m", "tilth.flows.cli")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Served:
    """A folder with a settings file and logs, and the `tilth up` over it."""

    folder: Path
    port: int
    lines: queue.Queue[str] = field(default_factory=queue.Queue)
    seen: list[str] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        environment = {name: text for name, text in os.environ.items() if not name.startswith("PREFECT_")}
        self.process = process = subprocess.Popen(
            [*TILTH, "up", "--config", str(self.folder / "tilth.yaml"), "--port", str(self.port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**environment, "HOME": str(self.folder / "home")},
        )
        threading.Thread(target=self._read, args=(process,), daemon=True).start()
        return process

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        for line in process.stdout:
            self.lines.put(line.rstrip("\n"))
        process.stdout.close()

    def until(self, pattern: str) -> re.Match[str]:
        """Waits for a line."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.seen.append(self.lines.get(timeout=max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                pytest.fail(f"no line like {pattern!r} in\n" + "\n".join(self.seen))
            if found := re.search(pattern, self.seen[-1]):
                return found

    def schedule(self, **schedules: object) -> None:
        """Writes the settings file."""
        beside = self.folder / "next.yaml"
        beside.write_text(yaml.safe_dump({"schedules": schedules}))
        beside.replace(self.folder / "tilth.yaml")

    def tilth(self, *arguments: str, check: bool = True) -> Any:
        """What a command prints as JSON."""
        command = [str(warm_tilth()), *arguments, "--json", "--config", str(self.folder / "tilth.yaml")]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=check).stdout)

    def completed(self) -> dict[str, Any]:
        """How a run that is asked for ends."""
        deadline = time.monotonic() + PATIENCE_S
        # One that the schedule began just before it was paused is at work still, and another is then skipped.
        while (told := self.tilth("flow", "run", "quick", "--wait", check=False))["state"] == "Cancelled":
            assert time.monotonic() < deadline, "every run is skipped"
        return told

    def versions(self) -> dict[str, int]:
        """The versions that were made, with their rows."""
        with open_catalog(str(self.folder / "tilth-workspace")) as catalog:
            made = catalog.versions("observed.conversations") if catalog.datasets() else []
            return {one.version: one.rows for one in made}

    def wait_for(self, *, at_work: bool) -> None:
        """Waits until a run is at work, or none."""
        deadline = time.monotonic() + PATIENCE_S
        while any("prefect.engine" in _words(one) for one in self.below()) is not at_work:
            time.sleep(0.1)  # psutil takes a core otherwise
            assert time.monotonic() < deadline, f"no moment with a run at work: {at_work}"

    def below(self) -> list[psutil.Process]:
        """`up` and all processes that it has started, with what those have started."""
        assert self.process
        up = psutil.Process(self.process.pid)
        return [up, *up.children(recursive=True)]


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "logs").mkdir()
    _drop(folder, 1, 0, 20)
    served = Served(folder, _free_port())
    served.schedule(quick=_quick())
    served.start()
    served.until(r"quick: observed, every 5s, next")
    yield served
    assert served.process
    left = served.below() if served.process.poll() is None else []
    for process in left:
        process.kill()
    served.process.wait(GONE_S)


def _quick(**more: object) -> dict[str, object]:
    return {"recipe": "observed", "every": "5s", "settings": {"sources": ["logs/*.jsonl"]}, **more}


def _drop(folder: Path, number: int, start: int, stop: int) -> None:
    """A file of logs arrives whole."""
    lines = (LOGS / "support.openai.jsonl").read_bytes().splitlines(keepends=True)[start:stop]
    beside = folder / "arriving"
    beside.write_bytes(b"".join(lines))
    beside.rename(folder / "logs" / f"{number}.jsonl")


def _gone(processes: list[psutil.Process], within_s: float) -> list[psutil.Process]:
    """Those that are still there after a while."""
    return psutil.wait_procs(processes, timeout=within_s)[1]


def test_a_schedule_fires_twice_and_reads_only_the_new_file(served: Served) -> None:
    """The first run reads what is there; the one after a file has arrived reads that file alone, and keeps the rest."""
    first = served.until(
        r"quick .*completed in .*?(\d{4}\.\d\d\.\d\d\.\d+): .*20 rows in, \d of them set aside"
    )[1]
    _spoil(served.folder / "logs" / "1.jsonl")
    _drop(served.folder, 2, 20, 30)
    second = served.until(
        r"quick .*completed in .*?(\d{4}\.\d\d\.\d\d\.\d+): .*30 rows in, \d of them set aside"
    )[1]
    versions = served.versions()
    assert set(versions) == {first, second}
    assert versions[second] == versions[first] + 10
    assert not list((served.folder / "home").glob("**/*")), "something landed in the user's home"


def _spoil(file: Path) -> None:
    """Makes a file unreadable that looks as it did: a run that opened it again would set more than nine rows aside."""
    before = file.stat()
    file.write_bytes(b"?" * before.st_size)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_second_up_of_a_workspace_is_refused(served: Served) -> None:
    """It says which one is at work, and exits."""
    done = subprocess.run(
        [*TILTH, "up", "--config", str(served.folder / "tilth.yaml"), "--port", str(_free_port())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "is at work" in done.stderr
    assert served.process
    assert f"pid {served.process.pid}" in done.stderr


def test_up_follows_the_file(served: Served) -> None:
    """Schedules are added, changed, paused and removed while it runs; a file with a mistake in it changes nothing."""
    quick = _quick(paused=True)
    served.schedule(quick=quick)
    served.until(r"quick: .*paused$")
    served.schedule(quick=quick, nightly={**_quick(), "every": None, "cron": "0 3 * * *"})
    served.until(r"nightly: observed, 0 3 \* \* \* UTC, next .* 03:00:00 UTC")
    served.schedule(quick={**quick, "evry": "5s"})
    served.until(r"tilth.yaml cannot be used, so all stays .* did you mean 'schedules.quick.every'")
    served.schedule(quick={**quick, "settings": {}})
    served.until(r"nightly: removed")
    served.until(r"quick: stays as it was: .*nothing to read")


def test_flow_run_waits_for_its_end(served: Served) -> None:
    """A paused schedule runs when it is asked to, and `flow ls` names that run first."""
    served.schedule(quick=_quick(paused=True))  # as it is served
    served.wait_for(at_work=False)  # or the run would be skipped
    told = served.completed()
    assert told["state"] == "Completed"
    first = served.tilth("flow", "ls")[0]
    assert (first["run"], first["schedule"], first["state"]) == (told["run"], "quick", "Completed")


def test_a_server_that_dies_is_started_again(served: Served) -> None:
    """The schedules are there as before, and the runner goes on."""
    served.schedule(quick=_quick(paused=True))
    (server,) = [one for one in served.below() if "up_server" in _words(one)]
    server.kill()
    served.until(r"the server died; starting it again")
    deadline = time.monotonic() + PATIENCE_S
    while not Api(f"http://127.0.0.1:{served.port}/api").healthy():
        assert time.monotonic() < deadline, "no server"
    assert served.completed()["state"] == "Completed"


def test_the_run_of_a_removed_schedule_ends(served: Served) -> None:
    """A schedule that goes while its run is at work lets the run publish what it has read."""
    before, runs = served.versions(), served.folder / "tilth-workspace" / "runs"
    begun = set(runs.glob("*.lock"))
    _drop(served.folder, 4, 60, 70)
    served.schedule(quick={**_quick(), "every": "3s"})
    deadline = time.monotonic() + PATIENCE_S
    while not set(runs.glob("*.lock")) - begun:
        assert time.monotonic() < deadline, "no run begins"
        time.sleep(0.1)
    served.schedule()
    served.until(r"quick: removed")
    served.wait_for(at_work=False)
    assert len(served.versions()) == len(before) + 1
    assert max(served.versions().values()) > max(before.values(), default=0)


def test_killing_up_leaves_nothing_behind(served: Served) -> None:
    """kill -9 with a run at work: no process is left; the next start settles the run, and Ctrl-C ends that one."""
    _drop(served.folder, 3, 30, 60)
    served.schedule(quick={**_quick(), "every": "4s"})
    served.until(r"quick: observed, every 4s, next")
    served.wait_for(at_work=True)
    processes = served.below()
    assert len(processes) > 3
    assert served.process
    served.process.kill()
    served.process.wait()
    assert not _gone(processes, GONE_S)
    served.schedule(quick=_quick(paused=True))
    again = served.start()
    served.until(r"a run that was left behind: crashed")
    served.until(r"quick: .*paused$")
    processes = served.below()
    again.send_signal(signal.SIGINT)
    assert not _gone(processes, GONE_S)
    assert again.wait() == 0
