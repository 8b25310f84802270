"""A table of anybody's becomes parts of requests and comes back with answers, row by row, by id alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import BadInput, ConfigError, NotFound, TilthError
from tilth.transforms.inference.answers import Answers, Part
from tilth.transforms.inference.prompts import Prompt
from tilth.transforms.inference.render import FAILED, ROW, ReadRows, Render
from tilth.transforms.inference.requests import COMPLETIONS, Completion, Sampling, to_frame
from tilth.transforms.inference.tables import TableWriter, batches, columns, digest
from tilth.transforms.parts import read_part
from tilth.transforms.stage import Manifest, Output, Stage, Task, parts, run_stage, run_tasks

PROMPT = Prompt.of("ask", "1", user="Judge {{ text }}")


def _write(frame: pl.DataFrame, path: Path) -> str:
    match path.suffix:
        case ".parquet":
            frame.write_parquet(path)
        case ".csv":
            frame.write_csv(path)
        case _:
            frame.write_ndjson(path)
    return str(path)


def _read(uri: str, folder: Path, step: ReadRows | None = None) -> list[pl.DataFrame]:
    stage = Stage(step or ReadRows(part_rows=3), str(folder / "read"))
    (manifest,) = run_stage(stage, [Task("000000", options={"uri": uri, "digest": digest(uri)})], _run_here)
    return [read_part(shard) for shard in parts([manifest], "rows")]


def _run_here(stage: Stage, tasks: Any) -> None:
    run_tasks(tasks, stage)


def _render(rows: pl.DataFrame, folder: Path, step: Render | None = None) -> Manifest:
    out = Output("one", {}, str(folder))
    out.write("rows", rows)
    stage = Stage(step or Render(PROMPT), str(folder / "render"))
    task = Task("000000", inputs={"rows": tuple(out.outputs["rows"])})
    return run_stage(stage, [task], _run_here)[0]


def _table(manifest: Manifest, name: str) -> pl.DataFrame:
    return pl.concat([read_part(shard) for shard in parts([manifest], name)])


# Reading


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl", "rows.csv"])
def test_every_form_gives_the_same_rows_in_order(tmp_path: Path, name: str) -> None:
    """Parquet, JSONL and CSV are read in parts that together are the table."""
    frame = pl.DataFrame({"text": [f"row {n}" for n in range(8)]})
    uri = _write(frame, tmp_path / name)
    read = _read(uri, tmp_path)
    assert [one.height for one in read] == [3, 3, 2]
    assert pl.concat(read).drop(ROW).equals(frame)
    assert columns(uri) == ["text"]


def test_values_of_csv_stay_the_text_that_they_are(tmp_path: Path) -> None:
    """An account number with leading zeros is no number."""
    (tmp_path / "rows.csv").write_text("account,text\n007,a\n1e3,b\n")
    (read,) = _read(str(tmp_path / "rows.csv"), tmp_path)
    assert read.get_column("account").to_list() == ["007", "1e3"]


def test_a_late_row_decides_the_type_of_its_column(tmp_path: Path) -> None:
    """A column of JSONL that becomes a fraction in its last row is one of fractions throughout."""
    lines = ['{"x": 1}'] * 500 + ['{"x": 1.5}']
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    read = _read(str(tmp_path / "rows.jsonl"), tmp_path, ReadRows(part_rows=100))
    assert {one.schema["x"] for one in read} == {pl.Float64()}


def test_rows_without_a_key_are_known_by_content_and_equal_ones_numbered(tmp_path: Path) -> None:
    """Moving a row changes no id; equal rows get ids of their own, wherever they stand."""
    texts = ["a", "b", "a", "c", "a"]
    ids = pl.concat(_read(_write(pl.DataFrame({"t": texts}), tmp_path / "1.jsonl"), tmp_path))[ROW].to_list()
    back = pl.concat(_read(_write(pl.DataFrame({"t": texts[::-1]}), tmp_path / "2.jsonl"), tmp_path))[ROW]
    assert len(set(ids)) == 5
    assert sorted(ids) == sorted(back)
    assert ids[2] == f"{ids[0]}.1"


@pytest.mark.parametrize(
    "keys", [["x", "y", "z", "w", "x"], ["x", "y", None, "z", "w"], ["x", "x", "y", "z", "w"]]
)
def test_a_key_must_name_rows(tmp_path: Path, keys: list[str | None]) -> None:
    """A repeated or null key is an error, in one part or across parts, that shows no key."""
    uri = _write(pl.DataFrame({"k": keys, "t": ["secret"] * 5}), tmp_path / "rows.parquet")
    with pytest.raises(BadInput, match="'k' does not name rows") as caught:
        _read(uri, tmp_path, ReadRows(key="k", part_rows=2))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("rows.jsonl", b'{"t": "ok"}\n{"t": "secret\n', "line 2"),
        ("rows.jsonl", b'{"t": "ok"}\n["secret"]\n', "line 2"),
        ("rows.parquet", b"secret", "parquet"),
        ("rows.csv", b"a,b\n1,2,3,secret\n", "csv"),
    ],
)
def test_a_broken_table_is_named_without_its_text(tmp_path: Path, name: str, data: bytes, told: str) -> None:
    """The error says which file, and the line where it can, and quotes nothing."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadInput, match=told) as caught:
        list(batches(str(tmp_path / name), 10))
    assert "secret" not in str(caught.value)
    assert name in str(caught.value)


def test_unknown_forms_and_missing_files_are_told(tmp_path: Path) -> None:
    """What cannot be read is said before anything else."""
    with pytest.raises(ConfigError, match=r"\.parquet, \.jsonl"):
        digest(str(tmp_path / "rows.xlsx"))
    with pytest.raises(NotFound):
        digest(str(tmp_path / "rows.csv"))


# Writing


def _write_and_stop(uri: str) -> None:
    with TableWriter(uri) as out:
        out.write(pl.DataFrame({"n": [4]}))
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["out.parquet", "out.jsonl"])
def test_a_table_appears_whole_or_not_at_all(tmp_path: Path, name: str) -> None:
    """An error while writing leaves the older file as it was, and no draft beside it."""
    uri = str(tmp_path / name)
    with TableWriter(uri) as out:
        out.write(pl.DataFrame({"n": [1, 2]}))
        out.write(pl.DataFrame({"n": [3]}))
    before = Path(uri).read_bytes()
    with pytest.raises(KeyboardInterrupt):
        _write_and_stop(uri)
    assert Path(uri).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert pl.concat(batches(uri, 10))["n"].to_list() == [1, 2, 3]


def test_small_parts_become_large_row_groups(tmp_path: Path) -> None:
    """A reader of the output does not pay for how it was made in parts."""
    uri = str(tmp_path / "out.parquet")
    with TableWriter(uri) as out:
        for start in range(0, 40_000, 2_000):
            out.write(pl.DataFrame({"n": range(start, start + 2_000)}))
    assert pq.ParquetFile(uri).metadata.num_row_groups == 3
    assert pl.read_parquet(uri)["n"].to_list() == list(range(40_000))


def test_an_empty_quarantine_takes_the_old_one_away(tmp_path: Path) -> None:
    """A file of rows that have been answered since does not stay."""
    uri = str(tmp_path / "q.parquet")
    for rows in ([1], []):
        with TableWriter(uri, keep_empty=False) as out:
            out.write(pl.DataFrame({"n": rows}, schema={"n": pl.Int64}))
    assert list(tmp_path.iterdir()) == []


# Rendering


def test_requests_know_their_rows(tmp_path: Path) -> None:
    """Each row and sample has one request, listed in the order of the rows."""
    rows = pl.DataFrame({"text": ["a", "b"], ROW: ["r1", "r2"]})
    made = _render(rows, tmp_path, Render(PROMPT, Sampling(temperature=1.0), samples=2))
    asked, requests = _table(made, "asked"), _table(made, "requests")
    assert asked.select(ROW, "sample_index").rows() == [("r1", 0), ("r1", 1), ("r2", 0), ("r2", 1)]
    assert asked["id"].to_list() == requests["id"].to_list()


def test_a_row_that_the_prompt_does_not_fit_is_one_row(tmp_path: Path) -> None:
    """A missing part of one row's struct sets that row aside, with no text of it, and asks the others."""
    chat = [{"role": "user", "content": "secret"}]
    rows = pl.DataFrame({"chat": [chat, [{"role": "martian", "content": "secret"}]], ROW: ["r1", "r2"]})
    step = Render(Prompt.of("ask", "1", user="{{ chat | conversation }}"))
    made = _render(rows, tmp_path, step)
    assert (_table(made, "requests").height, made.counts["rows_unfit"]) == (1, 1)
    failed = _table(made, "failed")
    assert failed["reason"].to_list() == ["wrong_type"]
    assert "secret" not in str(failed["detail"].to_list())


# Answers back to their rows


def _part(count: int, samples: int = 1, failed: int = 0) -> Part:
    rows = pl.DataFrame({"text": [f"row {n}" for n in range(count)], ROW: [f"r{n}" for n in range(count)]})
    step = Render(PROMPT, Sampling(temperature=1.0), samples=samples)
    asked, requests = step._asked(rows), step.requests(rows)
    ids = asked["id"].to_list()
    answers = [Completion(f"answer to {one}", "stop", 1, 1) for one in ids]
    none = [(one, "too_long", "400") for one in ids[:failed]]
    completions = to_frame(ids[failed:], answers[failed:], "model")
    return Part(rows, asked, requests, completions, pl.DataFrame(none, schema=FAILED, orient="row"))


@settings(max_examples=50, deadline=None)
@given(
    count=st.integers(1, 12),
    samples=st.integers(1, 3),
    failed=st.integers(0, 5),
    seed=st.integers(0, 10**6),
)
def test_answers_come_back_to_their_own_rows(count: int, samples: int, failed: int, seed: int) -> None:
    """However completions and failures are shuffled, each row has its own answer, in the order of the input."""
    part = _part(count, samples, min(failed, count * samples))
    shuffled = part._replace(
        completions=part.completions.sample(fraction=1.0, shuffle=True, seed=seed),
        failed=part.failed.sample(fraction=1.0, shuffle=True, seed=seed),
    )
    joined = Answers(samples=samples).join(shuffled)
    assert joined.answered.height + joined.failed.height == count * samples
    by_row = part.asked.join(part.rows, on=ROW)
    wanted = {f"answer to {id_}": text for id_, text in by_row.select("id", "text").iter_rows()}
    got = joined.answered.select("completion", "text").rows()
    assert all(wanted[completion] == text for completion, text in got)
    order = [wanted[completion] for completion, _ in got]
    assert order == sorted(order, key=lambda text: int(text.split()[1]))


def test_columns_of_the_table_may_bear_any_name_that_is_not_needed() -> None:
    """Names that are used on the way (ids, reasons, log-probabilities) are not taken from the table's owner."""
    part = _part(3, failed=1)
    names = ["id", "reason", "detail", "sample_index", "choice_logprobs", "seed", "choices"]
    rows = part.rows.with_columns(pl.col("text").alias(name) for name in names)
    Answers().check(rows.drop(ROW).columns)
    joined = Answers().join(part._replace(rows=rows))
    assert joined.answered.select(names).equals(rows.tail(2).select(names))
    assert joined.failed.select(names).equals(rows.head(1).select(names))


@pytest.mark.parametrize("harm", ["lost", "foreign", "doubled", "both"])
def test_an_answer_too_few_or_too_many_is_an_error(harm: str) -> None:
    """Nothing is written when a row has no outcome or two, or an answer belongs to no row."""
    part = _part(4, failed=1)
    first = part.completions.head(1)
    completions = {
        "lost": part.completions.tail(-1),
        "foreign": pl.concat([part.completions, first.with_columns(id=pl.lit("nobody's"))]),
        "doubled": pl.concat([part.completions, first]),
        "both": pl.concat([part.completions, first.with_columns(id=part.failed["id"])]),
    }[harm]
    with pytest.raises(TilthError, match="do not match"):
        Answers().join(part._replace(completions=completions))


def test_a_taken_name_is_told() -> None:
    """A column of the input that the output needs is named."""
    with pytest.raises(ConfigError, match="completion, model"):
        Answers().check(["text", "model", "completion"])
    Answers().check(["text", "answer", "sample_index"])


def _decoded(schema: str, texts: list[str]) -> pl.DataFrame:
    part = _part(len(texts))
    said = part.completions.with_columns(pl.Series("text", texts))
    return Answers(answer_schema=schema).join(part._replace(completions=said)).answered


def test_an_object_of_plain_fields_is_a_struct() -> None:
    """Numbers, lists and what may be missing have their types; what no integer of 64 bits holds is null."""
    schema = """{"type": "object", "properties": {"n": {"type": "integer"}, "x": {"type": "number"},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}}, "why": {"type": ["string", "null"]},
        "in": {"type": "object", "properties": {"ok": {"type": "boolean"}}}}}"""
    texts = [
        '{"n": 2.0, "x": 1, "tags": ["b"], "in": {"ok": true}, "more": 1}',
        '{"n": 123456789012345678901}',
    ]
    answers = _decoded(schema, texts).get_column("answer").to_list()
    assert answers[0] == {"n": 2, "x": 1.0, "tags": ["b"], "why": None, "in": {"ok": True}}
    assert answers[1] == {"n": None, "x": None, "tags": None, "why": None, "in": None}


@pytest.mark.parametrize(
    "schema",
    [
        '{"type": "array", "items": {"type": "string"}}',
        '{"type": "object"}',
        '{"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "integer"}]}}}',
        '{"type": "object", "properties": {"a": {"type": ["string", "integer"]}}}',
    ],
)
def test_other_schemas_leave_the_text(schema: str) -> None:
    """Where a type is open, the answer stays JSON text and no column is guessed."""
    assert "answer" not in Answers(answer_schema=schema).names
    assert _decoded(schema, ['["x"]'])["completion"].to_list() == ['["x"]']


def test_completions_may_be_written_as_jsonl(tmp_path: Path) -> None:
    """Structs and probabilities go into JSONL as objects."""
    part = _part(3)
    frame = Answers().join(part).answered
    with TableWriter(str(tmp_path / "out.jsonl")) as out:
        out.write(frame)
    again = pl.read_ndjson(io.BytesIO((tmp_path / "out.jsonl").read_bytes()))
    assert again["completion"].to_list() == frame["completion"].to_list()
    assert set(COMPLETIONS) - {"id", "text", "choice_logprobs"} < set(again.columns)
