"""What URIs, globs and directories expand to."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from tilth.schemas import BadInput, MissingExtra, NotFound
from tilth.transforms.ingest import expand
from tilth.transforms.ingest.sources import filesystem


def test_directory_gives_data_files_below_it_by_name(tmp_path: Path) -> None:
    """A directory gives its data files, sorted, without hidden files and without what is no data."""
    for name in ("b.jsonl", "a.json.gz", "sub/c.parquet", ".hidden.jsonl", "_tmp/d.csv", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    files = expand([str(tmp_path)])
    assert [file.uri for file in files] == [
        f"{tmp_path}/{name}" for name in ("a.json.gz", "b.jsonl", "sub/c.parquet")
    ]
    assert [(file.container, file.compression) for file in files][:2] == [("json", "gzip"), ("jsonl", None)]
    assert {file.source for file in files} == {str(tmp_path)}


def test_glob_keeps_relative_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a relative glob are named relative, and a file that two sources name is there once."""
    (tmp_path / "x1.jsonl").write_bytes(b"")
    (tmp_path / "x2.jsonl").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert [file.uri for file in expand(["x*.jsonl", "x2.jsonl"])] == ["x1.jsonl", "x2.jsonl"]


def test_witness_changes_with_content_alone(tmp_path: Path) -> None:
    """The witness of a local file follows its bytes, not its name or time."""
    for name, data in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / f"{name}.jsonl").write_bytes(data)
    a, b, c = expand([str(tmp_path)])
    assert a.witness == b.witness != c.witness
    assert a.size_bytes == 1


def test_other_file_systems_have_a_witness() -> None:
    """A file of a remote store gets a witness that changes when it is written again."""
    fs = fsspec.filesystem("memory")
    fs.pipe("/witness/log.jsonl", b"{}")
    (before,) = expand(["memory://witness/log.jsonl"])
    fs.pipe("/witness/log.jsonl", b"{} ")
    (after,) = expand(["memory://witness/log.jsonl"])
    assert before.uri == "memory:///witness/log.jsonl"
    assert before.witness != after.witness


def test_missing_file_names_the_nearest_one(tmp_path: Path) -> None:
    """A source that is not there is NotFound, with the URI and the nearest name beside it."""
    (tmp_path / "chats.jsonl").write_bytes(b"")
    with pytest.raises(NotFound, match=r"chat\.jsonl(.|\n)*chats\.jsonl"):
        expand([str(tmp_path / "chat.jsonl")])


def test_empty_glob_is_not_found(tmp_path: Path) -> None:
    """A glob or a directory that holds no data file is NotFound, not an empty run."""
    for source in (f"{tmp_path}/*.jsonl", str(tmp_path), f"{tmp_path}/none/x.jsonl"):
        with pytest.raises(NotFound):
            expand([source])


def test_unknown_protocol_is_bad_input() -> None:
    """A protocol that fsspec does not know is a mistake in the URI."""
    with pytest.raises(BadInput, match="nosuch"):
        filesystem("nosuch://bucket/x.jsonl")


@pytest.mark.parametrize(("protocol", "extra"), [("s3", r"tilth\[s3\]"), ("gs", r"tilth\[gcs\]")])
def test_missing_extra_is_named(protocol: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A protocol whose package is not installed names the extra that brings it."""

    def not_installed(*_: object, **__: object) -> None:
        raise ImportError("Install it")

    monkeypatch.setattr(fsspec.core, "url_to_fs", not_installed)
    with pytest.raises(MissingExtra, match=extra):
        filesystem(f"{protocol}://bucket/x.jsonl")
