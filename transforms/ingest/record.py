"""What one source record becomes on the reference path: conversations, or a refusal with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

from tilth.schemas import ConfigError, Reason

PAYLOAD_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class ReadConfig:
    """How records are read.

    `on_consecutive` says what happens to two turns in a row of one speaker: the record is set aside, or the turns
    are joined with a newline. `user_salt` goes into the hash that stands for a user. Raises `ConfigError`.
    """

    user_salt: str = ""
    max_message_chars: int = 1_000_000
    on_consecutive: Literal["quarantine", "merge"] = "quarantine"

    def __post_init__(self) -> None:
        if self.on_consecutive not in ("quarantine", "merge"):
            raise ConfigError("on_consecutive", found=self.on_consecutive, wanted="quarantine or merge")
        if self.max_message_chars < 1:
            raise ConfigError("max_message_chars", found=self.max_message_chars, wanted="1 or more")


class Refused(Exception):
    """A row or a conversation cannot go on; `detail` never holds its text."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class Reaction(NamedTuple):
    """What somebody made of a turn: thumbs_up and thumbs_down (count), rank (0 is best), score, emoji (count)."""

    kind: str
    value: float
    at: datetime | None = None


@dataclass(slots=True)
class Turn:
    """One message. Turns with equal `key` are one turn that several paths share."""

    role: str
    content: str
    key: tuple[str, ...] = ()
    id: str | None = None
    tool_calls: list[Any] = field(default_factory=list)  # Any: JSON of the provider's choosing
    reactions: list[Reaction] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.key = self.key or (self.role, self.content)


@dataclass(slots=True)
class Conversation:
    """Turns in order, with what the source says about them. Users are ids as the source has them."""

    turns: list[Turn]
    user: str | None = None  # who wrote the first user turn
    other_users: Sequence[str] = ()
    started_at: datetime | None = None
    model: str | None = None
    language: str | None = None
    owned_from: int = 0


@dataclass(slots=True)
class Record:
    """The conversations of one source record, and what of it was refused. `rows` source rows made it."""

    source_id: str | None
    conversations: list[Conversation]
    rows: int = 1
    refusals: list[Refused] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SetAside:
    """A row of `quarantine` in the making. `at` is its place in the file: a byte or a row number."""

    at: int
    reason: Reason
    detail: str
    payload: bytes | None = None
    rows: int = 1
    file: int = 0  # which of a task's files


def own_turns(conversations: Sequence[Conversation]) -> None:
    """Sets `owned_from` of each conversation: how many leading turns an earlier one of them has, too."""
    seen: set[tuple[tuple[str, ...], ...]] = set()
    for conversation in conversations:
        keys = [turn.key for turn in conversation.turns]
        prefixes = [tuple(keys[: n + 1]) for n in range(len(keys))] if len(conversations) > 1 else []
        conversation.owned_from = sum(prefix in seen for prefix in prefixes)
        seen.update(prefixes)
