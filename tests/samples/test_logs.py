"""The sample logs are what samples/README.md and EXPECTED.json say they are."""

from __future__ import annotations

import json
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any  # Any: JSON of the sample files

import pytest

from tilth.schemas.errors import Reason

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
SUPPORT, CHAT, TREES = "support.openai.jsonl", "assistant.sharegpt.json", "community.oasst.jsonl"
FILES = (SUPPORT, CHAT, TREES)
LABELS = {
    *("gratitude", "learning", "compliance", "praise", "personal_details", "humor", "acknowledgement"),
    *("positive_closure", "getting_there", "negative_feedback", "revision", "factual_error"),
    *("unrealistic_expectation", "no_engagement", "ignored", "lower_quality", "insufficient_detail", "style"),
}

Message = dict[str, Any]


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    return json.loads((SAMPLES / "logs" / "EXPECTED.json").read_text(encoding="utf-8"))


def _lines(name: str) -> list[bytes]:
    return (SAMPLES / "logs" / name).read_bytes().removesuffix(b"\n").split(b"\n")


def _loaded(line: bytes) -> Any:
    try:
        return json.loads(line.decode())
    except ValueError:  # broken JSON and invalid UTF-8 alike
        return None


def _records(name: str) -> list[Any]:
    if name == CHAT:
        return json.loads((SAMPLES / "logs" / name).read_text(encoding="utf-8"))
    return [_loaded(line) for line in _lines(name)]


def _good(name: str, expected: dict[str, Any]) -> list[Any]:
    broken = {row["row"] for row in expected["files"][name]["broken"]}
    return [record for row, record in enumerate(_records(name)) if row not in broken]


def _sharegpt_turn(turn: dict[str, str]) -> Message:
    return {
        "role": {"human": "user", "gpt": "assistant"}.get(turn["from"], turn["from"]),
        "content": turn["value"],
    }


def _paths(messages: list[Message]) -> dict[str, list[Message]]:
    """Root to leaf, by the id of the leaf; OASST's `prompter` becomes `user`."""
    by_id = {message["message_id"]: message for message in messages}
    parents = {message["parent_id"] for message in messages}
    paths: dict[str, list[Message]] = {}
    for leaf in (message for message in messages if message["message_id"] not in parents):
        path, message = [], leaf
        while message:
            path.insert(
                0,
                {**message, "role": message["role"].replace("prompter", "user"), "content": message["text"]},
            )
            message = by_id.get(message["parent_id"])
        paths[leaf["message_id"]] = path
    return paths


def _conversations(name: str, expected: dict[str, Any]) -> dict[str, list[Message]]:
    good = _good(name, expected)
    if name == SUPPORT:
        return {record["id"]: record["messages"] for record in good}
    if name == CHAT:
        return {record["id"]: [_sharegpt_turn(turn) for turn in record["conversations"]] for record in good}
    return _paths(good)


def _net(message: Message) -> int:
    emojis = message["emojis"] or {"name": [], "count": []}
    counts = dict(zip(emojis["name"], emojis["count"], strict=True))
    return counts.get("+1", 0) - counts.get("-1", 0)


def _siblings(expected: dict[str, Any]) -> list[tuple[Message, Message]]:
    """Ordered pairs of assistant messages under one parent."""
    replies = [message for message in _good(TREES, expected) if message["role"] == "assistant"]
    return [(a, b) for a in replies for b in replies if a is not b and a["parent_id"] == b["parent_id"]]


def _ranked_above(a: Message, b: Message) -> bool:
    return None not in (a["rank"], b["rank"]) and a["rank"] < b["rank"]


def _liked_above(a: Message, b: Message) -> bool:
    return _net(a) > 0 > _net(b)


def _ids(pairs: list[dict[str, Any]], first: str, second: str) -> set[tuple[str, str]]:
    return {(pair[first], pair[second]) for pair in pairs}


@pytest.mark.parametrize("name", FILES)
def test_counts_hold(name: str, expected: dict[str, Any]) -> None:
    """Each file has the rows and the conversations that EXPECTED.json gives, and every id once."""
    truth = expected["files"][name]
    assert len(_records(name)) == truth["rows"]
    assert len(_good(name, expected)) == truth["rows"] - len(truth["broken"])
    assert len(_conversations(name, expected)) == truth["conversations"]


def _size(value: Any) -> int:
    return len(value) if isinstance(value, list) else value if isinstance(value, int) else 0


def test_there_is_enough_of_everything(expected: dict[str, Any]) -> None:
    """The samples are broad enough for the demo: shapes, conversations, labels, recoveries and traps."""
    truths = expected["files"].values()
    kinds = set().union(*truths)
    total = {kind: sum(_size(truth.get(kind)) for truth in truths) for kind in kinds}
    assert {truth["shape"] for truth in truths} == {"openai", "sharegpt", "oasst"}
    assert total["conversations"] >= 165
    assert total["recoveries"] >= 25
    assert total["half_recoveries"] >= 12
    assert total["no_feedback"] >= 30
    assert total["hard_negatives"] >= 30
    assert total["refusal_punished"] >= 8
    assert 6 <= total["other_language"] <= 8
    assert 0.04 <= total["broken"] / total["rows"] <= 0.06


@pytest.mark.parametrize("name", FILES)
def test_good_conversations_are_well_formed(name: str, expected: dict[str, Any]) -> None:
    """After an optional system turn, users and assistants take turns, and nobody says nothing."""
    for messages in _conversations(name, expected).values():
        spoken = [m for m in messages if m["role"] not in ("system", "tool") and not m.get("tool_calls")]
        assert [m["role"] for m in spoken] == [*islice(cycle(("user", "assistant")), len(spoken))]
        assert len(spoken) >= 2
        assert all(m["content"] and "\0" not in str(m["content"]) for m in spoken)
        asked = [call["id"] for m in messages for call in m.get("tool_calls", ())]
        assert asked == [m["tool_call_id"] for m in messages if m["role"] == "tool"]


def _line_faults(line: bytes, *, last: bool) -> set[Reason]:
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return {Reason.INVALID_UTF8}
    return {Reason.TRUNCATED if last and not text.endswith("}") else Reason.BROKEN_JSON}


def _tree_faults(message: Message, good: set[str]) -> set[Reason]:
    faults = {
        Reason.ORPHAN_MESSAGE: message["parent_id"] not in good,
        Reason.DELETED_MESSAGE: message["deleted"],
        Reason.NUL_CHARACTER: "\0" in message["text"],
    }
    return {reason for reason, found in faults.items() if found}


def _turn_faults(turns: Any) -> set[Reason]:
    if not isinstance(turns, list) or not turns:
        return {Reason.EMPTY if turns == [] else Reason.WRONG_TYPE}
    roles = [turn.get("role") or turn.get("from") for turn in turns]
    contents = [turn.get("content") or turn.get("value") for turn in turns]
    faults = {
        Reason.EMPTY_MESSAGE: any(not str(content or "").strip() for content in contents),
        Reason.UNSUPPORTED_CONTENT: "image_url" in json.dumps(contents),
        Reason.UNKNOWN_ROLE: not set(roles) <= {"user", "assistant", "human", "gpt"},
        Reason.ROLES_DO_NOT_ALTERNATE: any(a == b for a, b in pairwise(roles)),
    }
    return {reason for reason, found in faults.items() if found}


def _faults(name: str, row: int, expected: dict[str, Any]) -> set[Reason]:
    records = _records(name)
    record = records[row]
    if record is None:
        return _line_faults(_lines(name)[row], last=row == len(records) - 1)
    if name == TREES:
        return _tree_faults(record, {message["message_id"] for message in _good(name, expected)})
    earlier = [other for other in records[:row] if other and other["id"] == record["id"]]
    if earlier:
        return {Reason.DUPLICATE if record in earlier else Reason.CONFLICTING_DUPLICATE}
    return _turn_faults(record.get("messages", record.get("conversations")))


@pytest.mark.parametrize("name", FILES)
def test_broken_rows_are_where_expected_says(name: str, expected: dict[str, Any]) -> None:
    """Each listed row is broken in the way its reason names and in no other, at the byte given."""
    for row in expected["files"][name]["broken"]:
        assert _faults(name, row["row"], expected) == {Reason(row["reason"])}, row
        if name != CHAT:
            assert row["byte"] == sum(len(line) + 1 for line in _lines(name)[: row["row"]])


def test_the_truncated_line_ends_its_file() -> None:
    """The support log ends without a newline, as a file whose writer was stopped does."""
    assert not (SAMPLES / "logs" / SUPPORT).read_bytes().endswith((b"\n", b"}"))


def test_broken_rows_cost_no_path(expected: dict[str, Any]) -> None:
    """No good message of a tree hangs below a broken one."""
    broken = {row["id"] for row in expected["files"][TREES]["broken"]}
    assert not broken & {message["parent_id"] for message in _good(TREES, expected)}


@pytest.mark.parametrize("name", FILES)
def test_duplicates_share_an_id(name: str, expected: dict[str, Any]) -> None:
    """Both rows of a duplicate bear its id; the second is the broken one and never the longer one."""
    broken = {row["row"]: row["reason"] for row in expected["files"][name]["broken"]}
    for duplicate in expected["files"][name]["duplicates"]:
        first, second = (_records(name)[row] for row in duplicate["rows"])
        assert first["id"] == second["id"] == duplicate["id"]
        assert broken[duplicate["rows"][1]] == duplicate["kind"]
        assert len(json.dumps(first)) >= len(json.dumps(second))


@pytest.mark.parametrize("name", FILES)
def test_recoveries_point_to_replies(name: str, expected: dict[str, Any]) -> None:
    """Rejected and chosen index are assistant turns, in that order, each answered by a labelled user turn."""
    conversations = _conversations(name, expected)
    said = {(use["id"], use["message_index"]) for uses in expected["labels"].values() for use in uses}
    for recovery in expected["files"][name]["recoveries"]:
        messages = conversations[recovery["id"]]
        earlier = recovery.get("earlier_rejected_indices", [])
        indices = [*earlier, recovery["rejected_index"], recovery["chosen_index"]]
        assert indices == sorted(set(indices))
        for index in indices:
            assert [message["role"] for message in messages[index : index + 2]] == ["assistant", "user"]
            answer = messages[index + 1].get("message_id")
            assert ((answer, None) if answer else (recovery["id"], index + 1)) in said


def test_recoveries_in_trees_name_their_messages(expected: dict[str, Any]) -> None:
    """In trees a recovery gives both message ids beside the indices."""
    paths = _conversations(TREES, expected)
    for recovery in expected["files"][TREES]["recoveries"]:
        for side in ("rejected", "chosen"):
            assert paths[recovery["id"]][recovery[f"{side}_index"]]["message_id"] == recovery[side]


@pytest.mark.parametrize("name", FILES)
def test_rejected_and_refused_turns_are_replies(name: str, expected: dict[str, Any]) -> None:
    """Half recoveries and punished refusals point to an assistant turn that a user turn answers."""
    for kind, field in (("half_recoveries", "rejected_index"), ("refusal_punished", "refused_index")):
        for entry in expected["files"][name].get(kind, ()):
            messages = _conversations(name, expected)[entry["id"]]
            assert [message["role"] for message in messages[entry[field] :][:2]] == ["assistant", "user"]


def _named(truth: dict[str, Any], *kinds: str) -> set[str]:
    entries = [entry for kind in kinds for entry in truth.get(kind, ())]
    return {entry["id"] if isinstance(entry, dict) else entry for entry in entries}


@pytest.mark.parametrize("name", FILES)
def test_a_conversation_has_one_part_to_play(name: str, expected: dict[str, Any]) -> None:
    """Ids exist, and what must give no feedback row has no label and no reaction."""
    truth = expected["files"][name]
    labelled = {use["id"] for uses in expected["labels"].values() for use in uses}
    quiet = _named(truth, "hard_negatives", "no_feedback", "other_language")
    loud = _named(truth, "recoveries", "half_recoveries", "refusal_punished", "new_constraints")
    conversations = _conversations(name, expected)
    assert quiet | loud <= set(conversations)
    assert not quiet & (loud | labelled)
    reactions = ("feedback", "rank", "emojis")
    turns = [turn for name in quiet for turn in conversations[name]]
    assert not [turn for turn in turns for kind in reactions if turn.get(kind) is not None]


def test_every_label_is_shown_twice_by_a_user(expected: dict[str, Any]) -> None:
    """All 18 labels occur at least twice, each in a user turn that exists."""
    assert set(expected["labels"]) == LABELS
    for uses in expected["labels"].values():
        assert len({(use["file"], use["id"]) for use in uses}) >= 2
        assert all(_said_by_user(use, expected) for use in uses)


def _said_by_user(use: dict[str, Any], expected: dict[str, Any]) -> bool:
    if use["message_index"] is None:
        roles = {message["message_id"]: message["role"] for message in _good(TREES, expected)}
        return roles[use["id"]] == "prompter"
    return _conversations(use["file"], expected)[use["id"]][use["message_index"]]["role"] == "user"


def test_thumbs_are_all_listed(expected: dict[str, Any]) -> None:
    """The reactions of the support log are its `feedback` fields, one for one, on assistant turns."""
    found = [
        {"id": name, "message_index": index, "kind": message["feedback"]}
        for name, messages in _conversations(SUPPORT, expected).items()
        for index, message in enumerate(messages)
        if "feedback" in message and message["role"] == "assistant"
    ]
    assert found == expected["files"][SUPPORT]["reactions"]
    assert {entry["kind"] for entry in found} == {"thumbs_up", "thumbs_down"}


def test_sibling_pairs_follow_from_the_trees(expected: dict[str, Any]) -> None:
    """Ranks and opposed emojis give exactly the listed pairs, ties none, and a contradiction neither."""
    truth, siblings = expected["files"][TREES], _siblings(expected)
    ranked = {(a["message_id"], b["message_id"]) for a, b in siblings if _ranked_above(a, b)}
    liked = {(a["message_id"], b["message_id"]) for a, b in siblings if _liked_above(a, b)}
    contradictory = {(a, b) for a, b in ranked if (b, a) in liked}
    tied = {
        frozenset((a["message_id"], b["message_id"]))
        for a, b in siblings
        if a["rank"] == b["rank"] is not None
    }
    assert _ids(truth["contradictory"], "better_rank", "better_emojis") == contradictory != set()
    assert _ids(truth["rank_pairs"], "chosen", "rejected") == ranked - contradictory
    assert _ids(truth["emoji_pairs"], "chosen", "rejected") == liked - {(b, a) for a, b in contradictory}
    assert {frozenset(tie["messages"]) for tie in truth["rank_ties"]} == tied != set()


def test_the_readme_documents_every_broken_row(expected: dict[str, Any]) -> None:
    """samples/README.md lists each broken row with its reason, and the size of each file."""
    readme = (SAMPLES / "README.md").read_text(encoding="utf-8")
    for name, truth in expected["files"].items():
        assert f"| {truth['rows']} | {truth['conversations']} " in readme
        for row in truth["broken"]:
            assert f"| `{name}` | {row['row']} | {row['what']} | `{row['reason']}` |" in readme
