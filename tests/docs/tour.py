"""Runs the console blocks of a page and compares what they print with what the page says.

A block is fenced as `console`; a line that begins with `$ ` is a command, and what follows is its output. Blocks run in
order, in one folder that holds a link to `samples`. Run as a program, it writes the true output into the page:

    python tests/docs/tour.py README.md

Where a page asks the models at `localhost:8123`, the scripted server of the tests stands in for them, at a free port.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple  # Any: settings of the server

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a program, it is not among the tests

from loopback import serve

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent
PORT = 8123  # where pages say that models are
SCRIPT: dict[str, Any] = {  # as `loopback.Behaviour` takes them
    "script": "sensible",
    "position_bias": 0.1,
    "tie_share": 0.05,
    "garble_share": 0.02,
}
_BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)
# What differs from run to run: times, dates, ids of runs and snapshots.
_CHANGING = (
    (r"\b\d+\.\d+ s\b", "<seconds>"),
    (r"\b\d{4}\.\d{2}\.\d{2}\.\d+\b", "<version>"),
    (r"\b\d{4}-\d{2}-\d{2} \d{2}:\d{2}(:\d{2})?( CES?T)?\b", "<time>"),
    (r"\b\d{2}:\d{2}\b", "<time>"),
    (r"\brun [0-9a-f]{12}\b", "run <id>"),
)


class Step(NamedTuple):
    """A command and what the page says that it prints."""

    command: str
    said: str


def steps(block: str) -> Iterator[Step]:
    """The commands of a block with their output."""
    for piece in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, said = piece.partition("\n")
        yield Step(command, said)


def normal(text: str) -> str:
    """Output without what differs from run to run, and without trailing blanks."""
    for pattern, name in _CHANGING:
        text = re.sub(pattern, name, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def tidy(text: str) -> str:
    """Output as it is written into a page."""
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines()) + "\n"


@contextlib.contextmanager
def models(page: Path) -> Generator[int]:
    """The port of the scripted models, for a page that asks any; else 0."""
    if f":{PORT}/" not in page.read_text():
        yield 0
        return
    with serve(**SCRIPT) as server:
        yield server.port


def run(command: str, folder: Path, port: int = 0, programs: Path = PROGRAMS) -> str:
    """What a command prints, standard output and error together; `port` is where the models are."""
    command = command.replace(f":{PORT}/", f":{port}/")
    path = os.pathsep.join(map(str, (programs, PROGRAMS, os.environ["PATH"])))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TILTH_", "PREFECT_"))}
    env = {**kept, "PATH": path, "COLUMNS": "100", "NO_COLOR": "1"}
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.stdout


def folder_with_samples(folder: Path) -> Path:
    """`folder`, with the repository's samples in it."""
    (folder / "samples").symlink_to(ROOT / "samples")
    return folder


def rewrite(page: Path, folder: Path) -> None:
    """Writes the true output of every command into the page."""
    with models(page) as port:

        def redo(block: re.Match[str]) -> str:
            told = ((step.command, tidy(run(step.command, folder, port))) for step in steps(block[0]))
            return "".join(f"$ {command}\n{said}" for command, said in told)

        page.write_text(_BLOCK.sub(redo, page.read_text()))


def blocks(page: Path) -> list[str]:
    """The console blocks of a page."""
    return _BLOCK.findall(page.read_text())


if __name__ == "__main__":
    with TemporaryDirectory() as made:
        rewrite(Path(sys.argv[1]), folder_with_samples(Path(made)))
