"""What `tilth export` writes is what TRL's trainers read: one step each, on a tiny model, without a network."""

from __future__ import annotations

import json
from typing import Any  # Any: datasets and TRL are not installed where types are checked

import pytest

from inference_vllm.training import PAIRS, STEP, WHOLE, World, decoded, makes_a_step, observed_world, rendered
from loopback import serve
from tilth.flows.conductor import Conductor
from tilth.flows.run import run
from tilth.flows.settings import load
from tilth.transforms.rubrics.reward import rubric_reward

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """An `observed` release of a log with a limit in every request, and judgments of its pairs by a fickle judge."""
    folder = tmp_path_factory.getbasetemp() / "trl"
    world = observed_world(folder)
    with serve(script="sensible", position_bias=0.5) as server:
        engine = {"kind": "openai", "model": "judge-1", "base_urls": [server.url]}
        options = {"workspace": str(folder / "workspace"), "dataset": "observed.pairs", "engine": engine}
        run("judge_training", load(options=options), Conductor())
    return world


@pytest.mark.parametrize(
    ("dataset", "form"),
    [("observed.pairs", "trl"), ("observed.rationales", "rationale-dpo"), ("judge_training.pairs", "trl")],
)
def test_preferences_train(world: World, dataset: str, form: str) -> None:
    """DPO takes pairs, pairs with a rationale beside them, and pairs of judgments; each side as it was exported."""
    data = world.exported(dataset, form)
    trainer = world.trainer("DPO", data, WHOLE)
    read = decoded(trainer, "prompt_ids", "chosen_ids", "rejected_ids")
    assert sorted(read) == sorted(
        (rendered(row["prompt"]), row["chosen"][-1]["content"], row["rejected"][-1]["content"])
        for row in data
    )
    makes_a_step(trainer)


def test_rationales_train(world: World) -> None:
    """SFT takes rationales, and learns the answers alone: no token of a question has a label."""
    data = world.exported("observed.rationales", "rationale-sft")
    trainer = world.trainer("SFT", data, WHOLE)
    learnt = [
        trainer.processing_class.decode([one for one in row["labels"] if one != -100])
        for row in trainer.train_dataset
    ]
    assert sorted(learnt) == sorted(row["completion"][-1]["content"] for row in data)
    makes_a_step(trainer)


def test_rubrics_train(world: World) -> None:
    """GRPO hands the reward function each prompt's own programs, and makes a step by its rewards."""
    data = world.exported("observed.rubrics", "grpo-rubric")
    seen: list[tuple[str, str]] = []

    def reward(prompts: Any, completions: Any, programs: Any, **columns: Any) -> list[float]:
        seen.extend((prompt[-1]["content"], of) for prompt, of in zip(prompts, programs, strict=True))
        return rubric_reward(completions, programs, **columns)

    sampled = {"num_generations": 2, "max_completion_length": 12}
    makes_a_step(world.trainer("GRPO", data, sampled, reward_funcs=reward))
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
