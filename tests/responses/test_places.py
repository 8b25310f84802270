"""Where replies are wanted: the place of each criticised reply, with what leads to it."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from tilth.schemas import conform, content_ids
from tilth.schemas.ids import messages_key
from tilth.transforms.responses.places import answerable, places


def conversation(id: str, *texts: str, **fields: Any) -> dict[str, Any]:
    turns = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]
    return {"id": id, "source": "log", "record_id": id, "model": f"model of {id}", "split": "train",
            "messages": turns, **fields}  # fmt: skip


def conversations(*rows: dict[str, Any]) -> pl.DataFrame:
    return conform(pl.DataFrame(list(rows), strict=False), "conversations")


def preferences(of: pl.DataFrame, *wanted: tuple[str, int]) -> pl.DataFrame:
    """Rows of the table for these replies, each with the id of the prompt that it answers."""
    texts = dict(of.select("id", "messages").iter_rows())
    rows = [
        {"conversation_id": id_, "target_index": at, "preferences": [f"{id_} {at}"], "feedback_ids": ["f"],
         "prompt": texts[id_][:at], "split": "train"}
        for id_, at in wanted
    ]  # fmt: skip
    frame = pl.DataFrame(rows)
    ids = content_ids(frame, "prompts", [messages_key("prompt")]).alias("prompt_id")
    return conform(frame.with_columns(ids).drop("prompt"), "preferences")


LOGS = conversations(
    conversation("a", "Why?", "So.", "No, why?", "Because."),
    conversation("b", "Why?", "Hm.", "Wrong.", "Yes."),
)


def test_a_place_is_joined_by_conversation_and_turn() -> None:
    """Prompt, reply and wishes are those of the place, whatever the order of rows; equal prompts do not mix."""
    wanted = preferences(LOGS, ("b", 1), ("a", 3), ("a", 1))
    made = places(wanted, LOGS)
    assert made.select("conversation_id", "target_index").rows() == [("a", 1), ("a", 3), ("b", 1)]
    assert [len(prompt) for prompt in made["prompt"]] == [1, 3, 1]
    assert [reply[0]["content"] for reply in made["reply"]] == ["So.", "Because.", "Hm."]
    assert made["preferences"].to_list() == [["a 1"], ["a 3"], ["b 1"]]
    assert made["model"].to_list() == ["model of a", "model of a", "model of b"]
    assert made.equals(places(wanted.reverse(), LOGS.reverse()))


def test_preferences_without_their_conversation_are_refused() -> None:
    """Nothing is passed over in silence."""
    with pytest.raises(ValueError, match="without their conversations"):
        places(preferences(LOGS, ("a", 1), ("b", 1)), LOGS.head(1))


def test_a_turn_that_is_not_the_assistants_is_refused() -> None:
    """A wish about a user's turn is a mistake."""
    with pytest.raises(ValueError, match="without their conversations"):
        places(preferences(LOGS, ("a", 2)), LOGS)


def test_another_prompt_than_the_one_meant_is_refused() -> None:
    """The prompt's id says what was meant; where it differs, the conversation is another one."""
    other = conversations(conversation("a", "Why not?", "So."))
    with pytest.raises(ValueError, match="without their conversations"):
        places(preferences(LOGS, ("a", 1)), other)


def test_no_model_is_asked_where_tools_were_used() -> None:
    """Tools before the place or in it: their definitions are not known."""
    calls = '[{"message_index": 1, "tool_calls": [{}]}]'
    used = conversation("t", "Why?", "So.", "Wrong.", "Well.", tool_calls_json=calls)
    logs = pl.concat([LOGS, conversations(used)])
    made = places(preferences(logs, ("a", 3), ("t", 1), ("t", 3)), logs)
    assert made.select("conversation_id", "calls_tools").rows() == [("a", False), ("t", True), ("t", False)]
    assert answerable(made)["conversation_id"].to_list() == ["a"]
