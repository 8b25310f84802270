"""What engines are asked to hold, and what is checked of answers whatever they hold."""

from __future__ import annotations

import json

import pytest

from tilth.transforms.inference.requests import Completion, Request
from tilth.transforms.inference.structured import Misfit, fitted, unbounded

SHORT = {"type": "string", "maxLength": 5}


def test_lengths_of_strings_are_not_sent() -> None:
    """Wherever a string stands, its longest length stays here; what only looks like the keyword is sent."""
    listed = {"type": "array", "items": SHORT, "maxItems": 3}
    schema = {
        "title": "t",
        "properties": {"maxLength": SHORT, "b": {"anyOf": [SHORT, {"type": "null"}]}, "c": listed},
        "$defs": {"d": SHORT},
        "enum": [{"maxLength": 1}],
    }
    bare = {"type": "string"}
    assert json.loads(unbounded(json.dumps(schema))) == {
        "title": "t",
        "properties": {
            "maxLength": bare,
            "b": {"anyOf": [bare, {"type": "null"}]},
            "c": {"type": "array", "items": bare, "maxItems": 3},
        },
        "$defs": {"d": bare},
        "enum": [{"maxLength": 1}],
    }


def test_lengths_are_checked_all_the_same() -> None:
    """An answer that is too long does not fit, though the engine was not told."""
    request = Request("r", [], schema=json.dumps({"type": "object", "properties": {"a": SHORT}}))
    assert fitted(request, Completion('{"a":"12345"}', "stop", 1, 1)).text == '{"a":"12345"}'
    with pytest.raises(Misfit, match="too long"):
        fitted(request, Completion('{"a":"123456"}', "stop", 1, 1))
