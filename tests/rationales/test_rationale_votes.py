"""Votes over samples of a rationale: a majority decides, the medoid stands for it, and nothing else moves."""

from __future__ import annotations

from typing import Any, Final

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import BadInput
from tilth.transforms.rationales.votes import medoid, vote

SCHEMA: Final = {
    "id": pl.String,
    "pair_id": pl.String,
    "kind": pl.String,
    "side": pl.String,
    "text": pl.String,
    "sample_index": pl.Int32,
    "recovers_label": pl.Boolean,
    "drawn": pl.Int32,
    "model": pl.String,
}


def samples(*verdicts: bool | None, drawn: int | None = None, **fields: Any) -> pl.DataFrame:
    """One group of samples with these verdicts; the ids and texts are numbered."""
    plain = {"pair_id": "p", "kind": "general", "side": None, "model": "m", "drawn": drawn or len(verdicts)}
    rows = [
        {
            **plain,
            **fields,
            "text": f"it is clear and kind {at}",
            "sample_index": at,
            "recovers_label": verdict,
        }
        for at, verdict in enumerate(verdicts)
    ]
    named = [
        {**row, "id": f"{row['pair_id']}{row['kind']}{row['side']}{row['sample_index']}"} for row in rows
    ]
    return pl.DataFrame(named, schema=SCHEMA)


GROUPS: Final = st.lists(
    st.tuples(
        st.sampled_from(["p", "q"]),
        st.sampled_from(["general", "option"]),
        st.sampled_from([None, "chosen", "rejected"]),
        st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=5),
        st.integers(0, 2),
    ),
    max_size=5,
    unique_by=lambda group: group[:3],
)


def frame(groups: list[Any]) -> pl.DataFrame:
    made = [
        samples(*verdicts, drawn=len(verdicts) + failed, pair_id=pair, kind=kind, side=side)
        for pair, kind, side, verdicts, failed in groups
    ]
    return pl.concat([pl.DataFrame(schema=SCHEMA), *made])


@pytest.mark.parametrize(
    ("verdicts", "drawn", "share", "merged"),
    [
        ([True], 1, 1.0, 0),
        ([True, True, True], 3, 1.0, 2),
        ([True, True, False], 3, 2 / 3, 1),
        ([True, True, None], 3, 2 / 3, 1),
        ([True, True], 3, 2 / 3, 1),
        ([True, False], 2, None, 0),
        ([True, None], 2, None, 0),
        ([True], 2, None, 0),
        ([True, True], 4, None, 0),
        ([False, False], 2, None, 0),
        ([None], 1, None, 0),
    ],
)
def test_more_than_half_of_what_was_drawn_decides(
    verdicts: list[bool | None], drawn: int, share: float | None, merged: int
) -> None:
    """Failed samples and failed judges count against; a split vote is no majority."""
    voted = vote(samples(*verdicts, drawn=drawn))
    assert voted.kept.get_column("vote_share").to_list() == ([] if share is None else [share])
    assert voted.kept.get_column("samples").to_list() == ([] if share is None else [drawn])
    assert voted.merged == merged
    assert voted.kept.height + voted.dropped.height + voted.merged == len(verdicts)


def test_dropped_samples_say_how_the_vote_went() -> None:
    """All of a lost vote are set aside with its counts, and of a won one those that did not recover the label."""
    lost, won = vote(samples(True, False, None)).dropped, vote(samples(True, True, False)).dropped
    assert set(lost.get_column("reason")) == set(won.get_column("reason")) == {"label_not_recovered"}
    assert set(lost.get_column("detail")) == {"1 of 3 samples recover the label"}
    assert won.get_column("detail").to_list() == ["2 of 3 samples recover the label, this one does not"]
    assert won.columns == [*SCHEMA, "samples", "vote_share", "reason", "detail"]


def test_the_kept_one_is_the_medoid_of_those_that_recover_the_label() -> None:
    """A sample that speaks for the other side has no say in what is central, nor has a longer one."""
    texts = [
        "the eggs get cold water",
        "it gives cold water and a time",
        "it gives a time and cold water for eggs",
    ]
    texts += ["no time no water no eggs"] * 2
    rows = samples(True, True, True, False, False).with_columns(text=pl.Series(texts))
    assert vote(rows).kept.get_column("text").to_list() == [texts[2]]


@pytest.mark.slow
@settings(deadline=None)
@given(GROUPS, st.randoms(use_true_random=False))
def test_neither_order_nor_duplicates_change_a_vote(groups: list[Any], random: Any) -> None:
    """Rows shuffled and repeated give the same rows, and every sample is kept, merged or dropped exactly once."""
    rows = frame(groups)
    order = [*range(rows.height), *(random.choices(range(rows.height), k=4) if rows.height else [])]
    random.shuffle(order)
    plain, shuffled = vote(rows), vote(rows[order])
    assert plain.kept.sort("id").equals(shuffled.kept.sort("id"))
    assert plain.dropped.sort("id").equals(shuffled.dropped.sort("id"))
    assert plain.merged == shuffled.merged
    settled = [*plain.kept.get_column("id"), *plain.dropped.get_column("id")]
    assert len(settled) == len(set(settled)) == rows.height - plain.merged


@pytest.mark.slow
@settings(deadline=None)
@given(GROUPS)
def test_what_survives_is_a_row_as_it_was(groups: list[Any]) -> None:
    """Of each group at most one row is kept, as it came in; it recovers the label, and no split vote survives."""
    rows = frame(groups)
    kept = vote(rows).kept
    assert kept.select(*SCHEMA).join(rows, on=[*SCHEMA], nulls_equal=True, how="semi").height == kept.height
    assert kept.select("pair_id", "kind", "side").is_unique().all()
    assert kept.get_column("recovers_label").all()
    assert kept.filter(~(pl.col("vote_share") > 0.5) | (pl.col("vote_share") > 1)).is_empty()


@pytest.mark.slow
@settings(deadline=None)
@given(GROUPS, st.data())
def test_a_judge_that_fails_saves_no_rationale_and_changes_none(
    groups: list[Any], data: st.DataObject
) -> None:
    """With some verdicts lost, what is kept comes from groups that were kept, with a share that is no higher."""
    rows = frame(groups)
    lost = data.draw(st.lists(st.booleans(), min_size=rows.height, max_size=rows.height))
    silent = pl.when(~pl.Series("lost", lost, dtype=pl.Boolean)).then("recovers_label")
    before, after = vote(rows).kept, vote(rows.with_columns(recovers_label=silent)).kept
    group = ["pair_id", "kind", "side"]
    joined = after.join(before, on=group, nulls_equal=True)
    assert joined.height == after.height
    assert (joined.get_column("vote_share") <= joined.get_column("vote_share_right")).all()
    texts = rows.select("id", "text", *group)
    assert after.join(texts, on=texts.columns, nulls_equal=True, how="semi").height == after.height


def test_more_samples_than_were_drawn_are_refused() -> None:
    """A share over 1 is a mistake of the caller, as is a group whose drawn number is not known."""
    with pytest.raises(BadInput, match="2 rows"):
        vote(samples(True, True, drawn=1))
    with pytest.raises(BadInput):
        vote(samples(True).with_columns(drawn=pl.lit(None, pl.Int32)))


def test_the_medoid_is_worked_out_by_hand() -> None:
    """F1 of a and b is 2*2/(3+3) = .67, of a and c 2*1/6 = .33, of b and c 2*2/6 = .67: b is in the middle."""
    assert medoid(["red blue green", "blue green grey", "green grey black"]) == 1
    assert medoid(["grey grey", "Grey, grey!", "grey"]) == 1
    assert medoid(["alone"]) == 0
    assert medoid(["", "!"]) == 0


def test_the_medoid_of_nothing_is_refused() -> None:
    """There is no text to name."""
    with pytest.raises(BadInput, match="0"):
        medoid([])


@given(
    st.lists(st.text("ab ", max_size=6), min_size=1, max_size=7).flatmap(
        lambda t: st.tuples(st.just(t), st.permutations(t))
    )
)
def test_the_order_of_texts_does_not_move_the_medoid(texts: tuple[list[str], list[str]]) -> None:
    """Whatever place it stands at, the same text is found, ties included."""
    one, other = texts
    assert one[medoid(one)] == other[medoid(other)]
