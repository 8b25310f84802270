"""What differs between two versions: nothing is missed, nothing invented, and a label that turned is told as that."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any, Final

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.catalog import Catalog, Release
from tilth.catalog.diff import DIFFERENCES, KINDS, diff, differences
from tilth.schemas import TABLES, BadInput, NotFound, conform

pytestmark = pytest.mark.slow
DAY = date(2026, 11, 21)
WORDS: Final = ("on the roof", "in rows", "in May", "")
Row = dict[str, Any]


def said(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content}]


def identity(number: int) -> str:
    return f"{number:032x}"


def frame(table: str, rows: list[Row]) -> pl.DataFrame:
    """Rows with all columns of a table."""
    known = {name: [row.get(name) for row in rows] for name in {name for row in rows for name in row}}
    return conform(pl.DataFrame(known), table) if rows else conform(pl.DataFrame({"id": []}), table)


# Rows from so few values that two versions often say otherwise about one thing.
def versions(row: st.SearchStrategy[Row]) -> st.SearchStrategy[list[Row]]:
    return st.lists(row, max_size=8, unique_by=lambda one: one["id"])


few = st.integers(0, 11).map(identity)
labels = {
    "pairs": st.builds(
        lambda row_id, prompt, sides, margin, split: {
            "id": row_id,
            "prompt_id": identity(prompt),
            "prompt": said("user", f"question {prompt}"),
            "chosen": said("assistant", sides[0]),
            "rejected": said("assistant", sides[1]),
            "margin": margin,
            "split": split,
            "origin": "observed_recovery",
        },
        few,
        st.integers(0, 1),
        st.permutations(WORDS).map(lambda words: words[:2]),
        st.sampled_from([0.5, 1.0]),
        st.sampled_from(["train", "test", None]),
    ),
    "unpaired": st.builds(
        lambda row_id, prompt, word, label: {
            "id": row_id,
            "prompt_id": identity(prompt),
            "completion": said("assistant", word),
            "label": label,
        },
        few,
        st.integers(0, 1),
        st.sampled_from(WORDS),
        st.booleans(),
    ),
    "feedback": st.builds(
        lambda row_id, turn, polarity, names: {
            "id": row_id,
            "conversation_id": identity(0),
            "message_index": turn,
            "target_index": 1,
            "polarity": polarity,
            "labels": names,
        },
        few,
        st.integers(2, 3),
        st.sampled_from(["positive", "negative"]),
        st.sampled_from([["style"], ["style", "revision"], ["revision", "style"], []]),
    ),
    "conversations": st.builds(
        lambda row_id, word, model: {"id": row_id, "messages": said("user", word), "model": model},
        few,
        st.sampled_from(WORDS),
        st.sampled_from(["a", None]),
    ),
}
two_versions = st.sampled_from(sorted(labels)).flatmap(
    lambda table: st.tuples(st.just(table), versions(labels[table]), versions(labels[table]))
)


def about(table: str, row: Row) -> tuple[Any, Any]:
    """What a row's label is about, and the label, in plain Python."""
    if table == "pairs":
        sides = [row[side][0]["content"] for side in ("chosen", "rejected")]
        return (row["prompt_id"], *sorted(sides)), sides
    if table == "unpaired":
        return (row["prompt_id"], row["completion"][0]["content"]), row["label"]
    if table == "feedback":
        return (row["conversation_id"], row["message_index"]), (row["polarity"], sorted(row["labels"]))
    return row["id"], None


@settings(max_examples=60, deadline=None)
@given(two_versions)
def test_the_difference_leads_from_one_version_to_the_other(case: tuple[str, list[Row], list[Row]]) -> None:
    """The older version without what is gone, with what has come from the newer, is the newer."""
    table, before, after = case
    found = differences(table, frame(table, before).lazy(), frame(table, after).lazy())
    assert dict(found.schema) == DIFFERENCES
    gone, come = (set(found.get_column(name).drop_nulls()) for name in ("id_before", "id_after"))
    assert len(gone) + found.get_column("id_before").null_count() == found.height
    applied = [row for row in before if row["id"] not in gone] + [row for row in after if row["id"] in come]
    assert frame(table, applied).sort("id").equals(frame(table, after).sort("id"))
    olds, news = ({row["id"]: row for row in rows} for rows in (before, after))
    for row in found.iter_rows(named=True):
        old, new = olds.get(row["id_before"]), news.get(row["id_after"])
        assert (old is None, new is None) == (row["kind"] == "added", row["kind"] == "removed")
        if old is None or new is None:
            continue
        if row["kind"] == "changed":
            assert row["columns"] == [name for name in TABLES[table].names if old.get(name) != new.get(name)]
        if row["kind"] == "relabelled":
            (subject, label), (same, other) = about(table, old), about(table, new)
            assert (subject == same, label == other) == (True, False)


@settings(max_examples=40, deadline=None)
@given(two_versions)
def test_the_other_way_round_it_is_the_mirror(case: tuple[str, list[Row], list[Row]]) -> None:
    """What was added is removed and the couples are the same; with itself, nothing differs."""
    table, *both = case
    before, after = (frame(table, rows).lazy() for rows in both)
    there, back = differences(table, before, after), differences(table, after, before)
    turned = {"added": "removed", "removed": "added"}
    mirrored = {
        (turned.get(row["kind"], row["kind"]), row["id_after"], row["id_before"]) for row in back.to_dicts()
    }
    assert {(row["kind"], row["id_before"], row["id_after"]) for row in there.to_dicts()} == mirrored
    assert differences(table, before, before).is_empty()


@settings(max_examples=30, deadline=None)
@given(versions(labels["pairs"]), st.randoms(use_true_random=False))
def test_every_turned_pair_is_found(pairs: list[Row], chance: Any) -> None:
    """Pairs whose sides change places under another id are relabelled, unless the same prompt has both already."""
    pairs = list({about("pairs", pair)[0]: pair for pair in pairs}.values())
    turned = {pair["id"] for pair in pairs if chance.random() < 0.5}
    after = [
        {**pair, "id": identity(100 + n), "chosen": pair["rejected"], "rejected": pair["chosen"]}
        if pair["id"] in turned
        else pair
        for n, pair in enumerate(pairs)
    ]
    found = differences("pairs", frame("pairs", pairs).lazy(), frame("pairs", after).lazy())
    assert set(found.get_column("kind")) <= {"relabelled"}
    assert set(found.get_column("id_before")) == turned


def test_the_same_label_under_another_id_is_not_turned() -> None:
    """Of three labels of one reply, the two that agree are one removed and one added, the third is new."""
    label = {"prompt_id": identity(0), "completion": said("assistant", "in May"), "label": True}
    before = frame("unpaired", [{**label, "id": identity(1)}])
    after = frame("unpaired", [{**label, "id": identity(2)}, {**label, "id": identity(3), "label": False}])
    found = differences("unpaired", before.lazy(), after.lazy())
    assert found.get_column("kind").to_list() == ["added", "added", "removed"]


@pytest.fixture
def two(catalog: Catalog, stage: Callable[..., Any], rows: Callable[[], Any]) -> Catalog:
    """Two versions: in the newer a label turned, one is set aside, one is new, and a pair has another margin."""
    old, new = rows(), rows()
    old["unpaired"].append({**old["unpaired"][0], "id": "6" * 32, "completion": said("assistant", "in May")})
    new["pairs"][0] |= {"margin": 1.0, "chosen_score": 0.1, "split": "test"}
    new["unpaired"][1] |= {"id": "7" * 32, "label": True}
    new["unpaired"].append({**new["unpaired"][0], "id": "8" * 32, "completion": said("assistant", "in June")})
    new["quarantine"].append(
        {**new["quarantine"][0], "id": "9" * 32, "reason": "contradictory", "key": "6" * 32}
    )
    catalog.publish(Release("observed", "r1", stage("r1", old), date=DAY))
    shared = {"rationales": list(catalog.resolve("observed.rationales").files)}
    catalog.publish(Release("observed", "r2", stage("r2", new) | shared, date=DAY))
    catalog.tag("observed", "2026.11.21.1", "golden")
    return catalog


def test_versions_are_compared_by_name_label_or_tag(two: Catalog) -> None:
    """Without a version it is the last two; a tag or a version names either end; files that both hold are not read."""
    found = diff(two, "observed.unpaired")
    assert (found.before, found.after) == ("observed.unpaired@2026.11.21.1", "observed.unpaired@2026.11.21.2")
    assert found.counts() == {"added": 1, "removed": 1, "changed": 0, "relabelled": 1}
    assert found.reasons() == {"contradictory": 1}
    assert found.ids(1)["relabelled"][0]["id_before"] == "3" * 32
    assert found.groups()[0] == {"kind": "added", "split": "train", "origin": "rules", "rows": 1}
    for name, other in (
        ("observed.unpaired@golden", None),
        ("observed.unpaired@2026.11.21.1", "2026.11.21.2"),
        ("observed.unpaired@golden", "observed.unpaired@2026.11.21.2"),
    ):
        assert diff(two, name, other).rows.equals(found.rows)
    back = diff(two, "observed.unpaired@2026.11.21.2", "golden")
    assert back.counts() == {"added": 1, "removed": 1, "changed": 0, "relabelled": 1}
    pairs = diff(two, "observed.pairs")
    assert pairs.counts() == {"added": 0, "removed": 0, "changed": 1, "relabelled": 0}
    assert pairs.columns() == {"chosen_score": 1, "margin": 1, "split": 1}
    assert diff(two, "observed.rationales").rows.is_empty()
    assert list(found.counts()) == list(KINDS)


def test_what_cannot_be_compared_is_an_error(two: Catalog) -> None:
    """Two tables, an unknown version, and a dataset with one version only."""
    with pytest.raises(BadInput, match="one table"):
        diff(two, "observed.pairs@golden", "observed.unpaired@golden")
    with pytest.raises(NotFound):
        diff(two, "observed.pairs@1999.01.01.1")
    two.drop("observed", "2026.11.21.1", force=True)
    with pytest.raises(BadInput, match="wanted: two"):
        diff(two, "observed.pairs")
