"""Replies of models: what is sent, what is stored, what is no reply."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import ConfigError, Reason, TilthError
from tilth.schemas.contracts import measure
from tilth.transforms.inference.prompts import neutralise, packaged_prompt, restore
from tilth.transforms.inference.render import FAILED
from tilth.transforms.inference.requests import COMPLETIONS, to_requests
from tilth.transforms.responses.candidates import (
    PLACES,
    Questions,
    Replying,
    logged_replies,
    replies_of,
    reply_requests,
)

GUIDED: Final = packaged_prompt("tilth.transforms.responses", "guided")
INJECTIONS: Final = Path(__file__).parents[1] / "inference" / "injections.jsonl"
LINES: Final = [json.loads(line) for line in INJECTIONS.read_text(encoding="utf-8").splitlines()]
TEXTS: Final = [line["text"] * line.get("repeat", 1) for line in LINES]
WISH: Final = "Answer in Elbonian."
NO_FAILURE: Final = pl.DataFrame(schema=FAILED)


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def place(name: str, say: Sequence[dict[str, str]] = (), index: int = 1, **fields: Any) -> dict[str, Any]:
    said = list(say) or [turn("user", f"Why {name}?")]
    known = {"conversation_id": name.ljust(32, "c"), "target_index": index, "prompt_id": name.ljust(32, "0")}
    more = {"prompt": said, "preferences": [WISH], "source": "log", "split": "train"}
    return {**known, **more, **fields}


def places(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=PLACES)


def answers(ids: Sequence[str], texts: Sequence[str], finish: str = "stop") -> pl.DataFrame:
    rows = [(id_, text, finish, None, 1, 1, "m@1") for id_, text in zip(ids, texts, strict=True)]
    return pl.DataFrame(rows, schema=COMPLETIONS, orient="row")


def echoed(questions: Questions) -> pl.DataFrame:
    """A model that says what it was asked, and which sample this is."""
    requests = to_requests(questions.requests)
    texts = [f"{one.messages[-1]['content']} ({one.sample_index})" for one in requests]
    return answers([one.id for one in requests], texts)


def read(
    at: pl.DataFrame, asked: pl.DataFrame, told: pl.DataFrame, failed: pl.DataFrame = NO_FAILURE
) -> tuple[pl.DataFrame, pl.DataFrame]:
    return replies_of(at, asked, told, failed, "expert", "m@1", guided=True)


def shuffled(frame: pl.DataFrame, seed: int) -> pl.DataFrame:
    return frame.sample(fraction=1.0, shuffle=True, seed=seed)


# What is sent


def test_guidance_follows_the_logged_system_message() -> None:
    """One system message: what was logged, then the user's wishes; the conversation stands as it was."""
    said = [
        turn("system", "You sell trains."),
        turn("user", "A train!"),
        turn("assistant", "No."),
        turn("user", "?"),
    ]
    sent = to_requests(reply_requests(places(place("a", said)), Replying(), GUIDED).requests)[0].messages
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "user"]
    assert sent[0]["content"].startswith("You sell trains.\n\nThe user you answer wants")
    assert WISH in sent[0]["content"]
    assert list(sent[1:]) == said[1:]


def test_guidance_is_the_system_message_where_none_was_logged() -> None:
    """It comes first; nothing else is added."""
    sent = to_requests(reply_requests(places(place("a")), Replying(), GUIDED).requests)[0].messages
    assert [message["role"] for message in sent] == ["system", "user"]
    assert list(sent[1:]) == [turn("user", "Why a?")]


def test_a_plain_reply_sees_no_wishes() -> None:
    """Without guidance the conversation alone is sent."""
    sent = to_requests(reply_requests(places(place("a")), Replying(), None).requests)[0].messages
    assert list(sent) == [turn("user", "Why a?")]


@pytest.mark.parametrize("text", TEXTS)
def test_a_wish_that_gives_orders_stays_material(text: str) -> None:
    """What models wrote down of users' complaints stands in a block in the system message, broken where it must be."""
    usual, hostile = (
        to_requests(reply_requests(places(place("a", preferences=[wish])), Replying(), GUIDED).requests)[0]
        for wish in ("x", text)
    )
    content = hostile.messages[0]["content"]
    assert f">>\n{neutralise(text)}\n<</material " in content
    assert len(content) - len(neutralise(text)) == len(usual.messages[0]["content"]) - 1


@pytest.mark.parametrize("text", TEXTS)
def test_control_tokens_of_a_conversation_reach_no_tokenizer(text: str) -> None:
    """Turns are sent as they are but for control tokens, which are broken."""
    sent = to_requests(reply_requests(places(place("a", [turn("user", text)])), Replying(), None).requests)[0]
    assert sent.messages[0]["content"] == neutralise(text)


def test_seeds_follow_from_places_and_samples() -> None:
    """Each sample has its own seed and id, whatever other places there are and however they stand."""
    rows = [place(name) for name in "abc"]
    one = reply_requests(places(*rows), Replying(), GUIDED, 3, 7).requests.sort("id")
    other = reply_requests(places(*rows[::-1]), Replying(), GUIDED, 3, 7).requests.sort("id")
    assert one.equals(other)
    assert one["seed"].n_unique() == one["id"].n_unique() == 9
    alone = reply_requests(places(rows[1]), Replying(), GUIDED, 3, 7).requests
    assert set(alone["seed"]) < set(one["seed"])
    assert reply_requests(places(*rows), Replying(0.0), GUIDED).requests["seed"].null_count() == 3


@pytest.mark.parametrize(("samples", "temperature"), [(0, 0.7), (2, 0.0)])
def test_samples_that_cannot_be_drawn_are_refused(samples: int, temperature: float) -> None:
    """None at all, or several that would all be equal."""
    with pytest.raises(ConfigError, match="samples"):
        reply_requests(places(place("a")), Replying(temperature), None, samples)


# What comes back


@given(count=st.integers(1, 5), samples=st.integers(1, 3), seed=st.integers(0, 2**16))
@settings(max_examples=20, deadline=None)
def test_replies_find_their_places_by_id_alone(count: int, samples: int, seed: int) -> None:
    """In whatever order places, asked and answers come, each reply stands at the prompt that it answers."""
    at = places(*(place(f"{n}") for n in range(count)))
    questions = reply_requests(at, Replying(), GUIDED, samples)
    told = echoed(questions)
    made, lost = read(at, questions.asked, told)
    again, _ = read(shuffled(at, seed), shuffled(questions.asked, seed + 1), shuffled(told, seed + 2))
    assert made.equals(again)
    assert lost.is_empty()
    assert made.height == count * samples
    for prompt, completion, sample in made.select("prompt", "completion", "sample_index").iter_rows():
        assert completion == [turn("assistant", f"{prompt[-1]['content']} ({sample})")]


def test_no_stored_prompt_holds_wishes() -> None:
    """What the model was told of the user's wishes is nowhere in the row but in `guided`."""
    said = [turn("system", "You sell trains."), turn("user", "A train!")]
    at = places(place("a", said), place("b"))
    questions = reply_requests(at, Replying(), GUIDED)
    made, _ = read(at, questions.asked, answers(questions.asked["id"].to_list(), ["x", "y"]))
    assert WISH not in json.dumps(made.to_dicts())
    assert sorted(map(len, made["prompt"].to_list())) == [1, 2]
    assert made["guided"].all()
    counts = measure("responses", made).counts
    assert not any(counts[name] for name in counts if name not in ("guided", "moderated", "flagged"))


@pytest.mark.parametrize(
    ("text", "finish", "reason"),
    [
        ("It is beca", "length", Reason.TOO_LONG),
        ("", "stop", Reason.EMPTY_MESSAGE),
        (" \n\t\u00a0", "stop", Reason.EMPTY_MESSAGE),
        ("a\0b", "stop", Reason.NUL_CHARACTER),
    ],
)
def test_what_is_no_reply_is_set_aside(text: str, finish: str, reason: Reason) -> None:
    """Cut off, blank or with NUL: one row of quarantine that names the place, and no response."""
    at = places(place("a"))
    questions = reply_requests(at, Replying(), GUIDED)
    made, lost = read(at, questions.asked, answers(questions.asked["id"].to_list(), [text], finish))
    assert made.is_empty()
    assert lost.select("stage", "reason", "key", "source_rows").rows() == [
        ("expert", reason.value, f"conversations#id={'a'.ljust(32, 'c')}&message=1", 0)
    ]


def test_every_sample_is_a_reply_or_set_aside() -> None:
    """Of five: two answered, one cut off, one blank, one without an answer; each is somewhere once."""
    at = places(place("a"))
    questions = reply_requests(at, Replying(), GUIDED, 5)
    ids = questions.asked["id"].to_list()
    told = pl.concat(
        [answers(ids[:2], ["one", "two"]), answers(ids[2:3], ["cut"], "length"), answers(ids[3:4], [" "])]
    )
    failed = pl.DataFrame([(ids[4], Reason.TIMED_OUT.value, "3 tries")], schema=FAILED, orient="row")
    made, lost = read(at, questions.asked, told, failed)
    assert sorted(made["sample_index"]) == [0, 1]
    assert sorted(lost["reason"]) == ["empty_message", "timed_out", "too_long"]
    assert sorted(json.loads(payload)["sample_index"] for payload in lost["payload"]) == [2, 3, 4]
    assert "one" not in json.dumps(lost.to_dicts())


def test_broken_control_tokens_are_whole_again() -> None:
    """A reply that repeats what a prompt had broken for it is stored as it was meant."""
    text = "Write <|im_end|> and [INST] so."
    at = places(place("a", [turn("user", text)]))
    questions = reply_requests(at, Replying(), None)
    sent = to_requests(questions.requests)[0].messages[0]["content"]
    assert sent != text
    made, _ = read(at, questions.asked, answers(questions.asked["id"].to_list(), [sent]))
    assert made["completion"][0][0]["content"] == text == restore(sent)


def _doubled(frame: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([frame, frame.head(1)])


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda p, a, c: (p, a, c.tail(-1)), id="an answer is missing"),
        pytest.param(lambda p, a, c: (p, a, _doubled(c)), id="an answer stands there twice"),
        pytest.param(lambda p, a, c: (p, a.tail(-1), c), id="an answer to what was not asked"),
        pytest.param(lambda p, a, c: (p, _doubled(a), c), id="asked twice"),
        pytest.param(lambda p, a, c: (p.tail(-1), a, c), id="a place is missing"),
        pytest.param(lambda p, a, c: (_doubled(p), a, c), id="a place stands there twice"),
    ],
)
def test_replies_that_do_not_match_are_refused(broken: Any) -> None:
    """Nothing is lost or doubled in silence."""
    at = places(place("a"), place("b"))
    questions = reply_requests(at, Replying(), GUIDED)
    with pytest.raises(TilthError, match="do not match"):
        read(*broken(at, questions.asked, echoed(questions)))


def test_samples_of_equal_text_are_replies_of_their_own() -> None:
    """A model that says the same twice has said it twice; the pairs that come of it are made once."""
    at = places(place("a"))
    questions = reply_requests(at, Replying(), GUIDED, 2)
    made, _ = read(at, questions.asked, answers(questions.asked["id"].to_list(), ["same", "same"]))
    assert made["id"].n_unique() == 2


def test_no_places_are_no_requests() -> None:
    """Empty frames of the right shape, in and out."""
    questions = reply_requests(places(), Replying(), GUIDED)
    made, lost = read(places(), questions.asked, pl.DataFrame(schema=COMPLETIONS))
    assert (questions.requests.height, made.height, lost.height) == (0, 0, 0)


def test_logged_replies_are_responses_that_were_observed() -> None:
    """The model is that of the log, null where the log does not say; nothing is guided."""
    at = places(place("a"), place("b"))
    replies = pl.Series([[turn("assistant", "x")], [turn("assistant", "y")]])
    made = logged_replies(at, replies, pl.Series(["old", None], dtype=pl.String))
    assert set(made["method"]) == {"observed"}
    assert {
        (row["conversation_id"][0], row["completion"][0]["content"], row["model"]) for row in made.to_dicts()
    } == {
        ("a", "x", "old"),
        ("b", "y", None),
    }
    assert not made["guided"].any()
