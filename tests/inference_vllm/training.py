"""Training the tiny model on what `tilth export` writes: releases to export from, and one step of a trainer of TRL."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final  # Any: datasets and TRL are not installed where types are checked

import tiny_llama
from integration.wild_world import complaints, write_log
from tilth.flows.conductor import Conductor
from tilth.flows.export import export
from tilth.flows.run import run
from tilth.flows.settings import load

PAIRS: Final = 6
LENGTH: Final = 8192  # a token is about a character here
STEP: Final = {
    "max_steps": 1,
    "per_device_train_batch_size": 2,
    "learning_rate": 1e-3,
    "use_cpu": True,
    "report_to": "none",
    "save_strategy": "no",
    "logging_steps": 1,
    "disable_tqdm": True,
}
WHOLE: Final = {
    "max_length": LENGTH
}  # by default TRL cuts at 1024 tokens, and drops a pair whose prompt is longer
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class World:
    """A workspace with the releases to export from, and a model to train."""

    folder: Path
    model: Path

    def exported(self, dataset: str, form: str) -> Any:
        """A dataset of the catalog, exported and loaded as its users load it."""
        file = self.folder / f"{dataset}.{form}.parquet"
        export(str(self.folder / "workspace"), dataset, form, str(file), None)
        cache = str(self.folder / "cache")
        return module("datasets").load_dataset(
            "parquet", data_files=str(file), split="train", cache_dir=cache
        )

    def trainer(self, name: str, data: Any, config: Mapping[str, Any] = {}, **more: Any) -> Any:
        """A trainer of the tiny model on these rows, which makes one step."""
        trl = module("trl")
        args = getattr(trl, f"{name}Config")(output_dir=str(self.folder / name), **{**STEP, **config})
        return getattr(trl, f"{name}Trainer")(model=str(self.model), args=args, train_dataset=data, **more)


@functools.cache
def observed_world(folder: Path) -> World:
    """An `observed` release of a log with a limit in every request; made once for a folder."""
    folder.mkdir()
    workspace = {"workspace": str(folder / "workspace")}
    turns = [_turns(n, *said) for n, said in enumerate(complaints(PAIRS))]
    log = write_log(folder / "own.jsonl", *turns)
    run("observed", load(options={**workspace, "sources": [log], "observed": {"splits": {}}}), Conductor())
    return World(folder, tiny_llama.build(folder / "model", max_length=LENGTH))


def _turns(number: int, asked: str, first: str, complaint: str, second: str) -> tuple[str, ...]:
    """A limit that the first reply breaks, with its 10 words, and the second, with 5, keeps to."""
    return (
        f"{asked} Answer in at most {5 + number % 5} words.",
        f"{first} [q=2] There is no other way.",
        complaint,
        f"{second} [q=8]",
        "perfect, that is what I needed, thank you",
    )


def makes_a_step(trainer: Any) -> None:
    """Asserts that one step is made, with a finite loss."""
    done = trainer.train()
    assert done.global_step == 1
    assert math.isfinite(done.training_loss)
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses
    assert all(map(math.isfinite, losses))


def decoded(trainer: Any, *columns: str) -> list[tuple[str, ...]]:
    """What the trainer reads in columns of tokens, as text."""
    decode = trainer.processing_class.decode
    return [tuple(decode(row[name]) for name in columns) for row in trainer.train_dataset]


def rendered(messages: Rows) -> str:
    """The prompt as the model's template shows it, up to where it answers."""
    return shown(messages) + "<|assistant|>"


def shown(messages: Rows) -> str:
    """Messages as the model's template shows them."""
    return "".join(f"<|{one['role']}|>{one['content']}" for one in messages)


def module(name: str) -> Any:
    """A module that is not installed where types are checked."""
    return importlib.import_module(name)
