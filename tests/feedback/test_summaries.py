"""Preference summaries: for which replies, shown what, and what of the answers goes into the table."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import orjson
import polars as pl
import pytest

from feedback.talks import name, talk, talks
from tilth.schemas import ConfigError
from tilth.schemas.contracts import measure
from tilth.transforms.feedback import mine
from tilth.transforms.feedback.summaries import (
    Summaries,
    Targets,
    answer_schema,
    statements,
    summaries,
    summary_prompt,
    summary_requests,
    targets,
)
from tilth.transforms.feedback.windows import Window
from tilth.transforms.inference.requests import Completion, to_frame, to_requests
from tilth.transforms.inference.structured import parse_schema

WRONG = "No, that's completely wrong. You didn't answer my question."
ROWS = talks(
    talk("q", "a", WRONG, "b", "thanks, perfect", called="one"),
    talk("q", "a", "thanks", "b", WRONG, called="two"),
    talk("How do I make a bomb?", "I can't help with that, it is illegal.", WRONG, called="refused"),
)


def targets_of(rows: pl.DataFrame, config: Summaries = Summaries()) -> Targets:  # noqa: B008
    return targets(mine(rows).feedback.drop("owned"), rows, config)


def said(texts: Mapping[str, Sequence[str]]) -> pl.DataFrame:
    """Completions with these statements."""
    answers = [
        Completion(orjson.dumps({"preferences": list(one)}).decode(), "stop", 1, 1) for one in texts.values()
    ]
    return to_frame(list(texts), answers, "tiny@1")


def test_a_criticised_reply_is_a_target_and_a_right_refusal_is_none() -> None:
    """One row per criticised reply with the prompt it answered; a flagged complaint is set aside with its reason."""
    kept, dropped = targets_of(ROWS)
    found = {row["conversation_id"]: row for row in kept.iter_rows(named=True)}
    assert set(found) == {name("one"), name("two")}
    two = found[name("two")]
    assert [message["content"] for message in two["prompt"]] == ["q", "a", "thanks"]
    assert (two["reply"][0]["content"], two["target_index"], two["said_in"]) == ("b", 3, [4])
    assert len(two["feedback_ids"]) == 1
    assert dropped.select("reason", "key").rows() == [
        ("correct_refusal", f"conversations#id={name('refused')}&message=1")
    ]


def test_one_flagged_complaint_is_enough_to_spare_a_reply() -> None:
    """A second complaint about the same reply that nobody flagged does not bring it back."""
    feedback = mine(ROWS.head(1)).feedback.drop("owned").filter(pl.col("polarity") == "negative")
    second = feedback.with_columns(pl.lit(name("x")).alias("id"), on_refusal=True, strength=pl.lit(0.1))
    kept, dropped = targets(pl.concat([feedback, second]), ROWS)
    assert kept.is_empty()
    assert dropped.get_column("reason").to_list() == ["correct_refusal"]


def test_weak_complaints_praise_and_thumbs_ask_for_no_summary() -> None:
    """Below the strength, of the other polarity, or without words."""
    feedback = mine(ROWS.head(1)).feedback.drop("owned")
    assert targets(feedback.filter(pl.col("polarity") == "positive"), ROWS).kept.is_empty()
    assert targets(feedback.with_columns(method=pl.lit("reaction")), ROWS).kept.is_empty()
    assert targets(feedback.with_columns(strength=pl.lit(0.5)), ROWS).kept.is_empty()


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([("assistant", "hi"), ("user", WRONG)], "prompt_not_from_user"),
        ([("user", " "), ("assistant", "hi"), ("user", WRONG)], "prompt_not_from_user"),
        ([("user", "q"), ("tool", "t"), ("assistant", "hi"), ("user", WRONG)], "prompt_not_from_user"),
    ],
)
def test_a_reply_that_no_users_turn_led_to_is_set_aside(messages: list[tuple[str, str]], reason: str) -> None:
    """A prompt ends with a turn of the user that has text."""
    rows = talks({**talk(), "messages": [{"role": role, "content": text} for role, text in messages]})
    kept, dropped = targets_of(rows)
    assert kept.is_empty()
    assert dropped.get_column("reason").to_list() == [reason]
    assert dropped.get_column("source").to_list() == ["s"]


def test_a_request_shows_the_conversation_up_to_the_complaint_and_no_further() -> None:
    """What came later is not shown; each turn is material; the reply and the complaints are pointed at by number."""
    kept = targets_of(ROWS).kept.filter(pl.col("conversation_id") == name("one"))
    (request,) = to_requests(summary_requests(kept, ROWS).requests)
    system, user = (message["content"] for message in request.messages)
    assert "perfect" not in user
    assert user.count("<<material") == 3
    assert "dissatisfied with is turn 1." in user
    assert "says so in: turn 2." in user
    assert "Safety comes first" in system
    assert "At most 8 statements" in system


def test_a_long_conversation_is_cut_around_the_reply_and_the_complaint() -> None:
    """Request, reply and complaint are always shown, and no more text than the window holds."""
    long = [f"{at} {'x' * 400}" for at in range(20)]
    rows = talks(talk(*long, "the question", "the reply", WRONG))
    window = Window(chars=700, message_chars=200, context_chars=0, turns=2)
    config = Summaries(window=window)
    (request,) = to_requests(summary_requests(targets_of(rows, config).kept, rows, config).requests)
    user = request.messages[1]["content"]
    assert all(text in user for text in ("the question", "the reply", WRONG))
    assert user.count("x") < 700
    assert user.count("left out here") >= 1


def test_answers_become_rows_of_the_table_by_id_alone() -> None:
    """Whatever the order of answers and targets, each statement list goes to the reply that was asked about."""
    kept = targets_of(ROWS).kept
    questions = summary_requests(kept, ROWS)
    texts = {row["id"]: [f"Fits {row['conversation_id']}."] for row in questions.asked.iter_rows(named=True)}
    shuffled = said(dict(random.Random(3).sample(list(texts.items()), len(texts))))
    made = summaries(kept.reverse(), questions.asked.reverse(), pl.concat([shuffled, said({"other": ["x"]})]))
    rows = made.preferences
    assert [row["preferences"] for row in rows.iter_rows(named=True)] == [
        [f"Fits {of}."] for of in rows.get_column("conversation_id")
    ]
    counts = measure("preferences", rows).counts
    assert [flag for flag, count in counts.items() if count] == []
    assert rows.get_column("model").to_list() == ["tiny@1"] * 2
    assert rows.get_column("prompt_version").unique().to_list() == [
        f"{summary_prompt().id}@{summary_prompt().version}"
    ]
    assert made.counts == {"targets": 2, "summaries": 2, "without_statement": 0, "without_answer": 0}


def test_blank_and_repeated_statements_go_and_a_summary_without_any_is_set_aside() -> None:
    """The first of equal ones stays, in order; a reply without statements is no preference."""
    assert statements(["B  b", "a", "", " ", "b B", "A", "c", "x\0y"]) == ["B b", "a", "c"]
    kept = targets_of(ROWS).kept
    questions = summary_requests(kept, ROWS)
    first, _ = questions.asked.get_column("id")
    made = summaries(kept, questions.asked, said({first: ["", "  "]}))
    assert made.preferences.is_empty()
    assert made.dropped.get_column("reason").to_list() == ["empty"]
    assert made.counts == {"targets": 2, "summaries": 0, "without_statement": 1, "without_answer": 1}


def test_the_summary_is_in_no_prompt() -> None:
    """What is stored as the prompt is the logged conversation, and only its id goes into the table."""
    kept = targets_of(ROWS).kept
    questions = summary_requests(kept, ROWS)
    made = summaries(kept, questions.asked, said({key: ["Names Canberra."] for key in questions.asked["id"]}))
    assert "prompt" not in made.preferences.columns
    assert made.preferences.get_column("prompt_id").to_list() == kept.get_column("prompt_id").to_list()
    assert "Canberra" not in str(kept.get_column("prompt").to_list())


def test_nothing_to_ask_gives_empty_frames() -> None:
    """A part of the data without complaints is no error."""
    kept, dropped = targets(mine(ROWS).feedback.drop("owned").clear(), ROWS)
    questions = summary_requests(kept, ROWS)
    made = summaries(kept, questions.asked, said({}))
    assert (kept.height, dropped.height, questions.requests.height, made.preferences.height) == (0, 0, 0, 0)


def test_settings_and_the_schema_agree() -> None:
    """The bound on statements is that of the answer's schema; none at all is refused."""
    listed = parse_schema(answer_schema(3))["properties"]["preferences"]
    assert (listed["maxItems"], listed["items"]["maxLength"]) == (3, 300)
    with pytest.raises(ConfigError, match="summaries"):
        Summaries(statements=0)
