"""Criteria from what users complained about: in their words, of their split, weighed by who said it how strongly."""

from __future__ import annotations

from random import Random
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import ConfigError, polars_schema
from tilth.schemas.contracts import measure
from tilth.schemas.ids import content_id
from tilth.transforms.rubrics.complaints import COMPLAINTS, Complaining, complaints_of
from tilth.transforms.rubrics.criteria import CRITERIA, PROMPTS, rubric_rows
from tilth.transforms.rubrics.distilled import Distilled, complaint_criteria, preference_criteria

TURN = "It still has two errors. I asked for the sum of all rows in the second column."
LONG = f"{'Last week I sent this table to my boss. ' * 8}{TURN} {'She will read it tomorrow. ' * 8}"
PEAS, PEAS_TOO = "How do I plant peas in cold soil?", "How do I plant peas in cold and wet soil?"
WINE = "What wine goes with lamb?"


def asking(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def complaint(
    prompt: str, text: str, user: str | None = "ann", split: str = "train", **more: Any
) -> dict[str, Any]:
    said = content_id(prompt, text, user or "", split, str(more))
    given = {
        "feedback_id": content_id("f", said), "conversation_id": content_id("c", said), "text": text,
        "prompt_id": content_id("p", prompt), "prompt": asking(prompt), "user_key": user, "split": split,
        "strength": 0.9, "labels": ["ignored"],
    }  # fmt: skip
    return {**given, **more}


def prompts(*texts: str, split: str = "train") -> pl.DataFrame:
    rows = [
        {"prompt_id": content_id("p", text), "prompt": asking(text), "pair_ids": [content_id("pair", text)],
         "conversation_id": content_id("c", text), "split": split}
        for text in texts
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=PROMPTS)


def distilled(asked: pl.DataFrame, *said: dict[str, Any], **config: Any) -> pl.DataFrame:
    return complaint_criteria(asked, pl.DataFrame(said, schema=COMPLAINTS), Distilled(**config))


def logged(turn: str, **fields: Any) -> pl.DataFrame:
    messages = [("user", PEAS), ("assistant", "No."), ("user", turn), ("assistant", "Yes.")]
    row = {
        "id": "c", "record_id": "r", "source": "memory://log", "split": "train", "user_key": "ann",
        "messages": [{"role": role, "content": text} for role, text in messages],
    }  # fmt: skip
    return pl.DataFrame([{**row, **fields}], schema=polars_schema("conversations"))


def signal(turn: str, *quotes: str, **fields: Any) -> dict[str, Any]:
    found = [
        {"label": "ignored", "text": q, "start": turn.index(q), "end": turn.index(q) + len(q)} for q in quotes
    ]
    row = {
        "id": "f", "conversation_id": "c", "message_index": 2, "target_index": 1, "polarity": "negative",
        "labels": ["ignored"], "strength": 0.9, "evidence": found, "on_refusal": False, "method": "rules",
        "split": "train",
    }  # fmt: skip
    return {**row, **fields}


def feedback(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=polars_schema("feedback"))


# From feedback to complaints


def test_a_complaint_is_told_with_its_prompt_and_user() -> None:
    """One row per feedback row: the words, what was asked for, who said it."""
    (row,) = complaints_of(feedback(signal(TURN, "errors")), logged(TURN)).iter_rows(named=True)
    assert (row["feedback_id"], row["conversation_id"], row["user_key"], row["split"]) == (
        "f",
        "c",
        "ann",
        "train",
    )
    assert (row["text"], row["prompt"], row["labels"]) == (TURN, asking(PEAS), ["ignored"])


def test_a_long_turn_is_cut_to_its_sentences() -> None:
    """Of a turn over 280 characters, the sentences from the first to the last evidence stay, verbatim."""
    (text,) = complaints_of(feedback(signal(LONG, "errors", "second column")), logged(LONG))["text"]
    assert text == TURN
    assert text in LONG


def test_only_clear_complaints_in_words_count() -> None:
    """Praise, thumbs, weak signals, blamed refusals, signals without a quote and those of other parts take no part."""
    silent = [
        signal(TURN, "errors", id="praise", polarity="positive"),
        signal(TURN, "errors", id="thumb", method="reaction"),
        signal(TURN, "errors", id="weak", strength=0.5),
        signal(TURN, "errors", id="refusal", on_refusal=True),
        signal(TURN, id="unquoted"),
        signal(TURN, "errors", id="elsewhere", conversation_id="d"),
    ]
    assert complaints_of(feedback(*silent), logged(TURN)).is_empty()
    heard = complaints_of(feedback(*silent), logged(TURN), Complaining(min_strength=0.4))
    assert heard["feedback_id"].to_list() == ["weak"]


# From complaints to criteria


def test_what_a_user_faulted_is_a_criterion() -> None:
    """The user's words stand in it as they were said, with the feedback that it rests on."""
    said = complaint(PEAS, "You did not say how deep to plant them!")
    (row,) = distilled(prompts(PEAS), said).iter_rows(named=True)
    assert row["description"] == "Gives no reason to say: “You did not say how deep to plant them!”"
    assert (row["kind"], row["check"], row["source"]) == ("principle", "judge", "complaint")
    assert (row["feedback_ids"], row["tags"], row["title"]) == (
        [said["feedback_id"]],
        ["ignored"],
        "Nothing ignored",
    )
    assert row["weight"] == pytest.approx(0.7 * 0.9)


def test_what_several_faulted_at_similar_prompts_is_a_criterion() -> None:
    """Two users' like complaints about a similar prompt count; one user's two do not, nor those about another topic."""
    deep = ("You left out how deep.", "You left out how deep!")
    two = [complaint(PEAS_TOO, text, user) for text, user in zip(deep, ("ann", "bob"), strict=True)]
    one = [complaint(PEAS_TOO, text, "ann") for text in deep]
    (row,) = distilled(prompts(PEAS), *two).iter_rows(named=True)
    assert len(row["feedback_ids"]) == 2
    assert row["weight"] == pytest.approx(1 - (1 - 0.4 * 0.9) ** 2)
    assert distilled(prompts(PEAS), *one).is_empty()
    assert distilled(prompts(WINE), *two).is_empty()
    unknown = [complaint(PEAS_TOO, text, None) for text in deep]
    assert distilled(prompts(PEAS), *unknown).height == 1  # each conversation is a user of its own


def test_so_many_and_so_similar_prompts_lend() -> None:
    """`similar_prompts` counts others than the prompt itself, and `min_similarity` says which are similar."""
    lent = [complaint(PEAS_TOO, "You left out how deep.", user) for user in ("ann", "bob")]
    own = complaint(PEAS, "Too long!")
    assert distilled(prompts(PEAS), own, *lent, similar_prompts=1).height == 2
    assert distilled(prompts(PEAS), own, *lent, min_similarity=0.99).height == 1
    assert distilled(prompts(PEAS), own, *lent, similar_prompts=0).height == 1


def test_like_complaints_are_one_criterion_in_the_most_central_words() -> None:
    """A group is told in the words of its medoid; what is unlike stays apart."""
    central = "You forgot the third paragraph."
    group = [central, "you forgot the 3rd paragraph", "You forgot the third paragraph of it."]
    said = [complaint(PEAS, text, f"u{n}") for n, text in enumerate([*group, "Too long!"])]
    made = distilled(prompts(PEAS), *said, same_complaint=0.55)
    assert made.height == 2
    merged = made.filter(pl.col("feedback_ids").list.len() == 3)
    assert merged["description"].to_list() == [f"Gives no reason to say: “{central}”"]


def test_what_says_nothing_or_too_much_is_no_criterion() -> None:
    """Marks without letters, and texts over `max_chars`."""
    odd = [complaint(PEAS, text) for text in ("???", "no", "long " * 100)]
    assert distilled(prompts(PEAS), *odd).is_empty()


def test_the_heaviest_stay() -> None:
    """`max_criteria` keeps what was said most strongly."""
    texts = {"Far too long.": 0.9, "Where are the sources?": 0.6, "I wanted French": 0.99}
    said = [complaint(PEAS, text, strength=strength) for text, strength in texts.items()]
    made = distilled(prompts(PEAS), *said, max_criteria=2)
    assert sorted(made["weight"]) == pytest.approx([0.7 * 0.9, 0.7 * 0.99])


def test_without_lending_prompts_hear_their_own() -> None:
    """`similar_prompts` or `max_complaints` of 0: what is said at a prompt still counts there."""
    said = [complaint(PEAS, "Too long!"), *(complaint(PEAS_TOO, "No depth given", u) for u in ("ann", "bob"))]
    for config in ({"similar_prompts": 0}, {"max_complaints": 0}):
        made = distilled(prompts(PEAS), *said, **config)
        assert made["description"].to_list() == ["Gives no reason to say: “Too long!”"]
    assert distilled(prompts(PEAS), *said).height == 2


def test_rubrics_of_complaints_keep_their_contract() -> None:
    """As rows of the table they have no defect."""
    said = [
        complaint(PEAS, text, user) for text in ("Too long!", "too LONG", "Wrong.") for user in ("ann", "bob")
    ]
    made = measure("rubrics", rubric_rows(distilled(prompts(PEAS, WINE), *said), prompts(PEAS, WINE)))
    assert made.rows == 1
    assert {name for name, rows in made.counts.items() if rows} == {"with_feedback"}


ASKED = (PEAS, PEAS_TOO, WINE, "What wine goes with lamb and mint?")
SAID = (
    "Too long!",
    "way too long",
    "You forgot the price.",
    "you forgot the prices",
    "Wrong.",
    "that is wrong",
)
WORLD = st.lists(
    st.builds(
        complaint,
        st.sampled_from(ASKED),
        st.sampled_from(SAID),
        st.sampled_from(["ann", "bob", "cid", None]),
        st.sampled_from(["train", "test"]),
        strength=st.sampled_from([0.55, 0.7, 0.99]),
    ),
    max_size=14,
)
MANY = settings(deadline=None, max_examples=12)


@pytest.mark.slow
@given(WORLD)
@MANY
def test_no_word_and_no_feedback_crosses_a_split(world: list[dict[str, Any]]) -> None:
    """A rubric holds words and feedback of its split alone, and is the same where the other split is not there."""
    for split in ("train", "test"):
        inside = [row for row in world if row["split"] == split]
        made = distilled(prompts(*ASKED, split=split), *world)
        assert made.equals(distilled(prompts(*ASKED, split=split), *inside))
        known = {row["feedback_id"] for row in inside}
        told = {f"Gives no reason to say: “{row['text']}”" for row in inside}
        assert {one for ids in made["feedback_ids"] for one in ids} <= known
        assert set(made["description"]) <= told


@pytest.mark.slow
@given(WORLD, st.randoms())
@MANY
def test_rows_decide_nothing(world: list[dict[str, Any]], random: Random) -> None:
    """Shuffled and repeated complaints and prompts give the same criteria."""
    asked = prompts(*ASKED)
    made = distilled(asked, *world).sort("prompt_id", "id")
    again = [*world, *world[:3]]
    random.shuffle(again)
    shuffled = asked.sample(fraction=1, shuffle=True, seed=random.randrange(2**32))
    assert distilled(shuffled, *again).sort("prompt_id", "id").equals(made)


@pytest.mark.slow
@given(WORLD)
@MANY
def test_prompts_do_not_hang_on_each_other(world: list[dict[str, Any]]) -> None:
    """Parts of the prompts give parts of the criteria."""
    apart = [distilled(prompts(text), *world) for text in ASKED]
    whole = distilled(prompts(*ASKED), *world).sort("prompt_id", "id")
    assert pl.concat(apart).sort("prompt_id", "id").equals(whole)


@pytest.mark.slow
@given(st.lists(st.floats(0.55, 1.0), min_size=1, max_size=8), st.floats(0.55, 1.0), st.integers(0, 7))
@MANY
def test_weights_grow_with_voices_and_strength(strengths: list[float], other: float, place: int) -> None:
    """In (0, 1]; a further user never lowers a weight, nor does a stronger word; a repetition changes nothing."""

    def weight(values: list[float]) -> float:
        said = [complaint(PEAS, "Too long!", f"u{n}", strength=value) for n, value in enumerate(values)]
        repeated = complaint(PEAS, "Too long!", "u0", strength=0.55)
        (alone,), (twice,) = (distilled(prompts(PEAS), *rows)["weight"] for rows in (said, [*said, repeated]))
        assert alone == twice
        return alone

    before, at = weight(strengths), place % len(strengths)
    stronger = [max(value, other) if n == at else value for n, value in enumerate(strengths)]
    assert 0 < before <= weight([*strengths, other]) <= 1
    assert before <= weight(stronger) <= 1


def test_thresholds_are_checked() -> None:
    """Counts of 1 or more, likenesses and weights up to 1."""
    for wrong in ({"max_criteria": 0}, {"own_weight": 1.5}, {"same_complaint": 0.0}, {"similar_prompts": -1}):
        with pytest.raises(ConfigError):
            Distilled(**wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError):
        Complaining(min_strength=2)


# What users said they want


def wish(*said: str, prompt: str = PEAS, name: str = "w", split: str = "train") -> dict[str, Any]:
    return {
        "id": content_id(name), "prompt_id": content_id("p", prompt), "preferences": list(said), "split": split,
        "feedback_ids": [content_id("f", name)], "model": "m", "prompt_version": "preferences@1", "method": "model",
    }  # fmt: skip


def test_a_user_s_wishes_are_criteria() -> None:
    """One per statement, with its feedback and what wrote it down; equal statements are one."""
    rows = [
        wish("Be brief.", "Name the depth"),
        wish("be  brief", name="v"),
        wish("x", prompt=WINE),
        wish(" ", name="e"),
    ]
    made = preference_criteria(pl.DataFrame(rows, schema=polars_schema("preferences")), prompts(PEAS))
    assert made.schema == CRITERIA
    told = {row["description"]: row for row in made.iter_rows(named=True)}
    assert told.keys() == {"Be brief.", "Name the depth"}
    assert len(told["Be brief."]["feedback_ids"]) == 2
    assert set(made["source"]) == {"preference"}
    assert set(made["weight"]) == {0.7}
    rubric = rubric_rows(made, prompts(PEAS))
    assert rubric.select("method", "model", "prompt_version").row(0) == ("model", "m", "preferences@1")


def test_wishes_of_another_split_take_no_part() -> None:
    """A prompt of train learns nothing from what was said in test."""
    rows = pl.DataFrame([wish("Be brief.", split="test")], schema=polars_schema("preferences"))
    assert preference_criteria(rows, prompts(PEAS)).is_empty()
