"""The recipe `evaluate`: a model's answers on the held-out set, judged in both orders with each item's checklist.

evaluation -> [answer] [against] -> match -> [judge 1] [judge 2] ... -> verdicts -> score

In brackets: what a model is asked; answers may also come from files. Source: WildFeedback (arXiv 2408.15549), step 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from tilth.pipelines.judging import judge, purpose_of
from tilth.pipelines.means import Inputs, Means
from tilth.schemas import empty
from tilth.transforms.judging.aggregate import by_panel
from tilth.transforms.judging.evaluation import AnswerRequests, Match, ReadAnswers, Scoring, settle
from tilth.transforms.judging.protocol import Judging
from tilth.transforms.judging.votes import votes_of
from tilth.transforms.parts import Shard, read_part
from tilth.transforms.responses.candidates import Replying
from tilth.transforms.stage import outputs

NAME = "evaluate"


def _greedy() -> Replying:
    return Replying(temperature=0.0)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How answers are had, judged and scored.

    Args:
        policy: the role that answers; empty where answers are given.
        against: the role whose answers they are compared with; empty for given ones, or the items' references.
        checklist: whether judges see what the user wants.
        replying: how models answer.
        judging: how answers are judged.
        scoring: how verdicts become a score.
        seed: of samples.
    """

    policy: str = ""
    against: str = ""
    checklist: bool = True
    replying: Replying = field(default_factory=_greedy)
    judging: Judging = field(default_factory=Judging)
    scoring: Scoring = field(default_factory=Scoring)
    seed: int = 0


def evaluate(parts: Mapping[str, Inputs], config: Evaluation, means: Means) -> pl.DataFrame:
    """The results of each item, as `RESULTS`.

    `parts`: by name, `evaluation` parts, with given `answers` and `against` (`ANSWERS`) where there are any; without
    `against`, given or asked for, answers are compared with the references. What asking raises is raised; finished work
    is kept.
    """
    told = dict(parts)
    for side, role in (("answers", config.policy), ("against", config.against)):
        if role:
            told = _answered(told, side, role, config, means)
    matched = means.run(Match(config.checklist), told)
    protocol = config.judging.pairwise(config.seed)
    judgments = judge({part: outputs(made, "items") for part, made in matched.items()}, protocol, means)
    votes = votes_of(_read([shard for part in judgments.values() for shard in part], empty("judgments")))
    verdicts = by_panel(votes, protocol.aggregation, protocol.weights)
    matches = [shard for made in matched.values() for shard in made.outputs["matches"]]
    return settle(pl.concat([read_part(shard) for shard in matches]), verdicts)


def _answered(
    parts: Mapping[str, Inputs], side: str, role: str, config: Evaluation, means: Means
) -> dict[str, Inputs]:
    """Parts with a model's answers as one of their inputs."""
    asked = means.run(AnswerRequests(side, config.replying, config.seed), parts)
    told = means.run(ReadAnswers(side), means.answer(asked, side, role))
    return {
        part: {**inputs, side: outputs(told[part], "answers")["answers"]} for part, inputs in parts.items()
    }


def _read(shards: list[Shard], nothing: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([nothing, *(read_part(shard) for shard in shards)])


def calls(items: int, config: Evaluation) -> dict[str, int]:
    """How many calls an evaluation takes at most, by who is asked; nothing is asked."""
    protocol = config.judging.pairwise(config.seed)
    answering = {
        side: items for side, role in (("answers", config.policy), ("against", config.against)) if role
    }
    judging = {purpose_of("judge", member.name): 2 * protocol.evidences * items for member in protocol.judges}
    return {**answering, **judging}
