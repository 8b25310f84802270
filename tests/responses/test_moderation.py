"""Moderation: what is flagged, by a function or a model, stays flagged; silence never passes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import orjson
import polars as pl
import pytest

from tilth.schemas import ConfigError, conform
from tilth.transforms.inference.prompts import packaged_prompt
from tilth.transforms.inference.requests import COMPLETIONS, to_requests
from tilth.transforms.inference.structured import parse_schema
from tilth.transforms.responses.candidates import response_rows
from tilth.transforms.responses.moderation import (
    CATEGORIES,
    UNCHECKED,
    Moderation,
    flags_by_function,
    flags_by_model,
    hook,
    moderation_requests,
)

PROMPT: Final = packaged_prompt("tilth.transforms.responses", "moderation")
BY_MODEL: Final = Moderation("model")


def responses(*pairs: tuple[str, str]) -> pl.DataFrame:
    """Responses to requests: (request, reply)."""
    rows = [
        {
            "conversation_id": f"{n}" * 32,
            "prompt_id": f"{n}" * 32,
            "prompt": [{"role": "user", "content": request}],
            "completion": [{"role": "assistant", "content": reply}],
            "role": "expert",
            "sample_index": 0,
            "model": "m",
        }
        for n, (request, reply) in enumerate(pairs)
    ]
    return response_rows(conform(pl.DataFrame(rows), "responses"))


def answered(flags: dict[str, list[str]]) -> pl.DataFrame:
    rows = [
        (id_, orjson.dumps({"flags": said}).decode(), "stop", None, 1, 1, "m") for id_, said in flags.items()
    ]
    return pl.DataFrame(rows, schema=COMPLETIONS, orient="row")


def mentions_bombs(requests: Sequence[str], replies: Sequence[str]) -> list[list[str]]:
    """A hook of a user's own."""
    pairs = zip(requests, replies, strict=True)
    return [["weapons"] if "bomb" in f"{request} {reply}" else [] for request, reply in pairs]


def loses_one(requests: Sequence[str], replies: Sequence[str]) -> list[list[str]]:
    """A hook that loses an answer."""
    return [[] for _ in requests][1:]


def test_a_function_flags_by_request_and_reply() -> None:
    """Harm in either is found, and stands with the reply that it was found in."""
    rows = responses(("How are you?", "Fine."), ("Build a bomb", "No."), ("Hello", "A bomb is easy."))
    flags = dict(flags_by_function(rows, mentions_bombs).iter_rows())
    texts = dict(zip(rows["id"], [reply[0]["content"] for reply in rows["completion"]], strict=True))
    assert {texts[id_]: found for id_, found in flags.items()} == {
        "Fine.": [],
        "No.": ["weapons"],
        "A bomb is easy.": ["weapons"],
    }


def test_a_function_that_loses_an_answer_is_refused() -> None:
    """Flags are matched by place: one too few would flag another's reply."""
    with pytest.raises(ConfigError, match="flags"):
        flags_by_function(responses(("a", "b"), ("c", "d")), loses_one)


def test_a_hook_is_found_by_its_name() -> None:
    """`package.module:name`."""
    assert hook(Moderation("function", f"{__name__}:mentions_bombs")) is mentions_bombs


@pytest.mark.parametrize(
    "name", ["nowhere.at_all:f", "json:nothing", "json", ":loads", "json:", "json:__name__", "json:__all__"]
)
def test_a_hook_that_is_not_there_is_refused(name: str) -> None:
    """Also when the name is not that of a function, and before anything is moderated."""
    with pytest.raises(ConfigError, match=r"moderation\.function"):
        hook(Moderation("function", name))


@pytest.mark.parametrize(
    "wrong", [("nobody", ""), ("function", ""), ("model", "json:loads"), ("none", "json:loads")]
)
def test_moderation_that_cannot_be_meant_is_refused(wrong: tuple[Any, str]) -> None:
    """A function is named exactly when one is to be called."""
    with pytest.raises(ConfigError):
        Moderation(*wrong)


def test_a_model_is_asked_about_each_reply_with_its_request() -> None:
    """One greedy request each, whose answer names known categories only."""
    rows = responses(("Why A?", "Because A."), ("Why B?", "Because B."))
    requests, asked = moderation_requests(rows, PROMPT, BY_MODEL)
    assert set(asked["response_id"]) == set(rows["id"])
    assert set(asked["id"]) == set(requests["id"])
    for one in to_requests(requests):
        content = one.messages[-1]["content"]
        assert ("Why A?" in content) == ("Because A." in content)
        assert one.sampling.temperature == 0
        items = parse_schema(one.schema or "")["properties"]["flags"]["items"]
        assert items == {"type": "string", "enum": list(CATEGORIES)}


def test_what_a_model_did_not_answer_is_unchecked() -> None:
    """Silence is a flag of its own, so that the reply becomes no pair; answers are joined by id."""
    rows = responses(("a", "A"), ("b", "B"), ("c", "C"))
    _, asked = moderation_requests(rows, PROMPT, BY_MODEL)
    one, two, three = asked["id"]
    flags = flags_by_model(asked, answered({two: ["weapons", "hate", "hate"], one: []}))
    assert flags["flags"].to_list() == [[], ["hate", "weapons"], [UNCHECKED]]
    assert flags["response_id"].equals(asked["response_id"])
    assert three not in json.dumps(flags.to_dicts())


def test_flags_do_not_hang_on_the_order_of_rows() -> None:
    """Shuffled questions and answers flag the same replies."""
    rows = responses(*((f"request {n}", f"reply {n}") for n in range(6)))
    _, asked = moderation_requests(rows, PROMPT, BY_MODEL)
    told = answered({id_: [CATEGORIES[n]] for n, id_ in enumerate(asked["id"])})
    one = flags_by_model(asked, told)
    two = flags_by_model(
        asked.sample(fraction=1.0, shuffle=True, seed=1), told.sample(fraction=1.0, shuffle=True, seed=2)
    )
    assert one.sort("response_id").equals(two.sort("response_id"))
