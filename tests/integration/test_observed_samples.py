"""The recipe `observed` on the sample logs, held against the truth that was written with them."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import polars as pl
import pytest

from integration.sample_world import FILES, World
from tilth.transforms.rubrics.criteria import criteria_of

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("samples")]


def _of(world: World, key: str) -> list[tuple[str, Any]]:
    return [(name, item) for name in FILES for item in world.expected["files"][name].get(key, [])]


def _conversations(world: World) -> pl.DataFrame:
    name = pl.col("source").str.split("/").list.last()
    last = pl.col("message_ids").list.last()
    return world.table("conversations").select(
        pl.col("id").alias("conversation_id"),
        name.alias("file"),
        pl.when(name.str.contains("oasst")).then(last).otherwise("source_id").alias("sample"),
        "messages",
        "message_ids",
    )


def _feedback(world: World) -> pl.DataFrame:
    return world.table("feedback").join(_conversations(world), on="conversation_id")


def test_every_source_row_is_accounted_for(world: World) -> None:
    """Rows in = rows out + quarantined, for each source, and the quarantine table says the same."""
    assert len(world.result.sources) == len(FILES)
    for source in world.result.sources:
        assert source.rows_in == world.expected["files"][source.source.rpartition("/")[2]]["rows"]
        assert source.rows_in == source.rows_out + source.rows_quarantined
    rows = world.table("quarantine").filter(pl.col("source_rows") > 0)["source_rows"].sum()
    assert rows == world.result.rows_quarantined == len(_of(world, "broken"))


def test_every_broken_row_is_in_quarantine_with_its_reason(world: World) -> None:
    """Each row that was broken on purpose is set aside for the reason that it was broken in."""
    lost = world.table("quarantine").filter(pl.col("source_rows") > 0)
    found = Counter(zip(lost["source"].str.split("/").list.last(), lost["reason"], strict=True))
    wanted = Counter((name, item["reason"]) for name, item in _of(world, "broken"))
    assert found == wanted


def test_hard_negatives_and_quiet_conversations_give_no_feedback(world: World) -> None:
    """Words of praise or complaint that are not about the reply are not feedback."""
    quiet = {(name, item["id"]) for name, item in _of(world, "hard_negatives")}
    quiet |= {(name, item) for name, item in _of(world, "no_feedback")}
    said = (
        _feedback(world)
        .filter(pl.col("method") == "rules")
        .select("file", "sample", "message_index", "labels")
    )
    wrong = [row for row in said.iter_rows() if (row[0], row[1]) in quiet]
    assert wrong == []


def test_other_languages_are_counted_and_passed_over(world: World) -> None:
    """Conversations in other languages give no rows by rules, and the result counts them."""
    foreign = _of(world, "other_language")
    assert sum(world.result.passed_over.values()) == len(foreign)
    said = _feedback(world).filter(pl.col("method") == "rules")
    assert set(said["sample"]).isdisjoint({item["id"] for _, item in foreign})


def test_evidence_is_verbatim(world: World) -> None:
    """Every quote stands in the user's turn at the offsets that the row gives."""
    rows = _feedback(world).filter(pl.col("method") == "rules")
    assert rows.height > 100
    for row in rows.iter_rows(named=True):
        content = row["messages"][row["message_index"]]["content"]
        for quote in row["evidence"]:
            assert content[quote["start"] : quote["end"]] == quote["text"]


def test_punishing_a_correct_refusal_rejects_nothing(world: World) -> None:
    """A refused reply is neither the rejected side of a pair nor a negative label."""
    conversations = {(f, s): m for _, f, s, m, _ in _conversations(world).iter_rows()}
    refused = {
        conversations[name, item["id"]][item["refused_index"]]["content"]
        for name, item in _of(world, "refusal_punished")
    }
    assert len(refused) == len(_of(world, "refusal_punished"))
    rejected = {messages[0]["content"] for messages in world.table("pairs")["rejected"]}
    negative = world.table("unpaired").filter(~pl.col("label"))
    assert refused.isdisjoint(rejected | {messages[0]["content"] for messages in negative["completion"]})


def test_human_ranks_become_pairs_and_ties_do_not(world: World) -> None:
    """Sibling pairs are those that ranks and emojis give, none where they tie or contradict each other."""
    trees = world.expected["files"]["community.oasst.jsonl"]
    text = {
        key: message["content"]
        for row in _conversations(world)
        .filter(pl.col("file") == "community.oasst.jsonl")
        .iter_rows(named=True)
        for key, message in zip(row["message_ids"], row["messages"], strict=True)
    }
    against = {frozenset((c["better_rank"], c["better_emojis"])) for c in trees["contradictory"]}
    wanted = {
        (text[pair["chosen"]], text[pair["rejected"]])
        for pair in [*trees["rank_pairs"], *trees["emoji_pairs"]]
        if frozenset((pair["chosen"], pair["rejected"])) not in against
    }
    pairs = world.table("pairs").filter(pl.col("origin").is_in(["human_rank", "reaction"]))
    found = {
        (c[0]["content"], r[0]["content"]) for c, r in zip(pairs["chosen"], pairs["rejected"], strict=True)
    }
    assert found == wanted


def test_recoveries_are_found_and_never_invented(world: World) -> None:
    """Every recovered pair is one of the planted ones, and more than half of the planted ones are found."""
    conversations = {(f, s): (i, m) for i, f, s, m, _ in _conversations(world).iter_rows()}
    wanted = set()
    for name, item in _of(world, "recoveries"):
        _, messages = conversations[name, item["id"]]
        for index in [item["rejected_index"], *item.get("earlier_rejected_indices", [])]:
            wanted.add((messages[item["chosen_index"]]["content"], messages[index]["content"]))
    pairs = world.table("pairs").filter(pl.col("origin") == "observed_recovery")
    found = {
        (c[0]["content"], r[0]["content"]) for c, r in zip(pairs["chosen"], pairs["rejected"], strict=True)
    }
    assert found <= wanted
    assert len(found) > len(_of(world, "recoveries")) / 2


def test_pairs_name_the_user_turns_they_come_from(world: World) -> None:
    """Recovered pairs lead to feedback rows, and their rationale quotes the user word for word."""
    known = set(world.table("feedback")["id"])
    pairs = world.table("pairs").filter(pl.col("origin") == "observed_recovery")
    assert all(set(ids) <= known and len(ids) >= 2 for ids in pairs["feedback_ids"])
    rationales = world.table("rationales").filter(kind="user_complaint")
    assert set(pairs["id"]) <= set(rationales["pair_id"])
    turns = {
        m["content"] for ms in world.table("conversations")["messages"] for m in ms if m["role"] == "user"
    }
    assert all(any(text in turn for turn in turns) for text in rationales["text"])


def test_nobody_is_in_two_splits(world: World) -> None:
    """A user's conversations, and all rows made of them, are in one split."""
    conversations = world.table("conversations")
    users = (
        conversations.filter(pl.col("user_key").is_not_null())
        .group_by("user_key")
        .agg(pl.col("split").n_unique())
    )
    assert users["split"].max() == 1
    for table in ("feedback", "unpaired", "pairs"):
        joined = world.table(table).join(conversations, left_on="conversation_id", right_on="id")
        assert (joined["split"] == joined["split_right"]).all()


def test_unpaired_rows_are_shuffled(world: World) -> None:
    """KTO reads neighbours: labels are not grouped and equal prompts do not stand together."""
    unpaired = world.table("unpaired")
    labels = unpaired["label"].to_list()
    changes = sum(one != other for one, other in pairwise(labels))
    assert changes > min(labels.count(True), labels.count(False)) / 2
    assert (unpaired["prompt_id"] == unpaired["prompt_id"].shift()).sum() == 0


def test_rubrics_say_what_users_and_requests_demand(world: World) -> None:
    """Each rubric is of a prompt of some pair; complaints are users' words, programs were tried on both sides."""
    rubrics, pairs = world.table("rubrics"), world.table("pairs")
    assert rubrics.height > 10
    assert set(rubrics["prompt_id"]) <= set(pairs["prompt_id"])
    criteria = criteria_of(rubrics)
    turns = " ".join(
        " ".join(m["content"].split())
        for ms in world.table("conversations")["messages"]
        for m in ms
        if m["role"] == "user"
    )
    voiced = criteria.filter(source="complaint")
    words = voiced["description"].str.extract("“(.*)”").to_list()
    assert words
    assert all(said in turns for said in words)
    assert set(voiced["feedback_ids"].explode()) <= set(world.table("feedback")["id"])
    by_program = criteria.filter(check="program")
    assert by_program.height > 0
    assert by_program["pass_rate"].null_count() < by_program.height
    assert set(rubrics["method"]) == {"rules"}
