"""Real logs, read from end to end, with counts that were taken from the files in another way."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"


def real(name: str) -> Path:
    """A file of the shared data, or a skip."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"the real log {name} is not beside this checkout")
    return path


def test_oasst_validation_trees(ingest: Any) -> None:
    """All 2,022 messages are in a path or in quarantine; paths, ranks and thumbs are as the file has them."""
    path = real("oasst1/en-validation.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    found = ingest(path)
    lost = Counter(found.reasons)
    assert (found.rows_in, found.conversations.height) == (2022, 979)
    assert lost == {"deleted_message": 40, "orphan_message": 3}
    ids = {row["message_id"] for row in rows}
    deleted = {row["message_id"] for row in rows if row["deleted"]}
    orphans = {row["message_id"] for row in rows if row["parent_id"] not in {None, *ids}}
    alive = ids - deleted - orphans
    parents = {row["parent_id"] for row in rows if row["message_id"] in alive}
    assert (len(deleted), len(orphans), len(alive - parents)) == (40, 3, 979)
    trees = {row["message_tree_id"] for row in rows if row["message_id"] in alive}
    assert found.conversations["record_id"].n_unique() == len(trees) == 188
    owned = list(zip(found.conversations["message_ids"], found.conversations["owned_from"], strict=True))
    own = [message for ids, begin in owned for message in ids[begin:]]
    assert (len(own), set(own)) == (1979, alive)
    ranked = sum(row["rank"] is not None for row in rows if row["message_id"] in alive)
    counts: Counter[str] = Counter()
    for (_, begin), reactions in zip(owned, found.reactions, strict=True):
        counts.update(kind for index, kind, _ in reactions if index >= begin)
    assert counts["rank"] == ranked
    assert counts["thumbs_up"] == emojis(rows, alive, "+1")
    assert counts["thumbs_down"] == emojis(rows, alive, "-1")


def emojis(rows: list[dict[str, Any]], alive: set[str], name: str) -> int:
    """How many messages have that emoji."""
    marked = [row["emojis"]["name"] for row in rows if row["message_id"] in alive and row["emojis"]]
    return sum(name in names for names in marked)


@pytest.mark.slow
def test_tau_bench_airline(ingest: Any) -> None:
    """All 200 runs are read, every turn in place, tool calls beside the turns that made them."""
    path = real("tau_bench/gpt-4o-airline.json")
    runs = [run["traj"] for run in json.loads(path.read_text())]
    found = ingest(path)
    assert (found.rows_in, found.conversations.height, found.reasons) == (200, 200, [])
    assert found.texts == [[turn["content"] or "" for turn in run] for run in runs]
    assert Counter("".join(found.roles)) == {"u": 1490, "a": 2454, "t": 1164, "s": 200}
    calls = [json.loads(text) if text else [] for text in found.conversations["tool_calls_json"]]
    assert sum(len(of_run) for of_run in calls) == 1164
    told = {
        (n, call["message_index"]): call["tool_calls"] for n, of_run in enumerate(calls) for call in of_run
    }
    made = {
        (n, i): t["tool_calls"]
        for n, run in enumerate(runs)
        for i, t in enumerate(run)
        if t.get("tool_calls")
    }
    assert told == made


def test_taskmaster_through_its_map(ingest: Any) -> None:
    """All 210 dialogues of Taskmaster-4 are read through the map that the samples hold."""
    path = real("taskmaster4/data_07.json")
    dialogues = json.loads(path.read_text())
    found = ingest(path, mapping=ROOT / "samples" / "maps" / "taskmaster4.yaml")
    assert (found.rows_in, found.conversations.height, found.reasons) == (210, 210, [])
    assert found.texts == [[turn["text"] for turn in dialogue["utterances"]] for dialogue in dialogues]
    assert Counter("".join(found.roles)) == {"u": 394, "a": 392}
    assert found.conversations["source_id"].to_list() == [
        dialogue["conversation_id"] for dialogue in dialogues
    ]


@pytest.mark.parametrize("name", ["support.openai.jsonl", "assistant.sharegpt.json", "community.oasst.jsonl"])
def test_sample_logs_hold_what_they_say(name: str, ingest: Any) -> None:
    """The sample logs give the conversations and the broken rows that their list of truths names."""
    truth = json.loads((ROOT / "samples" / "logs" / "EXPECTED.json").read_text())["files"][name]
    found = ingest(ROOT / "samples" / "logs" / name)
    later = [row for row in truth["broken"] if row["reason"] in ("duplicate", "conflicting_duplicate")]
    expected = Counter(row["reason"] for row in truth["broken"] if row not in later)
    assert (found.rows_in, found.conversations.height) == (truth["rows"], truth["conversations"] + len(later))
    assert Counter(found.reasons) == expected
    places = {row.get("byte", row["row"]) for row in truth["broken"] if row not in later}
    assert {int(key.rpartition("=")[2]) for key in found.quarantine["key"]} == places
