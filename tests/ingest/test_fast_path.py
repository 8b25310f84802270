"""The vectorised path and the reference path give the same frames, on any rows."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tilth.transforms.ingest import Batch, ReadConfig, read
from tilth.transforms.ingest.containers.rows import ArrowChunk, lines
from tilth.transforms.ingest.fast import FastPath
from tilth.transforms.ingest.shapes import CHATS, ChatShape

Write = Callable[..., Path]

ODD_TEXTS = [
    "Hi",
    "é",
    "😀",
    " ",
    "",
    "\x1c",
    "\x1c\x1d ",
    "\u2003",
    "\ufeff",
    "\x85",
    "a\0",
    "NaN",
    "\\u0000",
]
TEXT = st.one_of(
    st.sampled_from([*ODD_TEXTS, '"feedback"']),
    st.text(max_size=8),
    st.text(alphabet="a \t\n\x0b\x1c\x1f\x85\xa0\u180e\u2028\u3000\u200b", max_size=4),
)  # fmt: skip
ROLES = [
    "user",
    "assistant",
    "system",
    "tool",
    "developer",
    "function",
    "human",
    "gpt",
    "User",
    " user",
    "narrator",
    "",
]
JSON = st.sampled_from([None, True, 0, 1, -1, 5.0, 2.5, [], {}, [None], {"a": 1}, "x", ""])
ODD_INSTANTS = [
    *(
        "2026-04-01T23:40:56Z",
        "2026-04-01 23:40:56",
        "2026-04-01T23:40:56.123456+02:00",
        "2026-04-01",
        "yesterday",
    ),
    *("2026-02-30T00:00:00Z", "2026-04-01T24:00:00Z", "2026-04-01T23:59:60Z", "2026-04-01T10:00:00-05:30"),
    *(
        "0001-01-01T00:00:00+14:00",
        "2026-04-01T10:00:00.1234567Z",
        "20260401T101010Z",
        "1700000000",
        "2026-04-01T10:00Z",
    ),
    *(
        1_700_000_000,
        1_700_000_000_000,
        1_700_000_000_000_000,
        10**18,
        -5,
        1.5e9,
        2**63,
        99_999_999_999,
        10**11,
    ),
    *(10**14 - 1, 10**14, True, 10**17, 10**17 + 1),
]
INSTANTS = st.one_of(JSON, st.sampled_from(ODD_INSTANTS))
ODD_IDS = [
    "a",
    "b",
    "a\0",
    "é",
    "",
    " ",
    17,
    -1,
    2**62,
    2**63,
    2**70,
    -0.0,
    2.0,
    2.5,
    1e400,
    True,
    [],
    {"a": 1},
]
IDS = st.one_of(JSON, st.sampled_from(ODD_IDS), st.text(max_size=3))


def turns(speaker: str, text: str) -> st.SearchStrategy[Any]:
    """Lists of turns: proper talks, with now and then something that is not."""
    plain = st.fixed_dictionaries(
        {speaker: st.sampled_from(ROLES[:3]), text: st.sampled_from(["Hi", "é 😀", "x\ny"])}
    )
    oddities: dict[str, st.SearchStrategy[Any]] = {
        speaker: st.sampled_from(ROLES) | JSON,
        text: TEXT | JSON | st.just([{"type": "text", "text": "part"}]),
        "tool_calls": st.sampled_from([None, [], [{"id": 1}]]),
        "feedback": st.sampled_from([None, "thumbs_up", 1]),
        "rating": st.sampled_from([None, -1, 4]),
        "id": JSON | st.just("m1"),
        "weight": JSON,
    }
    odd = st.fixed_dictionaries({}, optional=oddities)
    one = st.one_of([st.fixed_dictionaries({key: value}) for key, value in oddities.items()])
    talk = st.integers(0, 4).map(lambda n: [{speaker: ROLES[i % 2], text: f"says {i}"} for i in range(n)])
    changed = st.builds(lambda made, at, change: with_change(made, at, change), talk, st.integers(0, 3), one)
    return st.one_of(
        talk, changed, changed, st.lists(plain, max_size=4), st.lists(plain | odd | JSON, max_size=4), JSON
    )


def with_change(talk: list[dict[str, Any]], at: int, change: dict[str, Any]) -> list[dict[str, Any]]:
    """A talk with one turn changed."""
    return [{**turn, **change} if n == at else turn for n, turn in enumerate(talk)]


def rows(shape: ChatShape) -> st.SearchStrategy[dict[str, Any]]:
    """Rows of a shape, with metadata of any type."""
    meta: dict[str, st.SearchStrategy[Any]] = {
        "user": IDS, "user_id": IDS, "model": IDS, "language": IDS, "created_at": INSTANTS, "timestamp": INSTANTS,
        "system": st.sampled_from([None, "", "Be brief.", 5]), "score": JSON,
        "reactions": st.sampled_from([None, [], [{"message_index": 1, "kind": "up"}], 5]),
    }  # fmt: skip
    keys = {shape.ids[0]: IDS, **meta}
    clean = st.fixed_dictionaries({shape.ids[0]: st.sampled_from(["a", "b"]), "created_at": INSTANTS})
    return st.builds(
        lambda row, talk: {**row, shape.turns: talk},
        clean | st.fixed_dictionaries({}, optional=keys),
        turns(shape.speaker, shape.text),
    )


def inserted(line: bytes, text: bytes) -> bytes:
    """A line with something put before its first key."""
    return line[:1] + text + b", " + line[1:]


BREAKS: tuple[Callable[[bytes], bytes], ...] = (
    lambda line: line[:-1],
    lambda line: line + b"x",
    lambda line: line + line,
    lambda line: b" " + line,
    lambda line: line + b"\r",
    lambda line: b"\xef\xbb\xbf" + line,
    lambda line: b"[" + line + b"]",
    lambda _: b"null",
    lambda _: b"",
    lambda line: line + b' {"x":\n{"y": 1}}',
    lambda line: b'{"x": {}\n, "y": {}} ' + line,
    lambda line: line.replace(b"i", b"\xe9"),
    lambda line: line.replace(b"role", b"r\\u006fle"),
    lambda line: line.replace(b"role", b"role\\u0000"),
    lambda line: line.replace(b'"role"', b'"f\\u0065edback": "up", "role"'),
    lambda line: line.replace(b'"content"', b'"content": "first", "content"'),
    lambda line: line.replace(b"Hi", b"\\ud83d\\ude00 \\u00e9"),
    lambda line: line.replace(b"Hi", b"H\\u0069"),
    lambda line: line.replace(b"Hi", b"H\ti"),
    lambda line: line.replace(b"Hi", b"\\ud800"),
    lambda line: line.replace(b"Hi", b"H\\u0000i"),
    lambda line: inserted(line, b'"id": "dup"'),
    lambda line: inserted(line, b'"x": NaN'),
    lambda line: inserted(line, b'"x": -Infinity'),
    lambda line: inserted(line, b'"x": Inf'),
    lambda line: inserted(line, b'"x": 01'),
    lambda line: inserted(line, b'"x": 1e999'),
    lambda line: inserted(line, b'"x": "\\ud800"'),
    lambda line: inserted(line, b'"x": ' + b"[" * 1100 + b"]" * 1100),
    lambda line: inserted(line, b'"x": {}}\n{"y": 1'),
)


def encoded(row: dict[str, Any], ascii_only: bool, how: int | None) -> bytes:
    line = json.dumps(row, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    return line if how is None else BREAKS[how](line)


def batches(path: Path, container: str, shape: str, fast: bool, config: ReadConfig) -> Batch:
    file = {"uri": str(path), "container": container, "compression": None, "size_bytes": 0}
    options = {"source": str(path), "files": [file], "shape": shape, "turns": None, "map": None}
    found = list(read(options, config, fast=fast))
    if not found:
        return Batch(pl.DataFrame(), pl.DataFrame(), 0)
    conversations = pl.concat([batch.conversations for batch in found])
    return Batch(
        conversations, pl.concat([batch.quarantine for batch in found]), sum(b.rows_in for b in found)
    )


def assert_same(path: Path, container: str, shape: str, config: ReadConfig) -> None:
    fast, reference = (batches(path, container, shape, fast, config) for fast in (True, False))
    assert fast.rows_in == reference.rows_in
    assert fast.quarantine.rows() == reference.quarantine.rows()
    assert fast.conversations.rows() == reference.conversations.rows()
    assert fast.conversations.equals(reference.conversations)


CONFIGS = st.builds(
    ReadConfig, st.just("salt"), st.sampled_from([5, 1000]), st.sampled_from(["quarantine", "merge"])
)


@pytest.mark.slow
@settings(max_examples=250, deadline=None)
@given(st.data(), st.sampled_from(sorted(CHATS)), CONFIGS)
def test_both_paths_read_any_jsonl_alike(data: st.DataObject, shape: str, config: ReadConfig) -> None:
    """Clean and dirty rows, broken lines included, give identical conversations and quarantine on both paths."""
    line = st.tuples(
        rows(CHATS[shape]), st.booleans(), st.none() | st.none() | st.integers(0, len(BREAKS) - 1)
    )
    made = [encoded(*one) for one in data.draw(st.lists(line, min_size=1, max_size=8))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        path.write_bytes(b"\n".join(made))
        assert_same(path, "jsonl", shape, config)


@pytest.mark.slow
@pytest.mark.parametrize("container", ["jsonl", "parquet"])
def test_both_paths_read_odd_values_alike(container: str, tmp_path: Path) -> None:
    """Each odd text, id and instant in a row that is clean otherwise gives the same on both paths."""
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    made = [
        {"id": "t", "created_at": None, "messages": with_change(talk, 1, {"content": text})}
        for text in ODD_TEXTS
    ]
    if container == "parquet":
        made += [{"id": text, "created_at": None, "messages": talk} for text in ODD_TEXTS]
        pq.write_table(pa.Table.from_pylist(made), tmp_path / "log.parquet")
    else:
        made += [{"id": value, "messages": talk} for value in ODD_IDS]
        made += [{"created_at": value, "messages": talk} for value in ODD_INSTANTS]
        made += [{**made[0], "system": "s"}, {**made[0], "reactions": [{"message_index": 0, "kind": "up"}]}]
        # One by one, so that each value decides the types of its own chunk, and all at once.
        for n, row in enumerate(made):
            (tmp_path / f"{n}.jsonl").write_text(json.dumps(row) + "\n")
            assert_same(tmp_path / f"{n}.jsonl", "jsonl", "openai", ReadConfig())
        (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    assert_same(tmp_path / f"log.{container}", container, "openai", ReadConfig())


@pytest.mark.parametrize("how", range(len(BREAKS)))
def test_both_paths_read_a_broken_line_alike(how: int, tmp_path: Path) -> None:
    """Each way to break a line gives the same on both paths, beside lines that are clean."""
    row = {"id": "a", "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi"}]}
    clean = json.dumps(row).encode()
    (tmp_path / "log.jsonl").write_bytes(b"\n".join([clean, BREAKS[how](clean), clean, b""]))
    assert_same(tmp_path / "log.jsonl", "jsonl", "openai", ReadConfig())


ARROW_TURN = pa.struct(
    [
        ("role", pa.string()),
        ("content", pa.large_string()),
        ("tool_calls", pa.list_(pa.string())),
        ("rating", pa.int64()),
    ]
)
ARROW_TALK = st.integers(1, 4).map(
    lambda n: [{"role": ROLES[i % 2], "content": "x", "tool_calls": None, "rating": None} for i in range(n)]
)
ARROW_ODD: dict[str, st.SearchStrategy[Any]] = {
    "role": st.none() | st.sampled_from(["user", "assistant", "system", "tool", "x"]),
    "content": st.none() | TEXT.filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text)),
    "tool_calls": st.none() | st.sampled_from([[], ["{}"]]),
    "rating": st.none() | st.sampled_from([1, -1]),
}
ARROW_CHANGE = st.one_of([st.fixed_dictionaries({key: value}) for key, value in ARROW_ODD.items()])
ARROW_CHANGED = st.builds(with_change, ARROW_TALK, st.integers(0, 3), ARROW_CHANGE)
ARROW_ANY = st.lists(st.none() | st.fixed_dictionaries(ARROW_ODD), max_size=3)
INSTANT = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 1)).map(lambda at: at.replace(tzinfo=UTC))
ARROW_ROW = st.fixed_dictionaries(
    {
        "id": st.none() | st.integers(-5, 5),
        "user": st.none() | st.sampled_from(["u", "", "a\0"]),
        "created_at": st.none() | INSTANT,
        "model": st.none() | st.sampled_from(["m", ""]),
        "messages": st.none() | ARROW_TALK | ARROW_CHANGED | ARROW_CHANGED | ARROW_ANY,
    }
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(ARROW_ROW, min_size=1, max_size=8), st.sampled_from(["us", "ms", "ns"]), CONFIGS)
def test_both_paths_read_any_parquet_alike(
    made: Sequence[dict[str, Any]], unit: str, config: ReadConfig
) -> None:
    """Rows of a table give identical conversations and quarantine on both paths."""
    if unit == "ns":
        made = [{**row, "created_at": None} for row in made]
    schema = pa.schema(
        [
            ("id", pa.int32()),
            ("user", pa.dictionary(pa.int32(), pa.string())),
            ("created_at", pa.timestamp(unit, "UTC")),
            ("model", pa.string()),
            ("messages", pa.list_(ARROW_TURN)),
        ]
    )
    if unit == "ms":
        made = [
            {**row, "created_at": row["created_at"] and row["created_at"].replace(microsecond=0)}
            for row in made
        ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.parquet"
        pq.write_table(pa.Table.from_pylist(list(made), schema=schema), path)
        assert_same(path, "parquet", "openai", config)


def test_clean_rows_really_go_the_fast_path() -> None:
    """The proof of equality is not empty: clean rows of every chat shape are read by the vectorised path."""
    for shape in CHATS.values():
        talk = [
            {shape.speaker: role, shape.text: "said é 😀\n"}
            for role in ("system", "user", "assistant", "user")
        ]
        row = {shape.ids[0]: 5, "user_id": "u", "created_at": "2026-01-01T00:00:00Z", shape.turns: talk}
        data = (json.dumps(row) + "\n").encode() * 100
        clean = FastPath(shape, ReadConfig()).read(lines(data, 0))
        assert (clean.drafted.height, len(clean.left)) == (100, 0)
        batch = pa.RecordBatch.from_pylist([row] * 100)
        assert FastPath(shape, ReadConfig()).read(ArrowChunk(batch, 0)).drafted.height == 100


def test_broken_rows_do_not_slow_their_neighbours() -> None:
    """Of many rows with a few of a wrong type, most still go the fast path."""
    good = json.dumps(
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    ).encode()
    bad = json.dumps({"messages": [{"role": "user", "content": 5}]}).encode()
    data = b"\n".join([bad if n % 1000 == 500 else good for n in range(8000)])
    left = FastPath(CHATS["openai"], ReadConfig()).read(lines(data, 0)).left
    assert {500, 1500, 7500} <= set(left.tolist())
    assert len(left) <= 8 * 64


@given(st.lists(st.sampled_from("sua"), min_size=1, max_size=7))
@example(["s", "s", "u", "a", "u"])
def test_talks_are_what_the_grammar_says(roles: list[str]) -> None:
    """The vectorised check of turn order accepts exactly what the reference's grammar does."""
    from tilth.transforms.ingest.fast import _talks
    from tilth.transforms.ingest.turns import _CONVERSATION

    codes = np.array(["sua".index(role) for role in roles], dtype=np.uint8)
    accepted = bool(_CONVERSATION.fullmatch("".join(roles))) and "a" in roles
    assert bool(_talks(codes, np.array([0]))[0]) == accepted
