"""Formats for TRL's trainers beyond DPO: each trainer reads the rows as they were exported, and makes a step."""

from __future__ import annotations

from typing import Any  # Any: datasets and TRL are not installed where types are checked

import pytest

from inference_vllm.training import STEP, WHOLE, World, decoded, makes_a_step, observed_world, rendered, shown

IDS = ("prompt_ids", "completion_ids")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return observed_world(tmp_path_factory.getbasetemp() / "trl")


@pytest.mark.parametrize("form", ["trl-implicit", "reward"])
def test_reward_models_train(world: World, form: str) -> None:
    """RewardTrainer reads each side as the whole conversation; a margin reaches its loss only from `reward`."""
    data = world.exported("observed.pairs", form)
    trainer = world.trainer("Reward", data, WHOLE)
    read = decoded(trainer, "chosen_ids", "rejected_ids")
    assert sorted(_trimmed(read)) == sorted((shown(row["chosen"]), shown(row["rejected"])) for row in data)
    batch = next(iter(trainer.get_train_dataloader()))
    assert ("margin" in batch) == (form == "reward")
    makes_a_step(trainer)


def _trimmed(read: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Without the token that ends a sequence."""
    return [tuple(text.removesuffix("</s>") for text in row) for row in read]


def test_labelled_replies_train(world: World) -> None:
    """KTO reads every reply with its own label, and finds another prompt's reply to set beside each prompt."""
    data = world.exported("observed.unpaired", "kto")
    trainer = world.trainer("KTO", data, WHOLE)
    labels = [row["label"] for row in trainer.train_dataset]
    read = [(*texts, label) for texts, label in zip(decoded(trainer, *IDS), labels, strict=True)]
    assert read == [(rendered(row["prompt"]), row["completion"][-1]["content"], row["label"]) for row in data]
    assert {True, False} == set(labels)
    own = {prompt: reply for prompt, reply, _ in read}
    neighbours = decoded(trainer, "prompt_ids", "KL_completion_ids")
    assert all(own[prompt] != reply for prompt, reply in neighbours[:2])
    makes_a_step(trainer)


@pytest.mark.parametrize("dataset", ["observed.pairs", "observed.unpaired"])
def test_good_replies_train(world: World, dataset: str) -> None:
    """SFT learns chosen replies, and those labelled good: their tokens have labels, no other token has."""
    data = world.exported(dataset, "sft")
    trainer = world.trainer("SFT", data, WHOLE)
    decode = trainer.processing_class.decode
    learnt = [decode([one for one in row["labels"] if one != -100]) for row in trainer.train_dataset]
    assert sorted(text.removesuffix("</s>") for text in learnt) == sorted(
        row["completion"][-1]["content"] for row in data
    )
    assert all("[q=8]" in text for text in learnt)
    makes_a_step(trainer)


def test_rubrics_reach_rewards(world: World) -> None:
    """GRPO hands the reward function each prompt's own rubric, as a list of criteria with weights."""
    data = world.exported("observed.rubrics", "grpo-rubric")
    known = {row["prompt"][-1]["content"]: row["rubric"] for row in data}
    seen: list[Any] = []

    def reward(prompts: Any, completions: Any, rubric: Any, **columns: Any) -> list[float]:
        seen.extend(zip([prompt[-1]["content"] for prompt in prompts], rubric, strict=True))
        return [sum(one["weight"] for one in criteria) * n for n, criteria in enumerate(rubric)]

    sampled = {"num_generations": 2, "max_completion_length": 12}
    makes_a_step(world.trainer("GRPO", data, sampled, reward_funcs=reward))
    assert len(seen) == STEP["per_device_train_batch_size"]
    assert all(known[prompt] == criteria for prompt, criteria in seen)
