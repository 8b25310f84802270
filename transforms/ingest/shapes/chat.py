"""Logs with one conversation a row, as a list of turns: OpenAI, ShareGPT, WildChat, LMSYS, and mapped shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tilth.schemas import Reason
from tilth.transforms.ingest.fields import check_text, first_instant, first_name, list_at, look_up
from tilth.transforms.ingest.reactions import on_row
from tilth.transforms.ingest.record import Conversation, ReadConfig, Record, Refused, Turn
from tilth.transforms.ingest.turns import ROLES, check, turn_of

IDS: Final = ("id", "conversation_id", "conversation_hash", "chat_id", "session_id", "uuid", "_id")
USERS: Final = ("user_id", "user", "user_key", "hashed_user_id", "author_id", "customer_id", "hashed_ip")
INSTANTS: Final = (
    "started_at",
    "created_at",
    "created",
    "timestamp",
    "start_time",
    "created_date",
    "date",
    "time",
)
MODELS: Final = ("model", "model_name", "model_id")
LANGUAGES: Final = ("language", "lang")


@dataclass(frozen=True, slots=True)
class ChatShape:
    """Where a row keeps its turns and what it says about them. Values are dotted paths, tried in order.

    `merge` joins consecutive turns of one speaker whatever the reader's configuration says.
    """

    name: str
    turns: str
    speaker: str = "role"
    text: str = "content"
    roles: Mapping[str, str] = field(default_factory=lambda: ROLES)
    ids: tuple[str, ...] = IDS
    users: tuple[str, ...] = USERS
    instants: tuple[str, ...] = INSTANTS
    models: tuple[str, ...] = MODELS
    languages: tuple[str, ...] = LANGUAGES
    system: str | None = None  # a key of the row with the system prompt
    merge: bool = False

    def read(self, row: Mapping[str, Any], config: ReadConfig) -> Record:
        """The record of one row. Raises `Refused`."""
        config = replace(config, on_consecutive="merge") if self.merge else config
        turns = self._turns(row)
        conversation = Conversation(
            turns,
            user=first_name(row, self.users),
            started_at=first_instant(row, self.instants),
            model=first_name(row, self.models),
            language=first_name(row, self.languages),
        )
        return Record(first_name(row, self.ids), [check(conversation, config)])

    def _turns(self, row: Mapping[str, Any]) -> list[Turn]:
        messages = list_at(row, self.turns)
        turns = [turn_of(m, n, self.speaker, self.text, self.roles) for n, m in enumerate(messages)]
        for index, reaction in on_row(row.get("reactions"), len(turns)):
            turns[index].reactions.append(reaction)
        prompt = look_up(row, self.system) if self.system else None
        return [_system(prompt), *turns] if prompt is not None and prompt != "" else turns


def _system(prompt: object) -> Turn:
    if not isinstance(prompt, str):
        raise Refused(Reason.WRONG_TYPE, "the row's system prompt is not a text")
    if not prompt.strip():
        raise Refused(Reason.EMPTY_MESSAGE, "the row's system prompt is blank")
    check_text(prompt, "the row's system prompt")
    return Turn("system", prompt)


OPENAI: Final = ChatShape("openai", "messages")
SHAREGPT: Final = ChatShape("sharegpt", "conversations", speaker="from", text="value", system="system")
WILDCHAT: Final = ChatShape("wildchat", "conversation", ids=("conversation_hash", "conversation_id"))
LMSYS: Final = ChatShape("lmsys", "conversation", ids=("conversation_id",))
