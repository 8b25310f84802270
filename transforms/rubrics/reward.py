"""A reward function for trainers, over `tilth export --format grpo-rubric`: what programs can check of a rubric.

With TRL: `trl grpo --reward_funcs tilth.transforms.rubrics.reward.rubric_reward`. What only a judge can check takes a
judge: the exported columns `rubric` and `ground_truth` hold all criteria for a reward of your own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any  # Any: columns that TRL hands over beside the two that are read

from tilth.transforms.rubrics.verifiers import passes


def rubric_reward(
    completions: Sequence[Sequence[Mapping[str, str]]], programs: Sequence[str], **_: Any
) -> list[float]:
    """For each completion the weights of the programs it passes, over the sum of those above 0; 0 without any."""
    return [
        _score(said[-1]["content"], json.loads(of)) for said, of in zip(completions, programs, strict=True)
    ]


def _score(reply: str, programs: Sequence[Mapping[str, Any]]) -> float:
    possible = sum(one["weight"] for one in programs if one["weight"] > 0)
    earned = sum(one["weight"] for one in programs if passes(json.dumps(one["program"]), reply))
    return earned / possible if possible else 0.0
