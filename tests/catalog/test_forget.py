"""What rests on a user: found through every reference, gone from new versions, and from all of them after a purge."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tilth.catalog import AuditReport, Catalog, Check, Release, Version
from tilth.catalog import forget as room
from tilth.catalog.forget import carry_out, expired, plan
from tilth.catalog.forgotten import Forgotten
from tilth.catalog.references import NO_ROWS, REFERENCES, Reference, resting_on
from tilth.schemas import TABLES, ChecksFailed
from tilth.schemas.across import ACROSS, Resolves

Rows = dict[str, list[dict[str, Any]]]
Stage = Callable[..., dict[str, list[str]]]

ANN, BEN = Forgotten(users=("a" * 32,)), Forgotten(users=("b" * 32,))
pytestmark = pytest.mark.slow
SHARED = "0" * 32  # the prompt that all of them ask


def of(name: str, *, log: str = "log") -> Rows:
    """A conversation of a user whose ids begin with one letter, with everything that was made of it."""
    ids = {part: f"{name}{n}".ljust(32, "0") for n, part in enumerate(("c", "f", "p", "r", "u", "q"), 1)}
    said = [
        {"role": "user", "content": "how deep do I sow peas?"},
        {"role": "assistant", "content": f"on the roof, {name}"},
        {"role": "user", "content": f"no, not on the roof, {name}"},
        {"role": "assistant", "content": f"five centimetres, {name}"},
    ]
    common = {"conversation_id": ids["c"], "method": "rules", "split": "train"}
    sides = {**common, "prompt_id": SHARED, "prompt": said[:1], "feedback_ids": [ids["f"]]}
    evidence = [{"label": "factual_error", "text": "not on the roof", "start": 4, "end": 19}]
    return {
        "conversations": [{
            "id": ids["c"], "source": log, "source_id": f"chat-{name}", "record_id": ids["c"], "record_rows": 1,
            "user_key": name * 32, "other_user_keys": [], "messages": said, "owned_from": 0, "reactions": [],
            "split": "train",
        }],
        "feedback": [{
            **common, "id": ids["f"], "message_index": 2, "target_index": 1, "polarity": "negative",
            "labels": ["factual_error"], "strength": 0.9, "evidence": evidence, "dialogue_state": "feedback",
            "on_refusal": False, "method_version": "1",
        }],
        "pairs": [{
            **sides, "id": ids["p"], "chosen": said[3:], "rejected": said[1:2], "origin": "observed_recovery",
            "chosen_score": 0.9, "rejected_score": -0.9, "margin": 1.8,
        }],
        "rationales": [{
            **common, "id": ids["r"], "pair_id": ids["p"], "kind": "user_complaint", "factors": [],
            "text": said[2]["content"], "evidence": [{"side": "user", "quote": "not on the roof"}],
            "feedback_ids": [ids["f"]],
        }],
        "quarantine": [
            {"id": ids["q"], "source": f"conversations#id={ids['c']}", "stage": "pair", "reason": "tie",
             "key": ids["u"], "detail": "equal", "payload": name, "source_rows": 0},
        ],
    }  # fmt: skip


def together(*worlds: Rows) -> Rows:
    """The rows of several users, one after the other."""
    return {table: [row for world in worlds for row in world.get(table, [])] for table in worlds[0]}


Publish = Callable[..., list[Version]]


@pytest.fixture
def publish(catalog: Catalog, stage: Stage) -> Publish:
    """Publishes rows, a part each, as a run of a family would."""

    def make(
        run_id: str, rows: Rows, family: str = "observed", parents: tuple[str, ...] = ()
    ) -> list[Version]:
        files = stage(run_id, rows, family)
        return catalog.publish(Release(family, run_id, files, {"tilth.parents": json.dumps(parents)}))

    return make


@pytest.fixture
def unaudited(monkeypatch: pytest.MonkeyPatch) -> None:
    """New versions pass without a look: for tests of what is published, and when."""
    monkeypatch.setattr(room, "audit", lambda *_, **__: AuditReport({}, ()))


def forget(catalog: Catalog, asked: Forgotten, *, purge: bool = False) -> room.Plan:
    planned = plan(catalog, asked, purge=purge)
    carry_out(catalog, planned, "receipt")
    expired(catalog, planned.holding)
    return planned


def ids(catalog: Catalog, name: str) -> list[str]:
    return catalog.frame(name).collect().get_column("id").to_list()


def content(catalog: Catalog) -> str:
    """Everything that any version holds."""
    frames = [
        catalog.frame(f"{name}@{version.version}").collect()
        for name in catalog.datasets()
        for version in catalog.versions(name)
    ]
    return "".join(frame.write_json() for frame in frames)


# References


def _fields(field: pa.Field, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield (*path, field.name)
    kind = field.type.value_type if pa.types.is_list(field.type) else field.type
    for inner in kind if pa.types.is_struct(kind) else ():
        yield from _fields(inner, (*path, field.name))


def test_every_column_of_ids_is_a_reference_or_known_to_be_none() -> None:
    """A new column that ends in _id or _ids cannot be overlooked, and what the audit resolves is a reference."""
    known = {(one.table, one.path) for one in REFERENCES}
    named = {
        (table, path)
        for table, schema in TABLES.items()
        for field in schema
        for path in _fields(field)
        if path[-1].endswith(("_id", "_ids"))
    }
    assert {path[-1] for _, path in named - known} == set(NO_ROWS)
    resolved = {
        Reference(table, (one.column,), one.target)
        for table, checks in ACROSS.items()
        for one in checks
        if isinstance(one, Resolves)
    }
    assert resolved <= set(REFERENCES)


def test_what_rests_on_a_row_is_found_through_everything_between(stage: Stage) -> None:
    """Through feedback, a criterion's own list of it, and a judgment by a criterion, to a pair of somebody else."""
    rows: Rows = {
        "feedback": [{"id": "f", "conversation_id": "c"}, {"id": "f2", "conversation_id": "c2"}],
        "rubrics": [
            {"id": "u", "conversation_id": "c2", "criteria": [{"id": "k2"}, {"id": "k", "feedback_ids": ["f2", "f"]}]},
            {"id": "u2", "conversation_id": "c2", "criteria": [{"id": "k3", "feedback_ids": ["f2"]}]},
        ],
        "judgments": [
            {"id": "j", "conversation_id": "c2", "attribute": "k2", "response_ids": ["s2"]},
            {"id": "j2", "conversation_id": "c2", "attribute": "k3", "response_ids": ["s2"]},
            {"id": "j3", "conversation_id": "c2", "attribute": "helpfulness", "response_ids": ["s2", "s"]},
        ],
        "responses": [{"id": "s", "conversation_id": "c"}, {"id": "s2", "conversation_id": "c2"}],
        "pairs": [
            {"id": "p", "conversation_id": "c2", "judgment_ids": ["j2", "j"]},
            {"id": "p2", "conversation_id": "c2", "judgment_ids": ["j2"], "feedback_ids": []},
        ],
        "rationales": [{"id": "r", "conversation_id": "c2", "pair_id": "p"}],
    }  # fmt: skip
    gone = resting_on(stage("run-1", rows), {"c"})
    assert gone == {
        "conversations": {"c"}, "feedback": {"f"}, "rubrics": {"u"}, "criteria": {"k", "k2"}, "judgments": {"j", "j3"},
        "responses": {"s"}, "pairs": {"p"}, "rationales": {"r"},
    }  # fmt: skip


# New versions


def test_a_new_version_holds_all_but_what_rests_on_the_user(catalog: Catalog, publish: Publish) -> None:
    """Rows of others stay as they are, in order, in the very files that they stood in; the same call finds nothing."""
    before = publish("run-1", together(of("a"), of("b"), of("c")))
    old = {version.table: catalog.frame(f"{version.name}@{version.version}").collect() for version in before}
    planned = forget(catalog, BEN)
    assert planned.changes[0].rows == dict.fromkeys(old, 1)
    for version in before:
        new = catalog.resolve(version.name)
        kept = old[version.table].filter(~pl.col("id").str.starts_with("b"))
        assert catalog.frame(version.name).collect().equals(kept)
        assert set(new.files) < set(version.files)
        assert (new.properties["tilth.forgot"], new.properties["tilth.forgot_from"]) == (
            "receipt",
            version.version,
        )
        assert catalog.frame(f"{version.name}@{version.version}").collect().equals(old[version.table])
    again = plan(catalog, BEN)
    assert not again.changes
    assert len(catalog.versions("observed.pairs")) == 2


@pytest.mark.usefixtures("unaudited")
def test_parts_with_rows_of_several_users_are_written_again(catalog: Catalog, publish: Publish) -> None:
    """A part that holds others' rows too keeps them, in order, as they were."""
    made = publish("run-1", together(of("a"), of("b"), of("c")))
    rows = catalog.arrow("observed.pairs")
    home = Path(catalog.staging("observed", "pairs", "run-2"))
    home.mkdir(parents=True)
    pq.write_table(rows, home / "0.parquet", row_group_size=2)
    files = {version.table: list(version.files) for version in made}
    catalog.publish(Release("observed", "run-2", {**files, "pairs": [str(home / "0.parquet")]}))
    forget(catalog, BEN)
    assert catalog.arrow("observed.pairs").equals(rows.take([0, 2]))


@pytest.mark.usefixtures("unaudited")
def test_a_user_of_an_old_or_dropped_version_is_found(catalog: Catalog, publish: Publish) -> None:
    """The latest version has nothing of them and stays; a purge removes the old one and the dropped one."""
    first = publish("run-1", together(of("a"), of("b")))[0].version
    second = publish("run-2", of("a"))[0].version
    third = publish("run-3", of("c"))[0].version
    catalog.drop("observed", second)
    planned = forget(catalog, ANN, purge=True)
    assert planned.changes == ()
    assert planned.holding == {"observed": (first, second)}
    assert [version.version for version in catalog.versions("observed.pairs")] == [third]
    assert catalog.dropped("observed") == {}
    assert not plan(catalog, ANN, purge=True).holding


@pytest.mark.usefixtures("unaudited")
def test_what_was_made_of_an_older_version_leads_to_that_version_without_the_user(
    catalog: Catalog, publish: Publish
) -> None:
    """Both versions of the parent are made again, the newer one last; references of the derived rows resolve."""
    old = publish("run-1", together(of("a"), of("b")))[0].version
    publish("run-2", together(of("a"), of("c")))
    reasons = {"rationales": [*of("a")["rationales"], *of("b")["rationales"]]}
    publish("run-3", reasons, "derived", (f"observed.pairs@{old}",))
    forget(catalog, ANN, purge=True)
    assert ids(catalog, "observed.pairs") == [of("c")["pairs"][0]["id"]]
    (parent,) = json.loads(catalog.resolve("derived.rationales").properties["tilth.parents"])
    assert ids(catalog, parent) == [of("b")["pairs"][0]["id"]]
    assert ids(catalog, "derived.rationales") == [of("b")["rationales"][0]["id"]]
    assert "on the roof, a" not in content(catalog)


@pytest.mark.usefixtures("unaudited")
def test_a_derived_version_without_the_user_follows_its_parent(catalog: Catalog, publish: Publish) -> None:
    """It loses no row, yet a purge would leave it without a parent: it is made again over the parent's new version."""
    old = publish("run-1", together(of("a"), of("b")))[0].version
    before = publish("run-2", {"rationales": of("b")["rationales"]}, "derived", (f"observed.pairs@{old}",))
    forget(catalog, ANN, purge=True)
    after = catalog.resolve("derived.rationales")
    (parent,) = json.loads(after.properties["tilth.parents"])
    assert ids(catalog, parent) == [of("b")["pairs"][0]["id"]]
    assert after.files == before[0].files


@pytest.mark.usefixtures("unaudited")
def test_tags_move_to_the_version_without_the_user(catalog: Catalog, publish: Publish) -> None:
    """A tagged version is made again before a purge removes it, and the newest stays the newest."""
    old = publish("run-1", together(of("a"), of("b")))[0].version
    publish("run-2", of("c"))
    catalog.tag("observed", old, "golden")
    forget(catalog, ANN, purge=True)
    assert ids(catalog, "observed.pairs@golden") == [of("b")["pairs"][0]["id"]]
    assert ids(catalog, "observed.pairs") == [of("c")["pairs"][0]["id"]]


@pytest.mark.usefixtures("unaudited")
def test_quarantine_keeps_only_what_is_known_to_be_others(catalog: Catalog, publish: Publish) -> None:
    """Rows that name what is forgotten go; payloads stay only where a row names what stays."""
    row = {"stage": "assign", "reason": "duplicate", "detail": "", "payload": "text", "source_rows": 1}
    asides = {
        "by its place": {"source": "log", "key": "log#id=chat-a"},
        "of another": {"source": "log", "key": "log#id=chat-b"},
        "unread": {"source": "log", "key": "log#row=7", "stage": "ingest"},
        "named": {"source": "pairs", "key": f"pairs#id={of('a')['pairs'][0]['id']}", "stage": "rationales"},
        "named in the payload": {"source": "x", "key": "x", "stage": "pair", "payload": of("a")["pairs"][0]["id"]},
        "of ben": {"source": "x", "key": "y", "stage": "pair", "payload": of("b")["conversations"][0]["id"]},
        "of nobody": {"source": "x", "key": "z", "stage": "pair"},
        "of the prompt": {"source": "rubrics", "key": f"rubrics#prompt={SHARED}", "stage": "rubrics"},
    }  # fmt: skip
    rows = [{**row, "id": f"{n}".ljust(32, "9"), **one} for n, one in enumerate(asides.values())]
    publish("run-1", {**together(of("a"), of("b")), "quarantine": rows})
    forget(catalog, ANN)
    left = dict(catalog.frame("observed.quarantine").select("id", "payload").collect().iter_rows())
    names = {row["id"]: name for row, name in zip(rows, asides, strict=True)}
    assert {names[one]: payload is not None for one, payload in left.items()} == {
        "of another": False,
        "unread": False,
        "of ben": True,
        "of nobody": False,
        "of the prompt": False,
    }


# When it goes wrong


@pytest.mark.usefixtures("unaudited")
def test_killed_between_two_publishes_the_same_call_completes_it(
    catalog: Catalog, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was published stays, once; the rest follows; the newest version is the one that was."""
    old = publish("run-1", together(of("a"), of("b")))[0].version
    publish("run-2", together(of("a"), of("c")))
    reasons = {"rationales": [*of("a")["rationales"], *of("b")["rationales"]]}
    publish("run-3", reasons, "derived", (f"observed.pairs@{old}",))
    for moment in (1, 2):
        with monkeypatch.context() as patch:
            left = [None] * moment
            real = catalog.publish

            def killed(release: Release, real: Any = real, left: list[None] = left) -> list[Version]:
                if not left:
                    raise KeyboardInterrupt
                left.pop()
                return real(release)

            patch.setattr(catalog, "publish", killed)
            with pytest.raises(KeyboardInterrupt):
                forget(catalog, ANN)
    forget(catalog, ANN, purge=True)
    assert ids(catalog, "observed.pairs") == [of("c")["pairs"][0]["id"]]
    assert ids(catalog, "derived.rationales") == [of("b")["rationales"][0]["id"]]
    assert "on the roof, a" not in content(catalog)
    assert len(catalog.versions("observed.pairs")) == 2


def test_a_red_audit_publishes_nothing(
    catalog: Catalog, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When one of several families would fail its audit, none of them has a new version, and the check is named."""
    old = publish("run-1", together(of("a"), of("b")))[0].version
    publish("run-2", {"rationales": of("a")["rationales"]}, "derived", (f"observed.pairs@{old}",))
    failed = Check("rationales", "rows", "type", "1 or more", 0, "critical", success=False, why="")

    def red(files: Any, **_: Any) -> AuditReport:
        return AuditReport({}, () if "pairs" in files else (failed,))

    monkeypatch.setattr(room, "audit", red)
    with pytest.raises(ChecksFailed, match="rationales: rows is 0"):
        forget(catalog, ANN)
    assert len(catalog.versions("observed.pairs")) == len(catalog.versions("derived.rationales")) == 1
