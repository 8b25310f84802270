"""The shapes that logs come in. Explicit: a name here is a name for ``--format``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from tilth.transforms.ingest.column_map import shape_of
from tilth.transforms.ingest.record import ReadConfig, Record
from tilth.transforms.ingest.shapes.chat import LMSYS, OPENAI, SHAREGPT, WILDCHAT, ChatShape
from tilth.transforms.ingest.shapes.preferences import HhShape, UltraFeedbackShape

__all__ = ["CHATS", "SHAPES", "ChatShape", "Shape", "shape_for"]

SHAPES: Final[Mapping[str, str]] = {
    "openai": "rows with a list of {role, content} messages, tool calls and content parts included",
    "sharegpt": "rows with `conversations` of {from, value}",
    "wildchat": "WildChat-1M: `conversation` with `conversation_hash`, `hashed_ip`, toxicity",
    "lmsys": "LMSYS-Chat-1M: `conversation` with `conversation_id`, `model`, `language`",
    "oasst": "OASST: one message a row with `parent_id`, or one nested tree a row",
    "hh": "HH-RLHF: `chosen` and `rejected` transcripts",
    "ultrafeedback": "UltraFeedback: `instruction` with `completions`, or `chosen` and `rejected` messages",
    "map": "any other shape, through a YAML column map",
}

CHATS: Final[Mapping[str, ChatShape]] = {shape.name: shape for shape in (OPENAI, SHAREGPT, WILDCHAT, LMSYS)}


class Shape(Protocol):
    """Reads one row at a time into a record."""

    def read(self, row: Mapping[str, Any], config: ReadConfig) -> Record:
        """Raises `tilth.transforms.ingest.record.Refused`."""
        ...


def shape_for(options: Mapping[str, Any]) -> Shape:
    """The shape that a task's options name; not for `oasst`, whose records span rows."""
    name = options["shape"]
    if name == "map":
        return shape_of(options["map"])
    if name in CHATS:
        return replace(CHATS[name], turns=options.get("turns") or CHATS[name].turns)
    return {"hh": HhShape(), "ultrafeedback": UltraFeedbackShape()}[name]
