"""Broken bytes and broken rows: each is set aside with its reason, everything else goes on."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import BadInput
from tilth.transforms.ingest import expand, plan, read
from tilth.transforms.ingest.containers import text

Write = Callable[..., Path]


def chat(number: int = 0, *, said: str = "hello") -> dict[str, Any]:
    """A row that is clean."""
    return {
        "id": f"c{number}",
        "messages": [{"role": "user", "content": said}, {"role": "assistant", "content": "hi"}],
    }


def messages(*turns: tuple[str, object]) -> dict[str, Any]:
    """A row with these turns."""
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


OK = ("assistant", "fine")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b'{"messages": [,]}', "broken_json"),
        (b"nonsense", "broken_json"),
        (b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "broken_json"),
        (b'{"messages": [{"role": "user", "content": "caf\xe9"}]}', "invalid_utf8"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "invalid_utf8"),
        ([], "wrong_type"),
        (5, "wrong_type"),
        ({}, "not_a_conversation"),
        ({"messages": None}, "not_a_conversation"),
        ({"messages": "hello"}, "wrong_type"),
        ({"messages": {"role": "user"}}, "wrong_type"),
        ({"messages": []}, "empty"),
        ({"messages": ["hello"]}, "wrong_type"),
        ({"messages": [{"content": "x"}]}, "wrong_type"),
        (messages(("user", 5), OK), "wrong_type"),
        (messages(("user", {"a": 1}), OK), "wrong_type"),
        (messages(("user", None), OK), "empty_message"),
        (messages(("user", " \n\x1c"), OK), "empty_message"),
        (messages(("user", "x"), ("assistant", "")), "empty_message"),
        (messages(("narrator", "x"), OK), "unknown_role"),
        (messages(("user", "x"), ("user", "y"), OK), "roles_do_not_alternate"),
        (messages(("user", "x"), OK, ("system", "y")), "roles_do_not_alternate"),
        (messages(("user", "x"), ("tool", "y"), OK), "roles_do_not_alternate"),
        (messages(("user", "x")), "no_assistant_turn"),
        (messages(("system", "x"), ("user", "x")), "no_assistant_turn"),
        (messages(("user", "a\0b"), OK), "nul_character"),
        ({**chat(), "id": "a\0b"}, "nul_character"),
        ({**chat(), "model": "a\0b"}, "nul_character"),
        (messages(("user", "x" * 1001), OK), "too_large"),
        (messages(("user", [{"type": "image_url", "image_url": {"url": "u"}}]), OK), "unsupported_content"),
        ({**chat(), "reactions": "up"}, "wrong_type"),
        ({**chat(), "reactions": [{"message_index": 7, "kind": "thumbs_up"}]}, "wrong_type"),
    ],
)  # fmt: skip
def test_broken_row_is_set_aside_alone(row: object, reason: str, jsonl: Write, ingest: Any) -> None:
    """A broken row is in quarantine with its reason and its place; its neighbours are not touched."""
    path = jsonl([chat(1), row, chat(2)])
    found = ingest(path, max_message_chars=1000)
    assert found.reasons == [reason]
    assert found.conversations.get_column("source_id").to_list() == ["c1", "c2"]
    aside = found.quarantine.row(0, named=True)
    begin = len(json.dumps(chat(1))) + 1
    assert (aside["key"], aside["stage"], aside["source"]) == (f"{path}#byte={begin}", "ingest", str(path))
    assert "\0" not in aside["payload"]
    assert len(aside["payload"].encode()) <= 65_536


def test_details_hold_no_user_text(jsonl: Write, ingest: Any) -> None:
    """What is told of a broken row never quotes it."""
    secret = "pineapple"
    rows = [
        messages((secret, "x"), OK),
        messages(("user", [{"type": secret}]), OK),
        messages(("user", secret), ("user", secret)),
        {"messages": secret},
        b'{"messages": "' + secret.encode(),
        f'{{"{secret}": \\x}}'.encode(),
    ]
    found = ingest(jsonl([chat(), *rows]))
    assert len(found.reasons) == len(rows)
    assert not [detail for detail in found.quarantine.get_column("detail") if secret in detail]


def test_last_line_without_an_end(tmp_path: Path, ingest: Any) -> None:
    """A last line that stops in the middle is truncated; one that only lacks its line end is a row."""
    whole = json.dumps(chat()).encode()
    (tmp_path / "a.jsonl").write_bytes(whole + b"\n" + whole[:-9])
    (tmp_path / "b.jsonl").write_bytes(whole + b"\n" + whole)
    assert ingest(tmp_path / "a.jsonl").reasons == ["truncated"]
    assert ingest(tmp_path / "b.jsonl").conversations.height == 2


def test_blank_lines_are_no_rows(tmp_path: Path, ingest: Any) -> None:
    """Blank lines, CRLF and a byte order mark change nothing."""
    line = json.dumps(chat()).encode()
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\r\n  \t\n\n" + line + b"\r\n")
    found = ingest(tmp_path / "a.jsonl")
    assert (found.rows_in, found.conversations.height, found.reasons) == (2, 2, [])


@pytest.mark.slow
def test_empty_file_has_no_rows(tmp_path: Path) -> None:
    """An empty file is read without a row and without a complaint, whatever it should hold."""
    for name in ("a.jsonl", "a.json", "a.csv", "a.arrow"):
        (tmp_path / name).write_bytes(b"")
    batches = [batch for task in plan(expand([str(tmp_path)])) for batch in read(task)]
    assert sum(batch.rows_in for batch in batches) == 0


@pytest.mark.slow
def test_row_of_fifty_megabytes(tmp_path: Path, ingest: Any) -> None:
    """A message of 50 MB is set aside with at most 64 KiB of it, from JSONL and from a JSON array."""
    huge = json.dumps(messages(("user", "x" * 50_000_000), OK))
    rows = [json.dumps(chat(1)), huge, json.dumps(chat(2))]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    (tmp_path / "a.json").write_text(f"[{','.join(rows)}]")
    for name in ("a.jsonl", "a.json"):
        found = ingest(tmp_path / name)
        assert (found.reasons, found.conversations.height, found.rows_in) == (["too_large"], 2, 3)
        assert len(found.quarantine.item(0, "payload")) == 65_536


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_compressed_files_are_read(suffix: str, tmp_path: Path, ingest: Any) -> None:
    """gzip, zstd and bz2 are read by suffix, several members in one file included."""
    data = "".join(json.dumps(chat(n)) + "\n" for n in range(100)).encode()
    path = tmp_path / f"a.jsonl.{suffix}"
    path.write_bytes(COMPRESSORS[suffix](data) + COMPRESSORS[suffix](data))
    assert ingest(path).rows_in == 200


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["gz", "zst", "bz2"])
@pytest.mark.parametrize("container", ["jsonl", "json", "csv"])
def test_truncated_compressed_file_keeps_the_rows_before_the_cut(
    suffix: str, container: str, tmp_path: Path, ingest: Any
) -> None:
    """Rows before the cut survive; what is lost is one row set aside as truncated."""
    noise = [hashlib.sha256(str(n).encode()).hexdigest() * 2 for n in range(10_000)]
    rows = [json.dumps(chat(n, said=said)) for n, said in enumerate(noise)]
    bodies = {
        "jsonl": "\n".join(rows),
        "json": f"[{','.join(rows)}]",
        "csv": "chosen,rejected\n"
        + "\n".join(f'"Human: {n}\n\nAssistant: a","Human: b\n\nAssistant: c"' for n in noise),
    }
    whole = COMPRESSORS[suffix](bodies[container].encode())
    path = tmp_path / f"a.{container}.{suffix}"
    path.write_bytes(whole[: len(whole) * 3 // 4])
    found = ingest(path)
    assert found.reasons == ["truncated"]
    assert found.quarantine.item(0, "detail") == "the compressed stream ends before its end"
    assert 100 < found.rows_in < 10_000
    assert found.rows_in == found.conversations.get_column("record_rows").sum() + 1


@pytest.mark.slow
def test_broken_compressed_stream_is_unreadable_from_there(tmp_path: Path, ingest: Any) -> None:
    """Garbage within a gzip stream ends the reading with one row set aside, and no error."""
    data = gzip.compress("\n".join(json.dumps(chat(n, said=str(n * 7919))) for n in range(50_000)).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(data[: len(data) // 2] + b"\xff" * 1000 + data[len(data) // 2 :])
    found = ingest(tmp_path / "a.jsonl.gz")
    assert found.conversations.height > 100
    assert found.reasons[-1] in ("unreadable", "truncated")


def test_truncated_parquet_is_unreadable(tmp_path: Path, ingest: Any) -> None:
    """A Parquet file without its end is one row set aside that names the file; other files go on."""
    frame = pl.DataFrame([chat(n) for n in range(10)])
    frame.write_parquet(tmp_path / "good.parquet")
    data = (tmp_path / "good.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(data[: len(data) // 2])
    found = ingest(tmp_path)
    assert found.reasons == ["unreadable"]
    assert found.quarantine.item(0, "key") == f"{tmp_path}/cut.parquet#row=0"
    assert (found.rows_in, found.conversations.height) == (11, 10)


def test_truncated_arrow_stream_keeps_whole_batches(tmp_path: Path, ingest: Any) -> None:
    """Batches before the cut of an Arrow stream survive."""
    table = pa.Table.from_pylist([chat(n) for n in range(10)])
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=5):
            writer.write_batch(batch)
    (tmp_path / "a.arrow").write_bytes(sink.getvalue()[:-200])
    found = ingest(tmp_path / "a.arrow")
    assert (found.reasons, found.conversations.height) == (["unreadable"], 5)


def test_csv_with_bad_rows(tmp_path: Path, ingest: Any) -> None:
    """A CSV row with too few cells, or an open quote, is refused alone; JSON in cells is read."""
    cell = json.dumps(chat()["messages"]).replace('"', '""')
    good = f'c1,"{cell}"\n'
    (tmp_path / "a.csv").write_bytes(
        ("id,messages\n" + good + "only one\n" + good + 'c2,"a"b\n').encode() + b'caf\xe9,"' + cell.encode() + b'"\n'
        + good.encode() + b'c3,"open'
    )  # fmt: skip
    found = ingest(tmp_path / "a.csv")
    assert found.conversations.height == 3
    assert found.reasons == ["wrong_type", "wrong_type", "invalid_utf8", "truncated"]
    assert [key.partition("#")[2] for key in found.quarantine["key"]] == ["row=1", "row=3", "row=4", "row=6"]
    assert "only one" in found.quarantine.item(0, "payload")


def test_file_of_no_known_kind(tmp_path: Path) -> None:
    """A file that neither its suffix nor its bytes explain is BadInput."""
    (tmp_path / "a.txt").write_bytes(b"dear diary")
    with pytest.raises(BadInput, match=r"a\.txt"):
        plan(expand([str(tmp_path / "a.txt")]))


def test_rows_of_no_known_shape(jsonl: Write) -> None:
    """Rows that can be read but have no known shape are BadInput that says what to do."""
    path = jsonl([{"a": 1}] * 3)
    with pytest.raises(BadInput, match="--map"):
        plan(expand([str(path)]))


def test_file_of_broken_rows_only(jsonl: Write, ingest: Any) -> None:
    """A file without one readable row does not end the run: its rows are set aside."""
    assert ingest(jsonl([b"{", b"nope", b"{"])).reasons == ["broken_json"] * 3


@pytest.mark.parametrize("indent", [None, 2])
def test_json_array_with_a_broken_element(indent: int | None, tmp_path: Path, ingest: Any) -> None:
    """An element of an array that is no JSON costs no other element, nor does what is no object."""
    elements = [
        json.dumps(chat(1), indent=indent),
        '{"messages": tru}',
        "5",
        '"x, ] y"',
        json.dumps(chat(2), indent=indent),
    ]
    (tmp_path / "a.json").write_text("[" + " ,\n".join(elements) + "]\n")
    found = ingest(tmp_path / "a.json")
    assert found.reasons == ["broken_json", "wrong_type", "wrong_type"]
    assert found.conversations.get_column("source_id").to_list() == ["c1", "c2"]
    assert found.quarantine.get_column("key").to_list() == [f"{tmp_path}/a.json#row={n}" for n in (1, 2, 3)]


def test_json_array_that_is_cut(tmp_path: Path, ingest: Any) -> None:
    """An array that ends early gives the whole elements and one row set aside."""
    (tmp_path / "a.json").write_text("[" + json.dumps(chat(1)) + "," + json.dumps(chat(2))[:-5])
    found = ingest(tmp_path / "a.json")
    assert (found.reasons, found.conversations.height, found.rows_in) == (["truncated"], 1, 2)


def test_json_suffix_may_hold_lines(tmp_path: Path, ingest: Any) -> None:
    """`.json` may be JSONL, pretty-printed values, or one array; `.jsonl` may hold an array, too."""
    line = json.dumps(chat())
    pretty = json.dumps(chat(), indent=1)
    bodies = {
        "a.json": f"{line}\n{line}\n", "b.json": f"{pretty}\n{pretty}\n", "c.json": f"[{line}, {line}]",
        "d.jsonl": f"[\n{line},\n{line}\n]\n", "e.json": json.dumps([chat(), chat()], indent=4),
        "f.jsonl": f"[{line},{line}]",
    }  # fmt: skip
    for name, body in bodies.items():
        (tmp_path / name).write_text(body)
        found = ingest(tmp_path / name)
        assert (name, found.rows_in, found.conversations.height) == (name, 2, 2)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=12),
    st.booleans(),
    st.integers(1, 40),
    st.integers(1, 7),
)
def test_ranges_of_bytes_give_each_line_once(lines: list[bytes], ended: bool, size: int, block: int) -> None:
    """However a file is cut into ranges and blocks, each line is in exactly one range, in order, at its byte."""
    data = b"\n".join(lines) + (b"\n" if ended else b"")

    def rows(start: int, stop: int | None) -> list[tuple[int, bytes]]:
        begin = max(start - 1, 0)
        blocks = [data[at : at + block] for at in range(begin, len(data), block)]
        chunks = text.line_chunks(iter(blocks), start, stop)
        return [
            (c.place(n), c.payload(n)) for c in chunks if isinstance(c, text.JsonChunk) for n in range(len(c))
        ]

    bounds = [*range(0, len(data), size), len(data)]
    cut = [row for start, stop in pairwise(bounds) for row in rows(start, stop)]
    assert cut == rows(0, None)
    assert [line for _, line in cut] == [line for line in lines if line.strip()]
    assert all(data[at : at + len(line)] == line for at, line in cut)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=6),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        max_size=6,
    ),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.integers(1, 9),
)
def test_array_elements_are_found_whatever_the_blocks(
    values: list[Any], indent: int | None, ascii_only: bool, block: int
) -> None:
    """The elements of any JSON array come out as they went in, whatever the blocks it is read in."""
    data = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode()
    chunks = list(text.value_chunks(data[at : at + block] for at in range(0, len(data), block)))
    found = [json.loads(c.payload(n)) for c in chunks if isinstance(c, text.JsonChunk) for n in range(len(c))]
    assert found == values
    assert all(isinstance(chunk, text.JsonChunk) for chunk in chunks)


@pytest.mark.slow
@pytest.mark.parametrize("range_bytes", [1, 50, 333, 1000, 10**6])
def test_planned_ranges_give_the_whole_file(range_bytes: int, jsonl: Write) -> None:
    """Tasks over ranges of any size give the same rows as one task, and the same ids."""
    path = jsonl([*(chat(n, said="é" * n) for n in range(1, 30)), b"{broken", chat(99)])
    tasks = plan(expand([str(path)]), range_bytes=range_bytes)
    batches = [batch for task in tasks for batch in read(task)]
    (whole,) = read(plan(expand([str(path)]))[0])
    assert pl.concat([batch.conversations for batch in batches]).equals(whole.conversations)
    assert pl.concat([batch.quarantine for batch in batches]).equals(whole.quarantine)
    json.dumps(tasks)


def test_parquet_is_planned_by_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parquet tasks cover every row group once, with rows numbered through the file."""
    monkeypatch.setattr("tilth.transforms.ingest.containers.columnar._TASK_BYTES", 1)
    rows = [chat(n) for n in range(20)]
    rows[13] = messages(("user", None), OK) | {"id": "bad"}
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=6)
    tasks = plan(expand([str(tmp_path / "a.parquet")]))
    assert [task["files"][0]["row_groups"] for task in tasks] == [[0, 1], [1, 2], [2, 3], [3, 4]]
    batches = [batch for task in tasks for batch in read(task)]
    assert sum(batch.rows_in for batch in batches) == 20
    keys = [key for batch in batches for key in batch.quarantine["key"]]
    assert keys == [f"{tmp_path}/a.parquet#row=13"]


def test_remote_files_are_read_through_fsspec(ingest: Any) -> None:
    """Any fsspec URI works as a local path does, ranges included."""
    fsspec.filesystem("memory").pipe(
        "/chats/a.jsonl", b"".join(json.dumps(chat(n)).encode() + b"\n" for n in range(50))
    )
    found = ingest("memory://chats/a.jsonl")
    assert found.conversations.height == 50
    assert set(found.conversations["source"]) == {"memory:///chats/a.jsonl"}
