"""Prompts from logs, the draw of policies, and which replies are rated together."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest

from pairs.conftest import logged
from tilth.schemas import conform
from tilth.schemas.ids import content_id
from tilth.transforms.responses.candidates import PLACES
from tilth.transforms.responses.sampled import asked_of, one_per_prompt, rated_together, reply_places


def _talk(id: str, *say: str | tuple[str, str], **fields: Any) -> dict[str, Any]:
    return {"id": content_id(id), "say": say, **fields}


def _ends(places: pl.DataFrame) -> list[str]:
    return [prompt[-1]["content"] for prompt in places.get_column("prompt")]


@pytest.mark.parametrize(
    ("which", "ends"), [("first", ["hi"]), ("last", ["more"]), ("every", ["hi", "more"])]
)
def test_a_prompt_ends_where_the_assistant_answered(which: Any, ends: list[str]) -> None:
    """The first of them by default, the last, or every one; a question without an answer is no place."""
    found = reply_places(logged(_talk("c", "hi", "hello", "more", "sure", "and?")), which)
    assert _ends(found) == ends
    assert found.schema == PLACES


def test_shared_turns_are_asked_once_and_tools_not_at_all() -> None:
    """A path asks where it owns the reply; what called tools, or came after one, is left out."""
    tool = [("user", "weather"), ("assistant", "looking"), ("tool", "rain"), ("assistant", "it rains")]
    called = '[{"message_index": 1, "tool_calls": []}]'
    talks = logged(
        _talk("a", "hi", "hello", "one", "1"),
        _talk("b", "hi", "hello", "two", "2", owned_from=2),
        _talk("t", *tool, tool_calls_json=called),
    )
    assert sorted(_ends(reply_places(talks, "every"))) == ["hi", "one", "two"]
    assert sorted(_ends(reply_places(talks, "first"))) == ["hi", "two"]


def test_each_prompt_is_asked_in_one_conversation() -> None:
    """Of equal prompts the smallest conversation id stays, whatever the order of rows."""
    talks = logged(*(_talk(name, "hi", f"hello {name}") for name in "abcd"), _talk("e", "else", "what"))
    places = reply_places(talks, "first")
    kept = one_per_prompt(places)
    assert kept.height == 2
    assert kept.sort("conversation_id").equals(one_per_prompt(places[::-1]).sort("conversation_id"))
    assert min(content_id(name) for name in "abcd") in kept.get_column("conversation_id").to_list()


def test_each_prompt_draws_its_own_policies() -> None:
    """Two of four policies a prompt: always two, each about as often, and by the ids alone."""
    places = reply_places(logged(*(_talk(f"c{n}", f"prompt {n}", "reply") for n in range(200))), "first")
    names = ("a", "b", "c", "d")
    drawn = {name: set(asked_of(places, name, names, 2, 0).get_column("prompt_id")) for name in names}
    counts = [sum(id_ in ids for ids in drawn.values()) for id_ in places.get_column("prompt_id")]
    assert set(counts) == {2}
    assert all(70 < len(ids) < 130 for ids in drawn.values())
    assert set(asked_of(places[::-1], "a", names[::-1], 2, 0).get_column("prompt_id")) == drawn["a"]
    assert asked_of(places, "a", names, 0, 0).equals(places)


def _responses(texts: Sequence[str], prompt: str = "p") -> pl.DataFrame:
    rows = [
        {
            "id": content_id("response", prompt, str(n)),
            "prompt_id": content_id("prompt", prompt),
            "prompt": [{"role": "user", "content": prompt}],
            "completion": [{"role": "assistant", "content": text}],
            "model": f"m{n}",
            "conversation_id": content_id(prompt),
            "split": "train",
        }
        for n, text in enumerate(texts)
    ]
    return conform(pl.DataFrame(rows), "responses")


def test_replies_are_listed_with_their_own_ids() -> None:
    """The nth id of an item is that of its nth reply, however the rows stand; every row is in it or set aside."""
    table = pl.concat(
        [_responses(["a", "b", "A ", "c"], "p"), _responses(["x"], "q"), _responses(["y", "Y"], "r")]
    )
    rows = list(range(table.height))
    random.Random(1).shuffle(rows)
    found = rated_together(table[rows])
    texts = dict(zip(table.get_column("id"), table.get_column("completion").to_list(), strict=True))
    (item,) = found.items.iter_rows(named=True)
    assert [texts[id_] for id_ in item["response_ids"]] == item["replies"]
    assert sorted(reply[0]["content"].strip().lower() for reply in item["replies"]) == ["a", "b", "c"]
    reasons = found.dropped.get_column("reason").sort().to_list()
    assert reasons == ["duplicate", "duplicate", "identical_sides", "no_candidate"]
    assert found.responses.height + found.dropped.height == table.height
    assert found.items.equals(rated_together(table).items)
