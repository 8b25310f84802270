"""Users and conversations that are forgotten do not come back: what ingest makes of their records."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import empty
from tilth.transforms.ingest import Ingest, expand, plan, read
from tilth.transforms.ingest.batches import Batch, without
from tilth.transforms.ingest.fields import user_key
from tilth.transforms.parts import read_part
from tilth.transforms.stage import Output, Task

Write = Callable[..., Path]


def said(user: str, *, reaction: bool = False, whole: bool = True) -> dict[str, Any]:
    """A record of a user; with a reaction only the reference path reads it, and without a reply none can."""
    reply = [{"role": "assistant", "content": "Water it."}] if whole else []
    turns = [{"role": "user", "content": f"{user} has a plant."}, *reply]
    return {"user": user, "messages": turns, **({"feedback": "thumbs_up"} if reaction else {})}


def tables(path: Path, folder: Path, **config: Any) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, int]]:
    """What the step makes of a file: conversations, quarantine, counts."""
    out = Output("000000", {}, str(folder))
    for options in plan(expand([str(path)])):
        Ingest(**config).run(Task("000000", options=options), out)
    frames = [
        pl.concat([empty(table), *(read_part(part) for part in out.outputs.get(table, ()))])
        for table in ("conversations", "quarantine")
    ]
    return frames[0], frames[1], out.counts


def test_forgotten_users_do_not_come_back(jsonl: Write, tmp_path: Path) -> None:
    """On both paths: nothing that ann wrote is in a table, nothing names her, no source row is lost, ben stays."""
    rows = [said("ann"), said("ben"), said("ann", reaction=True), said("ann", whole=False), said("ann"), b"{"]
    path = jsonl(rows)
    before, _, _ = tables(path, tmp_path / "before", user_salt="s")
    key = user_key("ann", "s")
    kept, aside, counts = tables(path, tmp_path / "after", user_salt="s", forgotten_users=(key,))
    assert kept.equals(before.filter(pl.col("user_key") != key))
    assert "ann" not in kept.write_json() + aside.write_json()
    forgotten = aside.filter(pl.col("reason") == "forgotten")
    assert forgotten.get_column("source_rows").to_list() == [1, 1, 1]
    gone = before.filter(pl.col("user_key") == key)
    named = "".join(forgotten.get_column("key").to_list())
    assert not any(row in named for row in [key, *gone.get_column("id"), *gone.get_column("record_id")])
    assert forgotten.get_column("id").n_unique() == 3
    assert counts["rows_in"] == len(rows) == int(kept["record_rows"].sum()) + int(aside["source_rows"].sum())


def test_keys_differ_between_ranges_of_a_file(jsonl: Write) -> None:
    """Two tasks that read one file give its forgotten rows different keys, or the audit would find one id twice."""
    path = jsonl([said("ann"), said("ann"), said("ann")])
    tasks = plan(expand([str(path)]), range_bytes=len(path.read_bytes()) // 3)
    out = Output("000000", {}, str(path.parent / "out"))
    for options in tasks:
        Ingest(forgotten_users=(user_key("ann", ""),)).run(Task("000000", options=options), out)
    aside = pl.concat([read_part(part) for part in out.outputs["quarantine"]])
    assert len(tasks) > 1
    assert aside.height == aside.get_column("key").n_unique() == 3


def test_a_path_is_forgotten_and_the_rest_of_its_tree_stays(jsonl: Write) -> None:
    """The record's source rows count with the first path that stays, whichever of the paths are forgotten."""
    rows = [
        {"message_id": one, "parent_id": None if one == "u" else "u", "message_tree_id": "t", "text": one,
         "role": "prompter" if one == "u" else "assistant", "user_id": one, "lang": "en",
         "created_date": "2023-02-07T17:29:24+00:00"}
        for one in ("u", "a1", "a2", "a3")
    ]  # fmt: skip
    path = jsonl(rows)
    (task,) = plan(expand([str(path)]))
    (batch,) = read(task)
    ids = batch.conversations.get_column("id").to_list()
    assert len(ids) == 3
    total = batch.rows_in
    for some in (ids[:1], ids[1:], ids):
        left = without(batch, (), some, "0")
        assert left.conversations.get_column("id").to_list() == [one for one in ids if one not in some]
        rows = left.conversations.get_column("record_rows").to_list()
        assert rows == [total, 0, 0][: len(rows)]
        assert left.quarantine.get_column("source_rows").sum() == (0 if rows else total)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(["ann", "ben", "cat", None]), min_size=1, max_size=3), max_size=6),
    st.sets(st.sampled_from(["ann", "ben", "cat"])),
)
def test_no_row_is_lost_and_no_other_row_changes(
    records: Sequence[Sequence[str | None]], forgotten: set[str]
) -> None:
    """Whoever is forgotten: source rows add up, kept rows are those of others in order, each record opens once."""
    rows = [
        {"id": f"{r}/{n}", "source": "log", "record_id": str(r), "record_rows": 0 if n else 2,
         "user_key": user, "other_user_keys": [], "messages": [], "owned_from": 0}
        for r, record in enumerate(records)
        for n, user in enumerate(record)
    ]  # fmt: skip
    schema = empty("conversations").schema
    conversations = pl.DataFrame([{**dict.fromkeys(schema), **row} for row in rows], schema=schema)
    batch = Batch(conversations, empty("quarantine").drop("id"), 2 * len(records))
    left = without(batch, forgotten, (), "0")
    kept = conversations.filter(~pl.col("user_key").is_in(list(forgotten)).fill_null(value=False))
    assert left.conversations.drop("record_rows").equals(kept.drop("record_rows"))
    opened = left.conversations.group_by("record_id").agg(pl.col("record_rows").sum(), pl.len())
    assert opened.get_column("record_rows").to_list() == [2] * opened.height
    assert batch.rows_in == sum(
        int(frame.get_column(name).sum())
        for frame, name in ((left.conversations, "record_rows"), (left.quarantine, "source_rows"))
    )
    assert left.quarantine.height == conversations.height - kept.height


def test_nobody_forgotten_changes_nothing(jsonl: Write) -> None:
    """Without anybody to forget, batches are passed on as they are, payloads too."""
    path = jsonl([said("ann"), b"{"])
    (batch,) = read(plan(expand([str(path)]))[0])
    assert without(batch, (), (), "0") is batch
    assert json.loads(batch.quarantine.write_json())[0]["payload"]
