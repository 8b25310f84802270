"""Each shape, read from end to end: what becomes of turns, ids, users, times, tool calls and reactions."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tilth.schemas import BadInput, ConfigError, NotFound, polars_schema
from tilth.transforms.ingest import SHAPES, detect, expand, inspect, plan
from tilth.transforms.ingest.fields import user_key
from tilth.transforms.ingest.reactions import kind

Write = Callable[..., Path]
USER, ASSISTANT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}


def test_openai_with_tools_parts_and_metadata(jsonl: Write, ingest: Any) -> None:
    """An OpenAI row keeps its roles, tool calls, text parts, id, salted user, time and model."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"q": "é"}'}}
    row = {
        "id": 17,
        "user": "ann",
        "model": "m",
        "created_at": 1_700_000_000,
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "function", "name": "f", "content": ""},
            {"role": "assistant", "content": "Done."},
            {"role": "user", "content": "Thanks"},
        ],
    }
    found = ingest(jsonl([row]), user_salt="s")
    kept = found.conversations.row(0, named=True)
    assert found.conversations.schema == polars_schema("conversations")
    assert found.roles == ["suatau"]
    assert found.texts == [["Be brief.", "a\nb", "", "", "Done.", "Thanks"]]
    assert json.loads(kept["tool_calls_json"]) == [{"message_index": 2, "tool_calls": [call]}]
    assert (kept["source_id"], kept["model"], kept["record_rows"], kept["owned_from"]) == ("17", "m", 1, 0)
    assert kept["user_key"] == user_key("ann", "s") != user_key("ann", "t")
    assert kept["started_at"] == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert (kept["split"], kept["message_ids"], kept["other_user_keys"], kept["reactions"]) == (
        None,
        None,
        [],
        [],
    )


def test_openai_turns_under_another_key(jsonl: Write, ingest: Any) -> None:
    """A list of {role, content} under any key is found; task numbers are not taken for ids."""
    found = ingest(jsonl([{"task_id": 1, "reward": 0.5, "traj": [USER, ASSISTANT]}] * 3))
    assert found.roles == ["ua"] * 3
    assert found.conversations.get_column("source_id").null_count() == 3


def test_content_may_be_null_only_with_tool_calls(jsonl: Write, ingest: Any) -> None:
    """`content: null` without tool calls is an empty message; a blank tool result is none."""
    blank = {"role": "assistant", "content": None}
    tool = {"role": "tool", "content": ""}
    assert ingest(jsonl([{"messages": [USER, blank]}])).reasons == ["empty_message"]
    assert ingest(jsonl([{"messages": [USER, {**blank, "function_call": {"name": "f"}}, tool]}])).roles == [
        "uat"
    ]


def test_a_conversation_may_begin_with_the_assistant(jsonl: Write, ingest: Any) -> None:
    """The first turn that is no system turn may be anyone's, and so may the last."""
    rows = [
        {"messages": [ASSISTANT, USER]},
        {"messages": [{"role": "system", "content": "s"}] * 2 + [ASSISTANT]},
    ]
    assert ingest(jsonl(rows)).roles == ["au", "ssa"]


def test_consecutive_turns_are_merged_on_request(jsonl: Write, ingest: Any) -> None:
    """With `merge`, turns of one speaker are joined by a newline, and reactions move with them."""
    row = {
        "messages": [USER, USER, ASSISTANT, {**ASSISTANT, "content": "More"}],
        "reactions": [{"message_index": 3, "kind": "thumbs_up"}],
    }
    assert ingest(jsonl([row])).reasons == ["roles_do_not_alternate"]
    found = ingest(jsonl([row]), on_consecutive="merge")
    assert found.texts == [["Hi\nHi", "Hello\nMore"]]
    assert found.reactions == [[(1, "thumbs_up", 1.0)]]


def test_sharegpt(jsonl: Write, ingest: Any) -> None:
    """ShareGPT's speakers become roles, and a row's own system prompt comes first."""
    turns = [
        {"from": "human", "value": "Hi"},
        {"from": "gpt", "value": "Hello"},
        {"from": "observation", "value": "7"},
    ]
    rows = [
        {"id": "a", "conversations": turns},
        {"id": "b", "system": "Be kind.", "conversations": turns[:2]},
    ]
    found = ingest(jsonl(rows))
    assert found.roles == ["uat", "sua"]
    assert found.texts[1][0] == "Be kind."


def test_wildchat_from_parquet(tmp_path: Path, ingest: Any) -> None:
    """WildChat's rows give the hash as id, the hashed address as user, and time, language and model."""
    turn = {"toxic": False, "redacted": False, "language": "English", "hashed_ip": "h", "turn_identifier": 5}
    row = {
        "conversation_hash": "abc", "model": "gpt-4", "timestamp": datetime(2023, 4, 9, tzinfo=UTC), "turn": 1,
        "conversation": [{**turn, **USER}, {**turn, **ASSISTANT}], "language": "English", "hashed_ip": "ip",
        "toxic": False, "redacted": False,
    }  # fmt: skip
    pl.DataFrame([row]).write_parquet(tmp_path / "w.parquet")
    kept = ingest(tmp_path / "w.parquet").conversations.row(0, named=True)
    assert plan(expand([str(tmp_path)]))[0]["shape"] == "wildchat"
    assert (kept["source_id"], kept["language"], kept["model"]) == ("abc", "English", "gpt-4")
    assert (kept["user_key"], kept["started_at"]) == (user_key("ip", ""), row["timestamp"])


def test_lmsys(jsonl: Write, ingest: Any) -> None:
    """LMSYS rows are told from WildChat's by their keys."""
    row = {
        "conversation_id": "c",
        "model": "vicuna",
        "conversation": [USER, ASSISTANT],
        "turn": 1,
        "language": "German",
    }
    path = jsonl([row])
    assert inspect(str(path)).shape == "lmsys"
    assert ingest(path).conversations.select("source_id", "language").row(0) == ("c", "German")


def test_hh_transcripts_become_ranked_siblings(jsonl: Write, ingest: Any) -> None:
    """HH's two transcripts are one record: rank 0 and 1 on the last reply, the shared turns owned once."""
    start = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: A joke?\n\nAssistant:"
    found = ingest(jsonl([{"chosen": f"{start} Knock knock.", "rejected": f"{start} No."}]))
    assert found.roles == ["uaua", "uaua"]
    assert found.reactions == [[(3, "rank", 0.0)], [(3, "rank", 1.0)]]
    assert found.conversations.get_column("owned_from").to_list() == [0, 3]
    assert found.conversations.get_column("record_rows").to_list() == [1, 0]
    assert found.conversations.get_column("record_id").n_unique() == 1
    assert found.conversations.get_column("id").n_unique() == 2


def test_hh_with_one_broken_side(jsonl: Write, ingest: Any) -> None:
    """A side that cannot be read is set aside without costing the row; with both broken the row is lost."""
    good, bad = "\n\nHuman: a\n\nAssistant: b", "\n\nHuman: a\n\nHuman: b"
    found = ingest(jsonl([{"chosen": good, "rejected": bad}, {"chosen": bad, "rejected": "hello"}]))
    assert found.conversations.get_column("record_rows").to_list() == [1]
    assert found.quarantine.get_column("source_rows").to_list() == [0, 1]
    assert found.reasons == ["roles_do_not_alternate"] * 2


def test_joined_turns_are_shared_only_when_equal(jsonl: Write, ingest: Any) -> None:
    """Turns joined from different messages are no shared turn, though they end alike."""
    sides = {side: f"\n\nHuman: {side}\n\nHuman: b\n\nAssistant: c" for side in ("chosen", "rejected")}
    found = ingest(jsonl([sides]), on_consecutive="merge")
    assert found.texts[0] == ["chosen\nb", "c"]
    assert found.conversations["owned_from"].to_list() == [0, 0]


def test_identical_sides_keep_ids_apart(jsonl: Write, ingest: Any) -> None:
    """Two equal replies of one record are two conversations with two ids; judging them is a later stage's."""
    same = "\n\nHuman: a\n\nAssistant: b"
    found = ingest(jsonl([{"chosen": same, "rejected": same}]))
    assert found.conversations.get_column("id").n_unique() == 2


def test_ultrafeedback_completions(jsonl: Write, ingest: Any) -> None:
    """Each completion is a conversation with its model and its score: overall, or the mean of its ratings."""
    ratings = {"helpfulness": {"Rating": "4"}, "honesty": {"Rating": "5"}, "truth": {"Rating": "N/A"}}
    row = {
        "instruction": "Sing",
        "completions": [
            {"model": "a", "response": "La", "overall_score": 7.5, "annotations": ratings},
            {"model": "b", "response": "Lu", "annotations": ratings},
            {"model": "c", "response": " "},
        ],
    }
    found = ingest(jsonl([row]))
    assert found.texts == [["Sing", "La"], ["Sing", "Lu"]]
    assert found.reactions == [[(1, "score", 7.5)], [(1, "score", 4.5)]]
    assert found.conversations.get_column("model").to_list() == ["a", "b"]
    assert found.conversations.get_column("owned_from").to_list() == [0, 1]
    assert (found.reasons, found.quarantine.item(0, "source_rows")) == (["empty_message"], 0)


def test_binarized_preferences(jsonl: Write, ingest: Any) -> None:
    """Chosen and rejected messages carry their scores, or ranks without scores; prompts are put before bare replies."""
    other = {"role": "assistant", "content": "Go away"}
    whole = {"chosen": [USER, ASSISTANT], "rejected": [USER, other]}
    rows = [
        {**whole, "prompt": "Hi", "score_chosen": 8.0, "score_rejected": 3.5},
        whole,
        {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [other]},
        {"prompt": "Hi", "chosen": [ASSISTANT], "rejected": [other]},
        {"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"},
    ]
    found = ingest(jsonl(rows), shape="ultrafeedback")
    assert found.texts == [["Hi", "Hello"], ["Hi", "Go away"]] * 5
    assert found.reactions[:2] == [[(1, "score", 8.0)], [(1, "score", 3.5)]]
    assert found.reactions[2:] == [[(1, "rank", 0.0)], [(1, "rank", 1.0)]] * 4


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ({"feedback": "thumbs_up"}, ("thumbs_up", 1.0)),
        ({"feedback": "Thumbs-Down"}, ("thumbs_down", 1.0)),
        ({"reaction": "+1"}, ("thumbs_up", 1.0)),
        ({"reaction": "👎"}, ("thumbs_down", 1.0)),
        ({"feedback": -1}, ("thumbs_down", 1.0)),
        ({"feedback": 1}, ("thumbs_up", 1.0)),
        ({"rating": "like"}, ("thumbs_up", 1.0)),
        ({"rating": -1}, ("thumbs_down", 1.0)),
        ({"rating": 1}, ("score", 1.0)),  # the worst of five stars must never read as a thumb up
        ({"rating": "1"}, ("score", 1.0)),
        ({"rating": 4}, ("score", 4.0)),
        ({"feedback": {"kind": "dislike", "value": 3}}, ("thumbs_down", 3.0)),
        ({"feedback": {"type": "heart"}}, ("emoji", 1.0)),
        ({"feedback": "it was not what I asked for"}, None),
        ({"feedback": None}, None),
        ({"feedback": 0}, None),
        ({"feedback": True}, None),
    ],
)
def test_reactions_of_messages(
    said: dict[str, Any], read: tuple[str, float] | None, jsonl: Write, ingest: Any
) -> None:
    """What a message's own keys say of it becomes a reaction of a known kind, or none."""
    found = ingest(jsonl([{"messages": [USER, {**ASSISTANT, **said}]}]))
    assert found.reactions == [[(1, *read)] if read else []]


def test_reactions_of_rows(jsonl: Write, ingest: Any) -> None:
    """A row's list of reactions names message indices; instants are kept."""
    listed = [
        {"message_index": 1, "kind": "up", "at": "2026-01-02T03:04:05Z"},
        {"message_index": 0, "kind": "tada", "value": 2},
        {"message_index": 1, "kind": "rating", "value": "4"},
    ]
    found = ingest(jsonl([{"messages": [USER, ASSISTANT], "reactions": listed}]))
    assert found.reactions == [[(0, "emoji", 2.0), (1, "thumbs_up", 1.0), (1, "score", 4.0)]]
    assert found.conversations.item(0, "reactions")[1]["at"] == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_kinds_of_reactions() -> None:
    """Names of reactions fold into five kinds."""
    names = ("+1", "-1", "upvote", "rank", "stars", "heart")
    assert [kind(name) for name in names] == [
        "thumbs_up",
        "thumbs_down",
        "thumbs_up",
        "rank",
        "score",
        "emoji",
    ]


def test_message_ids_are_kept(jsonl: Write, ingest: Any) -> None:
    """Where messages have ids, they are kept, with null for those that have none."""
    found = ingest(jsonl([{"messages": [{**USER, "id": "m1"}, ASSISTANT]}]))
    assert found.conversations.item(0, "message_ids").to_list() == ["m1", None]


def test_ids_follow_content_alone(jsonl: Write, ingest: Any) -> None:
    """Equal records have equal ids wherever they stand; another source id or text makes another id."""
    row = {"id": "a", "messages": [USER, ASSISTANT]}
    rows = [row, {**row, "id": "b"}, {**row, "messages": [ASSISTANT, USER]}]
    here = ingest(jsonl(rows)).conversations
    there = ingest(jsonl(list(reversed(rows)), "other.jsonl")).conversations
    assert here.get_column("id").n_unique() == 3
    assert set(here["id"]) == set(there["id"])
    assert set(here["record_id"]) == set(there["record_id"])


MAP = """
turns: talk.lines
speaker: who
text: said
roles: {caller: user, desk: assistant}
id: ref
user: caller.number
started_at: opened
merge_consecutive: true
"""


def test_column_map_reads_a_foreign_shape(jsonl: Write, tmp_path: Path, ingest: Any) -> None:
    """A map of a few lines reads a shape that nobody foresaw."""
    (tmp_path / "map.yaml").write_text(MAP)
    said = [("caller", "Hello?"), ("caller", "Anyone?"), ("desk", "Yes.")]
    row = {
        "ref": 5, "caller": {"number": "555"}, "opened": "2026-05-01 10:00:00",
        "talk": {"lines": [{"who": who, "said": what} for who, what in said]},
    }  # fmt: skip
    found = ingest(jsonl([row, {"ref": 6}]), mapping=tmp_path / "map.yaml")
    assert found.texts == [["Hello?\nAnyone?", "Yes."]]
    kept = found.conversations.row(0, named=True)
    assert (kept["source_id"], kept["user_key"]) == ("5", user_key("555", ""))
    assert kept["started_at"] == datetime(2026, 5, 1, 10, tzinfo=UTC)
    assert found.reasons == ["not_a_conversation"]


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ("turns: a\nspeeker: b", "speaker"),
        ("speaker: b", "turns"),
        ("turns: [a]", "turns"),
        ("turns: a\nroles: {x: boss}", "roles"),
        ("turns: a\nmerge_consecutive: maybe", "merge_consecutive"),
        ("- a", "keys and values"),
        ("a: [", "YAML"),
    ],
)
def test_column_map_with_a_mistake(written: str, named: str, tmp_path: Path) -> None:
    """A mistake in a map is an error that names the key, and the nearest known one."""
    (tmp_path / "map.yaml").write_text(written)
    with pytest.raises(BadInput, match=named):
        plan([], None, str(tmp_path / "map.yaml"))


def test_column_map_that_is_not_there(tmp_path: Path) -> None:
    """A map that does not exist is NotFound."""
    with pytest.raises(NotFound, match="map"):
        plan([], None, str(tmp_path / "map.yaml"))


def test_formats_are_checked() -> None:
    """An unknown format, or `map` without a map, is a usage error."""
    for shape in ("opnai", "map"):
        with pytest.raises(ConfigError):
            plan([], shape)


SAMPLES: dict[str, dict[str, Any]] = {
    "openai": {"messages": [USER, ASSISTANT]},
    "sharegpt": {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    "wildchat": {"conversation_hash": "h", "conversation": [USER, ASSISTANT], "model": "m", "toxic": False},
    "lmsys": {"conversation_id": "i", "conversation": [USER, ASSISTANT], "model": "m"},
    "oasst": {"message_id": "1", "parent_id": None, "text": "a", "role": "prompter", "message_tree_id": "1"},
    "hh": {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
    "ultrafeedback": {"instruction": "a", "completions": [{"model": "m", "response": "r"}]},
}


@pytest.mark.parametrize("shape", SAMPLES)
def test_every_shape_is_detected(shape: str) -> None:
    """Rows of a shape are detected as that shape, with a reason, even among rows of none."""
    found = detect([SAMPLES[shape]] * 8 + [{"x": 1}] * 2)
    assert (found.shape, found.reasons[0][-12:]) == (shape, "8 of 10 rows")
    assert 0.6 < found.confidence <= 0.8


def test_every_shape_but_the_map_has_a_sample() -> None:
    """No shape is left out above."""
    assert {*SAMPLES, "map"} == set(SHAPES)


def test_rows_of_no_shape_are_not_guessed() -> None:
    """Rows without the keys of any shape have none, and no confidence."""
    found = detect([{"a": 1}, {"text": "hello"}, {"messages": "x"}])
    assert (found.shape, found.confidence) == (None, 0.0)


def test_inspect_tells_what_a_run_would_do(jsonl: Write) -> None:
    """An inspection holds shape, certainty, three parsed rows and what would be set aside."""
    row = {"id": "a", "messages": [USER, ASSISTANT]}
    found = inspect(str(jsonl([row, b"{", row, {"messages": []}, row, row])))
    assert (found.shape, found.rows_read, found.conversations, len(found.rows)) == ("openai", 6, 4, 3)
    assert found.quarantined == {"broken_json": 1, "empty": 1}
    assert found.rows[0]["messages"] == [USER, ASSISTANT]
    assert set(found.to_dict()) >= {
        "uri",
        "shape",
        "confidence",
        "reasons",
        "rows",
        "quarantined",
        "rows_read",
    }


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "csv", "json"])
def test_containers_give_the_same_conversations(
    suffix: str, tmp_path: Path, jsonl: Write, ingest: Any
) -> None:
    """The same rows give the same ids from Parquet, Arrow, CSV and a JSON array as from JSONL."""
    rows = [
        {"id": f"r{n}", "user": f"u{n % 3}", "messages": [USER, {**ASSISTANT, "content": f"{n} é"}]}
        for n in range(9)
    ]
    frame = pl.DataFrame(rows)
    path = tmp_path / f"log.{suffix}"
    if suffix == "parquet":
        frame.write_parquet(path)
    elif suffix == "arrow":
        frame.write_ipc(path)
    elif suffix == "csv":
        frame.with_columns(messages=pl.Series([json.dumps(row["messages"]) for row in rows])).write_csv(path)
    else:
        path.write_text(json.dumps(rows))
    other = ingest(path).conversations
    assert other.drop("source").equals(ingest(jsonl(rows)).conversations.drop("source"))
