"""The catalog publishes releases whole, names their versions, and reads them back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tilth.catalog import AuditReport, Catalog, Check, Release, open_catalog
from tilth.schemas import TABLES, BadInput, ChecksFailed, ConfigError, NotFound, TilthError

DAY = date(2026, 11, 21)


def publish(catalog: Catalog, run_id: str, files: dict[str, list[str]], **more: Any) -> list[Any]:
    given: dict[str, Any] = {"family": "observed", "run_id": run_id, "files": files, "date": DAY, **more}
    return catalog.publish(Release(**given))


def test_publish_gives_all_tables_one_label(catalog: Catalog, stage: Callable[..., Any]) -> None:
    """Every table of a release gets a version under one label, in the order of TABLES, with its rows."""
    files = stage("r1")
    versions = publish(catalog, "r1", files, properties={"tilth.config_sha": "abc"})
    ordered = [f"observed.{table}" for table in TABLES if table in files]
    assert [version.name for version in versions] == ordered
    assert {version.version for version in versions} == {"2026.11.21.1"}
    assert [version.rows for version in versions] == [1, 2, 1, 2, 1, 1]
    assert versions[0].properties["tilth.config_sha"] == "abc"
    assert versions[0].properties["tilth.run_id"] == "r1"


@pytest.mark.slow
def test_rows_come_back_as_they_were(
    catalog: Catalog, stage: Callable[..., Any], rows: Callable[[], Any], as_arrow: Callable[..., pa.Table]
) -> None:
    """Polars, Arrow and Iceberg's own reader give the published rows, in order, of exact types."""
    publish(catalog, "r1", stage("r1"))
    for table, made in rows().items():
        wanted = as_arrow(table, made)
        assert catalog.arrow(f"observed.{table}").combine_chunks().equals(wanted)
        assert catalog.frame(f"observed.{table}").collect().equals(pl.DataFrame(wanted))
        iceberg = catalog._iceberg.load_table(("observed", table)).scan().to_arrow()
        assert iceberg.num_rows == wanted.num_rows
        assert iceberg.to_pylist() == wanted.to_pylist()


def test_parts_keep_the_order_they_are_given_in(catalog: Catalog, stage: Callable[..., Any]) -> None:
    """The order of parts in a release is the order of rows, whatever the files are called."""
    files = stage("r1", {"unpaired": [{"id": str(number) * 32} for number in range(9)]})
    files["unpaired"].reverse()
    publish(catalog, "r1", files)
    assert catalog.frame("observed.unpaired").collect()["id"].str.slice(0, 1).to_list() == list("876543210")
    assert catalog.head("observed.unpaired", 2)["id"].to_list() == ["8" * 32, "7" * 32]


@pytest.mark.slow
def test_a_run_is_published_once(catalog: Catalog, stage: Callable[..., Any]) -> None:
    """Publishing a committed run again returns its versions and makes none, even after a newer run."""
    first = publish(catalog, "r1", stage("r1"))
    publish(catalog, "r2", stage("r2"))
    assert publish(catalog, "r1", stage("r1")) == first
    assert catalog.find_run("observed", "r1") == first
    assert [version.version for version in catalog.versions("observed.pairs")] == [
        "2026.11.21.2",
        "2026.11.21.1",
    ]
    assert catalog.find_run("observed", "r3") is None


@pytest.mark.slow
def test_a_new_version_replaces_and_the_old_stays_readable(
    catalog: Catalog, stage: Callable[..., Any], rows: Callable[[], Any]
) -> None:
    """The latest version holds the new rows alone; the old one is still there by name."""
    publish(catalog, "r1", stage("r1"))
    changed = rows()
    changed["pairs"] = [{**changed["pairs"][0], "id": "7" * 32}]
    publish(catalog, "r2", stage("r2", changed))
    assert catalog.arrow("observed.pairs")["id"].to_pylist() == ["7" * 32]
    assert catalog.arrow("observed.pairs@2026.11.21.1")["id"].to_pylist() == ["1" * 32]
    assert catalog.resolve("observed.pairs").version == "2026.11.21.2"


def test_versions_do_not_drag_the_past_along(catalog: Catalog, stage: Callable[..., Any]) -> None:
    """A version's manifests do not grow in number with the versions before it."""
    for number in range(4):
        publish(catalog, f"r{number}", stage(f"r{number}", {"pairs": [{}]}))
    table = catalog._iceberg.load_table(("observed", "pairs"))
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert len(snapshot.manifests(table.io)) == 1  # what it holds, not what it replaced
    assert snapshot.summary is not None
    assert snapshot.summary["total-data-files"] == "1"


def test_labels_count_over_the_family_and_the_day(catalog: Catalog, stage: Callable[..., Any]) -> None:
    """N is the next free number of the day over all tables of the family, and of no other."""
    publish(catalog, "r1", stage("r1", {"pairs": [{}]}))
    assert publish(catalog, "r2", stage("r2", {"feedback": [{}]}))[0].version == "2026.11.21.2"
    assert (
        publish(catalog, "r3", stage("r3", {"pairs": [{}]}), date=date(2026, 11, 22))[0].version
        == "2026.11.22.1"
    )
    other = publish(catalog, "r1", stage("r1", {"pairs": [{}]}, "judged"), family="judged")
    assert (other[0].name, other[0].version) == ("judged.pairs", "2026.11.21.1")
    assert catalog.datasets() == ["judged.pairs", "observed.feedback", "observed.pairs"]


def test_the_latest_is_what_was_published_last(catalog: Catalog, stage: Callable[..., Any]) -> None:
    """A release for an earlier day, published later, is the latest, and its label says so."""
    publish(catalog, "r1", stage("r1", {"pairs": [{"id": "1"}]}))
    late = publish(catalog, "r2", stage("r2", {"pairs": [{"id": "2"}]}), date=date(2026, 1, 1))
    assert late[0].version == "2026.11.21.2"
    assert catalog.head("observed.pairs")["id"].to_list() == ["2"]


def test_a_table_without_rows_has_a_version(catalog: Catalog, stage: Callable[..., Any]) -> None:
    """Nothing found is a version with zero rows and the table's columns, also after a version with rows."""
    publish(catalog, "r1", stage("r1", {"pairs": [{}], "unpaired": []}))
    publish(catalog, "r2", {"pairs": [], "unpaired": []})
    for name in ("observed.pairs", "observed.unpaired", "observed.unpaired@2026.11.21.1"):
        assert catalog.resolve(name).rows == 0
        assert catalog.arrow(name).schema.equals(TABLES[name.partition(".")[2].partition("@")[0]])
        assert catalog.head(name).height == 0
    assert catalog.resolve("observed.pairs@2026.11.21.1").rows == 1


def test_a_version_says_when_it_was_made(catalog: Catalog, stage: Callable[..., Any]) -> None:
    """`created_at` is the time of the commit, in UTC."""
    version = publish(catalog, "r1", stage("r1", {"pairs": [{}]}))[0]
    assert abs((datetime.now(UTC) - version.created_at).total_seconds()) < 60


def test_release_lists_what_was_published_together(catalog: Catalog, stage: Callable[..., Any]) -> None:
    """From one version all tables of its release are found, and no others."""
    versions = publish(catalog, "r1", stage("r1"))
    publish(catalog, "r2", stage("r2", {"pairs": [{}]}))
    assert catalog.release(versions[2]) == versions


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("observed.pears", "observed.pairs"),
        ("observe.pairs", "observed.pairs"),
        ("observed.pairs@2026.11.21.2", "observed.pairs@2026.11.21.1"),
    ],
)
def test_an_unknown_name_names_the_nearest(
    catalog: Catalog, stage: Callable[..., Any], name: str, nearest: str
) -> None:
    """A dataset or version that does not exist is refused with what comes nearest to it."""
    publish(catalog, "r1", stage("r1"))
    with pytest.raises(NotFound) as caught:
        catalog.resolve(name)
    assert nearest in str(caught.value.found)


def test_an_empty_catalog_says_so(catalog: Catalog) -> None:
    """Without any dataset the error says how to make one."""
    assert catalog.datasets() == []
    with pytest.raises(NotFound, match="tilth run"):
        catalog.frame("observed.pairs")


@pytest.mark.parametrize("name", ["pairs", "observed.pairs@latest", "observed.pairs.x", "", "../x.pairs"])
def test_a_malformed_name_is_refused(catalog: Catalog, name: str) -> None:
    """What is no dataset name is refused before anything is looked up."""
    with pytest.raises(BadInput):
        catalog.resolve(name)


def test_staging_is_inside_the_table_and_invisible(catalog: Catalog, stage: Callable[..., Any]) -> None:
    """Parts are staged below their table's location and seen by nobody before the commit."""
    files = stage("r1")
    assert catalog.datasets() == []
    publish(catalog, "r1", files)
    location = catalog._iceberg.load_table(("observed", "pairs")).location()
    assert catalog.staging("observed", "pairs", "r1") == f"{location}/data/run=r1"


@pytest.mark.parametrize(
    ("family", "table", "run_id"),
    [
        ("observed", "pears", "r1"),
        ("../x", "pairs", "r1"),
        ("observed", "pairs", "../../r1"),
        ("observed", "pairs", ""),
    ],
)
def test_staging_refuses_what_leads_elsewhere(catalog: Catalog, family: str, table: str, run_id: str) -> None:
    """A family, table or run id that is not a plain name never becomes part of a path."""
    with pytest.raises(BadInput):
        catalog.staging(family, table, run_id)


def write(catalog: Catalog, table: pa.Table) -> dict[str, list[str]]:
    directory = Path(catalog.staging("observed", "pairs", "bad"))
    directory.mkdir(parents=True)
    pq.write_table(table, directory / "0.parquet")
    return {"pairs": [str(directory / "0.parquet")]}


def numbered(table: pa.Table, ids: dict[str, int]) -> pa.Table:
    fields = [
        field.with_metadata({"PARQUET:field_id": str(ids[field.name])}) if field.name in ids else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def test_foreign_field_ids_are_refused(catalog: Catalog, as_arrow: Callable[..., pa.Table]) -> None:
    """A file that numbers its columns as another table does could swap chosen and rejected: refused."""
    table = numbered(as_arrow("pairs", [{}]), {"rejected": 4, "chosen": 5})
    with pytest.raises(TilthError, match=r"0\.parquet.*chosen") as caught:
        publish(catalog, "bad", write(catalog, table))
    assert "field id" in str(caught.value.found)
    assert catalog.datasets() == []


def test_nested_field_ids_are_refused(catalog: Catalog, as_arrow: Callable[..., pa.Table]) -> None:
    """Field ids deep inside a column count too."""
    role = pa.field("role", pa.string(), metadata={"PARQUET:field_id": "9"})
    messages = pa.list_(pa.field("element", pa.struct([role, pa.field("content", pa.string())])))
    table = as_arrow("pairs", [{}])
    place = table.schema.get_field_index("chosen")
    table = table.set_column(place, pa.field("chosen", messages), table["chosen"].cast(messages))
    with pytest.raises(TilthError, match="chosen"):
        publish(catalog, "bad", write(catalog, table))


@pytest.mark.parametrize(
    ("change", "column"),
    [
        (lambda t: t.set_column(0, "id", t["id"].dictionary_encode()), "id"),
        (lambda t: t.set_column(0, "id", t["id"].cast(pa.string_view())), "id"),
        (lambda t: t.set_column(0, "id", t["id"].cast(pa.large_string())), "id"),
        (lambda t: t.set_column(9, "margin", t["margin"].cast(pa.float32())), "margin"),
        (lambda t: t.append_column("extra", pa.array([1])), "extra"),
        (lambda t: t.drop_columns(["verdict"]), "columns"),
        (lambda t: t.select([1, 0, *range(2, t.num_columns)]), "columns"),
    ],
)
def test_wrong_types_are_refused(
    catalog: Catalog, as_arrow: Callable[..., pa.Table], change: Callable[[pa.Table], pa.Table], column: str
) -> None:
    """Types that Iceberg takes but cannot read, and other differences, are refused by name."""
    with pytest.raises(TilthError, match=r"0\.parquet") as caught:
        publish(catalog, "bad", write(catalog, change(as_arrow("pairs", [{}]))))
    assert column in str(caught.value)


def test_missing_and_broken_parts_are_refused(catalog: Catalog) -> None:
    """A part that is not there, or is not Parquet, is named."""
    directory = Path(catalog.staging("observed", "pairs", "bad"))
    with pytest.raises(NotFound, match=r"gone\.parquet"):
        publish(catalog, "bad", {"pairs": [f"{directory}/gone.parquet"]})
    directory.mkdir(parents=True)
    (directory / "torn.parquet").write_bytes(b"PAR1 and no footer")
    with pytest.raises(TilthError, match=r"torn\.parquet"):
        publish(catalog, "bad", {"pairs": [f"{directory}/torn.parquet"]})


def test_parts_from_elsewhere_are_refused(
    catalog: Catalog, tmp_path: Path, as_arrow: Callable[..., pa.Table]
) -> None:
    """A version may only rest on files that the catalog keeps: those of a run may be swept away."""
    pq.write_table(as_arrow("pairs", [{}]), tmp_path / "0.parquet")
    with pytest.raises(TilthError, match="pairs"):
        publish(catalog, "r1", {"pairs": [str(tmp_path / "0.parquet")]})


def test_one_part_twice_is_refused(catalog: Catalog, stage: Callable[..., Any]) -> None:
    """A part that is named twice would count its rows twice."""
    files = stage("r1", {"pairs": [{}]})
    with pytest.raises(TilthError, match="twice"):
        publish(catalog, "r1", {"pairs": files["pairs"] * 2})


def test_a_release_without_tables_is_refused(catalog: Catalog) -> None:
    """A release of nothing is a mistake of the caller."""
    with pytest.raises(BadInput, match="no tables"):
        publish(catalog, "r1", {})


def report(severity: str) -> AuditReport:
    check = Check(
        "pairs",
        "near_equal",
        "expect_column_values_to_be_between",
        "at most 0",
        3,
        severity,
        False,
        "because",
    )
    return AuditReport({"pairs": {"rows": 1}}, (check,))


def test_a_failed_audit_is_never_published(catalog: Catalog, stage: Callable[..., Any]) -> None:
    """Critical failures refuse the release and leave the catalog and the staged files as they are."""
    files = stage("r1")
    with pytest.raises(ChecksFailed, match="near_equal"):
        publish(catalog, "r1", files, audit=report("critical"))
    assert catalog.datasets() == []
    assert Path(files["pairs"][0]).exists()


def test_the_audit_is_kept_with_the_version(catalog: Catalog, stage: Callable[..., Any]) -> None:
    """A summary stands in the version's properties, the whole report in a file that they name."""
    import json

    version = publish(catalog, "r1", stage("r1", {"pairs": [{}]}), audit=report("warning"))[0]
    assert json.loads(version.properties["tilth.audit"])["failed"]["warning"] == ["near_equal"]
    kept = json.loads(Path(version.properties["tilth.audit_uri"]).read_text())
    assert AuditReport.from_dict(kept).checks == report("warning").checks


def test_a_replay_leaves_the_kept_audit_alone(catalog: Catalog, stage: Callable[..., Any]) -> None:
    """What was seen when a version was committed stays on record, whatever a replay brings."""
    files = stage("r1", {"pairs": [{}]})
    first = publish(catalog, "r1", files, audit=report("warning"))[0]
    publish(catalog, "r1", files, audit=report("info"))
    assert "warning" in Path(first.properties["tilth.audit_uri"]).read_text()


def test_a_catalog_is_only_made_when_asked(tmp_path: Path) -> None:
    """Looking into a workspace without a catalog is an error and leaves no trace."""
    with pytest.raises(NotFound, match="tilth demo"):
        open_catalog(str(tmp_path / "nowhere"), create=False)
    assert list(tmp_path.iterdir()) == []
    open_catalog(str(tmp_path / "here")).close()
    open_catalog(f"file://{tmp_path}/here", create=False).close()


def test_a_remote_workspace_needs_a_database() -> None:
    """SQLite cannot live on an object store, and the error says what to give instead."""
    with pytest.raises(ConfigError, match="database"):
        open_catalog("memory://bucket/work")


def test_database_and_warehouse_can_be_elsewhere(tmp_path: Path, as_arrow: Callable[..., pa.Table]) -> None:
    """A given database and warehouse are used, and the workspace is left alone."""
    database, warehouse = f"sqlite:///{tmp_path}/other.db", str(tmp_path / "house")
    with open_catalog(str(tmp_path / "work"), database=database, warehouse=warehouse) as catalog:
        directory = Path(catalog.staging("observed", "pairs", "r1"))
        directory.mkdir(parents=True)
        pq.write_table(as_arrow("pairs", [{}]), directory / "0.parquet")
        publish(catalog, "r1", {"pairs": [str(directory / "0.parquet")]})
        assert catalog.resolve("observed.pairs").files[0].startswith(warehouse)
    assert not (tmp_path / "work").exists()


def test_columns_can_be_added_later(
    catalog: Catalog,
    stage: Callable[..., Any],
    as_arrow: Callable[..., pa.Table],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When a table has gained a column, new versions have it and old ones are read as they were."""
    publish(catalog, "r1", stage("r1", {"pairs": [{"id": "1"}]}))
    wider = TABLES["pairs"].append(pa.field("judge", pa.string()))
    monkeypatch.setitem(TABLES, "pairs", wider)
    made = pa.table(
        {
            **dict(zip(wider.names[:-1], [pa.nulls(1, f.type) for f in wider][:-1], strict=True)),
            "judge": ["j"],
        }
    )
    publish(catalog, "bad", write(catalog, made.cast(wider)))
    assert catalog.arrow("observed.pairs")["judge"].to_pylist() == ["j"]
    assert "judge" not in catalog.arrow("observed.pairs@2026.11.21.1").schema.names
    iceberg = catalog._iceberg.load_table(("observed", "pairs")).scan().to_arrow()
    assert iceberg["judge"].to_pylist() == ["j"]


@pytest.mark.slow
def test_datasets_reads_what_was_committed(catalog: Catalog, stage: Callable[..., Any]) -> None:
    """A dataset opens as `datasets.Dataset` with messages as trainers expect them."""
    publish(catalog, "r1", stage("r1"))
    pairs = catalog.dataset("observed.pairs")
    assert pairs.num_rows == catalog.resolve("observed.pairs").rows
    assert str(pairs.features["prompt"]) == "List({'role': Value('string'), 'content': Value('string')})"
    assert pairs[0]["prompt"] == catalog.head("observed.pairs", 1)["prompt"].to_list()[0]
