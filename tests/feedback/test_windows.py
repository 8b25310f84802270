"""What a model is shown of a conversation: every turn in question once, in bounds, with what it needs."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback.talks import name, talk, talks
from tilth.schemas import ConfigError
from tilth.transforms.feedback.windows import Window, cut, excerpt, windows

SMALL = Window(chars=700, message_chars=200, context_chars=150, turns=3)
ROLES = ("user", "assistant", "tool", "system")
LENGTHS = st.one_of(st.integers(0, 60), st.integers(150, 900))


def turns(*places: tuple[int, int], of: str = "c") -> pl.DataFrame:
    rows = [(name(of), turn, target) for turn, target in places]
    schema = {"conversation_id": pl.String, "message_index": pl.Int32, "target_index": pl.Int32}
    return pl.DataFrame(rows, schema=schema, orient="row")


@st.composite
def questions(draw: st.DrawFn) -> tuple[list[dict[str, str]], list[tuple[int, int]]]:
    """Messages of any role and length, and user turns after a reply to ask about."""
    sizes = draw(st.lists(st.tuples(st.sampled_from(ROLES), LENGTHS), min_size=2, max_size=30))
    messages = [{"role": role, "content": f"{at}:".ljust(size, "x")} for at, (role, size) in enumerate(sizes)]
    able = [
        (at, max(replies))
        for at, message in enumerate(messages)
        if message["role"] == "user"
        and (replies := [n for n in range(at) if messages[n]["role"] == "assistant"])
    ]
    return messages, draw(st.lists(st.sampled_from(able), unique=True)) if able else []


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(questions())
def test_every_turn_in_question_is_asked_about_once_with_what_it_needs(
    question: tuple[list[dict[str, str]], list[tuple[int, int]]],
) -> None:
    """Each turn stands in exactly one window, beside its reply and the request; no window is longer than allowed."""
    messages, places = question
    made = windows(talks({**talk(called="c"), "messages": messages}), turns(*places), SMALL)
    asked = [turn for row in made.get_column("turns") for turn in row]
    assert sorted(asked) == sorted(turn for turn, _ in places)
    assert made.get_column("window").to_list() == list(range(made.height))
    for shown, of in made.select("shown", "turns").iter_rows():
        indices = [one["index"] for one in shown]
        assert indices == sorted(set(indices))
        assert sum(len(one["content"]) for one in shown) <= SMALL.chars
        assert [one["index"] for one in shown if one["asked"]] == of
        assert len(of) <= SMALL.turns
        for turn, target in places:
            if turn in of:
                requests = [n for n in range(target) if messages[n]["role"] == "user"]
                assert {turn, target, *requests[-1:]} <= set(indices)
        for one in shown:
            assert one["role"] == messages[one["index"]]["role"]
            assert one["content"][:60] == messages[one["index"]]["content"][:60]


def test_a_conversation_that_fits_is_shown_whole_in_one_window() -> None:
    """One call, nothing cut, nothing shown of what comes after the last turn in question."""
    long = "y" * 500
    rows = talks(talk("q", long, "no", "a", "and?", "later"))
    (made,) = windows(rows, turns((2, 1), (4, 3)), SMALL).iter_rows(named=True)
    assert [one["content"] for one in made["shown"]] == ["q", long, "no", "a", "and?"]
    assert made["turns"] == [2, 4]


def test_conversations_without_turns_in_question_have_no_window() -> None:
    """A call is made only where there is something to ask."""
    rows = talks(talk("q", "a", "b", called="c"), talk("q", "a", "b", called="d"))
    assert windows(rows, turns((2, 1), of="d"), SMALL).get_column("conversation_id").to_list() == [name("d")]
    assert windows(rows, turns(), SMALL).is_empty()


def test_neighbouring_turns_share_a_window_until_it_is_full() -> None:
    """Windows are cut where they must be, not at each turn, and each has some context before it."""
    rows = talks(talk(*[f"{at}".ljust(100, "z") for at in range(13)]))
    made = windows(rows, turns(*[(at, at - 1) for at in range(2, 13, 2)]), SMALL)
    assert made.get_column("turns").to_list() == [[2, 4, 6], [8, 10, 12]]
    assert made.get_column("shown").list.eval(pl.element().struct.field("index")).to_list()[1][0] == 6


def test_a_window_shows_as_much_before_its_turns_as_it_is_told_to() -> None:
    """Context goes back from the request, as far as `context_chars` reach, and no further."""
    rows = talks(talk(*[f"{at}".ljust(100, "z") for at in range(13)]))
    made = windows(rows, turns((12, 11)), SMALL)
    assert made.get_column("shown").list.eval(pl.element().struct.field("index")).to_list() == [
        [9, 10, 11, 12]
    ]


@settings(deadline=None, max_examples=100)
@given(questions(), st.data())
def test_an_excerpt_shows_what_is_needed_and_stays_in_bounds(
    question: tuple[list[dict[str, str]], list[tuple[int, int]]], data: st.DataObject
) -> None:
    """The needed messages are there while their number allows it; the length never passes the bound."""
    messages, _ = question
    needed = data.draw(st.lists(st.integers(0, len(messages) - 1), min_size=1, max_size=12, unique=True))
    shown: list[dict[str, Any]] = excerpt(messages, needed, SMALL)
    assert set(needed[:3]) <= {one["index"] for one in shown}
    assert sum(len(one["content"]) for one in shown) <= SMALL.chars
    assert max(one["index"] for one in shown) <= max(needed)


def test_a_cut_text_keeps_both_ends_and_says_what_is_missing() -> None:
    """The middle goes; the result is exactly as long as allowed; a text that fits stays as it is."""
    text = "a" * 500 + "b" * 500
    short = cut(text, 300)
    assert (len(short), short[:50], short[-50:]) == (300, "a" * 50, "b" * 50)
    assert "left out" in short
    assert cut(text, 1000) == text


@pytest.mark.parametrize(
    "bounds",
    [{"message_chars": 100}, {"chars": 500, "message_chars": 200}, {"context_chars": -1}, {"turns": 0}],
)
def test_bounds_that_cannot_hold_a_turn_are_refused(bounds: dict[str, int]) -> None:
    """A window holds at least a request, a reply and a turn."""
    with pytest.raises(ConfigError, match="window"):
        Window(**bounds)
