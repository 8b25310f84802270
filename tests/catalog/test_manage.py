"""Tags, rollback, rename, drop, restore and expiry: what they show, what they keep, what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner

from tilth.catalog import Catalog, Release, store
from tilth.catalog.iceberg import FamilyCatalog
from tilth.flows import manage_cli
from tilth.schemas import BadInput, NotFound, TilthError

pytestmark = pytest.mark.slow
DAY = date(2026, 11, 21)
V1, V2, V3 = (f"2026.11.21.{number}" for number in (1, 2, 3))
Publish = Callable[..., Any]


@pytest.fixture
def publish(catalog: Catalog, stage: Callable[..., Any]) -> Publish:
    """Publishes one row of pairs, or of the tables that are named, whose id is the run's."""

    def run(run_id: str, *tables: str, family: str = "observed", **more: Any) -> Any:
        rows = {table: [{"id": run_id}] for table in tables or ("pairs",)}
        files = stage(run_id, rows, family)
        return catalog.publish(Release(family, run_id, files, date=DAY, **more))

    return run


@pytest.fixture(autouse=True)
def _on_that_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made without a run is named by the day on which it is made."""
    monkeypatch.setattr("tilth.catalog.store.today", lambda: DAY)


def ids(catalog: Catalog, name: str) -> list[str]:
    return catalog.frame(name).collect()["id"].to_list()


def labels(catalog: Catalog, name: str = "observed.pairs") -> list[str]:
    return [version.version for version in catalog.versions(name)]


def files_of(catalog: Catalog) -> set[str]:
    return {str(path) for path in Path(catalog.warehouse).rglob("*") if path.is_file()}


def test_an_expired_version_leaves_no_file(catalog: Catalog, publish: Publish) -> None:
    """What an expired version alone held is deleted: data, manifests, and all metadata that names it."""
    publish("old")
    before = files_of(catalog)
    publish("new")
    gone = catalog.expire("observed", [V1])
    assert [Path(uri).parent.name for uri in gone] == ["run=old"]
    assert files_of(catalog) & before == set()
    assert files_of(catalog) == catalog.reachable()
    assert labels(catalog) == [V2]
    assert ids(catalog, "observed.pairs") == ["new"]
    table = catalog._iceberg.load_table(("observed", "pairs"))
    assert "old" not in Path(table.metadata_location).read_text()
    assert table.metadata.metadata_log == []


def test_expiring_the_newest_brings_back_the_one_before(catalog: Catalog, publish: Publish) -> None:
    """Other readers of Iceberg then see the newest that stays, and a new version follows it."""
    for run in ("a", "b", "c"):
        publish(run)
    catalog.drop("observed", V1)
    catalog.expire("observed", [V2, V3])
    table = catalog._iceberg.load_table(("observed", "pairs"))
    assert table.scan().to_arrow()["id"].to_pylist() == ["a"]
    catalog.restore("observed", V1)
    assert ids(catalog, "observed.pairs") == ["a"]
    assert publish("d")[0].version == "2026.11.21.4"
    assert ids(catalog, "observed.pairs") == ["d"]
    assert ids(catalog, f"observed.pairs@{V1}") == ["a"]


def test_expiring_everything_leaves_nothing_but_the_labels(catalog: Catalog, publish: Publish) -> None:
    """The tables go, their files too; the labels are not given again, so no name ever means other rows."""
    publish("a", "pairs", "feedback")
    publish("b")
    catalog.expire("observed", [V1, V2])
    assert catalog.datasets() == []
    assert files_of(catalog) == set()
    assert publish("a")[0].version == V3


def test_a_file_that_another_version_has_stays(catalog: Catalog, publish: Publish) -> None:
    """Versions may share files: an expired one takes only what no other version has, dropped ones included."""
    files = {"pairs": list(publish("a")[0].files)}
    catalog.publish(Release("observed", "b", files, date=DAY))
    catalog.drop("observed", V2)
    assert catalog.expire("observed", [V1]) == []
    catalog.restore("observed", V2)
    assert ids(catalog, "observed.pairs") == ["a"]
    assert catalog.expire("observed", [V2]) == files["pairs"]


def test_what_is_not_deleted_is_named(catalog: Catalog, publish: Publish) -> None:
    """With `delete` false data files stay, and are named; `finish` deletes them, but for what it is to keep."""
    publish("a")
    publish("b")
    gone = catalog.expire("observed", [V1], delete=False)
    assert all(Path(uri).exists() for uri in gone)
    catalog.finish(keep=gone)
    assert files_of(catalog) - catalog.reachable() == set(gone)


def test_unknown_labels_are_not_expired(catalog: Catalog, publish: Publish) -> None:
    """A label that never was is refused before anything changes; one that has expired is no error."""
    publish("a")
    with pytest.raises(NotFound, match=V3):
        catalog.expire("observed", [V1, V3])
    assert ids(catalog, "observed.pairs") == ["a"]
    catalog.expire("observed", [V1])
    assert catalog.expire("observed", [V1]) == []


def test_a_tag_resolves_like_a_version(catalog: Catalog, publish: Publish) -> None:
    """A tag stands for one version in all tables of the family, until it is moved or taken away."""
    publish("a", "pairs", "feedback")
    publish("b", "pairs", "feedback")
    assert catalog.tag("observed", V1, "golden") is None
    assert ids(catalog, "observed.pairs@golden") == ids(catalog, "observed.feedback@golden") == ["a"]
    assert catalog.resolve("observed.pairs@golden").version == V1
    with pytest.raises(BadInput, match="--move"):
        catalog.tag("observed", V2, "golden")
    assert catalog.tag("observed", V2, "golden", move=True) == V1
    assert catalog.tags("observed") == {"golden": V2}
    assert catalog.untag("observed", "golden") == V2
    with pytest.raises(NotFound, match="golden"):
        catalog.resolve("observed.pairs@golden")
    with pytest.raises(NotFound, match="golden"):
        catalog.untag("observed", "golden")


@pytest.mark.parametrize("tag", ["", "latest", "Golden", "1.0", V1, "a b", "a/b", "x" * 65])
def test_a_tag_is_never_like_a_version(catalog: Catalog, publish: Publish, tag: str) -> None:
    """What could be taken for a version, or is no plain name, is refused as a tag."""
    publish("a")
    with pytest.raises(BadInput):
        catalog.tag("observed", V1, tag)


def test_only_versions_have_tags(catalog: Catalog, publish: Publish) -> None:
    """A version or family that does not exist, or was dropped, gets no tag."""
    publish("a")
    publish("b")
    catalog.drop("observed", V1)
    for family, label in (("observed", V1), ("observed", V3), ("nowhere", V1)):
        with pytest.raises(NotFound):
            catalog.tag(family, label, "golden")


def test_a_dropped_version_is_hidden_until_it_is_restored(catalog: Catalog, publish: Publish) -> None:
    """The latest is then the one before; neither names, runs nor lists show what was dropped."""
    publish("a")
    publish("b")
    assert catalog.drop("observed", V2) == [V2]
    assert labels(catalog) == [V1]
    assert catalog.resolve("observed.pairs").version == V1
    assert catalog.find_run("observed", "b") is None
    assert list(catalog.dropped("observed")) == [V2]
    with pytest.raises(NotFound, match=V1):
        catalog.resolve(f"observed.pairs@{V2}")
    with pytest.raises(NotFound):
        catalog.drop("observed", V2)
    assert catalog.restore("observed", V2) == [V2]
    assert ids(catalog, "observed.pairs") == ["b"]
    assert catalog.dropped("observed") == {}
    with pytest.raises(NotFound):
        catalog.restore("observed")


def test_a_family_is_dropped_whole(catalog: Catalog, publish: Publish) -> None:
    """Without a version all are hidden, and the family has no datasets; new versions get new labels."""
    publish("a")
    publish("b")
    assert catalog.drop("observed") == [V1, V2]
    assert catalog.datasets() == []
    assert publish("c")[0].version == V3
    assert catalog.restore("observed") == [V1, V2]
    assert labels(catalog) == [V3, V2, V1]


def test_a_tag_protects_its_version(catalog: Catalog, publish: Publish) -> None:
    """What has a tag is not dropped, alone or with its family, unless forced; then the tag is gone."""
    publish("a")
    catalog.tag("observed", V1, "golden")
    for label in (V1, None):
        with pytest.raises(BadInput, match="golden"):
            catalog.drop("observed", label)
    assert catalog.drop("observed", V1, force=True) == [V1]
    assert catalog.tags("observed") == {}


def test_rollback_makes_a_new_version_of_old_files(catalog: Catalog, publish: Publish) -> None:
    """The newest holds the old files, and nothing of tables that the old release did not have; all else stays."""
    publish("a", properties={"tilth.config_sha": "x"})
    publish("b", "pairs", "feedback")
    made = catalog.rollback("observed", V1)
    assert [(one.name, one.version, one.rows) for one in made] == [
        ("observed.feedback", V3, 0),
        ("observed.pairs", V3, 1),
    ]
    old, new = catalog.resolve(f"observed.pairs@{V1}"), catalog.resolve("observed.pairs")
    assert new.files == old.files
    assert new.properties["tilth.rollback_of"] == V1
    assert new.properties["tilth.config_sha"] == "x"
    assert new.properties["tilth.run_id"] == f"rollback-{V1}-1"
    assert catalog.head("observed.feedback").height == 0
    assert labels(catalog) == [V3, V2, V1]
    assert catalog.find_run("observed", "a") == [old]


def test_rollback_twice_is_one_rollback(catalog: Catalog, publish: Publish) -> None:
    """What is the newest already is not published again; after another version it is."""
    publish("a")
    publish("b")
    first = catalog.rollback("observed", V1)
    assert catalog.rollback("observed", V1) == first
    assert catalog.rollback("observed", V3) == first
    publish("c")
    again = catalog.rollback("observed", V1)
    assert again[0].properties["tilth.run_id"] == f"rollback-{V1}-2"
    with pytest.raises(NotFound):
        catalog.rollback("observed", "2026.11.21.9")


def test_a_renamed_family_keeps_all_it_had(catalog: Catalog, publish: Publish) -> None:
    """Versions, tags and rows stand under the new name; what was made from them finds them by the old one."""
    publish("a", "pairs", "feedback")
    catalog.tag("observed", V1, "golden")
    catalog.rename("observed", "seen")
    assert catalog.datasets() == ["seen.feedback", "seen.pairs"]
    assert ids(catalog, "seen.pairs@golden") == ["a"]
    assert catalog.resolve(f"observed.pairs@{V1}").name == "seen.pairs"
    with pytest.raises(NotFound):
        catalog.resolve("observed.pairs")
    found = catalog.find_run("observed", "a")
    assert found is not None
    assert found[0].name == "seen.feedback"


def test_a_name_means_one_version_for_ever(catalog: Catalog, publish: Publish) -> None:
    """A new family of the old name takes none of the labels that the renamed one is known by, there and back."""
    publish("a")
    catalog.rename("observed", "seen")
    assert publish("b")[0].version == V2
    assert ids(catalog, f"observed.pairs@{V1}") == ["a"]
    assert ids(catalog, f"observed.pairs@{V2}") == ["b"]
    with pytest.raises(BadInput, match="observed"):
        catalog.rename("seen", "observed")
    catalog.rename("observed", "later")
    catalog.rename("seen", "observed")
    assert labels(catalog) == [V1]
    assert ids(catalog, f"observed.pairs@{V2}") == ["b"]


def test_a_renamed_family_goes_on(catalog: Catalog, publish: Publish) -> None:
    """New parts, parts that its versions hold under the old name, and rollbacks are taken; strangers are not."""
    held = list(publish("a")[0].files)
    catalog.rename("observed", "seen")
    catalog.publish(Release("seen", "b", {"pairs": held}, date=DAY))
    publish("c", family="seen")
    assert ids(catalog, f"seen.pairs@{V2}") == ["a"]
    assert catalog.rollback("seen", V1)[0].version > V3
    assert ids(catalog, "seen.pairs") == ["a"]
    other = list(publish("d")[0].files)
    with pytest.raises(TilthError, match="run=d"):
        catalog.publish(Release("seen", "e", {"pairs": other}, date=DAY))
    catalog.expire("seen", [V1, V2])
    assert ids(catalog, "seen.pairs") == ["a"]


def test_a_table_that_is_made_under_a_renaming(
    catalog: Catalog, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A family that is renamed while a publish makes a table of it: the publish begins a new family."""
    publish("a")
    original, moments = FamilyCatalog._write_metadata, iter([lambda: catalog.rename("observed", "seen")])

    def write(*args: Any) -> None:
        next(moments, lambda: None)()
        original(*args)

    monkeypatch.setattr(FamilyCatalog, "_write_metadata", staticmethod(write))
    monkeypatch.setattr(store, "PATIENCE_S", 20)
    assert publish("b", "feedback")[0].version == V2
    assert catalog.datasets() == ["observed.feedback", "seen.pairs"]
    assert catalog.drop("observed") == [V2]


@pytest.fixture
def tilth(tmp_path: Path) -> Callable[..., Any]:
    """Runs a command on the workspace of `catalog`; gives its exit code, and its JSON or what it printed."""
    app = Typer()
    for name in ("tag", "untag", "rollback", "rename", "drop", "restore", "collect"):
        app.command(name)(getattr(manage_cli, name))

    def run(*args: str, plainly: bool = False) -> Any:
        more = [] if plainly else ["--json"]
        done = CliRunner().invoke(app, [*args, "-w", str(tmp_path / "my work #1"), *more])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.output if plainly else json.loads(done.output)

    return run


def test_commands_undo_each_other(catalog: Catalog, publish: Publish, tilth: Callable[..., Any]) -> None:
    """Every command names the commands that undo it, and they do."""
    publish("a")
    publish("b")

    def state() -> Any:
        return {name: labels(catalog, name) for name in catalog.datasets()}, catalog.tags("observed")

    tilth("tag", f"observed@{V1}", "golden")
    before = state()
    for command in (
        ("tag", f"observed.pairs@{V2}", "silver"),
        ("tag", "observed", "golden", "--move"),
        ("untag", "observed", "golden"),
        ("rename", "observed", "seen"),
        ("drop", f"observed@{V2}", "--yes"),
        ("drop", "observed", "--yes", "--force"),
    ):
        undo = tilth(*command)["undo"]
        assert state() != before, command
        for one in undo:
            tilth(*one.removeprefix("tilth catalog ").split())
        assert state() == before, command


def test_dry_runs_change_nothing(catalog: Catalog, publish: Publish, tilth: Callable[..., Any]) -> None:
    """They say what would be done, by the datasets that it would be done to."""
    publish("a")
    publish("b")
    told = tilth("drop", "observed", "--dry-run")
    assert [row["version"] for row in told["datasets"]] == [V2, V1]
    assert tilth("rollback", "observed", V1, "--dry-run")["to"] == V1
    with pytest.raises(NotFound):
        tilth("rollback", "observed", V3, "--dry-run")
    assert tilth("collect", "--older-than", "0s", "--dry-run")["uris"] == []
    assert labels(catalog) == [V2, V1]


def test_commands_say_what_they_did(catalog: Catalog, publish: Publish, tilth: Callable[..., Any]) -> None:
    """For people: what was done, and the command that undoes it on a line of its own."""
    publish("a")
    publish("b")
    assert f"observed@golden is {V2}\nundo: tilth catalog untag" in tilth(
        "tag", "observed", "golden", plainly=True
    )
    said = tilth("rollback", "observed", V1, plainly=True)
    assert f"observed@{V1} is the newest again" in said
    assert f"undo: tilth catalog drop observed@{V3}" in said
    assert "nothing to do" in tilth("rollback", "observed", V1, plainly=True)
    assert f"dropped {V3}" in tilth("drop", f"observed@{V3}", "--yes", plainly=True)
    assert "nothing to delete" in tilth("collect", plainly=True)
    assert labels(catalog) == [V2, V1]


def test_dropping_asks(catalog: Catalog, publish: Publish, tilth: Callable[..., Any]) -> None:
    """Without a terminal to ask on, nothing is dropped unless --yes is given."""
    publish("a")
    with pytest.raises(BadInput, match="--yes"):
        tilth("drop", "observed")
    assert labels(catalog) == [V1]
