"""ORBIT: criteria for a prompt, written with the rubrics of similar cases in view.

Source: InfiMed-ORBIT (arXiv 2510.15859, Algorithm 1 and Table 3). Where we differ: retrieval is TF-IDF unless an
embedding model is named, and no reranker is asked (`found_for`); seeds that are the same case as the prompt are never
shown; and a criterion that was copied from what was shown is set aside, not only forbidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple  # Any: parsed JSON

import orjson
import polars as pl

from tilth.schemas import PL_MESSAGES, ConfigError, Reason
from tilth.transforms.inference.prompts import Prompt, packaged_prompt
from tilth.transforms.inference.requests import Questions, Sampling, demand_settled
from tilth.transforms.inference.sampling import request_id, requests_frame
from tilth.transforms.pairs.candidates import DROPPED
from tilth.transforms.rubrics.criteria import criteria_rows
from tilth.transforms.rubrics.retrieval import Retrieval, nearest
from tilth.transforms.rubrics.seeds import POINTS, criterion_ids, criterion_pool, same_cases

ASKED: Final = pl.Schema(
    {
        "id": pl.String,  # of the request
        "prompt_id": pl.String,
        "exemplar_ids": pl.List(pl.String),  # seeds that were shown whole, the nearest first
        "criterion_ids": pl.List(pl.String),  # of the pool, shown as ideas, the nearest first
        "shown_ids": pl.List(pl.String),  # of the pool, every criterion that was shown in either way
    }
)
FOUND: Final = pl.Schema({name: kind for name, kind in ASKED.items() if name != "id"})
RETRIEVED: Final = pl.Schema({"prompt_id": pl.String, "retrieved_ids": pl.List(pl.String)})
_CRITERION_CHARS: Final = 400


@dataclass(frozen=True, slots=True)
class Retrieving:
    """What a model is shown for a prompt, by the numbers of the paper's Table 3, and how it writes criteria.

    Args:
        cases: the nearest seeds, t_c.
        exemplars: how many of them, the nearest, are shown with their whole rubric.
        criteria: the nearest criteria of the pool, t_r.
        shown: how many of them are shown after reranking.
        ngram: words of a run, for finding seeds that are the same case as the prompt (`same_cases`).
        same_case: share of words in shared runs above which a seed is the same case, and shown in no part.
        min_criteria: the fewest that are asked for; an answer with fewer is used all the same.
        max_criteria: the most.
        temperature: of the sampling.
        answer_tokens: the longest answer.
        seed: of the sampling.
    """

    cases: int = 10
    exemplars: int = 3
    criteria: int = 50
    shown: int = 15
    ngram: int = 8
    same_case: float = 0.5
    min_criteria: int = 5
    max_criteria: int = 25
    temperature: float = 0.2
    answer_tokens: int = 3072
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.exemplars <= self.cases and 0 <= self.shown <= self.criteria):
            found = f"{self.exemplars} of {self.cases} cases, {self.shown} of {self.criteria} criteria"
            raise ConfigError("what is retrieved", found=found, wanted="0 or more, of at least as many")
        if self.ngram < 1 or not 0 <= self.same_case <= 1:
            found = f"ngram={self.ngram}, same_case={self.same_case}"
            raise ConfigError("which case is the same", found=found, wanted="1 or more; 0 to 1")
        if not 1 <= self.min_criteria <= self.max_criteria:
            found = f"{self.min_criteria} to {self.max_criteria}"
            raise ConfigError("how many criteria", found=found, wanted="1 or more, the fewest first")

    @property
    def sampling(self) -> Sampling:
        """How each answer is drawn; the seed of a sample is its own."""
        return Sampling(self.temperature, 1.0, self.answer_tokens)


class Written(NamedTuple):
    """`CRITERIA`, rows of `quarantine` without `id`, and `RETRIEVED` of the prompts that have criteria."""

    kept: pl.DataFrame
    dropped: pl.DataFrame
    retrieved: pl.DataFrame


def orbit_prompt() -> Prompt:
    """The prompt that asks for a rubric."""
    return packaged_prompt("tilth.transforms.rubrics", "orbit")


# What is shown


def found_for(
    prompts: pl.DataFrame, seeds: pl.DataFrame, config: Retrieving, retrieval: Retrieval
) -> pl.DataFrame:
    """`FOUND`, what a model is shown for each of `PROMPTS`; of a pool that has nothing like it, nothing.

    Exemplars are the nearest of the `cases` nearest seeds. Ideas come from the `criteria` of the pool that are nearest
    to the prompt, leaving out those that the exemplars' rubrics show. The paper reranks them with a model; here the
    order is by the sum of two similarities, to the prompt and to the prompt together with the prompts of its `cases`
    nearest seeds (0 where a criterion is not among the nearest of the latter).

    Seeds that are the same case as the prompt (`same_cases`) take no part, nor do criteria that only they hold.
    """
    same = same_cases(prompts, seeds, config.ngram, config.same_case)
    asked = prompts.select("prompt_id", text=_text("prompt"))
    known = seeds.select(id="seed_id", text=_text("prompt"))
    cases = _nearest(asked, known, same.rename({"seed_id": "id"}), config.cases, retrieval)
    exemplars = _first(cases, config.exemplars)
    pool = criterion_pool(seeds)
    written = _written_for(exemplars, pool)
    barred = pl.concat([written, _only_of(same, pool)]).unique()
    ideas = _ideas(asked, known, cases, pool, barred, config, retrieval)
    listed = (
        prompts.select("prompt_id")
        .join(_lists(exemplars, "exemplar_ids"), on="prompt_id", how="left", maintain_order="left")
        .join(_lists(ideas, "criterion_ids"), on="prompt_id", how="left", maintain_order="left")
        .join(
            _lists(written.sort("prompt_id", "id"), "_written"),
            on="prompt_id",
            how="left",
            maintain_order="left",
        )
        .with_columns(pl.exclude("prompt_id").fill_null(pl.lit([], pl.List(pl.String))))
    )
    return listed.select(
        "prompt_id", "exemplar_ids", "criterion_ids", shown_ids=pl.concat_list("_written", "criterion_ids")
    )


def _text(column: str) -> pl.Expr:
    return pl.col(column).list.eval(pl.element().struct.field("content")).list.join("\n\n")


def _nearest(
    queries: pl.DataFrame, documents: pl.DataFrame, barred: pl.DataFrame, k: int, retrieval: Retrieval
) -> pl.DataFrame:
    """The `k` nearest `documents` (`id`, `text`) of each query (`prompt_id`, `text`) but those `barred` for it."""
    most = barred.group_by("prompt_id").len().get_column("len").max() or 0
    asked, among = (frame.get_column("text").to_list() for frame in (queries, documents))
    found = nearest(asked, among, k + int(str(most)), retrieval)
    named = found.select(
        queries.get_column("prompt_id").gather(found.get_column("query")),
        documents.get_column("id").gather(found.get_column("document")),
        "similarity",
        "rank",
    )
    free = named.join(barred, on=["prompt_id", "id"], how="anti").sort("prompt_id", "rank")
    return _first(free, k)


def _first(rows: pl.DataFrame, count: int) -> pl.DataFrame:
    """The first rows of each prompt; unlike `head` of groups, none where none are wanted."""
    return rows.filter(pl.int_range(pl.len()).over("prompt_id") < count)


def _written_for(exemplars: pl.DataFrame, pool: pl.DataFrame) -> pl.DataFrame:
    """`prompt_id`, `id`: the criteria in the rubrics of a prompt's exemplars."""
    held = pool.select("criterion_id", id="seed_ids").explode("id")
    return exemplars.join(held, on="id").select("prompt_id", id="criterion_id").unique()


def _only_of(same: pl.DataFrame, pool: pl.DataFrame) -> pl.DataFrame:
    """`prompt_id`, `id`: the criteria that no seeds hold but those that are the same case as the prompt."""
    held = pool.select("criterion_id", holders=pl.col("seed_ids").list.len(), seed_id="seed_ids").explode(
        "seed_id"
    )
    counted = same.join(held, on="seed_id").group_by("prompt_id", "criterion_id", "holders").len()
    return counted.filter(pl.col("len") == pl.col("holders")).select("prompt_id", id="criterion_id")


def _ideas(
    asked: pl.DataFrame,
    known: pl.DataFrame,
    cases: pl.DataFrame,
    pool: pl.DataFrame,
    barred: pl.DataFrame,
    config: Retrieving,
    retrieval: Retrieval,
) -> pl.DataFrame:
    documents = pool.select(id="criterion_id", text="criterion")
    near = _nearest(asked, documents, barred, config.criteria, retrieval)
    like = (
        cases.join(known, on="id", maintain_order="left")
        .group_by("prompt_id")
        .agg(like=pl.col("text").str.join("\n\n"))
    )
    wider = asked.join(like, on="prompt_id", how="left", maintain_order="left").select(
        "prompt_id", text=pl.concat_str("text", "like", separator="\n\n", ignore_nulls=True)
    )
    again = _nearest(wider, documents, barred, config.criteria, retrieval)
    both = near.join(again.select("prompt_id", "id", again="similarity"), on=["prompt_id", "id"], how="left")
    scored = both.with_columns(score=(pl.col("similarity") + pl.col("again").fill_null(0.0)).round(6))
    ordered = scored.sort("prompt_id", "score", "rank", descending=[False, True, False])
    return _first(ordered, config.shown)


def _lists(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    return rows.group_by("prompt_id", maintain_order=True).agg(pl.col("id").alias(name))


# Asking


def orbit_requests(
    prompts: pl.DataFrame, seeds: pl.DataFrame, config: Retrieving, retrieval: Retrieval
) -> Questions:
    """One request for each of `PROMPTS`; `asked` is `ASKED`. See `found_for` for what is shown."""
    prompt = orbit_prompt()
    found = found_for(prompts, seeds, config, retrieval)
    rows = prompts.select("prompt_id", "prompt").join(found, on="prompt_id", maintain_order="left")
    shown = pl.DataFrame(list(_shown(rows, seeds)), schema=_SHOWN, orient="row").with_columns(
        min_criteria=pl.lit(config.min_criteria), max_criteria=pl.lit(config.max_criteria)
    )
    requests = requests_frame(
        prompt,
        shown,
        "prompt_id",
        config.sampling,
        schema=answer_schema(config),
        run_seed=config.seed,
    )
    ids = [request_id(id_, prompt.id) for id_ in rows.get_column("prompt_id")]
    asked = rows.with_columns(pl.Series("id", ids, dtype=pl.String))
    return Questions(requests, asked.select(pl.col(name).cast(kind) for name, kind in ASKED.items()))


_SHOWN: Final = pl.Schema(
    {
        "prompt_id": pl.String,
        "prompt": PL_MESSAGES,
        "exemplars": pl.List(pl.Struct({"prompt": PL_MESSAGES, "rubric": pl.String})),
        "ideas": pl.String,  # a line each
    }
)


def _shown(rows: pl.DataFrame, seeds: pl.DataFrame) -> Iterator[tuple[object, ...]]:
    cases = {
        id_: {
            "prompt": prompt,
            "rubric": "\n".join(f"[{one['points']:+g}] {one['criterion']}" for one in rubric),
        }
        for id_, prompt, rubric in seeds.select("seed_id", "prompt", "criteria").iter_rows()
    }
    pool = criterion_pool(seeds).select("criterion_id", "criterion", "wanted")
    lines = {id_: f"[{'wanted' if wanted else 'mistake'}] {text}" for id_, text, wanted in pool.iter_rows()}
    columns = rows.select("prompt_id", "prompt", "exemplar_ids", "criterion_ids")
    for prompt_id, prompt, exemplars, ideas in columns.iter_rows():
        yield prompt_id, prompt, [cases[id_] for id_ in exemplars], "\n".join(lines[id_] for id_ in ideas)


def answer_schema(config: Retrieving) -> str:
    """The JSON Schema of a rubric: criteria with points."""
    fields: dict[str, Any] = {
        "criterion": {"type": "string", "maxLength": _CRITERION_CHARS},
        "points": {"type": "integer", "minimum": -POINTS, "maximum": POINTS},
    }
    item = _object(fields)
    listed = {"type": "array", "items": item, "maxItems": config.max_criteria}
    return orjson.dumps({"title": "tilth.rubric.orbit", **_object({"criteria": listed})}).decode()


def _object(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(fields),
        "required": list(fields),
        "additionalProperties": False,
    }


# Answers


def orbit_criteria(asked: pl.DataFrame, completions: pl.DataFrame, failed: pl.DataFrame) -> Written:
    """`CRITERIA` of a model's answers, joined by id alone: source `model`, tag `orbit`, weight = points.

    Set aside is a criterion without text or without points, one that was shown word for word (case, white space and the
    full stop aside), one that the answer holds already (the one with more points stays), and one that it both wants and
    counts as a mistake. A prompt left without a criterion of points above 0 has no rubric, since no reply could be
    scored, and is set aside itself.

    Args:
        asked: `ASKED`.
        completions: `COMPLETIONS` that fit `answer_schema`, in any order.
        failed: `FAILED`, of requests without an answer.

    Raises `TilthError` when an answer belongs to no request, or a request has neither an answer nor a reason, or both.
    """
    demand_settled("rubrics", asked, completions, failed)
    said = pl.DataFrame(list(_said(completions)), schema=_SAID, orient="row")
    marked = _marked(said.join(asked, on="id", maintain_order="left"))
    scorable = (pl.col("weight") > 0) & pl.col("reason").is_null()
    found = marked.filter(scorable.any().over("prompt_id"))
    rest = marked.join(found, on="prompt_id", how="anti").with_columns(
        pl.col("reason").fill_null(Reason.NO_CRITERION.value)
    )
    answered = asked.join(completions, on="id", how="semi")
    bare = answered.join(found, on="prompt_id", how="anti").select(
        "prompt_id",
        reason=pl.lit(Reason.NO_CRITERION.value),
        detail=pl.lit("no criterion with points above 0"),
    )
    unanswered = asked.join(failed, on="id").select("prompt_id", "reason", "detail")
    kept = found.filter(pl.col("reason").is_null())
    lost = pl.concat([found.filter(pl.col("reason").is_not_null()), rest])
    dropped = pl.concat([_dropped(lost), _without(bare), _without(unanswered)])
    return Written(_rows(kept), dropped.sort("key", "payload"), _retrieved(answered, kept))


_SAID: Final = pl.Schema(
    {
        "id": pl.String,
        "place": pl.Int32,
        "description": pl.String,
        "weight": pl.Float64,
        "model": pl.String,
    }
)
_DETAILS: Final = {
    Reason.NUL_CHARACTER.value: "a criterion that holds a NUL character",
    Reason.EMPTY.value: "a criterion without text, or without points",
    Reason.CONTRADICTORY.value: "the answer both wants it and counts it as a mistake",
    Reason.DUPLICATE.value: "word for word as it was shown, or as the answer has it already",
    Reason.NO_CRITERION.value: "a mistake, in a rubric that wants nothing",
}


def _said(completions: pl.DataFrame) -> Iterator[tuple[object, ...]]:
    for id_, text, model in completions.select("id", "text", "model").iter_rows():
        for place, one in enumerate(orjson.loads(text)["criteria"]):
            yield id_, place, " ".join(one["criterion"].split()), float(one["points"]), model


def _marked(rows: pl.DataFrame) -> pl.DataFrame:
    """`rows` with `reason`, null for a criterion that can be used."""
    keyed = rows.with_columns(criterion_ids(rows, "description").alias("key")).sort(
        "id", -pl.col("weight").abs(), "place"
    )
    same = ["id", "key"]
    usable = pl.col("weight") != 0
    both_ways = (pl.col("weight") > 0).filter(usable).n_unique().over(same) > 1
    shown = pl.col("key").is_in(pl.col("shown_ids"))
    again = pl.int_range(pl.len()).over(same) > 0
    reasons = [
        (pl.col("description").str.contains("\0", literal=True), Reason.NUL_CHARACTER),
        ((pl.col("description") == "") | ~usable, Reason.EMPTY),
        (both_ways, Reason.CONTRADICTORY),
        (shown | again, Reason.DUPLICATE),
    ]
    first = pl.coalesce(pl.when(found).then(pl.lit(why.value)) for found, why in reasons)
    return keyed.with_columns(reason=first).drop("key")


def _rows(kept: pl.DataFrame) -> pl.DataFrame:
    prompt = orbit_prompt()
    fixed = {
        "kind": pl.lit("principle"),
        "check": pl.lit("judge"),
        "tags": pl.lit(["orbit"], pl.List(pl.String)),
        "source": pl.lit("model"),
        "prompt_version": pl.lit(f"{prompt.id}@{prompt.version}"),
    }
    return criteria_rows(kept.with_columns(**fixed)).sort("prompt_id", "id")


def _retrieved(answered: pl.DataFrame, kept: pl.DataFrame) -> pl.DataFrame:
    told = answered.join(kept, on="prompt_id", how="semi").sort("prompt_id")
    return told.select("prompt_id", retrieved_ids=pl.concat_list("exemplar_ids", "criterion_ids"))


def _dropped(lost: pl.DataFrame) -> pl.DataFrame:
    """Criteria that are set aside, each a row."""
    rows = lost.with_columns(criteria_rows(lost).get_column("id").alias("criterion"))
    return _quarantined(
        rows.select(
            "reason",
            key=pl.format("rubrics#prompt={}&criterion={}", "prompt_id", "criterion"),
            detail=pl.col("reason").replace_strict(_DETAILS, return_dtype=pl.String),
            payload=pl.struct("place", "description", "weight").struct.json_encode(),
        )
    )


def _without(prompts: pl.DataFrame) -> pl.DataFrame:
    """Prompts that have no rubric, each a row."""
    return _quarantined(
        prompts.select(
            "reason",
            "detail",
            key=pl.format("rubrics#prompt={}", "prompt_id"),
            payload=pl.struct("prompt_id").struct.json_encode(),
        )
    )


def _quarantined(rows: pl.DataFrame) -> pl.DataFrame:
    fixed = {"source": pl.lit("rubrics"), "stage": pl.lit("orbit"), "source_rows": pl.lit(0)}
    return rows.with_columns(**fixed).select(pl.col(name).cast(kind) for name, kind in DROPPED.items())
