"""The steps on both sides of `Ask`: what they hand to it, and what they read of what came back."""

from __future__ import annotations

import polars as pl

from tilth.transforms.inference.answers import set_aside
from tilth.transforms.inference.render import FAILED
from tilth.transforms.inference.requests import COMPLETIONS, Questions
from tilth.transforms.parts import read_part
from tilth.transforms.stage import Output, Task


def write_questions(questions: Questions, out: Output) -> None:
    """Writes `requests`, which `Ask` answers, and `asked`, which the step that reads the answers needs."""
    out.write("requests", questions.requests)
    out.write("asked", questions.asked)


def answered(task: Task) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What the step `Ask` made of a part's requests: `COMPLETIONS`, and `FAILED` for those without an answer."""
    completions = [read_part(shard) for shard in task.inputs.get("completions", ())]
    failed = [set_aside(read_part(shard)) for shard in task.inputs.get("quarantine", ())]
    return pl.concat([pl.DataFrame(schema=COMPLETIONS), *completions]), pl.concat(
        [pl.DataFrame(schema=FAILED), *failed]
    )
