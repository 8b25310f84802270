"""`tilth up`: a local Prefect server and a runner that follows the schedules of a settings file.

This process only minds the other two. Each leads a process group of its own and kills that group when its standard
input ends, which the kernel sees to whatever becomes of this process; so `kill -9` leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO  # Any: JSON values

from tilth.flows.prefect_api import Api
from tilth.schemas import ConfigError, NotFound, TilthError

SERVER_START_S: Final = 120.0
RUNNER_STOP_S: Final = 6.0  # together under the ten seconds that Ctrl-C may take
SERVER_STOP_S: Final = 3.0
_LOOK_EVERY_S: Final = 0.2
_DEATHS: Final = 3  # more than these within the time below, and `up` gives up
_DEATHS_WITHIN_S: Final = 600.0
_LOST_S: Final = 60.0  # how long a server that is not ours may be away


def die_with_parent() -> None:
    """Kills this process and its group when standard input ends: when the process that started it is gone."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, name="die-with-parent", daemon=True).start()


@dataclass(slots=True)
class Child:
    """A process that `up` minds: started anew when it dies, until it has died too often.

    Args:
        module: what it runs, by `python -m`.
        arguments: what the module is told.
        env: its whole environment.
        log: the file that its errors go to.
        stop_s: how long it may take to stop.
    """

    module: str
    arguments: Sequence[str]
    env: Mapping[str, str]
    log: Path
    stop_s: float
    _process: subprocess.Popen[bytes] | None = None
    _deaths: list[float] = field(default_factory=list[float])

    def start(self) -> None:
        """Starts it, in a group of its own."""
        handle = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module, *self.arguments],
                stdin=subprocess.PIPE,
                stderr=handle,
                env=dict(self.env),
                start_new_session=True,
            )
        finally:
            os.close(handle)

    @property
    def started(self) -> bool:
        """Whether it was started and not cleared away since."""
        return self._process is not None

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def died(self) -> None:
        """Clears away what it left. Raises `TilthError` when that happens too often."""
        now = time.monotonic()
        self._deaths = [*(at for at in self._deaths if now - at < _DEATHS_WITHIN_S), now]
        self.kill()
        if len(self._deaths) > _DEATHS:
            what = f"{self.module.rpartition('.')[2]} died {len(self._deaths)} times in ten minutes"
            raise TilthError(what, do=f"look at the end of {self.log}")

    def stop(self) -> None:
        """Asks it to stop, waits, and kills what is left of its group."""
        if self._process and self.alive:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self.stop_s)
        self.kill()

    def kill(self) -> None:
        """Kills its group: itself, if it lives, and what it started."""
        if self._process:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            if self._process.stdin:
                self._process.stdin.close()
            self._process = None


@dataclass(slots=True)
class Up:
    """One sitting of `tilth up`.

    Args:
        file: the settings file, absolute; the working directory is its folder.
        home: where the server keeps its database, and both keep their logs.
        url: the API.
        own: whether the server is ours to start.
        say: prints a line for people.
    """

    file: Path
    home: Path
    url: str
    own: bool
    say: Callable[[str], None]
    stopping: bool = False

    def run(self) -> None:
        """Minds server and runner until `stopping`. Raises `TilthError` when one cannot be kept alive."""
        port = self.url.removesuffix("/api").rpartition(":")[2]
        env = environment(self.home, self.url)
        server = Child("tilth.flows.up_server", [port], env, self.home / "server.log", SERVER_STOP_S)
        arguments = [str(self.file), self.url]
        runner = Child("tilth.flows.up_runner", arguments, env, self.home / "runner.log", RUNNER_STOP_S)
        try:
            if self.own:
                self._serve(server)
            self.say(f"server: {self.url.removesuffix('/api')}")
            self._mind(server, runner)
        finally:
            runner.stop()
            server.stop()

    def _mind(self, server: Child, runner: Child) -> None:
        seen = time.monotonic()
        while not self.stopping:
            if self.own and not server.alive:
                self.say("the server died; starting it again")
                server.died()
                self._serve(server)
            if not self.own and time.monotonic() - seen > _LOST_S / 4:
                seen = self._seen(seen)
            if not runner.alive and not self.stopping:
                if runner.started:
                    self.say("the runner died; starting it again")
                    runner.died()
                runner.start()
            time.sleep(_LOOK_EVERY_S)

    def _serve(self, server: Child) -> None:
        server.start()
        deadline = time.monotonic() + SERVER_START_S
        while not self.stopping and not Api(self.url, 2).healthy():
            if not server.alive:
                server.died()
                server.start()
            if time.monotonic() > deadline:
                raise TilthError(
                    "the Prefect server did not come up",
                    found=f"no answer in {SERVER_START_S:.0f} s",
                    do=f"look at the end of {server.log}",
                )
            time.sleep(_LOOK_EVERY_S)

    def _seen(self, last: float) -> float:
        """When the server that is not ours was seen last. Raises `TilthError` when it is away too long."""
        if Api(self.url, 2).healthy():
            return time.monotonic()
        if time.monotonic() - last > _LOST_S:
            raise TilthError("the Prefect server is gone", found=self.url, do="start it, then tilth up again")
        return last


def up(config: str | None, port: int, say: Callable[[str], None]) -> None:
    """Serves the schedules of a settings file until SIGINT or SIGTERM.

    Works in the folder of the file, so that its relative paths mean the same wherever `up` was started. Raises
    `TilthError` when another `up` is at work in the workspace, or the server cannot be had.
    """
    from tilth.flows.settings import load

    file = settings_file(config)
    os.chdir(file.parent)
    home = home_of(load(str(file) if file.exists() else None).workspace)
    with _alone(home) as record:
        url, own = find_server(port)
        sitting = Up(file, home, url, own, say)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: setattr(sitting, "stopping", True))
        record({"pid": os.getpid(), "url": url, "file": str(file)})
        for log in ("server.log", "runner.log"):
            (home / log).unlink(missing_ok=True)
        sitting.run()
    say("stopped")


def settings_file(config: str | None) -> Path:
    """The settings file that is meant, absolute. Raises `NotFound` when it was named and is not there."""
    from tilth.flows.settings import DEFAULT_FILE

    file = Path(config or DEFAULT_FILE).absolute()  # not resolved: paths are meant from where the link is
    if config and not file.exists():
        raise NotFound("no such settings file", found=config, wanted="a YAML file", do="check --config")
    return file


def home_of(workspace: str) -> Path:
    """Where `up` keeps what it needs. Raises `ConfigError` for a workspace that is no folder of this machine."""
    if "://" in workspace:
        raise ConfigError(
            "tilth up keeps its database in the workspace",
            found=workspace,
            wanted="a folder of this machine",
            do="see docs/how-to/teams.md for a server and workers of several machines",
        )
    return Path(workspace).resolve() / "prefect"


def environment(home: Path, url: str) -> dict[str, str]:
    """What server and runner have in their environment: nothing leaves this machine or lands outside of `home`."""
    port = url.removesuffix("/api").rpartition(":")[2]
    spared = ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1", "localhost")))
    return {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": port,
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "NO_PROXY": spared,
        "no_proxy": spared,
    }


def find_server(port: int) -> tuple[str, bool]:
    """The API to use, and whether it is ours to start.

    The server of `PREFECT_API_URL` if that is set, else the one that answers on the port, else ours on that port.
    Raises `TilthError` when the named server does not answer, or something else has the port.
    """
    local = f"http://127.0.0.1:{port}/api"
    named = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    same = named.replace("localhost", "127.0.0.1") in ("", local)
    url = local if same else named
    if Api(url).healthy():
        return url, False
    if not same:
        do = "start that server, or unset PREFECT_API_URL for a local one"
        raise TilthError("no Prefect server answers at PREFECT_API_URL", found=named, do=do)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise TilthError(
                "the port is taken by another program", found=port, do="choose one with --port"
            ) from None
    return url, True


# Who is at work


def at_work(workspace: str) -> dict[str, Any] | None:
    """What the `tilth up` of a workspace has recorded (pid, url, file); null when none is at work."""
    if "://" in workspace:
        return None
    try:
        with _record(home_of(workspace)).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = file.read()
                return json.loads(text) if text else {}
    except FileNotFoundError:
        pass
    return None


def api_of(workspace: str) -> Api | None:
    """The API that runs of a workspace go through: of `PREFECT_API_URL`, or of the `tilth up` at work."""
    url = os.environ.get("PREFECT_API_URL") or (at_work(workspace) or {}).get("url")
    return Api(url) if url else None


def _record(home: Path) -> Path:
    return home / "up.json"


@contextlib.contextmanager
def _alone(home: Path) -> Generator[Callable[[Mapping[str, Any]], None]]:
    """Holds the workspace for one `up`; what is yielded records what others may know of it."""
    home.mkdir(parents=True, exist_ok=True)
    with _record(home).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            other = json.loads(file.read() or "{}")
            raise TilthError(
                f"a tilth up is at work in {home.parent}",
                found=", ".join(f"{key} {value}" for key, value in other.items()) or None,
                do="use that one, or stop it first; schedules can be changed while it runs",
            ) from None
        yield lambda facts: _write(file, facts)
        file.truncate(0)


def _write(file: TextIO, facts: Mapping[str, Any]) -> None:
    file.truncate(0)
    file.write(json.dumps(facts))
    file.flush()
