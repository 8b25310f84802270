"""The recipe wildfeedback through the real door, against a server that answers with sense."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import polars as pl
import pytest

from integration.sample_world import FILES, LOGS
from integration.wild_world import (
    HARMFUL,
    calls,
    complaints,
    options,
    run_wild,
    table,
    text,
    write_log,
)
from loopback import Loopback, serve
from loopback.sensible import better_of
from tilth.catalog import audit_version, open_catalog
from tilth.flows.classifier import train_classifier
from tilth.flows.result import RunResult
from tilth.flows.settings import load
from tilth.pipelines.wildfeedback import TABLES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("wildfeedback"),
    pytest.mark.usefixtures("without_beam_or_gx"),
]

NAMES = ("large", "small", "org/third-7b")
PANEL = ["large=2", *NAMES[1:]]
JUDGED = ("expert", "on_policy")


@pytest.fixture(scope="module")
def server() -> Iterator[Loopback]:
    with serve(script="sensible") as one:
        yield one


@dataclass(frozen=True)
class Wild:
    """A run on the sample logs and a log with a harmful request: three judges, moderation by a model, a policy."""

    result: RunResult
    workspace: Path

    def table(self, name: str) -> pl.DataFrame:
        return table(self.workspace, name)

    def judged_pairs(self) -> pl.DataFrame:
        return self.table("pairs").filter(pl.col("origin").is_in(JUDGED))


@pytest.fixture(scope="module")
def wild(server: Loopback, tmp_path_factory: pytest.TempPathFactory) -> Wild:
    workspace = tmp_path_factory.mktemp("wild")
    own = write_log(workspace / "own.jsonl", HARMFUL, *complaints(30))
    sources = [*(str(LOGS / name) for name in FILES), own]
    settings = options(
        workspace, server, sources, samples=2, judging={"judges": PANEL}, moderation={"by": "model"}
    )
    return Wild(run_wild(settings), workspace)


def test_every_table_is_committed_and_passes_its_audit(wild: Wild) -> None:
    """All tables of the recipe in one release; run again, no critical check of any fails."""
    assert wild.result.status == "committed"
    assert {one.name for one in wild.result.datasets} == {f"wildfeedback.{name}" for name in TABLES}
    assert all(one.rows > 0 for one in wild.result.datasets)
    with open_catalog(str(wild.workspace), create=False) as catalog:
        for one in wild.result.datasets:
            assert audit_version(catalog, one.name).failed_critical == ()


def test_no_row_is_lost(wild: Wild) -> None:
    """Rows in = rows out + quarantined, source by source, and the quarantine table says the same."""
    for source in wild.result.sources:
        assert source.rows_in == source.rows_out + source.rows_quarantined
    quarantine = wild.table("quarantine")
    assert quarantine["source_rows"].sum() == wild.result.rows_quarantined
    stood_for = wild.table("conversations")["record_rows"].sum()
    assert wild.result.rows_in == stood_for + wild.result.rows_quarantined


def test_every_criticised_reply_is_compared_or_set_aside(wild: Wild) -> None:
    """Each place has its candidates of both kinds and as many samples as asked, or a row that says why not."""
    places = wild.table("preferences").select("conversation_id", "prompt_id", "target_index")
    asked = {"logged": 1, "expert": 1, "on_policy": 2, "plain": 2}
    replied = wild.table("responses").group_by("conversation_id", "prompt_id", "role").len()
    by_role = replied.pivot("role", index=["conversation_id", "prompt_id"], values="len").join(
        places, on=["conversation_id", "prompt_id"], how="right"
    )
    set_aside = wild.table("quarantine").filter(pl.col("reason") == "no_candidate")["key"]
    compared = by_role.filter(pl.col("expert").is_not_null())
    assert compared.select(*asked).unique().row(0, named=True) == asked
    assert compared.height > 40
    lost = by_role.filter(pl.col("expert").is_null())
    keys = lost.select(
        pl.format("conversations#id={}&message={}", "conversation_id", "target_index")
    ).to_series()
    assert sorted(keys) == sorted(set_aside)


def test_every_item_is_judged_in_both_orders_by_the_whole_panel(wild: Wild) -> None:
    """Three judges, two orders, one vote each; and each item becomes a pair or is set aside."""
    judgments = wild.table("judgments")
    votes = judgments.group_by("item_id").agg(
        pl.struct("judge", pl.col("order").list.first()).n_unique().alias("different"), votes=pl.len()
    )
    assert votes.select("different", "votes").unique().rows() == [(6, 6)]
    assert set(judgments["judge"]) == set(NAMES)
    assert dict(judgments.select("judge", "model").unique().iter_rows()) == {name: name for name in NAMES}
    whys = (
        "judges_prefer_rejected",
        "judges_tied",
        "judges_inconsistent",
        "judges_failed",
    )  # the flagged are not judged
    set_aside = sum(wild.result.dropped.get(reason, 0) for reason in whys)
    settled = wild.table("quarantine").filter(
        (pl.col("stage") == "settle") & pl.col("payload").str.contains('"origin":"(expert|on_policy)"')
    )
    assert votes.height == wild.judged_pairs().height + set_aside + settled.height


def test_chosen_is_the_side_that_is_better(wild: Wild) -> None:
    """The script knows which reply is better: each judged pair has it on the chosen side, none the other way."""
    pairs = wild.judged_pairs()
    assert pairs.height > 60
    assert set(pairs["origin"]) == set(JUDGED)
    for pair in pairs.iter_rows(named=True):
        assert better_of(text(pair["chosen"]), text(pair["rejected"]), pair["user_preferences"]) == 0
        assert pair["margin"] > 0


def test_what_is_worse_or_as_good_is_set_aside(wild: Wild) -> None:
    """Of what judges did not prefer the reason is in the quarantine, and the script agrees with it."""
    lost = wild.table("quarantine").filter(pl.col("reason").is_in(["judges_prefer_rejected", "judges_tied"]))
    assert lost.height == sum(wild.result.dropped.get(reason, 0) for reason in lost["reason"].unique())
    assert lost.height > 0


def test_sides_are_replies_of_the_models_that_the_pair_names(wild: Wild) -> None:
    """Expert beside what was logged, guided policy beside plain policy, each by its own model."""
    replies = {
        (row["conversation_id"], text(row["completion"]), row["role"]): row["model"]
        for row in wild.table("responses").iter_rows(named=True)
    }
    sides = {"expert": ("expert", "logged"), "on_policy": ("on_policy", "plain")}
    for pair in wild.judged_pairs().iter_rows(named=True):
        for side, role in zip(("chosen", "rejected"), sides[pair["origin"]], strict=True):
            key = (pair["conversation_id"], text(pair[side]), role)
            assert replies[key] == pair["models"][side]
    assert {model for (_, _, role), model in replies.items() if role == "expert"} == {"expert-1"}
    assert {model for (_, _, role), model in replies.items() if role in ("on_policy", "plain")} == {
        "policy-1"
    }


def test_every_pair_leads_back_to_what_a_user_said(wild: Wild) -> None:
    """Pair -> feedback -> the turn, with the evidence word for word at its place; the prompt is what was logged."""
    logged = dict(wild.table("conversations").select("id", "messages").iter_rows())
    feedback = {row["id"]: row for row in wild.table("feedback").iter_rows(named=True)}
    for pair in wild.judged_pairs().iter_rows(named=True):
        assert pair["feedback_ids"]
        for said in (feedback[id_] for id_ in pair["feedback_ids"]):
            assert said["conversation_id"] == pair["conversation_id"]
            assert said["polarity"] == "negative"
            turns = logged[said["conversation_id"]]
            assert turns[said["message_index"]]["role"] == "user"
            assert said["evidence"]
            for quote in said["evidence"]:
                content = turns[said["message_index"]]["content"]
                assert content[quote["start"] : quote["end"]] == quote["text"]
            assert pair["prompt"] == turns[: said["target_index"]]


def test_judgments_of_a_pair_are_there(wild: Wild) -> None:
    """Each pair names all votes on its item, which are votes on its two sides."""
    judgments = {row["id"]: row for row in wild.table("judgments").iter_rows(named=True)}
    replies = {row["id"]: row["completion"] for row in wild.table("responses").iter_rows(named=True)}
    for pair in wild.judged_pairs().iter_rows(named=True):
        votes = [judgments[id_] for id_ in pair["judgment_ids"]]
        assert len(votes) == 2 * len(PANEL)
        for vote in votes:
            assert [replies[id_] for id_ in vote["response_ids"]] == [pair["chosen"], pair["rejected"]]


def test_wishes_stand_beside_prompts_and_never_in_them(wild: Wild) -> None:
    """`user_preferences` are those of the place; no prompt, reply or system message holds one."""
    wishes = {
        (row["conversation_id"], row["prompt_id"]): row["preferences"]
        for row in wild.table("preferences").iter_rows(named=True)
    }
    for pair in wild.judged_pairs().iter_rows(named=True):
        known = wishes[pair["conversation_id"], pair["prompt_id"]]
        assert pair["user_preferences"] == known
        assert not any(wish in text(pair["prompt"]) for wish in known)


def test_what_the_moderator_flags_becomes_no_pair(wild: Wild) -> None:
    """The request about a bomb: its replies are flagged, set aside, not shown to a judge and not evaluated on."""
    flagged = wild.table("responses").filter(pl.col("flags").list.len() > 0)
    assert flagged["flags"].to_list() == [["weapons"]] * 6
    assert wild.table("responses")["flags"].null_count() == 0
    assert wild.result.dropped["moderated"] == 3
    prompts = set(flagged["prompt_id"])
    assert prompts.isdisjoint(wild.judged_pairs()["prompt_id"])
    assert prompts.isdisjoint(wild.table("judgments")["prompt_id"])
    assert prompts.isdisjoint(wild.table("evaluation")["prompt_id"])


def test_evaluation_items_are_held_out(wild: Wild) -> None:
    """They come from the test split, have the user's wishes as checklist, and nothing trained on has their prompt."""
    evaluation = wild.table("evaluation")
    assert set(evaluation["split"]) == {"test"}
    assert evaluation.height > 5
    prompts = set(evaluation["prompt_id"])
    for name in ("pairs", "unpaired", "preferences"):
        trained = wild.table(name).filter(pl.col("split") == "train")
        assert prompts.isdisjoint(trained["prompt_id"])
    wishes = {
        (row["conversation_id"], row["prompt_id"]): row["preferences"]
        for row in wild.table("preferences").iter_rows(named=True)
    }
    for item in evaluation.iter_rows(named=True):
        assert item["checklist"] == wishes[item["conversation_id"], item["prompt_id"]]


def test_usage_is_told_by_purpose(wild: Wild) -> None:
    """Each thing that models were asked for is counted under its own name, with the model that was asked."""
    purposes = wild.result.usage["purposes"]
    assert {name: used["model"] for name, used in purposes.items()} == {
        "label": "expert-1",
        "preferences": "expert-1",
        "expert": "expert-1",
        "on_policy": "policy-1",
        "plain": "policy-1",
        "moderate": "moderator-1",
        "judge-large": "large",
        "judge-small": "small",
        "judge-org/third-7b": "org/third-7b",
    }
    assert sum(calls(wild.result).values()) == wild.result.usage["sitting"]["calls"]


# A second run


@dataclass(frozen=True)
class Small:
    """A workspace with a run on a few conversations."""

    workspace: Path
    sources: Sequence[str]
    server: Loopback
    pairs: pl.DataFrame  # that the first run made

    def run(self, **recipe: object) -> RunResult:
        return run_wild(options(self.workspace, self.server, self.sources, **recipe))

    def received(self) -> int:
        return self.server.stats()["received"]


@pytest.fixture(scope="module")
def small(server: Loopback, tmp_path_factory: pytest.TempPathFactory) -> Small:
    workspace = tmp_path_factory.mktemp("small")
    sources = [write_log(workspace / "own.jsonl", HARMFUL, *complaints(12))]
    run_wild(options(workspace, server, sources, judging={"judges": ["large"]}))
    return Small(workspace, sources, server, table(workspace, "pairs"))


def test_the_same_command_again_does_nothing(small: Small) -> None:
    """It names what the first run committed, and asks nobody."""
    before = small.received()
    again = small.run(judging={"judges": ["large"]})
    assert again.status == "unchanged"
    assert small.received() == before


def test_a_change_of_the_judges_prompt_asks_only_the_judge(small: Small) -> None:
    """Labels, wishes and replies are those of the run before; every item is judged anew, in both orders."""
    prompts = resources.files("tilth.transforms.judging") / "prompts" / "pairwise.md"
    changed = (
        prompts.read_text()
        .replace("version: 1", "version: 2")
        .replace("You are strict", "You are very strict")
    )
    (file := small.workspace / "judge.md").write_text(changed)
    before = table(small.workspace, "judgments")
    result = small.run(judging={"judges": ["large"], "prompt_file": str(file)})
    after = table(small.workspace, "judgments")
    assert result.status == "committed"
    assert calls(result) == {"judge-large": after.height}
    assert set(after["prompt_version"]) == {"judge/pairwise@2"}
    assert set(after["item_id"]) == set(before["item_id"])
    assert set(after["id"]).isdisjoint(before["id"])


def test_another_judge_asks_only_that_judge(small: Small) -> None:
    """The votes of those that were there are kept; the new one is asked about every item."""
    result = small.run(judging={"judges": ["large", "small=0.5"]})
    assert calls(result) == {"judge-small": table(small.workspace, "judgments").height // 2}


def test_a_change_of_weights_or_rule_asks_nobody(small: Small) -> None:
    """What was said counts in another way: that needs no model."""
    result = small.run(judging={"judges": ["large=3"], "rule": "mean", "tie_margin": 1.0})
    assert (result.status, calls(result)) == ("committed", {})


def test_an_expert_alone_is_compared_with_the_log(small: Small) -> None:
    """Without a policy no reply is sampled plainly, and nobody is asked what is known."""
    result = small.run(policy="", judging={"judges": ["large"]})
    assert calls(result) == {}
    assert set(table(small.workspace, "responses")["role"]) == {"logged", "expert"}
    assert set(table(small.workspace, "pairs")["origin"]) <= {"expert", "observed_recovery"}


def test_a_policy_alone_is_compared_with_itself(small: Small) -> None:
    """Without an expert the pairs are on-policy ones."""
    result = small.run(expert="", judging={"judges": ["large"]})
    assert calls(result) == {}
    assert set(table(small.workspace, "responses")["role"]) == {"logged", "on_policy", "plain"}


def test_rules_alone_label_without_a_model(small: Small) -> None:
    """`mode: rules` asks no model for labels; all feedback is then of the rules."""
    result = small.run(cascade={"mode": "rules"}, judging={"judges": ["large"]})
    assert "label" not in calls(result)
    assert result.usage["purposes"].get("label", {}).get("rows", 0) == 0
    assert set(table(small.workspace, "feedback")["method"]) == {"rules"}


def test_a_model_labels_every_turn_when_told_to(small: Small) -> None:
    """`mode: all` asks about every turn that follows a reply; evidence still stands in the turn word for word."""
    small.run(cascade={"mode": "all"}, judging={"judges": ["large"]})
    feedback = table(small.workspace, "feedback")
    assert set(feedback["method"]) == {"model"}
    logged = dict(table(small.workspace, "conversations").select("id", "messages").iter_rows())
    for row in feedback.iter_rows(named=True):
        content = logged[row["conversation_id"]][row["message_index"]]["content"]
        assert all(content[one["start"] : one["end"]] == one["text"] for one in row["evidence"])


def finds_size_seven(requests: Sequence[str], replies: Sequence[str]) -> list[list[str]]:
    """A moderation hook that has something against one conversation."""
    return [["hate"] if "of size 7?" in request else [] for request in requests]


def test_a_function_moderates(small: Small) -> None:
    """A hook of one's own, named in the settings, is asked in place of a model."""
    hook = {"by": "function", "function": f"{__name__}:finds_size_seven"}
    result = small.run(moderation=hook, judging={"judges": ["large"]})
    assert calls(result) == {}
    assert result.dropped["moderated"] == 2
    assert not any("of size 7?" in text(prompt) for prompt in table(small.workspace, "pairs")["prompt"])


def test_a_request_that_is_refused_costs_its_own_pairs_alone(small: Small, tmp_path: Path) -> None:
    """Where the server refuses to say what a user wants, that place is set aside, and all other labels stay."""
    with serve(script="sensible", poison="lantern of size 3?") as poisoned:
        settings = options(tmp_path, poisoned, small.sources, judging={"judges": ["large"]})
        result = run_wild(settings | {"worker": {"max_failure_share": 1.0}})
    lost = (
        pl.col("prompt").list.first().struct.field("content").str.contains("lantern of size 3?", literal=True)
    )
    kept = small.pairs.filter(~lost)
    assert kept.height < small.pairs.height
    assert result.dropped["request_refused"] > 0
    assert table(tmp_path, "pairs").sort("id", "origin").equals(kept.sort("id", "origin"))


def test_judges_that_err_make_no_wrong_label(small: Small) -> None:
    """Biased to the first place, tied without reason, answers that are no JSON: pairs are lost, none is wrong."""
    small.server.control(position_bias=0.4, tie_share=0.1, garble_share=0.2)
    settings = options(small.workspace, small.server, small.sources, judging={"judges": ["hasty"]})
    try:
        result = run_wild(settings | {"worker": {"max_failure_share": 1.0}})
    finally:
        small.server.control(position_bias=0.0, tie_share=0.0, garble_share=0.0)
    failed = table(small.workspace, "judgments").filter(pl.col("verdict") == "failed")
    assert failed["reason"].null_count() == 0
    assert failed.height > 0
    assert result.dropped["judges_inconsistent"] > 0
    pairs = table(small.workspace, "pairs").filter(pl.col("origin").is_in(JUDGED))
    assert 0 < pairs.height < small.pairs.height
    for pair in pairs.iter_rows(named=True):
        assert better_of(text(pair["chosen"]), text(pair["rejected"]), pair["user_preferences"]) == 0


def test_a_judge_that_judges_its_own_replies_is_named(server: Loopback, tmp_path: Path) -> None:
    """Under whatever name: the policy's model among the judges is worth a warning, another model is not."""
    source = write_log(tmp_path / "own.jsonl", *complaints(2))
    own = run_wild(options(tmp_path / "a", server, [source], judging={"judges": ["other", "policy-1"]}))
    others = run_wild(options(tmp_path / "b", server, [source], judging={"judges": ["other"]}))
    assert [said for said in own.warnings if "prefer its own" in said]
    assert not [said for said in others.warnings if "prefer its own" in said]


def test_a_classifier_settles_what_it_is_sure_of(server: Loopback, tmp_path: Path) -> None:
    """With a trained classifier fewer turns go to the model, and another classifier is another run."""
    source = str(LOGS / "support.openai.jsonl")
    labels = LOGS.parent / "feedback_labelled.jsonl"
    fewer = tmp_path / "fewer.jsonl"
    fewer.write_text("".join(labels.read_text().splitlines(keepends=True)[:150]))
    trained = [str(tmp_path / name) for name in ("one.npz", "two.npz")]
    for bits, rows, file in zip((16, 12), (labels, fewer), trained, strict=True):
        settings = load(options={"classifier": {"bits": bits}})
        train_classifier(settings, str(rows), file)
    with_one, with_two = (
        run_wild(options(tmp_path / "a", server, [source], classifier=file)) for file in trained
    )
    without = run_wild(options(tmp_path / "b", server, [source]))
    assert with_one.notes["cascade"]["settled_by_classifier"] > 0
    assert with_one.notes["cascade"]["asked"] < without.notes["cascade"]["asked"]
    assert with_one.run_id != with_two.run_id
    versions = set(table(tmp_path / "a", "feedback")["method_version"])
    assert any(version.startswith("classifier ") for version in versions)
