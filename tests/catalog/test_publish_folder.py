"""Publishing to a folder: the manifest comes last, what has arrived is not sent again, other rows are refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import fsspec
import pytest

from hub.bundles import bundle
from tilth.catalog.publishing import Bundle, Folder
from tilth.schemas import ConfigError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Three pairs in two splits."""
    return bundle(tmp_path_factory.mktemp("made"))


@pytest.fixture(params=["local", "memory"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """An empty folder on a file system."""
    if request.param == "local":
        return Folder(str(tmp_path / "my data"), "0.1.0")
    return Folder(f"memory://{request.node.name}", "0.1.0")


def sent(target: Folder, made: Bundle) -> list[str]:
    """The paths of what has been put there."""
    fs, root = fsspec.core.url_to_fs(target.place(made))
    return sorted(str(path).removeprefix(root).lstrip("/") for path in fs.find(root))


def test_a_folder_holds_files_card_and_manifest(target: Folder, made: Bundle) -> None:
    """The manifest names every file with its digest; publishing again changes nothing."""
    told = target.publish(made)
    assert (told.status, told.reference) == ("published", target.place(made))
    assert sent(target, made) == sorted(["README.md", "manifest.json", *(one.path for one in made.shards)])
    fs, root = fsspec.core.url_to_fs(target.place(made))
    manifest = json.loads(fs.cat_file(f"{root}/manifest.json"))
    assert (manifest["digest"], manifest["version"], manifest["licence"]) == (
        made.digest,
        made.plan.label,
        "cc-by-4.0",
    )
    for file in manifest["files"]:
        content = fs.cat_file(f"{root}/{file['path']}")
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (file["sha256"], file["size_bytes"])
    assert target.publish(made).status == "already published"


def test_other_rows_are_refused(target: Folder, made: Bundle, tmp_path: Path) -> None:
    """A published version is not written over."""
    target.publish(made)
    other = bundle(tmp_path / "other", said="six centimetres")
    with pytest.raises(ConfigError, match="new version"):
        target.publish(other)
    assert target.publish(made).status == "already published"


def test_an_interrupted_publication_goes_on(
    target: Folder, made: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no manifest before everything is there; files that are whole are not sent again, half ones are."""
    fs, root = fsspec.core.url_to_fs(target.place(made))
    put: list[str] = []
    original = type(fs).put_file

    def breaking(self: Any, local: str, remote: str, **options: Any) -> None:
        if put:
            self.pipe_file(remote, Path(local).read_bytes()[:100])
            raise ConnectionResetError("the line broke")
        original(self, local, remote, **options)
        put.append(remote)

    monkeypatch.setattr(type(fs), "put_file", breaking)
    with pytest.raises(ConnectionResetError):
        target.publish(made)
    assert "manifest.json" not in sent(target, made)
    assert fs.size(f"{root}/{made.shards[1].path}") == 100

    def counting(self: Any, local: str, remote: str, **options: Any) -> None:
        put.append(remote)
        original(self, local, remote, **options)

    monkeypatch.setattr(type(fs), "put_file", counting)
    assert target.publish(made).status == "published"
    assert [path.rpartition("/")[2] for path in put] == [one.local.name for one in made.shards]


def test_leavings_of_another_attempt_are_removed(target: Folder, made: Bundle) -> None:
    """A shard that is not ours would be read by pattern with ours; other files stay."""
    fs, root = fsspec.core.url_to_fs(target.place(made))
    fs.makedirs(f"{root}/pairs", exist_ok=True)
    fs.pipe_file(f"{root}/pairs/train-00001-of-00002.parquet", b"half")
    fs.pipe_file(f"{root}/pairs/notes.txt", b"by hand")
    target.publish(made)
    own = [one.path for one in made.shards]
    assert sent(target, made) == sorted(["README.md", "manifest.json", "pairs/notes.txt", *own])


def test_versions_and_datasets_lie_side_by_side(target: Folder, made: Bundle, tmp_path: Path) -> None:
    """Another version has another folder, and both stay readable."""
    later = bundle(tmp_path / "later", "2026.11.22.1", 1)
    target.publish(made)
    target.publish(later)
    assert target.publish(made).status == target.publish(later).status == "already published"
