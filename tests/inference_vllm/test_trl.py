"""What `tilth export` writes is what TRL's trainers read: one step each, on a tiny model, without a network."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final  # Any: datasets and TRL are not installed where types are checked

import pytest

import tiny_llama
from integration.wild_world import complaints, write_log
from loopback import serve
from tilth.flows.conductor import Conductor
from tilth.flows.export import export
from tilth.flows.run import run
from tilth.flows.settings import load
from tilth.transforms.rubrics.reward import rubric_reward

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(600),
]

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
        return _module("datasets").load_dataset(
            "parquet", data_files=str(file), split="train", cache_dir=cache
        )

    def trainer(self, name: str, data: Any, config: Mapping[str, Any] = {}, **more: Any) -> Any:
        """A trainer of the tiny model on these rows, which makes one step."""
        trl = _module("trl")
        args = getattr(trl, f"{name}Config")(output_dir=str(self.folder / name), **{**STEP, **config})
        return getattr(trl, f"{name}Trainer")(model=str(self.model), args=args, train_dataset=data, **more)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """An `observed` release of a log with a limit in every request, and judgments of its pairs by a fickle judge."""
    folder = tmp_path_factory.mktemp("trl")
    workspace = {"workspace": str(folder / "workspace")}
    turns = [_turns(n, *said) for n, said in enumerate(complaints(PAIRS))]
    log = write_log(folder / "own.jsonl", *turns)
    run("observed", load(options={**workspace, "sources": [log], "observed": {"splits": {}}}), Conductor())
    with serve(script="sensible", position_bias=0.5) as server:
        engine = {"kind": "openai", "model": "judge-1", "base_urls": [server.url]}
        options = {**workspace, "dataset": "observed.pairs", "engine": engine}
        run("judge_training", load(options=options), Conductor())
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


@pytest.mark.parametrize(
    ("dataset", "form"),
    [("observed.pairs", "trl"), ("observed.rationales", "rationale-dpo"), ("judge_training.pairs", "dpo")],
)
def test_preferences_train(world: World, dataset: str, form: str) -> None:
    """DPO takes pairs, pairs with a rationale beside them, and pairs of judgments; each side as it was exported."""
    data = world.exported(dataset, form)
    trainer = world.trainer("DPO", data, WHOLE)
    read = _decoded(trainer, "prompt_ids", "chosen_ids", "rejected_ids")
    assert sorted(read) == sorted(
        (_rendered(row["prompt"]), row["chosen"][-1]["content"], row["rejected"][-1]["content"])
        for row in data
    )
    _makes_a_step(trainer)


def test_rationales_train(world: World) -> None:
    """SFT takes rationales, and learns the answers alone: no token of a question has a label."""
    data = world.exported("observed.rationales", "rationale-sft")
    trainer = world.trainer("SFT", data, WHOLE)
    learnt = [
        trainer.processing_class.decode([one for one in row["labels"] if one != -100])
        for row in trainer.train_dataset
    ]
    assert sorted(learnt) == sorted(row["completion"][-1]["content"] for row in data)
    _makes_a_step(trainer)


def test_rubrics_train(world: World) -> None:
    """GRPO hands the reward function each prompt's own programs, and makes a step by its rewards."""
    data = world.exported("observed.rubrics", "grpo-rubric")
    seen: list[tuple[str, str]] = []

    def reward(prompts: Any, completions: Any, programs: Any, **columns: Any) -> list[float]:
        seen.extend((prompt[-1]["content"], of) for prompt, of in zip(prompts, programs, strict=True))
        return rubric_reward(completions, programs, **columns)

    sampled = {"num_generations": 2, "max_completion_length": 12}
    _makes_a_step(world.trainer("GRPO", data, sampled, reward_funcs=reward))
    assert len(seen) == STEP["per_device_train_batch_size"]
    assert all(f"at most {_limit(of)} words" in prompt for prompt, of in seen)


def test_rewards_are_what_programs_say(world: World) -> None:
    """Of each pair the reply that keeps to the limit gets all of the reward, the other nothing."""
    pairs = world.exported("observed.pairs", "trl")
    rubrics = world.exported("observed.rubrics", "grpo-rubric")
    programs = {row["prompt"][-1]["content"]: row["programs"] for row in rubrics}
    of = [programs[row["prompt"][-1]["content"]] for row in pairs]
    assert rubric_reward([row["chosen"] for row in pairs], of) == [1.0] * PAIRS
    assert rubric_reward([row["rejected"] for row in pairs], of) == [0.0] * PAIRS


def _limit(programs: str) -> int:
    (one,) = json.loads(programs)
    return one["program"]["arguments"]["limit"]


def _makes_a_step(trainer: Any) -> None:
    done = trainer.train()
    assert done.global_step == 1
    assert math.isfinite(done.training_loss)
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses
    assert all(map(math.isfinite, losses))


def _decoded(trainer: Any, *columns: str) -> list[tuple[str, ...]]:
    decode = trainer.processing_class.decode
    return [tuple(decode(row[name]) for name in columns) for row in trainer.train_dataset]


def _rendered(messages: Rows) -> str:
    """The prompt as the model's template shows it, up to where it answers."""
    return "".join(f"<|{one['role']}|>{one['content']}" for one in messages) + "<|assistant|>"


def _module(name: str) -> Any:
    return importlib.import_module(name)
