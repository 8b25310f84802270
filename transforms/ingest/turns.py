"""From foreign messages to turns, and what makes turns a conversation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tilth.schemas import Reason
from tilth.transforms.ingest.fields import check_text, json_list, kind_of, name, texts_in
from tilth.transforms.ingest.reactions import on_message
from tilth.transforms.ingest.record import Conversation, ReadConfig, Refused, Turn

ROLES: Final[Mapping[str, str]] = {
    "user": "user", "human": "user", "prompter": "user", "customer": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant",
    "ai": "assistant", "bing": "assistant", "bard": "assistant", "claude": "assistant",
    "function_call": "assistant", "tool_call": "assistant",
    "system": "system", "developer": "system",
    "tool": "tool", "function": "tool", "function_response": "tool", "tool_response": "tool", "observation": "tool",
}  # fmt: skip
"""Speakers as logs name them -> the role they have here."""

MESSAGE_ID_KEYS: Final = ("message_id", "id")
TOOL_KEYS: Final = ("tool_calls", "function_call")
_TEXT_PARTS: Final = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}

# Leading system turns; then replies, each with its tool turns, between user turns; the end is free.
_CONVERSATION: Final = re.compile(r"s*(?:a(?:t+a)*)?(?:ua(?:t+a)*)*(?:u|(?<=a)t+)?")


def turn_of(message: object, index: int, speaker: str, text: str, roles: Mapping[str, str]) -> Turn:
    """A turn from one message object. Raises `Refused` naming the index, never the text."""
    if not isinstance(message, Mapping):
        raise Refused(Reason.WRONG_TYPE, f"turn {index} is {kind_of(message)}, wanted an object")
    role = _role(message.get(speaker), index, speaker, roles)
    calls = _tool_calls(message, index) if role == "assistant" else []
    content = _content(message.get(text), index, text, may_be_blank=role == "tool" or bool(calls))
    found = next((name(message[key]) for key in MESSAGE_ID_KEYS if message.get(key) is not None), None)
    if found is not None:
        check_text(found, f"the id of turn {index}")
    return Turn(role, content, id=found, tool_calls=calls, reactions=on_message(message))


def _role(value: object, index: int, key: str, roles: Mapping[str, str]) -> str:
    if not isinstance(value, str):
        raise Refused(Reason.WRONG_TYPE, f"`{key}` of turn {index} is {kind_of(value)}, wanted a text")
    role = roles.get(value) or roles.get(value.strip().lower())
    if role is None:
        raise Refused(Reason.UNKNOWN_ROLE, f"the speaker of turn {index} is not in the role table")
    return role


def _content(value: object, index: int, key: str, may_be_blank: bool) -> str:
    if isinstance(value, list):
        value = "\n".join(_part(part, index) for part in value)
    if value is not None and not isinstance(value, str):
        raise Refused(Reason.WRONG_TYPE, f"`{key}` of turn {index} is {kind_of(value)}, wanted a text")
    content = value or ""
    if not may_be_blank and not content.strip():
        raise Refused(Reason.EMPTY_MESSAGE, f"turn {index} is blank")
    check_text(content, f"turn {index}")
    return content


def _part(part: object, index: int) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    text = (
        part.get(_TEXT_PARTS.get(kind, "")) if isinstance(part, Mapping) and isinstance(kind, str) else part
    )
    if not isinstance(text, str):
        raise Refused(Reason.UNSUPPORTED_CONTENT, f"turn {index} has a content part that is not text")
    return text


def _tool_calls(message: Mapping[str, Any], index: int) -> list[Any]:
    calls = message.get("tool_calls") or []
    if isinstance(calls, str):
        calls = json_list(calls)
    if not isinstance(calls, list):
        raise Refused(Reason.WRONG_TYPE, f"`tool_calls` of turn {index} is {kind_of(calls)}, wanted a list")
    if isinstance(message.get("function_call"), Mapping):
        calls = [*calls, {"type": "function", "function": message["function_call"]}]
    for text in texts_in(calls):
        check_text(text, f"a tool call of turn {index}")
    return calls


def check(conversation: Conversation, config: ReadConfig) -> Conversation:
    """`conversation` as it may go on, consecutive turns joined where `config` says so.

    Raises `Refused`: a turn too long, no assistant turn, roles that do not alternate (a user and an assistant turn
    in turn, tool turns only after an assistant's, system turns only at the start; the last turn may be anyone's).
    """
    if config.on_consecutive == "merge":
        conversation.turns = merged(conversation.turns)
    for index, turn in enumerate(conversation.turns):
        if len(turn.content) > config.max_message_chars:
            found = (
                f"turn {index} has {len(turn.content)} characters, wanted at most {config.max_message_chars}"
            )
            raise Refused(Reason.TOO_LARGE, found)
    roles = "".join(turn.role[0] for turn in conversation.turns)
    if not _CONVERSATION.fullmatch(roles):
        raise Refused(Reason.ROLES_DO_NOT_ALTERNATE, f"turns in order: {roles[:200]} (u, a, t, s by role)")
    if "a" not in roles:
        raise Refused(Reason.NO_ASSISTANT_TURN, f"turns in order: {roles[:200]} (u, a, t, s by role)")
    return conversation


def merged(turns: Sequence[Turn]) -> list[Turn]:
    """Turns with those of one speaker in a row joined by a newline; system and tool turns stay apart."""
    joined: list[Turn] = []
    for turn in turns:
        before = joined[-1] if joined else None
        same = before is not None and before.role == turn.role and turn.role in ("user", "assistant")
        if before is None or not same:
            joined.append(turn)
            continue
        content = "\n".join(text for text in (before.content, turn.content) if text)
        joined[-1] = Turn(
            turn.role,
            content,
            key=before.key + turn.key,
            id=before.id,
            tool_calls=before.tool_calls + turn.tool_calls,
            reactions=before.reactions + turn.reactions,
        )
    return joined
