"""`tilth export` as a user meets it: files and folders, splits, what is left out, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner, Result

from tilth.catalog import Release, open_catalog
from tilth.flows.export_cli import export as command
from tilth.schemas import TABLES, BadInput, ConfigError, conform
from tilth.schemas.formats import FORMATS

CALLS = '[{"message_index":0,"tool_calls":[]}]'


def said(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def rows(table: str) -> list[dict[str, Any]]:
    sides = {
        "pairs": {"chosen": said("assistant", "Good."), "rejected": said("assistant", "Bad."), "margin": 1.0},
        "unpaired": {"completion": said("assistant", "Good."), "label": True},
        "rubrics": {"criteria": [{"id": "k", "description": "Kind.", "weight": 1.0, "check": "judge"}]},
    }[table]
    splits = ("train", "train", "train", "validation", "test", "train")
    made = [
        {"id": str(n), "prompt": said("user", f"Why {n}?"), "split": split, **sides}
        for n, split in enumerate(splits)
    ]
    if table != "rubrics":
        made[-1]["tool_calls_json"] = CALLS
    return made


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A catalog with six pairs, labels and rubrics; the last pair and label call a tool."""
    home = str(tmp_path_factory.mktemp("export"))
    with open_catalog(home) as catalog:
        files: dict[str, list[str]] = {}
        for table in ("pairs", "unpaired", "rubrics"):
            staging = Path(catalog.staging("observed", table, "run-1"))
            staging.mkdir(parents=True)
            frame = conform(pl.DataFrame(rows(table)), table)
            pq.write_table(frame.to_arrow().cast(TABLES[table]), staging / "0.parquet")
            files[table] = [str(staging / "0.parquet")]
        catalog.publish(Release("observed", "run-1", files))
    return home


def call(workspace: str, *words: str) -> Result:
    """What the command does; errors that Tilth raises on purpose come through."""
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [*words, "-w", workspace])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def as_json(workspace: str, *words: str) -> Any:
    return json.loads(call(workspace, *words, "--json").stdout)


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_a_file_holds_every_row_that_fits(workspace: str, tmp_path: Path, ending: str) -> None:
    """Rows in are rows written and rows left out, with the reason, in JSON and for people."""
    file = tmp_path / f"rows.{ending}"
    told = as_json(workspace, "observed.pairs", "-f", "trl", "-o", str(file))
    read = pl.read_parquet(file) if ending == "parquet" else pl.read_ndjson(file)
    assert (told["rows_in"], told["rows"], read.height) == (6, 5, 5)
    assert list(told["left_out"].values()) == [1]
    assert told["files"] == {str(file): 5}
    shown = call(workspace, "observed.pairs", "-f", "trl", "-o", str(file)).stdout
    assert "left out" in shown
    assert "a tool is called" in " ".join(shown.split())


def test_a_folder_holds_a_file_a_split(workspace: str, tmp_path: Path) -> None:
    """Each split has a file of its name, which `load_dataset` takes for that split, and no other split's rows."""
    told = as_json(workspace, "observed.unpaired", "-f", "kto", "-o", str(tmp_path / "kto"))
    found = {path.name: pl.read_parquet(path) for path in (tmp_path / "kto").iterdir()}
    assert {name: (rows.height, set(rows["split"])) for name, rows in found.items()} == {
        "train.parquet": (3, {"train"}),
        "validation.parquet": (1, {"validation"}),
        "test.parquet": (1, {"test"}),
    }
    assert (told["rows_in"], told["rows"], sum(told["left_out"].values())) == (6, 5, 1)


def test_one_split_alone(workspace: str, tmp_path: Path) -> None:
    """--split reads, counts and writes rows of that split only, into a file or a folder."""
    for target in (tmp_path / "one.parquet", tmp_path / "folder"):
        told = as_json(workspace, "observed.pairs", "-f", "trl", "--split", "test", "-o", str(target))
        assert (told["rows_in"], told["rows"], told["left_out"]) == (1, 1, {})
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["test.parquet"]


def test_what_lies_beside_names_the_files(workspace: str, tmp_path: Path) -> None:
    """LLaMA-Factory's dataset_info.json has an entry for each file, and keeps those of others."""
    info = tmp_path / "dataset_info.json"
    info.write_text('{"own": {"file_name": "own.json"}}')
    told = as_json(workspace, "observed.pairs", "-f", "llama-factory", "-o", f"{tmp_path}/")
    entries = json.loads(info.read_text())
    assert told["beside"] == [str(info)]
    assert set(entries) == {"own", "train", "validation", "test"}
    assert (tmp_path / entries["train"]["file_name"]).exists()
    as_json(workspace, "observed.unpaired", "-f", "llama-factory", "-o", str(tmp_path / "kto.parquet"))
    assert json.loads(info.read_text())["kto"]["columns"]["kto_tag"] == "label"


def test_a_file_in_the_way_is_kept(workspace: str, tmp_path: Path) -> None:
    """A dataset_info.json that is none is not overwritten."""
    info = tmp_path / "dataset_info.json"
    info.write_text("[1]")
    with pytest.raises(BadInput, match="in the way"):
        call(workspace, "observed.pairs", "-f", "llama-factory", "-o", str(tmp_path / "rows.parquet"))
    assert info.read_text() == "[1]"


def test_what_is_refused(workspace: str, tmp_path: Path) -> None:
    """An unknown format, another table, a form of file that nobody or not this trainer reads, an empty split: each
    says what there is, and writes nothing."""
    for words, error, match in (
        (("observed.pairs", "-f", "dpo"), BadInput, "trl, trl-implicit"),
        (("observed.unpaired", "-f", "trl"), BadInput, "of unpaired: kto, sft, llama-factory"),
        (("observed.pairs", "-f", "trl", "-o", str(tmp_path / "rows.csv")), ConfigError, "unknown form"),
        (
            ("observed.rubrics", "-f", "verl", "-o", str(tmp_path / "rows.jsonl")),
            BadInput,
            "wanted: .parquet",
        ),
        (("observed.pairs", "-f", "trl", "--split", "dev"), BadInput, "nothing to export"),
    ):
        with pytest.raises(error, match=match):
            call(workspace, *words)
    assert call(workspace, "observed.pairs").exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_the_list_names_every_format(workspace: str) -> None:
    """--list says of each format which tables it is made of and what it is for; the docs name each, too."""
    listed = as_json(workspace, "--list")
    assert {row["format"]: row["of"] for row in listed} == {
        name: ", ".join(form.of) for name, form in FORMATS.items()
    }
    page = Path(__file__).resolve().parents[2] / "docs" / "reference" / "formats.md"
    named = {line.split("`")[1] for line in page.read_text().splitlines() if line.startswith("| **`")}
    assert named == set(FORMATS)
