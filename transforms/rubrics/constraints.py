"""Constraints that a request states and a program can check, found by rules: no model is asked.

English requests only. What is quoted, pasted, asked about or hypothetical is not a constraint on the reply; where two
constraints contradict each other, neither is kept. ``python -m tilth.transforms.rubrics.constraints FILE`` prints how
well the rules do on labelled requests.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl

from tilth.transforms.rubrics.criteria import PROGRAM, criteria_rows
from tilth.transforms.rubrics.verifiers import describe, program_of

TAG: Final = "constraint"


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
    names = ("prompt_id", "title", "description", "program")
    schema: dict[str, type[pl.String]] = dict.fromkeys(names, pl.String)
    return criteria_rows(
        pl.DataFrame(rows, schema).with_columns(
            weight=pl.lit(weight),
            kind=pl.lit("hard_rule"),
            check=pl.lit(PROGRAM),
            source=pl.lit("prompt"),
            tags=pl.lit([TAG], pl.List(pl.String)),
        )
    )


class Labelled(NamedTuple):
    """A request, the programs that it states, and the fold that it belongs to: `dev` or `held_out`."""

    text: str
    programs: frozenset[str]
    fold: str


@dataclass(frozen=True, slots=True)
class Quality:
    """How well the rules do on labelled requests, counted by program."""

    requests: int
    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        """The share of what was found that is right; 1 where nothing was found."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong else 1.0

    @property
    def recall(self) -> float:
        """The share of what is there that was found; 1 where nothing is there."""
        return self.right / (self.right + self.missed) if self.right + self.missed else 1.0


def read_requests(file: Path) -> list[Labelled]:
    """Labelled requests from JSONL with `text`, `fold` and `programs`, a list of verifiers with their arguments."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [
        Labelled(
            row["text"],
            frozenset(program_of(one["verifier"], one["arguments"]) for one in row["programs"]),
            row["fold"],
        )
        for row in rows
    ]


def quality(requests: Iterable[Labelled]) -> Quality:
    """What the rules find in each request, against its labels."""
    count = right = wrong = missed = 0
    for request in requests:
        found = {constraint.program for constraint in constraints_in(request.text)}
        count, right = count + 1, right + len(found & request.programs)
        wrong, missed = wrong + len(found - request.programs), missed + len(request.programs - found)
    return Quality(count, right, wrong, missed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints precision and recall of each fold; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tilth.transforms.rubrics.constraints", description=__doc__
    )
    parser.add_argument("file", type=Path, help="labelled requests (tests/rubrics/requests_labelled.jsonl)")
    requests = read_requests(parser.parse_args(arguments).file)
    lines = [
        f"{'fold':<10}{'requests':>10}{'right':>8}{'wrong':>8}{'missed':>8}{'precision':>11}{'recall':>8}"
    ]
    for fold in sorted({request.fold for request in requests}):
        figures = quality(request for request in requests if request.fold == fold)
        counts = f"{figures.requests:>10}{figures.right:>8}{figures.wrong:>8}{figures.missed:>8}"
        lines.append(f"{fold:<10}{counts}{figures.precision:>11.3f}{figures.recall:>8.3f}")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
