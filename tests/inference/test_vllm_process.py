"""Processes below an engine: what they print goes to its log, and they end with the process that they serve."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tilth.transforms.inference.engines.vllm_process import last_lines

BELOW = (
    "import os, sys, time; from tilth.transforms.inference.engines.vllm_process import handler;"
    "handler(sys.argv[1], int(sys.argv[2]));"
    "print('printed', flush=True); os.write(2, b'from C\\n'); time.sleep(600)"
)
OWNER = (
    "import os, subprocess, sys, time;"
    "child = subprocess.Popen([sys.executable, '-c', sys.argv[1], sys.argv[2], str(os.getpid())]);"
    "print(child.pid, flush=True); time.sleep(600)"
)


@pytest.mark.slow
def test_processes_end_with_their_owner_and_write_to_its_log(tmp_path: Path) -> None:
    """After `kill -9` of the owner the process is gone; all that it wrote is in the log, not on the terminal."""
    log = tmp_path / "vllm.log"
    command = [sys.executable, "-c", OWNER, BELOW, str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        child = psutil.Process(int(owner.stdout.readline()))
        while child.is_running() and last_lines(log, 2) != ("printed", "from C"):
            psutil.wait_procs([child], timeout=0.05)
        owner.kill()
        _, alive = psutil.wait_procs([child], timeout=20)
        assert not alive
        assert owner.communicate() == ("", "")


def test_last_lines_are_the_last(tmp_path: Path) -> None:
    """The end of a long log, without empty lines; nothing when there is no log."""
    log = tmp_path / "log"
    assert last_lines(log) == ()
    log.write_text("".join(f"line {n}\n\n" for n in range(50_000)))
    assert last_lines(log, 2) == ("line 49998", "line 49999")
