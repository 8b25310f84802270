"""The recipe wildfeedback on real vLLM: a tiny model plays every part, and no row is lost whatever it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tokenizers import Tokenizer

import tiny_llama
from integration.wild_world import complaints, run_wild, table, write_log
from tilth.flows.result import RunResult
from tilth.pipelines.wildfeedback import TABLES
from tilth.schemas import Reason

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(900),
]

LENGTH = 8192  # a token is about a character here: two replies and the judge's prompt have to fit
TALKS = 6
# Random weights end a text, or a string of JSON, at one token in 600; so it is one in about 12.
BIAS = 4.0


def _settings(folder: Path) -> dict[str, Any]:
    model = tiny_llama.build(folder / "model", max_length=LENGTH)
    token = Tokenizer.from_file(str(model / "tokenizer.json")).token_to_id
    args = {
        "dtype": "bfloat16",
        "enforce_eager": True,
        "max_model_len": LENGTH,
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
        "sampling_params": {"logit_bias": {token("</s>"): BIAS, token('"'): BIAS}},
    }
    return {
        "sources": [write_log(folder / "own.jsonl", *complaints(TALKS))],
        "workspace": str(folder / "workspace"),
        "engine": {"kind": "vllm", "model": str(model), "args": args},
        "worker": {"max_failure_share": 1.0},
        "wildfeedback": {
            "policy": str(model),
            "labelling": {"temperature": 1.0, "answer_tokens": 200},
            "summaries": {"temperature": 1.0, "answer_tokens": 200},
            "replies": {"temperature": 1.0, "answer_tokens": 200},
            "judging": {"temperature": 1.0, "answer_tokens": 200},
        },
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, Path]:
    """One run of the whole recipe, and its workspace."""
    folder = tmp_path_factory.mktemp("wild")
    return run_wild(_settings(folder)), folder / "workspace"


def test_every_table_is_committed(made: tuple[RunResult, Path]) -> None:
    """The release passes its audit, and every purpose was asked of the model."""
    result, workspace = made
    assert result.status == "committed"
    assert {one.name for one in result.datasets} <= {f"wildfeedback.{name}" for name in TABLES}
    asked = {purpose: used["rows"] for purpose, used in result.usage["purposes"].items()}
    assert asked.keys() == {"label", "preferences", "expert", "on_policy", "plain", "judge"}
    assert asked["preferences"] == TALKS
    assert table(workspace, "conversations").height == result.rows_in == TALKS


def test_every_item_is_judged_in_both_orders(made: tuple[RunResult, Path]) -> None:
    """One judgment an order, answered or failed for a reason; some of them are answered."""
    judgments = table(made[1], "judgments")
    orders = judgments.group_by("item_id").agg(pl.col("order").list.first().sort())
    assert orders.height > 0
    assert orders["order"].to_list() == [[0, 1]] * orders.height
    failed = judgments.filter(pl.col("verdict") == "failed")
    assert failed.height < judgments.height
    assert set(failed["reason"]) <= {reason.value for reason in Reason}


def test_no_row_is_lost(made: tuple[RunResult, Path]) -> None:
    """Criticised replies have wishes, wishes have replies, items become pairs: each, or a reason why not."""
    result, workspace = made
    quarantine, responses = table(workspace, "quarantine"), table(workspace, "responses")
    purposes = result.usage["purposes"]
    preferences = table(workspace, "preferences").height
    assert purposes["preferences"]["rows"] == preferences + _of(quarantine, "preferences")
    for role in ("expert", "on_policy", "plain"):
        replied = responses.filter(pl.col("role") == role).height
        assert purposes[role]["rows"] == preferences == replied + _of(quarantine, role)
    items = table(workspace, "judgments")["item_id"].n_unique()
    assert purposes["judge"]["rows"] == 2 * items
    origins = (
        table(workspace, "pairs")["origin"].is_in(["expert", "on_policy"]).sum() if _has_pairs(result) else 0
    )
    unwanted = quarantine.filter(pl.col("payload").str.contains('"origin":"(expert|on_policy)"'))
    assert items == origins + unwanted.height


def _of(quarantine: pl.DataFrame, stage: str) -> int:
    return quarantine.filter(pl.col("stage") == stage).height


def _has_pairs(result: RunResult) -> bool:
    return any(one.name == "wildfeedback.pairs" and one.rows for one in result.datasets)
