"""What a publication's files hold: every row once, in order, in equal bytes, and nothing that must not go out."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.bundles import bundle, pair, planned, version
from tilth.catalog.publishing import Bundle, shards, write
from tilth.schemas import TABLES, BadInput, ChecksFailed

MAIL = "write to jo.miller@greenhouse-seeds.com"
ROW = st.builds(
    pair,
    st.integers(0, 10**6),
    st.sampled_from(["train", "validation", "test", None]),
    st.text(st.characters(codec="utf-8"), max_size=40),
)


def published(made: Bundle) -> dict[str, list[dict[str, Any]]]:
    """The rows of the files by split, in the order of their names."""
    found: dict[str, list[dict[str, Any]]] = {}
    for shard in sorted(made.shards, key=lambda one: one.path):
        found.setdefault(shard.split, []).extend(pq.read_table(shard.local).to_pylist())
    return found


def given_rows(parts: list[list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in (row for part in parts for row in part):
        whole = {**dict.fromkeys(TABLES["pairs"].names), **row}
        found.setdefault(row["split"] or "train", []).append(whole)
    return found


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(st.lists(st.lists(ROW, min_size=1, max_size=6), min_size=1, max_size=4), st.integers(1, 7))
def test_every_row_goes_out_once_in_order(parts: list[list[dict[str, Any]]], group: int) -> None:
    """Whatever the parts, splits and row groups: the files of a split hold its rows, in order, with their types."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patched:
        patched.setattr(shards, "GROUP_ROWS", group)
        folder = Path(name)
        made = write(planned(version(folder, "pairs", parts), drop_pii=True), folder / "out")
        left = given_rows(parts)
        assert made.configs[0].left_out == 0
        assert published(made) == left
        assert made.configs[0].rows == {split: len(rows) for split, rows in left.items()}
        assert all(pq.read_schema(one.local).equals(TABLES["pairs"]) for one in made.shards)
        # The same rows in one part, in groups of another size, are known by the same digest.
        patched.setattr(shards, "GROUP_ROWS", 3)
        merged = version(folder / "merged", "pairs", [[row for part in parts for row in part]])
        assert write(planned(merged), folder / "out-merged").digest == made.digest


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    """Writing a version twice gives the same files; one changed word changes the digest."""
    one, two = bundle(tmp_path / "one"), bundle(tmp_path / "two")
    assert [(a.path, a.sha256) for a in one.shards] == [(b.path, b.sha256) for b in two.shards]
    assert one.digest == two.digest
    assert bundle(tmp_path / "three", said="six centimetres").digest != one.digest


def test_large_splits_are_cut_into_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file ends when it is large enough; names count the files, and nothing is lost between them."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 5_000)
    monkeypatch.setattr(shards, "GROUP_ROWS", 50)
    rows = [pair(number) for number in range(400)]
    made = write(planned(version(tmp_path, "pairs", [rows])), tmp_path / "out")
    count = len(made.shards)
    assert count > 2
    assert [shard.path for shard in made.shards] == [
        f"pairs/train-{number:05d}-of-{count:05d}.parquet" for number in range(count)
    ]
    assert published(made)["train"] == given_rows([rows])["train"]


def test_long_rows_make_small_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row group is bounded by its bytes, so that the Hub's viewer can read one."""
    monkeypatch.setattr(shards, "GROUP_BYTES", 50_000)
    made = write(
        planned(version(tmp_path, "pairs", [[pair(n, said="x" * 9_000) for n in range(40)]])),
        tmp_path / "out",
    )
    footer = pq.read_metadata(made.shards[0].local)
    assert footer.num_row_groups >= 4
    assert max(footer.row_group(n).num_rows for n in range(footer.num_row_groups)) <= 12


def test_files_are_as_the_hub_likes_them(tmp_path: Path) -> None:
    """Every column has a page index and is compressed by zstd."""
    footer = pq.read_metadata(bundle(tmp_path).shards[0].local)
    columns = [footer.row_group(0).column(number) for number in range(footer.num_columns)]
    assert all(column.has_offset_index and column.compression == "ZSTD" for column in columns)


def test_personal_data_is_refused_or_left_out(tmp_path: Path) -> None:
    """Rows with personal data are counted over what would go out; with drop_pii they are nowhere in the files."""
    rows = [pair(1), pair(2, said=MAIL), pair(3, "test", MAIL)]
    found = version(tmp_path, "pairs", [rows[:2], rows[2:]])
    with pytest.raises(ChecksFailed, match="email in 2 rows") as refused:
        raise write(planned(found), tmp_path / "all").refusals()[0]
    assert "miller" not in str(refused.value)
    made = write(planned(found, drop_pii=True), tmp_path / "some")
    assert made.refusals() == []
    assert made.configs[0].left_out == 2
    assert published(made) == {"train": given_rows([rows[:1]])["train"]}


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    """When every row holds personal data there is nothing to publish."""
    found = version(tmp_path, "pairs", [[pair(1, said=MAIL)]])
    with pytest.raises(BadInput, match="nothing of observed@"):
        write(planned(found, drop_pii=True), tmp_path / "out")


def test_where_conversations_were_read_from_stays_private(tmp_path: Path) -> None:
    """The path of a source does not go out; all else of a conversation does."""
    said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    row = {"id": "c" * 32, "source": "/home/jo/secret-client/log.jsonl", "messages": said, "split": "train"}
    made = write(planned(version(tmp_path, "conversations", [[row]])), tmp_path / "out")
    [went] = published(made)["train"]
    assert (went["source"], went["messages"]) == (None, said)
    assert b"secret-client" not in made.shards[0].local.read_bytes()


def test_labels_are_counted_over_what_goes_out(tmp_path: Path) -> None:
    """The counts of a card are those of the published rows, lists by their items."""
    rows = [
        {"id": "1" * 32, "polarity": "negative", "labels": ["revision", "style"], "split": "train"},
        {"id": "2" * 32, "polarity": "positive", "labels": [], "split": "train"},
        {"id": "3" * 32, "polarity": "negative", "labels": ["style"], "split": "test"},
    ]
    made = write(planned(version(tmp_path, "feedback", [rows[:1], rows[1:]])), tmp_path / "out")
    assert made.configs[0].counted == {
        "polarity": {"negative": 2, "positive": 1},
        "labels": {"revision": 1, "style": 2},
    }


def test_types_are_those_of_the_table(tmp_path: Path) -> None:
    """Columns without any value keep their type, so that versions can be read together."""
    made = bundle(tmp_path, pairs=1)
    schema = pq.read_schema(made.shards[0].local)
    assert schema.field("user_preferences").type == pa.list_(pa.field("element", pa.string()))
    assert pl.read_parquet(made.shards[0].local).height == 1
