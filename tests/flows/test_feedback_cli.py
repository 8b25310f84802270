"""`tilth feedback` as a user meets it: sample labels, sample logs, a server that answers in shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from loopback import Loopback, serve
from tilth.flows.feedback_cli import feedback_app
from tilth.schemas import BadInput, ConfigError, NotFound
from tilth.transforms.feedback.spur_rubric import load_rubric

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ask")]
SAMPLES = Path(__file__).resolve().parents[2] / "samples"
LABELS = str(SAMPLES / "feedback_labelled.jsonl")
LOGS = str(SAMPLES / "logs" / "support.openai.jsonl")


@pytest.fixture(scope="module")
def server() -> Iterator[Loopback]:
    with serve() as running:
        yield running


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "none")


def run(*words: str) -> Any:
    """What a command prints as JSON."""
    out = StringIO()
    with redirect_stdout(out):
        feedback_app([*words, "--json"], standalone_mode=False)
    return json.loads(out.getvalue())


def asking(server: Loopback, *words: str) -> Any:
    return run(*words, "-m", "loopback", "--base-url", server.url)


def test_train_and_label(tmp_path: Path) -> None:
    """Trained on the sample, the classifier beats the rules where they were not made, and labels every user turn."""
    told = run("train", "--labels", LABELS, "-o", "m.npz")
    assert told["trained_on"]["turns"] == 435
    held = {(row["method"], row["label"]): row for row in told["held_out"]}
    assert held["classifier", "dsat"]["turns"] == 219
    assert held["classifier", "dsat"]["auc"] > held["rules", "dsat"]["auc"]
    assert held["classifier", "dsat"]["f1"] > held["rules", "dsat"]["f1"]
    done = run("label", "--model-file", "m.npz", "-s", LOGS, "-o", "turns.parquet")
    turns = pl.read_parquet("turns.parquet")
    assert (done["turns"], done["classifier"]) == (turns.height, told["classifier"])
    assert turns["classifier"].unique().to_list() == [told["classifier"]]
    assert turns.select(pl.col("p_sat", "p_dsat").is_between(0, 1).all()).row(0) == (True, True)
    assert done["uncertain"] == turns["uncertain"].sum() > 0
    assert done["quarantined"]["broken_json"] == 1


def test_learn_and_score(server: Loopback) -> None:
    """A dry run asks nothing and tells the calls; then a rubric is written, and conversations are scored by it."""
    seen = asking(server, "learn", "--labelled", LABELS, "-o", "r.json", "--dry-run")
    assert (seen["status"], server.stats()["received"], Path("r.json").exists()) == ("forecast", 0, False)
    told = asking(server, "learn", "--labelled", LABELS, "-o", "r.json")
    assert server.stats()["received"] <= seen["calls"]
    assert load_rubric("r.json").version == told["rubric_version"]
    server.reset()
    seen = asking(server, "score", "--rubric", "r.json", "-s", LOGS, "-o", "s.parquet", "--dry-run")
    assert (seen["calls"], server.stats()["received"]) == (80, 0)
    done = asking(server, "score", "--rubric", "r.json", "-s", LOGS, "-o", "s.parquet")
    rows = pl.read_parquet("s.parquet")
    assert (rows.height, server.stats()["received"]) == (80, 80)
    impacts = rows.explode("items").unnest("items")
    side = pl.when(pl.col("item").str.starts_with("sat")).then(pl.col("impact")).otherwise(-pl.col("impact"))
    summed = impacts.group_by("conversation_id").agg(side.sum().alias("sum"))
    assert rows.join(summed, on="conversation_id").filter(pl.col("sum") != pl.col("score")).is_empty()
    assert sum(done["labels"].values()) == 80
    assert not Path("s.quarantine.parquet").exists()
    again = asking(server, "score", "--rubric", "r.json", "-s", LOGS, "-o", "again.parquet")
    assert (again["labels"], server.stats()["received"]) == (done["labels"], 80)


def test_another_model_than_the_rubrics_is_told(server: Loopback) -> None:
    """Impacts of two models are not comparable, so a warning stands in the result."""
    asking(server, "learn", "--labelled", LABELS, "-o", "r.json")
    words = ["score", "--rubric", "r.json", "-s", LOGS, "-o", "s.jsonl"]
    assert asking(server, *words)["warnings"] == []
    other = run(*words, "-m", "other", "--base-url", server.url)
    assert "another model" in other["warnings"][0]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["train", "--labels", LABELS, "-o", "m.pickle"], ConfigError),
        (["train", "--labels", "none.jsonl", "-o", "m.npz"], NotFound),
        (["train", "--labels", LOGS, "-o", "m.npz"], BadInput),
        (["train", "--labels", "observed.feedback", "-o", "m.npz"], NotFound),
        (["label", "--model-file", "none.npz", "-s", LOGS, "-o", "t.parquet"], NotFound),
        (["learn", "--labelled", LABELS, "-o", "r.txt"], ConfigError),
        (["score", "--rubric", "none.json", "-s", LOGS, "-o", "s.parquet"], NotFound),
        (["score", "--rubric", "none.json", "-s", LOGS, "-o", "s.xlsx"], ConfigError),
    ],
)
def test_mistakes_are_told_before_anything_is_asked(words: list[str], error: type[Exception]) -> None:
    """Each is an error of Tilth's own, and leaves no output."""
    with pytest.raises(error):
        run(*words)
    assert not [path for path in Path().iterdir() if path.suffix in {".npz", ".parquet", ".json"}]
