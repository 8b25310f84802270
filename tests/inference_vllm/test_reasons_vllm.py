"""The recipes over pairs on real vLLM: a tiny model plays every part, and no row is lost whatever it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl
import pytest

from inference_vllm import terse_llama
from inference_vllm.serving import served
from integration.wild_world import complaints, write_log
from tilth.catalog import audit_version, open_catalog
from tilth.flows.conductor import Conductor
from tilth.flows.result import RunResult
from tilth.flows.run import run
from tilth.flows.settings import load
from tilth.schemas import Reason
from tilth.schemas.labels import WRITTEN_KINDS

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(900),
]

LENGTH: Final = 24_576  # a token is about a character here: ORBIT shows whole rubrics of other prompts
PAIRS: Final = 8
SAMPLES: Final = 2  # of the policy
EVIDENCES: Final = 2  # of the judge that is to be trained
SEEDS: Final = Path(__file__).parents[2] / "samples/rubrics/seeds.jsonl"
ANSWERS: Final = {"backend": "xgrammar", "disable_any_whitespace": True}
DRAWN: Final = {"temperature": 1.0, "answer_tokens": 800}
REPLIES: Final = {"temperature": 1.0, "answer_tokens": 60}  # so that some are cut off
SECTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "rationales": {
        "kinds": list(WRITTEN_KINDS),
        "writing": DRAWN,
        "checks": {"min_chars": 1},  # else few come before a judge
        "judging": DRAWN,
    },
    "rubrics": {
        "sources": ["constraints", "complaints", "contrast", "model"],
        "writing": DRAWN,
        "judging": DRAWN,
        "policy": "tiny",
        "samples": SAMPLES,
        "replies": REPLIES,
    },
    "orbit": {
        "seeds": str(SEEDS),
        "retrieving": DRAWN,
        "judging": DRAWN,
        "policy": "tiny",
        "samples": SAMPLES,
        "replies": REPLIES,
    },
    "judge_training": {"judging": {**DRAWN, "evidences": EVIDENCES}},
}
ASKED: Final[Mapping[str, Mapping[str, int | None]]] = {
    "rationales": {**{f"rationales-{kind}": PAIRS for kind in WRITTEN_KINDS}, "recover-judge": None},
    "rubrics": {
        "criteria-contrast": PAIRS,
        "criteria-model": PAIRS,
        "rollouts": PAIRS * SAMPLES,
        "grade-judge": None,
    },
    "orbit": {"orbit": PAIRS, "rollouts": PAIRS * SAMPLES, "grade-judge": None},
    "judge_training": {"judge": PAIRS * 2 * EVIDENCES},
}
"""How many rows each purpose asks a model; null where it depends on what the model said before."""


@dataclass(frozen=True)
class Made:
    """Runs by recipe, and their workspace."""

    runs: Mapping[str, RunResult]
    workspace: Path

    def table(self, name: str) -> pl.DataFrame:
        """The latest version of a dataset, FAMILY.TABLE."""
        with open_catalog(str(self.workspace), create=False) as catalog:
            return catalog.frame(name).collect()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One run of each recipe over the pairs of a log; one server answers them all."""
    folder = tmp_path_factory.mktemp("reasons")
    workspace = folder / "workspace"
    settings = {"sources": [_log(folder)], "workspace": str(workspace), "observed": {"splits": {}}}
    run("observed", load(options=settings), Conductor())
    model = terse_llama.build(folder / "model", max_length=LENGTH)
    with served(model, folder / "log", max_model_len=LENGTH, structured_outputs_config=ANSWERS) as url:
        return Made({recipe: _run(recipe, workspace, url) for recipe in SECTIONS}, workspace)


def _log(folder: Path) -> str:
    """Conversations whose users set a limit, are content with the second reply and say so: a pair each."""
    turns = [
        (
            f"{asked} Answer in at most 8 words.",
            f"{first} There is no other way, there never was one.",
            said,
            second,
        )
        for asked, first, said, second in complaints(PAIRS)
    ]
    content = "perfect, that is exactly what I needed, thank you"
    return write_log(folder / "own.jsonl", *((*one, content) for one in turns))


def _run(recipe: str, workspace: Path, url: str) -> RunResult:
    options = {
        "dataset": "observed.pairs",
        "workspace": str(workspace),
        "engine": {"kind": "openai", "model": "tiny", "base_urls": [url]},
        "worker": {"max_failure_share": 1.0},
        recipe: SECTIONS[recipe],
    }
    return run(recipe, load(options=options), Conductor())


@pytest.mark.parametrize("recipe", SECTIONS)
def test_every_table_passes_its_audit(made: Made, recipe: str) -> None:
    """Each recipe commits, and its tables pass again when they are audited as committed, parents at hand."""
    result = made.runs[recipe]
    assert result.status == "committed"
    assert result.datasets
    with open_catalog(str(made.workspace), create=False) as catalog:
        for one in result.datasets:
            audit_version(catalog, f"{one.name}@{one.version}").refuse()


@pytest.mark.parametrize("recipe", SECTIONS)
def test_a_model_is_asked_for_every_purpose(made: Made, recipe: str) -> None:
    """Each pair is asked about once for each purpose, and some answers come back of each."""
    used = made.runs[recipe].usage["purposes"]
    assert used.keys() == ASKED[recipe].keys()
    assert {name: used[name]["rows"] for name, rows in ASKED[recipe].items() if rows} == {
        name: rows for name, rows in ASKED[recipe].items() if rows
    }
    for name, one in used.items():
        assert one["rows"] > sum(one["failures"].values()), name


@pytest.mark.parametrize("recipe", SECTIONS)
def test_what_is_set_aside_has_a_reason(made: Made, recipe: str) -> None:
    """Nonsense is set aside, for reasons that are listed; not for the lack of an answer alone."""
    reasons = set(made.table(f"{recipe}.quarantine")["reason"])
    assert reasons
    assert reasons <= {reason.value for reason in Reason}
    assert reasons - {Reason.MALFORMED_OUTPUT.value, Reason.TOO_LONG.value}


@pytest.mark.parametrize("kind", WRITTEN_KINDS)
def test_no_rationale_is_lost(made: Made, kind: str) -> None:
    """What is written of each pair is kept, or set aside for a reason: once, or once for either reply."""
    written = made.table("rationales.rationales").filter(kind=kind)
    payload = pl.col("payload").str.json_path_match("$.kind")
    dropped = made.table("rationales.quarantine").filter(payload == kind)
    pairs = pl.concat([written["pair_id"], dropped["key"].str.strip_prefix("pairs#id=")])
    assert sorted(set(pairs)) == sorted(made.table("observed.pairs")["id"])
    assert PAIRS <= pairs.len() <= PAIRS * (2 if kind == "option" else 1)


def test_no_rationale_is_kept_that_a_judge_did_not_find(made: Made) -> None:
    """Each written rationale that is kept was judged in both orders, and both times for the chosen reply."""
    judgments = made.table("rationales.judgments")
    orders = judgments.group_by("item_id").agg(pl.col("order").list.first().sort())
    assert orders["order"].to_list() == [[0, 1]] * orders.height
    assert made.runs["rationales"].usage["purposes"]["recover-judge"]["rows"] == judgments.height
    won = set(judgments.filter(verdict="win")["id"])
    for row in made.table("rationales.rationales").filter(method="model").to_dicts():
        assert row["recovers_label"]
        assert len(row["judgment_ids"]) == 2
        assert set(row["judgment_ids"]) <= won


@pytest.mark.parametrize("recipe", ["rubrics", "orbit"])
def test_no_reply_of_the_policy_is_lost(made: Made, recipe: str) -> None:
    """Each sample is a reply, or set aside; each prompt that has a reply gives a pair, or a reason why not."""
    quarantine = made.table(f"{recipe}.quarantine")
    replies = made.table(f"{recipe}.responses").filter(role="policy")
    assert 0 < replies.height == PAIRS * SAMPLES - quarantine.filter(stage="policy").height
    settled = made.table(f"{recipe}.pairs").height + quarantine.filter(stage="pair").height
    assert settled == replies["prompt_id"].n_unique()


@pytest.mark.parametrize("recipe", ["rubrics", "orbit"])
def test_every_criterion_is_graded(made: Made, recipe: str) -> None:
    """No criterion is in a rubric of which no reply was graded; a judge graded what no program can."""
    judgments = made.table(f"{recipe}.judgments").filter(verdict="rated")
    graded = {method: set(judgments.filter(method=method)["attribute"]) for method in ("rules", "model")}
    assert made.runs[recipe].usage["purposes"]["grade-judge"]["rows"] >= len(graded["model"]) > 0
    for criteria in made.table(f"{recipe}.rubrics")["criteria"]:
        for one in criteria:
            assert one["id"] in graded["rules" if one["check"] == "program" else "model"]


@pytest.mark.parametrize("source", ["prompt", "contrast", "model"])
def test_no_answer_about_criteria_is_lost(made: Made, source: str) -> None:
    """Of each source every prompt has criteria in its rubric, or rows that say why not; the limit of all is found."""
    criteria = (
        made.table("rubrics.rubrics").explode("criteria").select("prompt_id", "criteria").unnest("criteria")
    )
    kept = criteria.filter(source=source)
    if source == "prompt":
        assert set(kept["program"]) == {'{"arguments":{"limit":8},"verifier":"max_words"}'}
    payload = pl.col("payload").str.json_path_match("$.source")
    dropped = made.table("rubrics.quarantine").filter(stage="rubrics").filter(payload == source)
    prompts = {*kept["prompt_id"], *dropped["key"].str.extract(r"^rubrics#prompt=(\w+)")}
    assert prompts == set(made.table("observed.pairs")["prompt_id"])


def test_every_item_trains_the_judge_or_says_why_not(made: Made) -> None:
    """Each pair is judged so many times in both orders, and gives one pair of judgments or a reason."""
    judgments = made.table("judge_training.judgments")
    told = judgments.group_by("item_id").agg(pl.struct("order", "sample_index").n_unique().alias("asked"))
    assert told["asked"].to_list() == [2 * EVIDENCES] * PAIRS
    assert set(judgments["verdict"]) - {"failed"}
    made_of = made.table("judge_training.pairs").height
    assert made_of + made.table("judge_training.quarantine").height == PAIRS
