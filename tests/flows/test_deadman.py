"""A flow run's process ends with the process that started it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

_CHILD = """
import pathlib, signal, sys, time
from tilth.flows.deadman import while_parent_lives
place, late = pathlib.Path(sys.argv[1]), sys.argv[2] == "late"
signal.signal(signal.SIGTERM, lambda *_: (place / "asked").touch())  # and stays, as a hung run does
(place / "there").touch()
while late and not (place / "go").exists():
    time.sleep(0.02)
with while_parent_lives():
    (place / "within").touch()
    while True:
        time.sleep(0.02)
"""
_PARENT = """
import pathlib, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", *sys.argv[1:]])
pathlib.Path(sys.argv[2], "pid").write_text(str(child.pid))
child.wait()
"""


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path.name}"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["soon", "late"])
def test_a_killed_parent_takes_the_run_with_it(tmp_path: Path, moment: str) -> None:
    """Whether the parent is killed within the block or before it, the run is asked to end, and then is killed."""
    command = [sys.executable, "-c", _PARENT, _CHILD, str(tmp_path), moment]
    with subprocess.Popen(command, start_new_session=True) as parent:
        _wait_for(tmp_path / ("there" if moment == "late" else "within"))
        child = psutil.Process(int((tmp_path / "pid").read_text()))
        assert child.is_running()
        parent.kill()
    (tmp_path / "go").touch()
    child.wait(timeout=5)
    assert (tmp_path / "asked").exists()


def test_a_living_parent_is_not_missed(tmp_path: Path) -> None:
    """With its parent alive a run goes on and leaves the block, whether or not it leads a group of its own."""
    program = "from tilth.flows.deadman import *; import tilth.flows.deadman as d, time\nd._LOOK_S = 0.01\n"
    program += "with d.while_parent_lives(): time.sleep(0.1)"
    for apart in (False, True):
        subprocess.run([sys.executable, "-c", program], check=True, start_new_session=apart)
