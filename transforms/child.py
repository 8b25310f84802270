"""The stages of a session in one process of their own, of which nothing outlives the process that asked for them.

The child leads a session and process group, so Beam's workers, Dask's and a model's engine are all in its group. It
reads orders from a pipe; when that pipe ends, whatever ended the other side, a thread kills the whole group.
"""

from __future__ import annotations

import builtins
import contextlib
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Final, Protocol, cast

from tilth.schemas import TilthError
from tilth.transforms.stage import Execute, Stage, Task, title

_TERM_GRACE_S: Final = 1.0
_END_GRACE_S: Final = 10.0  # a local Dask cluster takes a second or two to close
_ERROR_LINE: Final = re.compile(r"^(?:RuntimeError: )?((?:\w+\.)*\w+)(?:: \[Errno (\d+)\])?", re.MULTILINE)


class WorkLost(TilthError):
    """The process that ran a stage died, or failed in a way that is not Tilth's own; another attempt may pass."""


class Sessions(Protocol):
    """What opens sessions of stages and can be pickled; `tilth.transforms.shell.Runner` does."""

    def session(self) -> AbstractContextManager[Execute]:
        """What runs stages while the block lasts."""
        ...


@contextlib.contextmanager
def in_a_child(runner: Sessions) -> Generator[Execute]:
    """Runs stages one after another in a child process, which starts with the first.

    The child and all that it started are gone when the block is left, and when this process is gone. Executing raises
    the stage's `TilthError`, or `WorkLost`; after that the next stage gets a new child.
    """
    child = _Child(runner)
    try:
        yield child.execute
        child.end()
    finally:
        child.kill()


_Order = tuple[Sessions, Stage, Sequence[Task]]


@dataclass(frozen=True, slots=True)
class _Process:
    popen: subprocess.Popen[bytes]
    orders: Connection
    answers: Connection


class _Child:
    def __init__(self, runner: Sessions) -> None:
        self._runner = runner
        self._process: _Process | None = None

    def execute(self, stage: Stage, tasks: Sequence[Task]) -> None:
        try:
            failure = self._ask((self._runner, stage, tasks))
        except (EOFError, ConnectionError) as error:
            raise _lost(stage, f"its process ended {_how(self.kill())}") from error
        except BaseException:  # Prefect cancels by an exception that it raises here
            self.kill()
            raise
        if isinstance(failure, TilthError):
            raise failure
        if failure is not None:
            self.kill()
            raise _lost(stage, failure)

    def _ask(self, order: _Order) -> TilthError | str | None:
        process = self._process = self._process or _start()
        process.orders.send_bytes(pickle.dumps(order))
        return process.answers.recv()

    def end(self) -> None:
        """Lets the child close what it opened; `kill` takes what is left."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.orders.send_bytes(b"")
                self._process.answers.poll(_END_GRACE_S)

    def kill(self) -> int | None:
        """Ends the child's process group; its exit status, or nothing without a child."""
        if self._process is None:
            return None
        process = self._process
        _signal(process, signal.SIGTERM)
        process.answers.poll(_TERM_GRACE_S)  # true at once when the child is gone
        _signal(process, signal.SIGKILL)  # before it is waited for: until then its number is nobody else's
        self._process = None
        process.orders.close()
        process.answers.close()
        return process.popen.wait()


def _start() -> _Process:
    its_orders, orders = os.pipe()
    answers, its_answers = os.pipe()
    ours = Connection(orders, readable=False), Connection(answers, writable=False)
    try:
        # -P: nothing in the folder that the run was started from stands in for a library. What libraries say may
        # quote rows, so it goes nowhere.
        popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "tilth.transforms.child"],
            stdin=its_orders,
            stdout=its_answers,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    finally:
        os.close(its_orders)
        os.close(its_answers)
    return _Process(popen, *ours)


def _signal(process: _Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
        os.killpg(process.popen.pid, number)


def _how(status: int | None) -> str:
    if status is None or status >= 0:
        return f"with status {status}"
    name = signal.Signals(-status).name
    return f"by {name}, as when memory runs out" if name == "SIGKILL" else f"by {name}"


def _lost(stage: Stage, found: str) -> WorkLost:
    return WorkLost(
        f"stage {title(stage.step)!r} was lost",
        found=found,
        wanted="one manifest per task",
        do="run it again: finished tasks are kept. A direct run, without PREFECT_API_URL, shows all that libraries say",
    )


# The child's side


def main() -> None:
    """Runs stages that come on stdin until an empty order, answering each on stdout."""
    orders, answers = Connection(os.dup(0), writable=False), Connection(os.dup(1), readable=False)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):  # what a library prints would be read as an answer
        os.dup2(nothing, number)
    inbox: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(orders, inbox), daemon=True).start()
    with contextlib.ExitStack() as opened:
        execute: Execute | None = None
        while order := inbox.get():
            try:
                runner, stage, tasks = cast("_Order", pickle.loads(order))
                if execute is None:
                    execute = opened.enter_context(runner.session())
                execute(stage, tasks)
                answers.send(None)
            except TilthError as error:
                answers.send(error)
            except Exception as error:
                answers.send(_kind(error))


def _listen(orders: Connection, inbox: SimpleQueue[bytes]) -> None:
    try:
        while True:
            inbox.put(orders.recv_bytes())
    except (EOFError, OSError):
        os.killpg(os.getpid(), signal.SIGKILL)


def _kind(error: Exception) -> str:
    """What an error was, without its message, which may quote a row. Beam hands on a worker's as text."""
    if isinstance(error, OSError) and error.errno:
        return f"{type(error).__name__} ({os.strerror(error.errno)})"
    lines = _ERROR_LINE.findall(str(error)) if type(error) is RuntimeError else []
    for name, number in reversed(lines):
        module, _, plain = name.rpartition(".")
        kind = getattr(sys.modules.get(module) if module else builtins, plain, None)
        if isinstance(kind, type) and issubclass(kind, BaseException):
            return f"{plain} ({os.strerror(int(number))})" if number else plain
    return type(error).__name__


if __name__ == "__main__":
    main()
