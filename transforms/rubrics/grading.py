"""Grading replies by criteria: each criterion of a judge with each reply is one item of the judging room.

The semantics of "met" are HealthBench's (openai/simple-evals, `healthbench_eval.py`). Where we differ: an answer that
does not fit is asked for again a bounded number of times and then fails, instead of for ever; a grader may say that it
cannot tell; it does not see the weight unless told to show it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

import polars as pl

from tilth.schemas import ConfigError, TilthError, conform, content_ids, fingerprint
from tilth.transforms.inference.prompts import packaged_prompt
from tilth.transforms.judging.items import ITEMS, items
from tilth.transforms.judging.protocol import Judging, Protocol
from tilth.transforms.rubrics.criteria import GRADES, PROGRAM

LINKS: Final = pl.Schema(
    {"item_id": pl.String, "criterion_id": pl.String, "prompt_id": pl.String, "response_id": pl.String}
)
"""Which item asks whether which reply meets which criterion."""
MET: Final = "met"
_QUESTION: Final = "The question is whether the reply does what the criterion describes."
_WEIGHED: Final = (
    "The number in brackets is its weight, below 0 for a mistake; it never changes what met means."
)
_VERIFIERS: Final = "rubrics/verifiers@1"


class Graded(NamedTuple):
    """What judges are asked: `ITEMS`, and `LINKS`, one for each item."""

    items: pl.DataFrame
    links: pl.DataFrame


# Asking


def grading_protocol(judging: Judging, show_weight: bool = False, seed: int = 0) -> Protocol:
    """The protocol that asks whether one reply meets one criterion: 1, 0, or null where that cannot be told.

    Conversation and reply come before the criterion, so that an engine keeps what the criteria of a reply share.

    Args:
        judging: panel, samples and prompt file; its scale and its rotations decide nothing here.
        show_weight: whether the judge sees weights, as HealthBench's does; a leak that may make it lenient. For items
            made with the same setting.
        seed: of the samples.

    Raises `ConfigError` for a judge of the name `program`, by which grades of programs are known.
    """
    if any(judge.rpartition("=")[0] == PROGRAM or judge == PROGRAM for judge in judging.judges):
        raise ConfigError(
            "the name of a judge", found=PROGRAM, wanted="another: programs grade under this one"
        )
    asked = f"{_QUESTION} {_WEIGHED}" if show_weight else _QUESTION
    rating = replace(judging, low=0, high=1, rotations=1).rating(((MET, asked),), seed)
    packaged = packaged_prompt("tilth.transforms.rubrics", "criterion")
    return replace(rating, kind="pointwise", prompt=rating.prompt if judging.prompt_file else packaged)


def criterion_items(criteria: pl.DataFrame, replies: pl.DataFrame, show_weight: bool = False) -> Graded:
    """One item for each criterion that a judge checks and each reply to its prompt; the order of rows decides nothing.

    A criterion or reply that is there twice counts once; equal criteria of two prompts are two. The checklist of an
    item is the criterion's description, with `show_weight` behind its weight in brackets.

    Args:
        criteria: `CRITERIA`; those that a program checks are left to it.
        replies: `REPLIES`.
        show_weight: as for the protocol.
    """
    judged = _once(criteria.filter(pl.col("check") == "judge"), "id", "description", "weight")
    said = pl.format("[{}] {}", "weight", "description") if show_weight else pl.col("description")
    wishes = judged.select("prompt_id", criterion_id="id", wish=said)
    rows = wishes.join(_once(replies, "response_id", "conversation_id"), on="prompt_id").with_columns(
        replies=pl.concat_list(pl.struct("completion")).list.eval(pl.element().struct.field("completion")),
        response_ids=pl.concat_list("response_id"),
        checklist=pl.concat_list("wish"),
    )
    if rows.is_empty():
        return Graded(pl.DataFrame(schema=ITEMS), pl.DataFrame(schema=LINKS))
    made = items(rows)
    by_content = made.select(
        "item_id",
        "prompt_id",
        response_id=pl.col("response_ids").list.first(),
        wish=pl.col("checklist").list.first(),
    )
    linked = rows.join(by_content, on=["prompt_id", "response_id", "wish"], validate="1:1")
    return Graded(made, linked.select(LINKS.names()).sort("item_id"))


def _once(rows: pl.DataFrame, key: str, *then: str) -> pl.DataFrame:
    return rows.sort(key, *then).unique(key, keep="first", maintain_order=True)


# Answers


def grades_of(links: pl.DataFrame, judgments: pl.DataFrame) -> pl.DataFrame:
    """`GRADES`, one for each criterion, reply and judge, sorted: what most of the judge's samples say.

    A sample that failed, or could not tell, says nothing; where none says anything, or as many say yes as no, `met` is
    null: a failure never counts as met nor as not met. Judgments of other items take no part.

    Args:
        links: `LINKS`.
        judgments: rows of the table, as the judging room made them or as `named` left them.
    """
    score = pl.col("scores").list.get(0, null_on_oob=True)
    said = pl.when(pl.col("verdict") == "rated").then(
        pl.when(score == 1).then(1).when(score == 0).then(-1)  # anything else says nothing
    )
    rows = judgments.unique("id", keep="any").join(links, on="item_id", validate="m:1")
    keys = ["prompt_id", "criterion_id", "response_id", "judge"]
    counted = rows.group_by(keys).agg(lead=said.sum())
    met = pl.when(pl.col("lead") != 0).then(pl.col("lead") > 0)
    return (
        counted.with_columns(met=met)
        .select(pl.col(name).cast(kind) for name, kind in GRADES.items())
        .sort(keys)
    )


def named(judgments: pl.DataFrame, links: pl.DataFrame) -> pl.DataFrame:
    """`judgments` whose `attribute` is the id of the criterion that was judged; those of other items as they are."""
    about = links.select("item_id", "criterion_id")
    joined = judgments.join(about, on="item_id", how="left", maintain_order="left", validate="m:1")
    attribute = pl.coalesce("criterion_id", "attribute")
    return conform(joined.with_columns(attribute=attribute).drop("criterion_id"), "judgments")


# Programs


def program_judgments(grades: pl.DataFrame, replies: pl.DataFrame) -> pl.DataFrame:
    """Rows of the table `judgments` for what programs found, so that a score can name all that it rests on; sorted.

    The score is 1 where the criterion is met, 0 where it is not, null where the program could not tell.

    Args:
        grades: `GRADES`; those of other judges are left out.
        replies: `REPLIES`, the graded ones among them.

    Raises `TilthError` for a grade of a reply that is not there.
    """
    keys = ["prompt_id", "response_id", "criterion_id"]
    by_program = grades.filter(pl.col("judge") == PROGRAM).sort(*keys, "met")
    found = by_program.unique(keys, keep="first", maintain_order=True)
    about = _once(replies, "response_id", "conversation_id")
    rows = found.join(about.select("response_id", "conversation_id", "split"), on="response_id")
    if rows.height != found.height:
        raise TilthError(
            "grades of unknown replies", found=found.height - rows.height, do="please report this"
        )
    told = rows.with_columns(
        content_ids(rows, "judgments", [pl.lit(PROGRAM), pl.lit(_VERIFIERS), *map(pl.col, keys)]).alias("id"),
        content_ids(rows, "items", [pl.lit(PROGRAM), *map(pl.col, keys)]).alias("item_id"),
        kind=pl.lit("pointwise"),
        model=pl.lit("tilth verifiers"),
        prompt_version=pl.lit(_VERIFIERS),
        protocol=pl.lit(fingerprint(_VERIFIERS)),
        order=pl.lit([0], pl.List(pl.Int32)),
        sample_index=pl.lit(0),
        attribute="criterion_id",
        verdict=pl.lit("rated"),
        scores=pl.concat_list(pl.col("met").cast(pl.Float64)),
        response_ids=pl.concat_list("response_id"),
        method=pl.lit("rules"),
    )
    return conform(told.drop("criterion_id", "response_id", "met"), "judgments").sort("id")
