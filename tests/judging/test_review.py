"""People in the loop: nothing they see tells them what judges think, and what they say never turns a pair round."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilth.schemas import BadInput, conform
from tilth.schemas.ids import content_id
from tilth.transforms.judging.aggregate import by_panel
from tilth.transforms.judging.items import items
from tilth.transforms.judging.protocol import Aggregation
from tilth.transforms.judging.review import (
    GOLD,
    REVIEW,
    read_verdicts,
    review_items,
    review_rows,
    swapped,
    turn_down,
)
from tilth.transforms.judging.votes import votes_of

WIN, LOSS, TIE = (9.0, 2.0), (2.0, 9.0), (5.0, 5.0)
# What one judge says with the first reply shown first, and with the second shown first; null for a failure.
SAID: dict[int, tuple[Any, Any]] = {
    0: (WIN, WIN),
    1: (WIN, LOSS),
    2: (None, None),
    3: (TIE, WIN),
    4: (WIN, WIN),
    5: (LOSS, LOSS),
}


def says(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def side(n: int, place: int) -> dict[str, Any]:
    prompt = [{"role": "user", "content": f"question {n}"}]
    return {
        "id": content_id("response", str(n), str(place)),
        "prompt": prompt,
        "prompt_id": content_id("prompt", str(n)),
        "completion": says(f"reply {n}.{place}"),
        "conversation_id": content_id("conversation", str(n)),
        "split": "train",
    }


def wishes_of(n: int) -> list[str]:
    return [f"wish {n}", "be brief"] if n % 2 else []


ASKED = items(
    pl.DataFrame(
        [
            {
                "prompt": side(n, 0)["prompt"],
                "replies": [side(n, place)["completion"] for place in (0, 1)],
                "response_ids": [side(n, place)["id"] for place in (0, 1)],
                "checklist": wishes_of(n),
                "prompt_id": side(n, 0)["prompt_id"],
                "conversation_id": side(n, 0)["conversation_id"],
                "split": "train",
            }
            for n in SAID
        ]
    )
)
ITEM = {
    n: ASKED.filter(pl.col("prompt_id") == side(n, 0)["prompt_id"]).get_column("item_id").item() for n in SAID
}
RESPONSES = conform(pl.DataFrame([side(n, place) for n in SAID for place in (0, 1)]), "responses")
WISHES = pl.DataFrame(
    [
        {name: side(n, 0)[name] for name in ("conversation_id", "prompt_id")} | {"checklist": checklist}
        for n in SAID
        for checklist in (["not what judges were shown"], wishes_of(n) or ["nor is this"])
    ]
)


def judgment(n: int, first: int, scores: tuple[float, float] | None) -> dict[str, Any]:
    words = {WIN: "win", LOSS: "loss", TIE: "tie", None: "failed"}
    return {
        "id": content_id("judgment", str(n), str(first)),
        "item_id": ITEM[n],
        "kind": "pairwise",
        "judge": "judge",
        "order": [first, 1 - first],
        "sample_index": 0,
        "verdict": words[scores],
        "scores": None if scores is None else list(scores),
        "response_ids": [side(n, place)["id"] for place in (0, 1)],
        "prompt_id": side(n, 0)["prompt_id"],
        "conversation_id": side(n, 0)["conversation_id"],
        "split": "train",
    }


JUDGMENTS = conform(
    pl.DataFrame(
        [judgment(n, first, said[first]) for n, said in SAID.items() for first in (0, 1)],
        infer_schema_length=None,
    ),
    "judgments",
)
VERDICTS = by_panel(votes_of(JUDGMENTS), Aggregation(), {"judge": 1.0})


def pair(n: int, chosen: int = 0) -> dict[str, Any]:
    return {
        "id": content_id("pair", str(n)),
        "prompt": side(n, 0)["prompt"],
        "chosen": side(n, chosen)["completion"],
        "rejected": side(n, 1 - chosen)["completion"],
        "origin": "on_policy",
        "conversation_id": side(n, 0)["conversation_id"],
        "judgment_ids": [content_id("judgment", str(n), str(first)) for first in (0, 1)],
    }


PAIRS = conform(pl.DataFrame([pair(0), pair(3), pair(4), pair(5, chosen=1)]), "pairs")


def shown(n: int, canonical: str) -> str:
    """What a person writes who prefers the first (`win`) or the second reply of an item."""
    if canonical not in ("win", "loss"):
        return canonical
    return "b" if (canonical == "win") == swapped(ITEM[n]) else "a"


def filled(*said: tuple[int, str] | tuple[int, str, str]) -> pl.DataFrame:
    rows = [
        {"item_id": ITEM[one[0]], "verdict": shown(one[0], one[1]), "annotator": (*one, "")[2]}
        for one in said
    ]
    return pl.DataFrame(rows, schema=dict.fromkeys(("item_id", "verdict", "annotator"), pl.String))


def gold(*said: tuple[int, str]) -> pl.DataFrame:
    return read_verdicts(filled(*said), ASKED.get_column("item_id")).gold


def test_items_are_what_judges_were_shown() -> None:
    """From the tables of a release come the same items, with the checklist that judges saw and no other."""
    assert review_items(JUDGMENTS, RESPONSES, WISHES).equals(ASKED)


def test_judgments_without_their_replies_are_refused() -> None:
    """A reply that table responses does not have is an error that counts, and not an item less."""
    with pytest.raises(BadInput, match="1 of 12"):
        review_items(JUDGMENTS, RESPONSES.filter(pl.col("id") != side(2, 1)["id"]), WISHES)


def test_the_least_sure_come_first() -> None:
    """By entropy; then items that failed; then the narrower margin; sure ones last."""
    rows = review_rows(ASKED, VERDICTS, 6)
    number = {id_: n for n, id_ in ITEM.items()}
    order = [number[id_] for id_ in rows.get_column("item_id")]
    assert set(order[:2]) == {1, 3}
    assert order[2] == 2
    assert set(order[3:]) == {0, 4, 5}
    assert review_rows(ASKED, VERDICTS, 2).equals(rows.head(2))


def test_rows_hide_what_judges_think() -> None:
    """Nothing but texts, and empty cells to fill in; both replies change places for about half of the items."""
    rows = review_rows(ASKED, VERDICTS, 6)
    assert rows.schema == REVIEW
    assert rows.select("verdict", "note", "annotator").unique().rows() == [("", "", "")]
    for row in rows.iter_rows(named=True):
        n = next(n for n, id_ in ITEM.items() if id_ == row["item_id"])
        replies = [f"reply {n}.0", f"reply {n}.1"]
        assert [row["reply_a"], row["reply_b"]] == (replies[::-1] if swapped(ITEM[n]) else replies)
        assert (row["conversation"], row["checklist"]) == (f"user: question {n}", "\n".join(wishes_of(n)))
    share = sum(swapped(content_id(str(n))) for n in range(2_000)) / 2_000
    assert 0.45 < share < 0.55


def test_votes_of_judges_are_shown_on_request_only() -> None:
    """With `show_judges`, votes are counted as the replies are shown."""
    rows = review_rows(ASKED, VERDICTS, 6, show_judges=True)
    votes = dict(rows.select("item_id", "judges").iter_rows())
    for n, winner in ((0, "win"), (5, "loss")):
        other = {"a": "b", "b": "a"}[shown(n, winner)]
        assert f"{shown(n, winner)}: 2" in votes[ITEM[n]]
        assert f"{other}: 0" in votes[ITEM[n]]


@pytest.mark.parametrize("said", ["win", "loss", "tie"])
def test_what_people_say_of_shown_replies_is_said_of_the_items(said: str) -> None:
    """a and b are led back to the item's first and second reply, whichever way they were shown."""
    found = gold(*((n, said) for n in ITEM))
    assert found.schema == GOLD
    assert found.get_column("gold").to_list() == [said] * 6


def test_more_than_half_of_the_people_decide() -> None:
    """Skips count for nobody; without a majority there is no gold verdict, and that is counted."""
    votes = [
        (0, "win", "x"),
        (0, "win", "y"),
        (0, "loss", "z"),
        (1, "win", "x"),
        (1, "loss", "y"),
        (2, "skip", "x"),
    ]
    told = read_verdicts(
        filled(*votes, (3, "win", "x"), (3, "skip", "y"), (4, "", "x")), ASKED.get_column("item_id")
    )
    assert dict(told.gold.select("item_id", "gold").iter_rows()) == {ITEM[0]: "win", ITEM[3]: "win"}
    wanted = {
        "rows": 9,
        "unanswered": 1,
        "skipped": 2,
        "annotators": 3,
        "items": 3,
        "settled": 2,
        "disputed": 1,
    }
    assert told.counts == {**wanted, "not_unanimous": 2}


@pytest.mark.slow
@given(st.permutations(range(8)))
def test_the_order_of_verdicts_decides_nothing(order: list[int]) -> None:
    """Permuted rows give the same gold verdicts and counts."""
    votes = [
        (n, word, who)
        for n in (0, 1)
        for word, who in (("win", "x"), ("win", "y"), ("loss", "z"), ("tie", "w"))
    ]
    rows = filled(*votes)
    known = ASKED.get_column("item_id")
    one, other = read_verdicts(rows, known), read_verdicts(rows[order], known)
    assert one.gold.equals(other.gold)
    assert one.counts == other.counts


def test_what_cannot_be_meant_is_refused() -> None:
    """Unknown items, other words, and two verdicts of one person are errors that count and quote nothing."""
    known = ASKED.get_column("item_id")
    secret = "do-not-show"
    wrong = [
        (filled((0, "win")).with_columns(item_id=pl.lit("f" * 32)), "1 of 1 rows"),
        (filled((0, secret)), "1 rows say something else"),
        (filled((0, "win", "x"), (0, "win", "x")), "1 too many"),
        (filled((0, "win")).drop("verdict"), "no column verdict"),
    ]
    for rows, message in wrong:
        with pytest.raises(BadInput, match=message) as raised:
            read_verdicts(rows, known)
        assert secret not in str(raised.value)


def test_words_of_people_may_be_untidy() -> None:
    """Case and white space around a verdict do not matter."""
    rows = filled((0, "tie")).with_columns(verdict=pl.lit(" TIE "))
    assert read_verdicts(rows, ASKED.get_column("item_id")).gold.get_column("gold").to_list() == ["tie"]


def test_pairs_that_people_turn_down_are_set_aside_and_never_turned_round() -> None:
    """People who prefer the rejected side, or none, take the pair away; all others stay as they were, in order."""
    found = turn_down(PAIRS, JUDGMENTS, RESPONSES, gold((0, "loss"), (3, "tie"), (4, "win")))
    reasons = dict(found.dropped.select("key", "reason").iter_rows())
    ids = PAIRS.get_column("id").to_list()
    assert reasons == {ids[0]: "judges_prefer_rejected", ids[1]: "judges_tied"}
    assert found.kept.equals(PAIRS.filter(pl.col("id").is_in(ids[2:])))


def test_a_verdict_is_about_the_side_and_not_its_place() -> None:
    """Where the second reply is the chosen one, people who prefer it keep the pair, and others take it away."""
    kept = turn_down(PAIRS, JUDGMENTS, RESPONSES, gold((5, "loss")))
    assert kept.kept.equals(PAIRS)
    assert kept.dropped.is_empty()
    gone = turn_down(PAIRS, JUDGMENTS, RESPONSES, gold((5, "win")))
    assert gone.dropped.get_column("key").to_list() == [content_id("pair", "5")]


def test_a_verdict_on_other_replies_says_nothing_of_a_pair() -> None:
    """A pair that rests on a comparison of one of its sides with a third reply is left alone."""
    other = conform(pl.DataFrame([{**pair(0), "rejected": says("a third reply")}]), "pairs")
    assert turn_down(other, JUDGMENTS, RESPONSES, gold((0, "loss"))).kept.equals(other)


@pytest.mark.slow
@given(st.lists(st.sampled_from(["win", "loss", "tie", "skip", ""]), min_size=4, max_size=4), st.randoms())
def test_no_pair_is_lost_or_changed(said: list[str], chance: Any) -> None:
    """Whatever people say, and whatever the order of rows, each pair is kept as it was or set aside once."""
    verdicts = gold(*zip((0, 3, 4, 5), said, strict=True))
    order = list(range(PAIRS.height))
    chance.shuffle(order)
    found = turn_down(PAIRS[order], JUDGMENTS.sample(fraction=1.0, shuffle=True, seed=1), RESPONSES, verdicts)
    straight = turn_down(PAIRS, JUDGMENTS, RESPONSES, verdicts)
    assert found.kept.sort("id").equals(straight.kept.sort("id"))
    assert found.kept.height + found.dropped.height == PAIRS.height
    kept = PAIRS.filter(pl.col("id").is_in(found.kept.get_column("id").implode()))
    assert found.kept.sort("id").equals(kept.sort("id"))
