"""A program: publishes over and over to a `LoopbackHub`, each time with another request failing; prints what it saw.

A program of its own because the Hub's client reads how it is to upload, and whereto, when it is imported.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hub.server import TOKEN, Fault, LoopbackHub, Repo

FAULTS = {  # kind, and whether the request is acted upon first
    "lfs": (("500", False), ("500", True), ("reset", False), ("reset", True), ("429", False)),
    "xet": (("500", False), ("500", True), ("reset", True)),
}
FIRST, SECOND = "2026.11.21.1", "2026.11.21.2"


def main(mode: str) -> None:
    """Prints one JSON object: the requests of a publication, a case for each fault, and some races."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "cas").mkdir()
        with LoopbackHub(f"local://{folder}/cas" if mode == "xet" else None) as hub:
            use(hub.url, folder, mode)
            without_waiting()
            world = World(hub, folder)
            told: dict[str, Any] = {"requests": world.requests}
            if mode == "lfs":
                told |= {
                    "equal": world.loads_equal(),
                    "in_one_call": world.in_one_call(),
                    "races": world.races(),
                }
            told["cases"] = list(world.cases(FAULTS[mode]))
            sys.stdout.write(json.dumps(told))


def use(url: str, folder: Path, mode: str) -> None:
    """Sets what the client reads when it is imported."""
    plain = {"HF_HUB_DISABLE_XET": "1"} if mode == "lfs" else {}
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    os.environ.update(HF_ENDPOINT=url, HF_TOKEN=TOKEN, HF_HOME=str(folder / "home"), **plain, **quiet)


def without_waiting() -> None:
    """The client's own retries come at once, and client and server take turns quickly."""
    sys.setswitchinterval(0.0002)
    from huggingface_hub.utils import _http

    _http.time = types.SimpleNamespace(**{**vars(time), "sleep": bool})  # type: ignore[attr-defined]


class World:
    """A repository with a first version, and a README and a file that a person has written; a second is to come."""

    def __init__(self, hub: LoopbackHub, folder: Path) -> None:
        from hub.bundles import bundle

        self.hub, self.folder = hub, folder
        self.first, self.second = bundle(folder, FIRST, 5, said="two"), bundle(folder, SECOND, 2)
        self.publish("org/template", self.first)
        readme = hub.content("org/template", "README.md") + b"\nWritten by a person.\n"
        hub.commit("org/template", "a person's", {"README.md": readme, "notes/own.txt": b"kept"})
        self.template, self.objects = hub.repos["org/template"], dict(hub.objects)
        before = len(hub.requests)
        self.fresh("org/clean")
        self.publish("org/clean", self.second)
        self.requests = hub.requests[before:]
        self.wanted = self.hub.repos["org/clean"].commits[self.hub.repos["org/clean"].main].tree

    def fresh(self, name: str) -> Repo:
        """A copy of the repository, on a Hub that knows no other file."""
        self.hub.objects = dict(self.objects)
        self.hub.faults.clear()
        repo = self.hub.repos[name] = copy.deepcopy(self.template)
        return repo

    def publish(self, repo: str, bundle: Any, attempts: int = 1) -> str:
        from tilth.catalog.publishing import Hub

        hub = Hub(repo, False, "0.1.0", pauses_s=[0.0] * (attempts - 1))
        return hub.publish(bundle).status

    def cases(self, faults: Sequence[tuple[str, bool]]) -> Iterator[dict[str, Any]]:
        """Fails each request of a publication in each way; publishes again until that works."""
        for number in range(1, len(self.requests) + 1):
            for kind, after in faults:
                name = f"org/{number}-{kind}-{after}"
                self.fresh(name)
                fault = Fault(number, kind, after)
                self.hub.faults.append(fault)
                runs, status = self.until_done(name)
                case = {"request": self.requests[number - 1], "kind": kind, "after": after, "runs": runs}
                yield {**case, "status": status, "struck": fault.struck.is_set(), "wrong": self.wrong(name)}

    def until_done(self, name: str) -> tuple[int, str]:
        from tilth.schemas import TilthError

        last = ""
        for run in range(1, 4):
            try:
                return run, self.publish(name, self.second)
            except TilthError as error:
                last = str(error)
        return 4, last

    def wrong(self, name: str, others: int = 0) -> str | None:
        """What is not as it should be: one commit more, its tag on it, the first tag unmoved, no other file."""
        repo = self.hub.repos[name]
        plan, first = self.second.plan, self.first.plan
        title = f"Publish {plan.title} ({self.second.digest})"
        if repo.published.count(title) != 1 or len(repo.published) != 3 + others:
            return f"commits: {repo.published}"
        made = next(oid for oid, commit in repo.history(repo.main) if commit.title == title)
        if repo.tags != {first.tag: self.template.tags[first.tag], plan.tag: made}:
            return f"tags: {repo.tags}"
        tree = repo.commits[made].tree
        small = {"README.md", *(path for path in tree if path.startswith("other"))}
        if {k: v for k, v in tree.items() if k not in small} != {
            k: v for k, v in self.wanted.items() if k not in small
        }:
            return f"files: {sorted(tree)}"
        missing = [path for path, entry in tree.items() if entry.oid not in self.hub.objects]
        return f"content missing: {missing}" if missing and not self.hub.cas else None

    def in_one_call(self) -> list[str | None]:
        """Each lost answer, where the call itself tries again."""
        found: list[str | None] = []
        for number in range(1, len(self.requests) + 1):
            name = f"org/{number}-one"
            self.fresh(name)
            self.hub.faults.append(Fault(number, "500", after=True))
            self.publish(name, self.second, attempts=3)
            found.append(self.wrong(name))
        return found

    def races(self) -> dict[str, Any]:
        """Somebody is faster while our commit is on its way: another publisher of the same, and a person."""

        def publisher(name: str) -> None:
            self.publish(name, self.second, attempts=3)

        def person(name: str) -> None:
            self.hub.commit(name, "meanwhile", {"other.txt": b"kept too"})

        return {
            "publisher": self.race("org/two", publisher),
            "person": self.race("org/person", person, others=1),
        }

    def race(self, name: str, faster: Callable[[str], object], others: int = 0) -> dict[str, Any]:
        self.fresh(name)
        hold = Fault(1, "hold", matches="POST .*/commit/")
        self.hub.faults.append(hold)
        told: list[str] = []
        slow = threading.Thread(target=lambda: told.append(self.publish(name, self.second, attempts=3)))
        slow.start()
        hold.struck.wait(30)
        faster(name)
        hold.released.set()
        slow.join(30)
        tree = self.hub.repos[name].commits[self.hub.repos[name].main].tree
        return {"told": told, "wrong": self.wrong(name, others), "kept": "other.txt" in tree}

    def loads_equal(self) -> bool:
        """Whether `load_dataset` at the tag gives the rows of the version, of both versions."""
        from datasets import load_dataset

        found: list[bool] = []
        for bundle in (self.first, self.second):
            loaded = load_dataset("org/clean", "pairs", revision=bundle.plan.tag)
            [config] = bundle.configs
            rows = [row for split in loaded.values() for row in split.to_list()]
            found.append(
                rows == rows_of(config) and {k: v.num_rows for k, v in loaded.items()} == config.rows
            )
        return all(found)


def rows_of(config: Any) -> list[dict[str, Any]]:
    """The rows of the version of a config, in the order of its splits."""
    import pyarrow.dataset as ds

    rows = ds.dataset(list(config.version.files)).to_table().to_pylist()
    return [row for split in config.rows for row in rows if row["split"] == split]


if __name__ == "__main__":
    main(sys.argv[1])
