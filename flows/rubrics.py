"""What `tilth rubrics` does: scores recorded verdicts by rubrics, runs programs on a text, prints tables."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final  # Any: the values of a report

import fsspec
import polars as pl
from rich.console import Console
from rich.markup import escape

from tilth.flows.show import print_rows
from tilth.schemas import BadInput, NotFound
from tilth.transforms.inference import tables
from tilth.transforms.rubrics.files import Rubrics, checked, read_rubrics, read_verdicts
from tilth.transforms.rubrics.scoring import Rule, by_tag, overall, scores, tag_scores

Report = Mapping[str, Any]
_SHOWN: Final = 20  # replies that people see one by one
_QUARTILES: Final = {
    "lowest": 0.0,
    "lower quarter": 0.25,
    "median": 0.5,
    "upper quarter": 0.75,
    "highest": 1.0,
}


@dataclass(frozen=True, slots=True)
class Scoring:
    """What is scored.

    Args:
        rubrics: a file of rubrics, in a form that `read_rubrics` knows.
        verdicts: a file of verdicts, as for `read_verdicts`; empty where they stand beside the rubrics.
        rule: see `scores`.
        partial: score what could be graded; without it a reply with a missing verdict has no score.
        tags: whether tags are scored too.
        output: a file for the score of each reply, or empty.
        seed: draws the resamples of bootstrap errors.
    """

    rubrics: str
    verdicts: str = ""
    rule: Rule = "healthbench"
    partial: bool = False
    tags: bool = False
    output: str = ""
    seed: int = 0


def score(asked: Scoring) -> Report:
    """Scores recorded verdicts; see `scores`, `tag_scores` and `overall`. Writes the scores where that is asked.

    Raises `BadInput` for files that cannot be read, and where there are no verdicts or the same one stands in both.
    """
    if asked.output:
        tables.form(asked.output, tables.WRITES)
    read = read_rubrics(asked.rubrics)
    grades = _grades(asked, read)
    scored = scores(read.criteria, grades, asked.rule, partial=asked.partial)
    if asked.output:
        with tables.TableWriter(asked.output) as writer:
            writer.write(scored)
    found = {
        "rubrics": asked.rubrics,
        "verdicts": asked.verdicts or asked.rubrics,
        "rule": asked.rule,
        "partial": asked.partial,
        "prompts": read.criteria.get_column("prompt_id").n_unique(),
        "criteria": read.criteria.height,
        "grades": grades.height,
        "judges": sorted(grades.get_column("judge").unique()),
    }
    return {**found, **_scores(asked, scored), **(_tags(asked, read, grades) if asked.tags else {})}


def _grades(asked: Scoring, read: Rubrics) -> pl.DataFrame:
    grades = read.grades
    if asked.verdicts:
        grades = checked(pl.concat([grades, read_verdicts(asked.verdicts, read.criteria)]), asked.verdicts)
    if grades.is_empty():
        what, wanted = asked.verdicts or asked.rubrics, "whether replies meet them"
        do = "name a file with --verdicts"
        raise BadInput(what, found="no verdicts about these criteria", wanted=wanted, do=do)
    return grades


def _scores(asked: Scoring, scored: pl.DataFrame) -> Report:
    reasons = scored.drop_nulls("reason").group_by("reason").len().sort("reason")
    values = scored.get_column("score")
    return {
        "overall": asdict(overall(scored, seed=asked.seed, clip=_clipped(asked))),
        "clipped": _clipped(asked),
        "without_score": dict(reasons.iter_rows()),
        "scores": {name: values.quantile(share, "linear") for name, share in _QUARTILES.items()},
        "replies": scored.head(_SHOWN).to_dicts(),
        "more_replies": max(0, scored.height - _SHOWN),
    }


def _clipped(asked: Scoring) -> bool:
    """The others have means below 0, or above 1, that say something."""
    return asked.rule == "healthbench"


def _tags(asked: Scoring, read: Rubrics, grades: pl.DataFrame) -> Report:
    tagged = tag_scores(read.criteria, grades, read.example_tags, asked.rule, partial=asked.partial)
    totals = by_tag(tagged, seed=asked.seed, clip=_clipped(asked))
    return {"tags": [{"of": of, "tag": tag, **asdict(total)} for (of, tag), total in totals.items()]}


def print_scores(found: Report) -> None:
    """Prints scores for people."""
    console = Console(highlight=False)
    head = f"{found['criteria']:,} criteria of {found['prompts']:,} prompts, {found['grades']:,} verdicts"
    console.print(f"[bold]{escape(found['rubrics'])}[/bold]: {head} of {escape(', '.join(found['judges']))}")
    total = found["overall"]
    if not found["more_replies"]:
        shown = ("prompt_id", "response_id", "score", "graded", "ungraded", "reason")
        print_rows([{name: row[name] for name in shown} for row in found["replies"]], "", "replies")
    print_rows([found["scores"]], "", "scores of replies")
    if "tags" in found:
        rows = [
            {name: row[name] for name in ("of", "tag", "mean", "bootstrap_std", "n")} for row in found["tags"]
        ]
        print_rows(rows, "no tags", "tags")
    for reason, count in found["without_score"].items():
        console.print(f"without a score: {count:,} ({reason})")
    if total["mean"] is None:
        console.print("no reply has a score")
        return
    how = "clipped to 0 to 1" if found["clipped"] else "not clipped"
    console.print(
        f"[bold]overall {total['mean']:.4f}[/bold] (bootstrap std {total['bootstrap_std']:.4f}, n {total['n']:,}); "
        f"rule {found['rule']}, the mean {how}"
    )


def print_verifiers(rows: list[dict[str, Any]]) -> None:
    """Prints the library of verifiers for people."""
    shown = [{"verifier": row["verifier"], "value": row["value"], "checks": row["checks"]} for row in rows]
    print_rows(shown, "none", "verifiers")


def check(program: str, file: str) -> bool | None:
    """What a program (JSON, or NAME=VALUE as a model proposes it) says of a text, of a file or `-`; null: cannot tell.

    Raises `BadInput` for a program that is not in the library or text that is no UTF-8, `NotFound` for a lost file.
    """
    from tilth.transforms.rubrics.verifiers import parse_program, program_from_proposal, verdict

    if program.lstrip().startswith("{"):
        parse_program(program)
        return verdict(program, _text_of(file))
    name, _, value = program.partition("=")
    made = program_from_proposal(name.strip(), value)
    if made is None:
        raise BadInput(
            "a program", found=name, wanted="a verifier, = and its value", do="see tilth rubrics verifiers"
        )
    return verdict(made, _text_of(file))


def _text_of(file: str) -> str:
    if file == "-":
        return sys.stdin.read()
    fs, path = fsspec.core.url_to_fs(file)
    if not fs.isfile(path):
        raise NotFound("no such file", found=file, wanted="a text, or - for standard input")
    try:
        return fs.cat_file(path).decode()
    except UnicodeDecodeError:
        raise BadInput(file.rpartition("/")[2], found="bytes that are no UTF-8", wanted="a text") from None
