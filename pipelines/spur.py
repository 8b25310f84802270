"""The recipe `spur`: a rubric of user satisfaction from labelled conversations, and scores by it.

learn: labelled -> apart -> [extract] -> reasons -> [merge] x rounds -> items -> [score] trials -> thresholds
score: conversations -> [score] -> scores, set aside

In brackets: what a model is asked. Source: SPUR (arXiv 2403.12388).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import polars as pl

from tilth.pipelines.means import Inputs, Means
from tilth.schemas import TilthError
from tilth.transforms.feedback.spur import SCORES, SET_ASIDE, batches, merged, prompts, reasons_of
from tilth.transforms.feedback.spur_rubric import (
    SIDES,
    Item,
    Rubric,
    SpurConfig,
    choose_thresholds,
)
from tilth.transforms.feedback.spur_steps import (
    Apart,
    ExtractRequests,
    MergeRequests,
    ReadScores,
    ScoreRequests,
)
from tilth.transforms.inference.answers import set_aside
from tilth.transforms.inference.render import FAILED
from tilth.transforms.inference.requests import COMPLETIONS
from tilth.transforms.parts import Shard, read_part
from tilth.transforms.stage import Manifest, Task

NAME: Final = "spur"
ROLE: Final = "model"
_LABELLED: Final = pl.Schema({"id": pl.String, "label": pl.String})


class Learned(NamedTuple):
    """A rubric, and the labelled conversations that could not be used (`SET_ASIDE`)."""

    rubric: Rubric
    set_aside: pl.DataFrame


def learn(labelled: tuple[Shard, ...], config: SpurConfig, means: Means) -> Learned:
    """A rubric with thresholds from parts of labelled conversations (id, messages, label).

    Raises `BadInput` for labels that cannot be learned from, and `TilthError` when no reason was found or a merge has
    no answer: a rubric that misses a hundred reasons would not be the one that was asked for.
    """
    (split,) = means.run(Apart(config), {"all": {"labelled": labelled}}).values()
    reasons, unread = _extract(split, config, means)
    items, calls = _merge(reasons, config, means)
    rubric = Rubric(items["sat"], items["dsat"], model=means.ask("score", ROLE).identity, prompts=prompts())
    trials = {"trials": {"conversations": tuple(split.outputs["trials"])}}
    (tried,) = score(trials, rubric, config, means).values()
    labels = _read(split.outputs["trials"], _LABELLED)
    scored = _read(tried.outputs.get("scores", []), SCORES).join(
        labels.select("id", truth="label"), left_on="conversation_id", right_on="id"
    )
    if scored.is_empty():
        raise TilthError("no conversation could be scored by the new rubric", found=f"{labels.height} tried")
    thresholds, f1 = choose_thresholds(scored["score"].to_list(), scored["truth"].to_list())
    counts = {
        "reasons": reasons.height,
        "merge_calls": calls,
        "trials": scored.height,
        "weighted_f1": round(f1, 4),
    }
    unscored = _read(tried.outputs.get("set_aside", []), SET_ASIDE)
    return Learned(rubric.with_thresholds(thresholds, counts), pl.concat([unread, unscored]))


def score(
    conversations: Mapping[str, Inputs], rubric: Rubric, config: SpurConfig, means: Means
) -> dict[str, Manifest]:
    """Scores conversations by a rubric: by part, what was made of its shards under `conversations`.

    Every conversation is a row of the part's `scores` (`SCORES`) or of its `set_aside` (`SET_ASIDE`).
    """
    rendered = means.run(ScoreRequests(rubric, config), conversations)
    answers = means.answer(rendered, "score", ROLE)
    return means.run(ReadScores(rubric, means.ask("score", ROLE).identity), answers)


def _extract(split: Manifest, config: SpurConfig, means: Means) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Reasons, and the conversations that the model could not be asked about."""
    examples = {"all": {"conversations": tuple(split.outputs["examples"])}}
    rendered = means.run(ExtractRequests(config), examples)
    (answers,) = means.answer(rendered, "extract", ROLE).values()
    asked = pl.concat([read_part(shard) for shard in answers["asked"]])
    told = _read(list(answers.get("completions", ())), COMPLETIONS)
    aside = asked.join(_failed(answers), on="id").select(SET_ASIDE.names())
    return reasons_of(asked, told), aside


def _merge(
    reasons: pl.DataFrame, config: SpurConfig, means: Means
) -> tuple[dict[str, tuple[Item, ...]], int]:
    """The items of both sides after all rounds, and how many calls that took."""
    waiting = {side: batches(reasons, side, config) for side in SIDES}
    if empty := [side for side, found in waiting.items() if not found]:
        raise TilthError(
            "nothing to make a rubric of",
            found=f"no reasons for {' and '.join(empty)}",
            wanted="some for either side",
            do="label more conversations, or ask another model",
        )
    running: dict[str, tuple[Item, ...]] = {}
    for at in range(max(map(len, waiting.values()))):
        found = {side: listed[at] for side, listed in waiting.items() if at < len(listed)}
        running |= _round(at, running, found, config, means)
    return running, sum(map(len, waiting.values()))


def _round(
    at: int,
    running: Mapping[str, tuple[Item, ...]],
    found: Mapping[str, list[str]],
    config: SpurConfig,
    means: Means,
) -> dict[str, tuple[Item, ...]]:
    held = {side: [[i.name, i.description] for i in items] for side, items in running.items()}
    task = Task(f"{at:06d}", options={"running": held, "found": dict(found)})
    (rendered,) = means.conduct(MergeRequests(config), [task])
    (answers,) = means.answer({task.name: rendered}, f"merge-{at}", ROLE).values()
    asked = pl.concat([read_part(shard) for shard in answers["asked"]])
    made = merged(asked, _read(list(answers.get("completions", ())), COMPLETIONS), config)
    missing = [side for side in found if not made.get(side)]
    if missing:
        raise TilthError(
            "reasons could not be merged into a rubric",
            found=f"no usable answer for {' and '.join(missing)}, round {at + 1}",
            do="run the same command again, or ask another model",
        )
    return made


def _failed(answers: Inputs) -> pl.DataFrame:
    """Requests without an answer: id, reason, detail."""
    return pl.concat(
        [pl.DataFrame(schema=FAILED), *(set_aside(read_part(s)) for s in answers.get("quarantine", ()))]
    )


def _read(shards: list[Shard], schema: pl.Schema) -> pl.DataFrame:
    frames = [read_part(shard).select(schema.names()).cast(schema) for shard in shards]
    return pl.concat([pl.DataFrame(schema=schema), *frames])
