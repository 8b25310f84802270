"""Scores of a model's answers on the user-guided evaluation set (WildFeedback, arXiv 2408.15549, step 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple  # Any: JSON values

import polars as pl

from tilth.schemas import PL_MESSAGES, BadInput, Reason, content_ids
from tilth.transforms.inference.asking import answered, write_questions
from tilth.transforms.inference.prompts import as_chat
from tilth.transforms.inference.requests import Questions, demand_settled
from tilth.transforms.inference.sampling import asked_frame, request_id, seed_for
from tilth.transforms.judging.items import ITEMS, items
from tilth.transforms.responses.candidates import Replying
from tilth.transforms.stage import Output, Task, rows_of

ANSWERS: Final = pl.Schema(
    {
        "id": pl.String,  # of the evaluation item
        "reply": PL_MESSAGES,  # null where there is none
        "reason": pl.String,  # why there is none, a `Reason`
    }
)
MATCHES: Final = pl.Schema(
    {
        "id": pl.String,  # of the evaluation item
        "item_id": pl.String,  # what judges compare; null where nobody is asked
        "cluster": pl.Int32,
        "settled": pl.String,  # missing (an answer is), tie (both are the same text), null where judges decide
        "chars": pl.Int64,  # of the answer
        "chars_against": pl.Int64,
    }
)
RESULTS: Final = pl.Schema(
    {
        "id": pl.String,
        "cluster": pl.Int32,
        "verdict": pl.String,  # of the answer: win | loss | tie | inconsistent | failed | missing
        "identical": pl.Boolean,  # whether both are the same text: a tie, and no judge was asked
        "score": pl.Float64,
        "score_against": pl.Float64,
        "margin": pl.Float64,
        "bpde": pl.Float64,
        "needs_person": pl.Boolean,
        "chars": pl.Int64,
        "chars_against": pl.Int64,
    }
)
OUTCOMES: Final = {
    "wins": "win",
    "losses": "loss",
    "ties": "tie",
    "inconsistent": "inconsistent",
    "failed": "failed",
    "missing": "missing",
}
_TEXTS: Final = ("completion", "text")


class Matches(NamedTuple):
    """What judges compare (`ITEMS`), and what each evaluation item has to do with it (`MATCHES`)."""

    items: pl.DataFrame
    matches: pl.DataFrame


# Answers


def read_answers(rows: pl.DataFrame, evaluation: pl.DataFrame, allow_missing: bool = False) -> pl.DataFrame:
    """Answers from a table of a user's own, as `ANSWERS`: one for each item of the evaluation set, in its order.

    Args:
        rows: `id` of the item, and `completion` or `text`: a string, or messages of the assistant.
        evaluation: rows of table `evaluation`.
        allow_missing: whether items may lack an answer; a blank one is none.

    Raises `BadInput`, with counts, for ids that are unknown or stand there twice, and for items without an answer.
    """
    text = next((name for name in _TEXTS if name in rows.columns), None)
    if text is None or "id" not in rows.columns:
        found = f"columns {', '.join(rows.columns)}"
        raise BadInput("a table of answers", found=found, wanted="id, and completion or text")
    given = rows.select(pl.col("id").cast(pl.String), reply=_as_reply(rows.schema[text], text))
    known = evaluation.select("id")
    _check_ids(given, known)
    joined = known.join(given, on="id", how="left", maintain_order="left")
    spoken = (
        pl.col("reply").list.eval(pl.element().struct.field("content").str.strip_chars() != "").list.any()
    )
    blank = ~spoken.fill_null(value=False)
    missing = joined.filter(blank).height
    if missing and not allow_missing:
        do = "answer them, or leave them out of the score with --allow-missing"
        raise BadInput(
            "items without an answer", found=f"{missing} of {known.height}", wanted="one each", do=do
        )
    reason = pl.when(blank).then(pl.lit(Reason.EMPTY.value))
    reply = pl.when(~blank).then("reply")
    return _answers(joined.with_columns(reply=reply, reason=reason))


def _as_reply(kind: pl.DataType, column: str) -> pl.Expr:
    if kind == pl.String or kind == pl.Null:
        said = pl.concat_list(pl.struct(role=pl.lit("assistant"), content=pl.col(column).cast(pl.String)))
        return pl.when(pl.col(column).is_not_null()).then(said.cast(PL_MESSAGES))
    if kind == PL_MESSAGES:
        return pl.col(column)
    raise BadInput(f"the answers, column {column}", found=str(kind)[:100], wanted="text, or messages")


def _check_ids(given: pl.DataFrame, known: pl.DataFrame) -> None:
    unknown = given.join(known, on="id", how="anti").height
    twice = given.height - given.get_column("id").n_unique()
    if unknown or twice:
        found = f"{unknown} of {given.height} unknown, {twice} repeated"
        do = "check that they were made for this version of the evaluation set"
        raise BadInput("ids of answers", found=found, wanted="each item's id once", do=do)


def _answers(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(pl.col(name).cast(kind) for name, kind in ANSWERS.items())


def answer_requests(evaluation: pl.DataFrame, side: str, replying: Replying, seed: int = 0) -> Questions:
    """Asks a model for its answer to each item: the logged conversation as it is, and nothing of the checklist."""
    ids = evaluation.get_column("id").to_list()
    greedy = replying.temperature == 0
    names = [request_id(id_, f"evaluate/{side}") for id_ in ids]
    seeds = [None if greedy else seed_for(seed, id_, 0) for id_ in ids]
    chats = [as_chat(prompt) for prompt in evaluation.get_column("prompt")]
    said = [(name, chat, 0, at) for name, chat, at in zip(names, chats, seeds, strict=True)]
    asked = pl.DataFrame({"id": names, "item": ids}, schema={"id": pl.String, "item": pl.String})
    return Questions(asked_frame(said, replying.sampling), asked)


def answers_of(asked: pl.DataFrame, completions: pl.DataFrame, failed: pl.DataFrame) -> pl.DataFrame:
    """A model's answers as `ANSWERS`, joined by id alone; one that is blank is none, one that was cut off counts.

    Raises `TilthError` when a request has neither an answer nor a reason, or both.
    """
    demand_settled("answers", asked, completions, failed)
    rows = asked.join(completions.select("id", "text"), on="id", how="left", maintain_order="left")
    told = rows.join(failed.select("id", "reason"), on="id", how="left", maintain_order="left")
    blank = pl.col("text").is_not_null() & (pl.col("text").str.strip_chars() == "")
    reason = pl.when(blank).then(pl.lit(Reason.EMPTY.value)).otherwise("reason")
    reply = pl.when(~blank).then(_as_reply(pl.String(), "text"))
    return _answers(told.select(id="item", reply=reply, reason=reason))


# Comparing


def match(
    evaluation: pl.DataFrame, answers: pl.DataFrame, against: pl.DataFrame | None, checklist: bool = True
) -> Matches:
    """Puts each answer beside what it is compared with: other answers, or (null) the reference of its item.

    Of each pair the answer comes first. Both sides with the same text tie without a judge. Without `checklist`, judges
    do not see what the user wants.
    """
    other = (
        evaluation.select("id", against="reference")
        if against is None
        else against.select("id", against="reply")
    )
    rows = evaluation.join(answers.select("id", answer="reply"), on="id", how="left", maintain_order="left")
    both = rows.join(other, on="id", how="left", maintain_order="left")
    sides = {"answer": _text("answer"), "against": _text("against")}
    missing = pl.col("answer").is_null() | pl.col("against").is_null()
    same = sides["answer"] == sides["against"]
    settled = pl.when(missing).then(pl.lit("missing")).when(same).then(pl.lit("tie"))
    told = both.with_columns(
        settled=settled,
        chars=sides["answer"].str.len_chars().cast(pl.Int64),
        chars_against=sides["against"].str.len_chars().cast(pl.Int64),
    )
    asked = _items(told.filter(pl.col("settled").is_null()), checklist)
    firsts = asked.select("item_id", first=pl.col("response_ids").list.first())
    named = told.with_columns(_reply_id(told, "answer").alias("first"))
    linked = named.join(firsts, on="first", how="left", maintain_order="left")
    return Matches(asked, linked.select(pl.col(name).cast(kind) for name, kind in MATCHES.items()))


def _text(column: str) -> pl.Expr:
    return pl.col(column).list.eval(pl.element().struct.field("content")).list.join("\n")


def _reply_id(rows: pl.DataFrame, side: str) -> pl.Series:
    """What a reply is known by to judges: the item, the side and the text."""
    return content_ids(rows, f"evaluate/{side}", [pl.col("id"), _text(side)])


def _items(rows: pl.DataFrame, checklist: bool) -> pl.DataFrame:
    ids = [_reply_id(rows, side).alias(f"{side}_id") for side in ("answer", "against")]
    wishes = pl.col("checklist") if checklist else pl.lit([], ITEMS["checklist"])
    # A list of lists by way of a struct: polars would join the two lists end to end.
    replies = pl.Series("replies", rows.select("answer", "against").rows(), dtype=ITEMS["replies"])
    named = rows.with_columns(*ids).with_columns(
        replies, response_ids=pl.concat_list("answer_id", "against_id"), checklist=wishes
    )
    return items(named)


def settle(matches: pl.DataFrame, verdicts: pl.DataFrame) -> pl.DataFrame:
    """Each item of the evaluation set with its verdict, as `RESULTS`, sorted by cluster and id.

    `verdicts` are the panel's (`VERDICTS`); an item that judges were asked about and said nothing of has failed.
    """
    said = verdicts.select("item_id", "verdict", "score_a", "score_b", "margin", "bpde", "needs_person")
    rows = matches.join(said, on="item_id", how="left", maintain_order="left")
    told = rows.with_columns(
        verdict=pl.coalesce("settled", "verdict", pl.lit("failed")),
        identical=(pl.col("settled") == "tie").fill_null(value=False),
        score="score_a",
        score_against="score_b",
        needs_person=pl.col("needs_person").fill_null(value=False),
    )
    return told.select(pl.col(name).cast(kind) for name, kind in RESULTS.items()).sort("cluster", "id")


# Scoring


@dataclass(frozen=True, slots=True)
class Scoring:
    """How verdicts become a score.

    Args:
        resamples: of the bootstrap over items.
        level: of its interval.
        seed: of it.
    """

    resamples: int = 2_000
    level: float = 0.95
    seed: int = 0


def score(results: pl.DataFrame, scoring: Scoring = Scoring()) -> dict[str, Any]:
    """What a model's answers are worth, as plain values: of all, and by cluster.

    `win_rate`: (wins + ties/2) / (wins + losses + ties). `win_rate_strict` counts what the orders do not agree in as
    half a win: (wins + ties/2 + inconsistent/2) / (wins + losses + ties + inconsistent). Failed and missing items are
    in neither, and are counted. Intervals are percentiles of a bootstrap over items. `length`: how long both sides
    are, and what a judge that always prefers the longer one would say (`longer_wins`: its win rate), with the share of
    wins and losses that it agrees with. A number that nothing is known of is null, never 0.
    """
    parts = results.partition_by("cluster", maintain_order=True) if results.height else []
    clusters = [{"cluster": part["cluster"][0], **_rates(part, scoring)} for part in parts]
    return {**_rates(results, scoring), "length": _lengths(results), "clusters": clusters}


def _rates(results: pl.DataFrame, scoring: Scoring) -> dict[str, Any]:
    counts = {name: results.filter(pl.col("verdict") == word).height for name, word in OUTCOMES.items()}
    plain, strict = _intervals(counts, scoring)
    return {
        "items": results.height,
        **counts,
        "identical": results.filter("identical").height,
        "win_rate": _rate(counts, _PLAIN),
        "win_rate_interval": plain,
        "win_rate_strict": _rate(counts, _STRICT),
        "win_rate_strict_interval": strict,
    }


_PLAIN: Final = {"wins": 1.0, "losses": 0.0, "ties": 0.5}
_STRICT: Final = {**_PLAIN, "inconsistent": 0.5}


def _rate(counts: Mapping[str, int], worth: Mapping[str, float]) -> float | None:
    judged = sum(counts[name] for name in worth)
    return sum(counts[name] * value for name, value in worth.items()) / judged if judged else None


def _intervals(counts: Mapping[str, int], scoring: Scoring) -> list[list[float] | None]:
    """Of the two rates. Items differ by their outcome alone, so drawing items is drawing counts of outcomes."""
    import numpy as np

    size, names = sum(counts.values()), list(counts)
    if not size:
        return [None, None]
    shares = np.array([counts[name] for name in names]) / size
    drawn = np.random.default_rng(scoring.seed).multinomial(size, shares, scoring.resamples)
    tails = [(1 - scoring.level) / 2, (1 + scoring.level) / 2]
    found: list[list[float] | None] = []
    for worth in (_PLAIN, _STRICT):
        judged = drawn @ np.array([name in worth for name in names])
        values = drawn @ np.array([worth.get(name, 0.0) for name in names])
        rates = values[judged > 0] / judged[judged > 0]
        found.append([float(edge) for edge in np.quantile(rates, tails)] if rates.size else None)
    return found


def _lengths(results: pl.DataFrame) -> dict[str, float | None]:
    judged = results.filter(~pl.col("verdict").is_in(("missing", "failed")))
    longer = (pl.col("chars") - pl.col("chars_against")).sign()
    prefers = pl.col("verdict").replace_strict({"win": 1, "loss": -1}, default=None, return_dtype=pl.Int8)
    decided = judged.filter(prefers.is_not_null())
    told = judged.select(
        mean_chars=pl.col("chars").mean(),
        mean_chars_against=pl.col("chars_against").mean(),
        longer_wins=((longer + 1) / 2).mean(),
    ).row(0, named=True)
    return {**told, "agrees_with_longer": decided.select((longer == prefers).mean()).item()}


# Steps


@dataclass(frozen=True, slots=True)
class AnswerRequests:
    """Asks a model to answer the set. Input: one `evaluation` part. Writes `requests` and `asked`."""

    purpose: str  # which side answers
    replying: Replying
    seed: int = 0
    name: ClassVar[str] = "answer_requests"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        questions = answer_requests(rows_of(task, "evaluation"), self.purpose, self.replying, self.seed)
        write_questions(questions, out)


@dataclass(frozen=True, slots=True)
class ReadAnswers:
    """Reads what a model answered. Inputs: `asked`, `completions`, `quarantine`. Writes `answers`."""

    purpose: str
    name: ClassVar[str] = "answers"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        out.write("answers", answers_of(rows_of(task, "asked"), *answered(task)))


@dataclass(frozen=True, slots=True)
class Match:
    """Puts answers side by side. Inputs: one `evaluation` part, its `answers` and, unless its references are meant,
    what they are compared with (`against`). Writes `items` and `matches`.
    """

    checklist: bool = True
    name: ClassVar[str] = "match"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        evaluation, answers = rows_of(task, "evaluation"), rows_of(task, "answers")
        against = rows_of(task, "against") if "against" in task.inputs else None
        matched = match(evaluation, answers, against, self.checklist)
        out.write("items", matched.items)
        out.write("matches", matched.matches)
