"""Stages in a child process: they give what they give here, and nothing of the child outlives who asked for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import psutil
import pytest

from scripted.apart import SECRET, InPlace, told
from tilth.schemas import BadInput
from tilth.transforms.child import WorkLost, in_a_child
from tilth.transforms.parts import read_part
from tilth.transforms.shell import Runner
from tilth.transforms.stage import Execute, parts, run_stage

TESTS = Path(__file__).resolve().parents[1]
_PARENT = """
import sys, pathlib
from scripted.apart import InPlace, told
from tilth.transforms.child import in_a_child
with in_a_child(InPlace()) as execute:
    execute(*told(pathlib.Path(sys.argv[1]), "stage", "hang"))
"""


@pytest.fixture(autouse=True)
def _findable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child imports what is scripted."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)


def _pids(place: Path, name: str, execute: Execute, *orders: str) -> list[int]:
    made = run_stage(*told(place, name, *orders), execute)
    return [read_part(shard).item() for shard in parts(made, "pids")]


def _hung(place: Path) -> list[psutil.Process]:
    """The two processes of a stage that hangs, once both are there."""
    deadline = time.monotonic() + 60
    while not (place / "pids").exists():
        assert time.monotonic() < deadline, "the stage does not begin"
        time.sleep(0.02)
    return [psutil.Process(int(pid)) for pid in (place / "pids").read_text().split()]


def test_stages_share_one_child_that_ends_with_the_session(tmp_path: Path) -> None:
    """All stages of a session run in one other process, whatever they print there; afterwards it is gone."""
    with in_a_child(InPlace()) as execute:
        pids = _pids(tmp_path, "one", execute, "chatter", "work") + _pids(tmp_path, "two", execute, "work")
        assert psutil.pid_exists(pids[0])
    assert len(set(pids)) == 1
    assert pids[0] != os.getpid()
    assert not psutil.pid_exists(pids[0])


def test_errors_come_through_and_the_child_stays(tmp_path: Path) -> None:
    """A `TilthError` of a stage arrives as it was raised, and the next stage finds the same child."""
    with in_a_child(InPlace()) as execute:
        before = _pids(tmp_path, "one", execute, "work")
        with pytest.raises(BadInput, match="refused") as caught:
            run_stage(*told(tmp_path, "two", "refuse"), execute)
        with pytest.raises(BadInput, match="refused"):  # also where no stage stands between
            execute(*told(tmp_path, "two", "refuse"))
        assert _pids(tmp_path, "three", execute, "work") == before
    assert caught.value.found == 7


@pytest.mark.parametrize(
    ("order", "found"), [("blurt", "ValueError"), ("fill the disk", "OSError (No space left on device)")]
)
def test_other_errors_are_named_without_their_words(tmp_path: Path, order: str, found: str) -> None:
    """An error that is not Tilth's own may quote a row: its kind and a system's reason come through, no more."""
    with in_a_child(InPlace()) as execute, pytest.raises(WorkLost) as caught:
        run_stage(*told(tmp_path, "stage", order), execute)
    assert caught.value.found == found
    assert SECRET not in str(caught.value)


@pytest.mark.slow
def test_a_child_that_dies_is_replaced(tmp_path: Path) -> None:
    """A child that is killed is an error that names the signal; the next attempt has a new child and goes on."""
    with in_a_child(InPlace()) as execute:
        with pytest.raises(WorkLost, match="SIGKILL"):
            run_stage(*told(tmp_path, "stage", "work", "die once", "work"), execute)
        first, second, third = _pids(tmp_path, "stage", execute, "work", "die once", "work")
        assert psutil.pid_exists(second)
    assert first != second == third


class _CancelledError(BaseException):
    """As Prefect raises in the main thread when a run is cancelled."""


@pytest.fixture
def cancellable() -> Iterator[None]:
    def cancel(_number: int, _frame: FrameType | None) -> None:
        raise _CancelledError

    before = signal.signal(signal.SIGUSR1, cancel)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.slow
@pytest.mark.usefixtures("cancellable")
def test_cancelling_leaves_no_process(tmp_path: Path) -> None:
    """An exception in the main thread ends the child and what it started within 3 s, also what ignores SIGTERM."""
    family: list[psutil.Process] = []

    def cancel() -> None:
        family.extend(_hung(tmp_path))
        os.kill(os.getpid(), signal.SIGUSR1)

    (canceller := threading.Thread(target=cancel)).start()
    with pytest.raises(_CancelledError), in_a_child(InPlace()) as execute:
        execute(*told(tmp_path, "stage", "hang"))
    canceller.join()
    assert len(family) == 2
    assert psutil.wait_procs(family, timeout=3)[1] == []


@pytest.mark.slow
def test_kill_9_leaves_no_process(tmp_path: Path) -> None:
    """When the process that asked is killed, its child and what the child started are gone within 3 s."""
    with subprocess.Popen([sys.executable, "-c", _PARENT, str(tmp_path)]) as parent:
        family = _hung(tmp_path)
        assert all(one.is_running() for one in family)
        parent.kill()
    assert psutil.wait_procs(family, timeout=3)[1] == []


@pytest.mark.slow
def test_beam_in_a_child_gives_what_it_gives_here(tmp_path: Path) -> None:
    """A Beam session apart makes what a stage makes; errors are Tilth's own, or named without their words."""
    with Runner().session(apart=True) as execute:
        assert os.getpid() not in _pids(tmp_path, "one", execute, "work", "chatter")
        with pytest.raises(BadInput, match="refused"):
            run_stage(*told(tmp_path, "two", "refuse"), execute)
        with pytest.raises(WorkLost) as caught:
            run_stage(*told(tmp_path, "three", "fill the disk"), execute)
    assert caught.value.found == "OSError (No space left on device)"
    assert SECRET not in str(caught.value)
