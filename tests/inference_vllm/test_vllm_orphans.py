"""What is left of vLLM when the process that started it is killed, and what it says on the terminal until then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


def test_killed_process_leaves_no_engine_and_said_nothing(tiny_model: Path, tmp_path: Path) -> None:
    """After `kill -9` of `python -m program`, its engine core and workers end; vLLM wrote nothing to the terminal."""
    command = [sys.executable, "-m", "inference_vllm.answer_once", str(tiny_model)]
    said = tmp_path / "stderr"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "TMPDIR": str(tmp_path)}
    with (
        said.open("wb") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=env, text=True) as program,
    ):
        assert program.stdout is not None
        line = program.stdout.readline()
        assert line.split(), said.read_text()
        assert all(word.isdigit() for word in line.split()), line
        family = [psutil.Process(int(pid)) for pid in line.split()]
        spoken = said.read_text()
        program.kill()
    _, alive = psutil.wait_procs(family, timeout=20)
    for one in alive:
        one.kill()
    assert len(family) >= 2
    assert not alive
    assert spoken == ""
