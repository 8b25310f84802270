"""What a recipe works with: a way to run steps, and a way to ask models by the part they play."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tilth.transforms.inference.ask import Ask
from tilth.transforms.parts import Shard
from tilth.transforms.stage import Manifest, Step, Task, outputs

Conduct = Callable[[Step, Sequence[Task]], list[Manifest]]
"""Runs a step over tasks and returns their manifests: directly, or as a task of a flow."""

Inputs = Mapping[str, tuple[Shard, ...]]
"""The parts of one task by name."""


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

    def run(self, step: Step, parts: Mapping[str, Inputs]) -> dict[str, Manifest]:
        """Runs a step over parts, each known by its name, and returns what each made, in their order."""
        tasks = [Task(name, inputs=inputs) for name, inputs in parts.items()]
        made = self.conduct(step, tasks) if tasks else []
        return dict(zip(parts, made, strict=True))

    def answer(self, rendered: Mapping[str, Manifest], purpose: str, role: str) -> dict[str, Inputs]:
        """Asks the `requests` of each part, and returns by part what was `asked` and what came of it.

        A part without requests is not asked and has no answers. The inputs are `asked`, `completions` and
        `quarantine`, as `tilth.transforms.inference.asking.answered` reads them.
        """
        waiting = {
            name: outputs(made, "requests") for name, made in rendered.items() if "requests" in made.outputs
        }
        told = self.run(self.ask(purpose, role), waiting)
        return {
            name: {
                **outputs(made, "asked"),
                **(outputs(told[name], "completions", "quarantine") if name in told else {}),
            }
            for name, made in rendered.items()
        }
