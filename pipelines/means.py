"""What a recipe works with: a way to run steps, and a way to ask models by the part they play."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tilth.transforms.inference.ask import Ask
from tilth.transforms.stage import Manifest, Step, Task

Conduct = Callable[[Step, Sequence[Task]], list[Manifest]]
"""Runs a step over tasks and returns their manifests: directly, or as a task of a flow."""


@dataclass(frozen=True, slots=True)
class Means:
    """How a recipe gets its work done.

    Args:
        conduct: runs a step.
        ask: makes the step that asks. First its purpose, a name of its own in the run (`label`, `judge-large`): it
            names the stage, and rows without an answer name it as theirs. Then the role that answers: `model`,
            `policy`, or a judge's name.
    """

    conduct: Conduct
    ask: Callable[[str, str], Ask]
