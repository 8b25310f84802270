"""The program that B4 kills: answers the rows of a folder through Beam. `python killed.py URL FOLDER ROWS WINDOW`."""

from __future__ import annotations

import sys
from pathlib import Path

from workload import ask, rows

from tilth.transforms.inference.window import WindowConfig


class Address:
    """A server that somebody else started."""

    def __init__(self, url: str) -> None:
        self.url = url


if __name__ == "__main__":
    url, folder, count, window = sys.argv[1:]
    done = ask(Address(url), rows(int(count)), Path(folder), WindowConfig(size=int(window)))  # type: ignore[arg-type]
    print(done.answered)
