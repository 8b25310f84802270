"""`collect` deletes what nothing needs, and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tilth.catalog import Catalog, Collected, Release, collect
from tilth.catalog.iceberg import Left
from tilth.schemas import TilthError

pytestmark = pytest.mark.slow
DAY = date(2026, 11, 21)
V1, V2, V3 = (f"2026.11.21.{number}" for number in (1, 2, 3))
LONG_AGO = (datetime.now(UTC) - timedelta(days=30)).timestamp()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The workspace of `catalog`."""
    return tmp_path / "my work #1"


def aged(path: str | Path, text: str | None = None) -> str:
    """Makes a file, or everything below a directory, a month old."""
    path = Path(path)
    if text is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for one in [path, *path.rglob("*")]:
        os.utime(one, (LONG_AGO, LONG_AGO))
    return str(path)


def run(catalog: Catalog, root: Path, live: tuple[str, ...] = (), **more: Any) -> Collected:
    return collect(catalog, str(root), live=lambda _, run_id: run_id in live, **more)


@pytest.fixture
def publish(catalog: Catalog, stage: Callable[..., Any]) -> Callable[..., Any]:
    """Publishes a row of pairs whose id is the run's."""

    def publish(run_id: str, **more: Any) -> Any:
        files = stage(run_id, {"pairs": [{"id": run_id}]})
        return catalog.publish(Release("observed", run_id, files, date=DAY, **more))

    return publish


def backdate(catalog: Catalog, label: str) -> None:
    """Lets a version have been dropped a month ago."""
    with catalog._iceberg.changing("observed") as session:
        run_id = catalog._iceberg.labels("observed", session).dropped[label].run_id
        left = Left(datetime.fromtimestamp(LONG_AGO, UTC), run_id).written()
        catalog._iceberg.put(session, "observed", {f"dropped.{label}": left})


def test_what_a_version_holds_stays(catalog: Catalog, publish: Any, root: Path) -> None:
    """However old, nothing is deleted that a version needs: rows, manifests, metadata, its audit, its sources."""
    house = f"{catalog.warehouse}/observed"
    kept = [aged(f"{house}/audits/a.json", "{}"), aged(f"{house}/sources/a.json", "{}")]
    publish("a", properties={"tilth.audit_uri": kept[0], "tilth.sources_uri": kept[1]})
    publish("b")
    catalog.drop("observed", V2)  # a moment ago
    kept.append(aged(f"{house}/checks/pairs@{V1}/now.json", "{}"))
    kept.append(aged(f"{house}/checks/pairs@{V2}/now.json", "{}"))
    aged(root)
    assert run(catalog, root).uris == ()
    assert all(Path(one).exists() for one in kept)
    catalog.restore("observed", V2)
    assert [catalog.arrow(f"observed.pairs@{label}").num_rows for label in (V1, V2)] == [1, 1]


def test_what_nothing_holds_goes(catalog: Catalog, stage: Any, publish: Any, root: Path) -> None:
    """Leavings of runs and publishes that came to nothing, results about versions that are gone: counted by kind."""
    house = f"{catalog.warehouse}/observed"
    publish("a")
    loose = {
        "data": stage("dead", {"pairs": [{}]})["pairs"][0],
        "metadata": aged(f"{house}/pairs/metadata/00009-x.metadata.json", "{}"),
        "audits": aged(f"{house}/audits/dead.json", "{}"),
        "sources": aged(f"{house}/sources/dead.json", "{}"),
        "checks": aged(f"{house}/checks/pairs@{V3}/now.json", "{}"),
        "runs": aged(root / "runs/dead/stages/ingest/done/1.json", "{}"),
    }
    aged(loose["data"])
    young = stage("young", {"pairs": [{}]})["pairs"][0]
    seen = run(catalog, root, dry_run=True)
    assert all(Path(one).exists() for one in loose.values())
    done = run(catalog, root)
    assert seen == Collected(done.versions, done.runs, done.counts, done.uris, dry_run=True)
    assert set(done.uris) == set(loose.values())
    assert done.runs == ("dead",)
    assert {kind: count.files for kind, count in done.counts.items()} == dict.fromkeys(loose, 1)
    assert done.counts["audits"].size_bytes == 2
    assert not any(Path(one).exists() for one in loose.values())
    assert not (root / "runs/dead").exists()
    assert not Path(loose["data"]).parent.exists()
    assert Path(young).exists()
    assert catalog.arrow("observed.pairs").num_rows == 1


def test_a_live_run_keeps_what_it_has(catalog: Catalog, stage: Any, root: Path) -> None:
    """However old its files are: staged parts, directory, audit. So does a dead run that wrote something lately."""
    kept = [
        aged(root / "runs/lives/stages/ingest/done/1.json", "{}"),
        aged(stage("lives", {"pairs": [{}]})["pairs"][0]),
        aged(f"{catalog.warehouse}/observed/audits/lives.json", "{}"),
        aged(stage("rests", {"pairs": [{}]})["pairs"][0]),
    ]
    (root / "runs/rests").mkdir()
    (root / "runs/rests/note").touch()
    assert run(catalog, root, live=("lives",)).uris == ()
    assert all(Path(one).exists() for one in kept)
    assert set(run(catalog, root).uris) == set(kept[:3])


def test_a_stream_keeps_its_parts(catalog: Catalog, stage: Any, publish: Any, root: Path) -> None:
    """What finished tasks of a stream have written stays, even when the version that had it has expired."""
    part = publish("a")[0].files[0]
    other = aged(stage("b", {"pairs": [{}]})["pairs"][0])
    manifest = root / "streams/s/stages/pairs/done/1.json"
    outputs = {"pairs": [{"uri": f"file://{part}", "rows": 1}]}
    aged(manifest, json.dumps({"task": "1", "key": "k", "outputs": outputs, "counts": {}}))
    catalog.drop("observed")
    backdate(catalog, V1)
    aged(root)
    done = run(catalog, root)
    assert done.versions == (f"observed@{V1}",)
    assert other in done.uris
    assert Path(part).exists()
    assert manifest.exists()
    manifest.unlink()
    assert run(catalog, root).uris == (part,)


def test_an_unreadable_stream_stops_everything(catalog: Catalog, stage: Any, root: Path) -> None:
    """When it is not known what a stream needs, nothing is deleted at all."""
    loose = aged(stage("dead", {"pairs": [{}]})["pairs"][0])
    aged(root / "streams/s/stages/pairs/done/1.json", '{"outputs": [')
    with pytest.raises(TilthError, match="stream"):
        run(catalog, root)
    assert Path(loose).exists()


def test_dropped_versions_expire_after_the_grace(catalog: Catalog, publish: Any, root: Path) -> None:
    """Not before; and not while a run is live that began before they were dropped."""
    publish("a")
    part = publish("b")[0].files[0]
    catalog.drop("observed", V2)
    assert run(catalog, root).versions == ()
    backdate(catalog, V2)
    lock = root / "runs/reads.lock"
    aged(lock, "")
    os.utime(lock, (LONG_AGO - 60, LONG_AGO - 60))
    assert run(catalog, root, live=("reads",)).versions == ()
    assert part in run(catalog, root, dry_run=True).uris
    assert Path(part).exists()
    done = run(catalog, root)
    assert done.versions == (f"observed@{V2}",)
    assert part in done.uris
    assert not Path(part).exists()
    assert catalog.arrow("observed.pairs").num_rows == 1
    assert catalog.dropped("observed") == {}


def test_what_is_being_published_stays_without_any_grace(catalog: Catalog, stage: Any, root: Path) -> None:
    """Files of the last minutes are not swept, since a publish may be about to name them."""
    part = stage("now", {"pairs": [{}]})["pairs"][0]
    assert run(catalog, root, grace=timedelta(0)).uris == ()
    assert Path(part).exists()


def test_a_part_that_is_swept_under_a_publish_is_not_published(
    catalog: Catalog, stage: Any, publish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publish looks again whether its parts are there when nothing can delete them any more."""
    from tilth.catalog.iceberg import replace

    publish("a")
    files = stage("b", {"pairs": [{}]})

    def swept(*args: Any) -> None:
        replace(*args)
        Path(files["pairs"][0]).unlink()

    monkeypatch.setattr("tilth.catalog.iceberg.replace", swept)
    with pytest.raises(TilthError, match="run=b"):
        catalog.publish(Release("observed", "b", files, date=DAY))
    assert catalog.resolve("observed.pairs").version == V1
    assert not [one for one in Path(catalog.warehouse).rglob("*.avro") if str(one) not in catalog.reachable()]
