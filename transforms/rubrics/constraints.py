"""Constraints that a request states and a program can check, found by rules: no model is asked.

English requests only. What is quoted, pasted, asked about or hypothetical is not a constraint on the reply; where two
constraints contradict each other, neither is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from tilth.transforms.rubrics.criteria import PROGRAM, criteria_rows
from tilth.transforms.rubrics.verifiers import describe

TAG = "constraint"


@dataclass(frozen=True, slots=True, order=True)
class Constraint:
    """One constraint of a request.

    Args:
        program: what checks it.
        description: what a reply does that keeps it, in English.
        quote: the words of the request, verbatim.
    """

    program: str
    description: str
    quote: str


def constraints_in(text: str) -> list[Constraint]:
    """The constraints that a user's turn states, sorted by program, each program once."""
    from tilth.transforms.rubrics.constraint_rules import programs_in

    return sorted(
        Constraint(program, describe(program), quote) for program, quote in programs_in(text).items()
    )


def constraint_criteria(prompts: pl.DataFrame, weight: float = 1.0) -> pl.DataFrame:
    """The constraints of each prompt's last user turn as `CRITERIA`: hard rules that a program checks.

    Args:
        prompts: `PROMPTS`.
        weight: of each criterion.
    """
    said = prompts.select("prompt_id", pl.col("prompt").list.last().struct.field("content").fill_null(""))
    rows = [
        {
            "prompt_id": prompt_id,
            "title": describe(one.program).rstrip("."),
            "description": one.description,
            "program": one.program,
        }
        for prompt_id, text in said.iter_rows()
        for one in constraints_in(text)
    ]
    schema = dict.fromkeys(("prompt_id", "title", "description", "program"), pl.String)
    return criteria_rows(
        pl.DataFrame(rows, schema).with_columns(
            weight=pl.lit(weight),
            kind=pl.lit("hard_rule"),
            check=pl.lit(PROGRAM),
            source=pl.lit("prompt"),
            tags=pl.lit([TAG], pl.List(pl.String)),
        )
    )
