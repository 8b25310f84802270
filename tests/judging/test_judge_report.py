"""`tilth judge report`: what is planted comes back, what cannot be known is null, nothing hangs on order."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tilth.catalog import Release, open_catalog
from tilth.flows.judge import Asked, judge_report
from tilth.flows.judge_cli import judge_app
from tilth.flows.judge_plot import plot_report
from tilth.schemas import TABLES, BadInput, ConfigError, conform
from tilth.transforms.judging.protocol import Aggregation
from tilth.transforms.judging.read_votes import LabelTable
from tilth.transforms.judging.report import label_report, report, with_gold
from tilth.transforms.judging.votes import FACTS, VOTES

JUDGES: Final = {"fair": (0.0, 0.9), "first": (0.4, 0.9)}  # name: planted position bias, accuracy
OTHER: Final = {"win": "loss", "loss": "win", "tie": "tie", "failed": "failed"}


def world(items: int = 300, samples: int = 2) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Two judges over items with known winners, with ties and failures; and the facts of the items."""
    lot = random.Random(11)
    rows: list[tuple[Any, ...]] = []
    facts: list[tuple[Any, ...]] = []
    for n in range(items):
        gold = lot.choice(["win", "loss"])
        facts.append((f"i{n:04}", gold, lot.randint(10, 90), lot.randint(10, 90)))
        for judge, (bias, right) in JUDGES.items():
            means = gold if lot.random() < right else OTHER[gold]
            for first in (0, 1):
                follows = lot.random() < bias
                for sample in range(samples):
                    said = ("win", "loss")[first] if follows else means
                    said = "tie" if lot.random() < 0.05 else "failed" if lot.random() < 0.05 else said
                    scores = {
                        "win": (8.0, 5.0),
                        "loss": (5.0, 8.0),
                        "tie": (6.0, 6.0),
                        "failed": (None, None),
                    }[said]
                    rows.append((f"i{n:04}", judge, first, sample, said, *scores))
    return pl.DataFrame(rows, schema=VOTES, orient="row"), pl.DataFrame(facts, schema=FACTS, orient="row")


def test_what_was_planted_comes_back() -> None:
    """Position bias within its interval, accuracy near what was planted, failures and ties counted, never mixed."""
    found = report(*world(), Aggregation())
    fair, first = found["judges"]
    for one, share in ((fair, 0.5), (first, 0.7)):
        seen = one["position"]["first_preferred"]
        assert seen["low"] <= share <= seen["high"]
    assert fair["gold"]["agreement"] == pytest.approx(0.9, abs=0.05)
    assert fair["gold"]["accuracy"]["random"] > first["gold"]["accuracy"]["random"]
    assert first["position"]["accuracy_difference"]["low"] > 0.25
    assert (
        fair["position"]["accuracy_difference"]["low"] < 0 < fair["position"]["accuracy_difference"]["high"]
    )
    assert first["inconsistent"]["value"] > 0.3
    assert sum(fair["verdicts"].values()) == 300
    assert first["gold"]["n"] == sum(first["verdicts"][name] for name in ("win", "loss", "tie")) < 250
    assert fair["consistency"]["p"] == pytest.approx(0.905, abs=0.03)
    assert found["panel"]["needs_person"] == 60
    assert found["panel"]["calibration"]["n"] > 50
    assert json.loads(json.dumps(found, allow_nan=False)) == json.loads(json.dumps(found))


def test_order_of_rows_changes_nothing() -> None:
    """Permuted votes and facts give the same report, to the last digit that is printed."""
    votes, facts = world(80)
    mixed = report(votes.sample(fraction=1, shuffle=True, seed=5), facts[::-1], Aggregation())
    assert rounded(mixed) == rounded(report(votes, facts, Aggregation()))


def test_swapped_replies_change_no_bias() -> None:
    """With a and b swapped throughout, wins are losses and every bias, error and agreement is what it was."""
    votes, facts = world(80)
    swapped = votes.with_columns(
        first=1 - pl.col("first"),
        verdict=pl.col("verdict").replace_strict(OTHER),
        score_a="score_b",
        score_b="score_a",
    )
    turned = facts.with_columns(pl.col("gold").replace_strict(OTHER), chars_a="chars_b", chars_b="chars_a")
    one, other = (rounded(report(*pair, Aggregation())) for pair in ((votes, facts), (swapped, turned)))
    for judge in (*one["judges"], *other["judges"], one["panel"], other["panel"]):
        del judge["verdicts"]
    assert one == other


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return round(value, 9) if isinstance(value, float) else value


def test_without_gold_and_lengths_the_rest_is_null() -> None:
    """No gold, no lengths, one sample: position bias and conflicts are known, the rest is null and not 0."""
    votes, _ = world(40, 1)
    found = report(votes, pl.DataFrame(schema=FACTS), Aggregation())
    fair = found["judges"][0]
    assert fair["position"]["first_preferred"]["n"] > 50
    assert fair["position"]["denoised"] is fair["consistency"]["p"] is None
    assert fair["length"]["longer_preferred"]["value"] is fair["length"]["baseline"] is None
    assert fair["gold"]["agreement"] is fair["gold"]["accuracy"]["both"] is None
    assert (found["panel"]["calibration"], found["panel"]["not_calibrated"]) == (None, "no gold")
    assert found["agreement"]["pairs"][0]["n"] > 0


def test_gold_from_two_places_must_agree() -> None:
    """Gold of its own fills what the table leaves open; where the two contradict, nothing is chosen."""
    _, facts = world(3)
    blank = facts.with_columns(gold=pl.lit(None, pl.String))
    assert with_gold(blank, facts.select("item_id", "gold")).equals(facts)
    with pytest.raises(BadInput, match="3 items"):
        with_gold(facts, facts.select("item_id", pl.col("gold").replace_strict(OTHER)))


def labels(counts: dict[str, int]) -> LabelTable:
    """Yes-or-no labels of one judge with these counts, in two groups."""
    rows = [pair for pair, n in counts.items() for _ in range(n)]
    judge = [row[0] == "y" for row in rows]
    people = [row[1] == "y" for row in rows]
    groups = ["m" if n % 2 else "n" for n in range(len(rows))]
    return LabelTable(pl.DataFrame({"GPT-4": judge, "copy": people}), pl.Series(people), pl.Series(groups))


def test_published_labels() -> None:
    """GPT-4 on TriviaQA: agreement .9115, kappa .7876, pi .7875, P_c .7765, P_+ .764, and the ranking."""
    found = label_report(labels({"yy": 2374, "yn": 186, "nn": 903, "ny": 132}))
    gpt_4, copy = found["judges"]
    published = (0.9115, 0.7876, 0.7875, 0.7765, 0.764)
    names = ("agreement", "kappa", "pi", "right_criterion", "yes_otherwise")
    assert [gpt_4[name] for name in names] == pytest.approx(published, abs=5e-4)
    assert (found["items"], found["gold_items"], gpt_4["n"]) == (3595, 3595, 3595)
    assert gpt_4["score_delta"] == pytest.approx(1.5, abs=0.01)
    assert copy["ranking"] == {"n": 2, "rho": pytest.approx(1)}
    assert copy["kappa"] == 1
    assert found["agreement"]["pairs"][0]["kappa"] == gpt_4["kappa"]


# The command


def ran(*words: str) -> str:
    done = CliRunner().invoke(judge_app, ["report", *words], env={"COLUMNS": "200"})
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def written(folder: Path) -> str:
    """The votes of a small world as a long table, with facts."""
    votes, facts = world(120)
    path = folder / "votes.csv"
    order = pl.col("first").replace_strict({0: "ab", 1: "ba"}, return_dtype=pl.String)
    votes.join(facts, on="item_id").with_columns(order=order).drop("first").write_csv(path)
    return str(path)


@pytest.mark.slow
def test_a_file_is_reported_on(tmp_path: Path) -> None:
    """Tables for people, JSON for programs, and a picture, from one file."""
    uri, picture = written(tmp_path), tmp_path / "judges.png"
    shown = ran("--verdicts", uri, "--plot", str(picture))
    assert "120 items, 120 with gold" in shown
    for title in (
        "position (0.5: no bias)",
        "length",
        "against gold",
        "agreement between judges",
        "for a person: 24",
    ):
        assert title in shown
    assert picture.read_bytes().startswith(b"\x89PNG")
    found = json.loads(
        ran(
            "--verdicts",
            uri,
            "--rule",
            "mean",
            "--tie-margin",
            "0.5",
            "--weights",
            "fair=2,first=1",
            "--json",
        )
    )
    assert found["aggregation"] == {"rule": "mean", "tie_margin": 0.5, "person_share": 0.2}
    assert [one["weight"] for one in found["judges"]] == [2, 1]
    assert found["judges"][0]["inconsistent"]["value"] == 0


def test_gold_comes_from_a_file_of_its_own(tmp_path: Path) -> None:
    """--gold adds what people said; without it nothing is said of accuracy."""
    uri = written(tmp_path)
    bare = tmp_path / "bare.csv"
    pl.read_csv(uri).drop("gold").write_csv(bare)
    gold = tmp_path / "gold.jsonl"
    pl.read_csv(uri).select("item_id", "gold").unique("item_id").write_ndjson(gold)
    without, with_it = (
        json.loads(ran("--verdicts", str(bare), *more, "--json")) for more in ((), ("--gold", str(gold)))
    )
    assert (without["gold_items"], with_it["gold_items"]) == (0, 120)
    assert rounded(with_it["panel"]) == rounded(json.loads(ran("--verdicts", uri, "--json"))["panel"])


@pytest.mark.slow
@pytest.mark.parametrize(("form", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF"), ("PNG", b"\x89PNG")])
def test_pictures_of_both_kinds(tmp_path: Path, form: str, start: bytes) -> None:
    """Votes and labels are drawn, also where much is unknown, in each form; other forms are refused before any work."""
    always = pl.DataFrame([("x", "j", f, 0, "win", None, None) for f in (0, 1)], schema=VOTES, orient="row")
    for n, found in enumerate(
        (label_report(labels({"yy": 5, "nn": 1})), report(always, pl.DataFrame(schema=FACTS), Aggregation()))
    ):
        plot_report(found, str(tmp_path / f"{n}.{form}"))
        assert (tmp_path / f"{n}.{form}").read_bytes().startswith(start)
    with pytest.raises(ConfigError, match="png, svg, pdf"):
        ran("--verdicts", "nowhere.csv", "--plot", "judges.bmp")


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    """Neither dataset nor file, both, a broken map, weights without a judge: errors that say what is wanted."""
    uri = written(tmp_path)
    for words in ([], ["observed.judgments", "--verdicts", uri]):
        with pytest.raises(ConfigError, match="one of them"):
            ran(*words)
    with pytest.raises(ConfigError, match="known=given"):
        ran("--verdicts", uri, "--map", "item_id")
    with pytest.raises(ConfigError, match="judges without a weight"):
        ran("--verdicts", uri, "--weights", "fair=2")


def test_labels_are_printed(tmp_path: Path) -> None:
    """A table of one column per judge gives agreement, errors and leniency."""
    path = tmp_path / "labels.csv"
    table = labels({"yy": 50, "yn": 4, "nn": 20, "ny": 6})
    table.judges.with_columns(HumanJudgement=table.people, model=table.groups).write_csv(path)
    shown = ran("--verdicts", str(path))
    assert "errors and leniency" in shown
    assert "GPT-4" in shown


def test_the_commands_are_light() -> None:
    """Loading the commands, as `tilth --help` does, loads neither polars nor anything that draws or fits."""
    code = "import tilth.flows.judge_cli, sys; print(*{m.partition('.')[0] for m in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"polars", "numpy", "sklearn", "scipy", "matplotlib", "krippendorff"} & set(loaded)


# The catalog


def released(workspace: Path, votes: pl.DataFrame, facts: pl.DataFrame) -> None:
    """Judgments of these votes and replies of these lengths, as a run would publish them."""
    sides = {name: pl.format("{}/{}", "item_id", pl.lit(name)) for name in "ab"}
    judgments = votes.with_columns(
        id=pl.int_range(pl.len()).cast(pl.String),
        kind=pl.lit("pairwise"),
        order=pl.concat_list("first", 1 - pl.col("first")),
        scores=pl.when(pl.col("score_a").is_not_null()).then(pl.concat_list("score_a", "score_b")),
        response_ids=pl.concat_list(sides["a"], sides["b"]),
    ).drop("first", "score_a", "score_b")
    replies = [
        (f"{item}/{side}", "x" * n)
        for item, _, *both in facts.iter_rows()
        for side, n in zip("ab", both, strict=True)
    ]
    responses = pl.DataFrame(
        [{"id": id_, "completion": [{"role": "assistant", "content": text}]} for id_, text in replies]
    )
    protocol = {"aggregation": {"rule": "mean", "tie_margin": 0.5, "person_share": 0.1}, "judges": []}
    protocol["judges"] = [
        {"name": name, "weight": weight} for name, weight in (("fair", 3.0), ("first", 1.0))
    ]
    with open_catalog(str(workspace)) as catalog:
        files = {}
        for table, rows in (("judgments", judgments), ("responses", responses)):
            home = Path(catalog.staging("wildfeedback", table, "run1"))
            home.mkdir(parents=True)
            arrow = conform(rows, table).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(TABLES[table])
            assert isinstance(arrow, pa.Table)
            pq.write_table(arrow, home / "part.parquet")
            files[table] = [str(home / "part.parquet")]
        catalog.publish(Release("wildfeedback", "run1", files, {"tilth.protocol": json.dumps(protocol)}))


def test_a_dataset_is_reported_on(tmp_path: Path) -> None:
    """Judgments of the catalog: lengths from the release's replies, panel and rule from the protocol stored with it."""
    votes, facts = world(40)
    released(tmp_path, votes, facts)
    found = judge_report(Asked(dataset="wildfeedback.judgments"), str(tmp_path))
    blank = facts.with_columns(gold=pl.lit(None, pl.String))
    wanted = report(votes, blank, Aggregation("mean", 0.5, 0.1), {"fair": 3.0, "first": 1.0})
    assert rounded(found) == rounded({"source": "wildfeedback.judgments", **wanted})
    assert found["judges"][0]["length"]["longer_preferred"]["n"] > 0
    other = judge_report(
        Asked(dataset="wildfeedback.judgments", rule="both_orders", weights="fair,first"), str(tmp_path)
    )
    assert (other["aggregation"]["rule"], other["aggregation"]["tie_margin"]) == ("both_orders", 0.5)
    assert [one["weight"] for one in other["judges"]] == [1, 1]
    with pytest.raises(ConfigError, match=r"wildfeedback\.judgments"):
        judge_report(Asked(dataset="wildfeedback.responses"), str(tmp_path))
