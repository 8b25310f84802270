"""Starting the loopback server as its own process, and asking and changing it while it runs."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple  # Any: JSON

import orjson


class Event(NamedTuple):
    """One line of the server's log."""

    kind: str  # received | finished | dropped
    prompt: str  # prompt_hash
    request: str  # request_hash
    at_s: float  # time.monotonic of the host
    status: int  # of the answer; 0 for received, dropped and cut


@dataclass(frozen=True, slots=True)
class Loopback:
    """A running server."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path | None = None

    @property
    def root(self) -> str:
        """Its address, without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """What clients take as base URL."""
        return f"{self.root}/v1"

    def control(self, **settings: Any) -> Mapping[str, Any]:
        """Changes settings of `Behaviour`; returns all of them."""
        return self._ask("POST", "/control", settings)

    def reset(self) -> None:
        """Forgets attempts and statistics."""
        self._ask("POST", "/reset", {})

    def stats(self) -> Mapping[str, Any]:
        """Counts since the last reset.

        received, finished, dropped (the client went away), by_status, by_prompt and by_request (attempts by hash),
        max_in_flight, busy_s (slot seconds), span_s (first chat to last answer), mean_busy (their ratio).
        """
        return self._ask("GET", "/stats", None)

    def events(self) -> list[Event]:
        """The log so far; the server must have been started with one."""
        assert self.log is not None, "the server writes no log"
        rows = [line.split() for line in self.log.read_text().splitlines()]
        return [
            Event(kind, prompt, request, float(at), int(status)) for kind, prompt, request, at, status in rows
        ]

    def kill(self) -> None:
        """Ends the process at once, with all of its connections."""
        self.process.kill()
        self.process.wait()

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> Mapping[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, None if body is None else orjson.dumps(body))
            answer = connection.getresponse()
            data = orjson.loads(answer.read())
        assert answer.status == 200, data
        return data


@contextlib.contextmanager
def serve(*, log: Path | None = None, port: int = 0, **behaviour: Any) -> Generator[Loopback]:
    """A server for the time of the block. It lives in a session of its own, so a killed client does not end it."""
    command = [
        sys.executable,
        "-m",
        "loopback",
        orjson.dumps(behaviour).decode(),
        "--until-eof",
        f"--port={port}",
    ]
    if log is not None:
        command.append(f"--log={log}")
    here = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": here}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
    )
    with process:
        try:
            assert process.stdout is not None
            yield Loopback(orjson.loads(process.stdout.readline())["port"], process, log)
        finally:
            process.kill()
