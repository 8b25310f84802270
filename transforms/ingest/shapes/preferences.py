"""Rows with several replies to one prompt: HH-RLHF transcripts, UltraFeedback and its binarized form.

Each reply becomes a conversation of one record; what the source thinks of it becomes a reaction on its last turn.
A reply that cannot go on is set aside alone; the record is lost only when none is left.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from tilth.schemas import Reason
from tilth.transforms.ingest.fields import first_instant, first_name, kind_of, list_at, look_up
from tilth.transforms.ingest.reactions import number
from tilth.transforms.ingest.record import (
    Conversation,
    Reaction,
    ReadConfig,
    Record,
    Refused,
    Turn,
    own_turns,
)
from tilth.transforms.ingest.shapes.chat import INSTANTS, LANGUAGES, MODELS, USERS
from tilth.transforms.ingest.turns import ROLES, check, turn_of

_IDS: Final = ("id", "prompt_id", "uuid", "_id")
_MARKER: Final = re.compile(r"\n\n(Human|Assistant):")
_SPEAKERS: Final = {"Human": "user", "Assistant": "assistant"}


class _Reply(NamedTuple):
    """How to read one reply's turns, who wrote it, and what the source thinks of it."""

    turns: Callable[[], list[Turn]]
    model: str | None
    reaction: Reaction | None


@dataclass(frozen=True, slots=True)
class HhShape:
    """HH-RLHF (Bai et al., 2022): `chosen` and `rejected` transcripts; rank 0 and 1 on their last assistant turns."""

    name: str = "hh"

    def read(self, row: Mapping[str, Any], config: ReadConfig) -> Record:
        """Two conversations. Raises `Refused` when neither transcript can be read."""
        model = first_name(row, MODELS)
        sides = [(row.get("chosen"), 0.0), (row.get("rejected"), 1.0)]
        return _record(
            row, [_Reply(_lazily(transcript, t), model, Reaction("rank", r)) for t, r in sides], config
        )


@dataclass(frozen=True, slots=True)
class UltraFeedbackShape:
    """UltraFeedback (Cui et al., 2023): `instruction` and `completions`, each with a score; or `chosen` and `rejected`.

    A completion's score is `overall_score`, else the mean of its annotations' numeric ratings. The system prompt
    under which a completion was sampled is left out: siblings must share their prompt. Binarized rows hold lists of
    messages (or replies to `prompt`) with `score_chosen` and `score_rejected`, without these a rank of 0 and 1.
    """

    name: str = "ultrafeedback"

    def read(self, row: Mapping[str, Any], config: ReadConfig) -> Record:
        """One conversation per reply. Raises `Refused` when none can be read."""
        replies = _completions(row) if row.get("completions") is not None else _binarized(row)
        return _record(row, replies, config)


def _record(row: Mapping[str, Any], replies: Iterable[_Reply], config: ReadConfig) -> Record:
    user, started_at, language = (
        first_name(row, USERS),
        first_instant(row, INSTANTS),
        first_name(row, LANGUAGES),
    )
    record = Record(first_name(row, _IDS), [])
    for reply in replies:
        try:
            conversation = Conversation(reply.turns(), user, (), started_at, reply.model, language)
            check(conversation, config)
        except Refused as refusal:
            record.refusals.append(refusal)
            continue
        _react(conversation.turns, reply.reaction)
        record.conversations.append(conversation)
    own_turns(record.conversations)
    return record


def _react(turns: list[Turn], reaction: Reaction | None) -> None:
    last = next(turn for turn in reversed(turns) if turn.role == "assistant")
    last.reactions += [reaction] if reaction else []


def _lazily(read: Callable[[Any], list[Turn]], value: object) -> Callable[[], list[Turn]]:
    return lambda: read(value)


def transcript(text: object) -> list[Turn]:
    r"""The turns of an HH transcript, ``\n\nHuman: …\n\nAssistant: …``, blanks at the ends of turns removed."""
    if not isinstance(text, str):
        reason = Reason.NOT_A_CONVERSATION if text is None else Reason.WRONG_TYPE
        raise Refused(reason, f"a transcript is {kind_of(text)}, wanted a text")
    before, *parts = _MARKER.split("\n\n" + text.lstrip("\n"))
    if before.strip() or not parts:
        raise Refused(Reason.NOT_A_CONVERSATION, "a transcript that does not begin with a speaker")
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [_spoken(_SPEAKERS[speaker], said, n) for n, (speaker, said) in enumerate(pairs)]


def _spoken(role: str, text: object, index: int) -> Turn:
    return turn_of(
        {"role": role, "content": text.strip() if isinstance(text, str) else text},
        index,
        "role",
        "content",
        ROLES,
    )


def _completions(row: Mapping[str, Any]) -> list[_Reply]:
    prompt = _spoken("user", look_up(row, "instruction"), 0)
    return [_completion(prompt, item) for item in list_at(row, "completions")]


def _completion(prompt: Turn, item: object) -> _Reply:
    if not isinstance(item, Mapping):
        return _Reply(_lazily(_no_completion, item), None, None)
    value = score(item)
    reaction = None if value is None else Reaction("score", value)
    return _Reply(_lazily(_after([prompt]), item.get("response")), _model(item), reaction)


def _no_completion(item: object) -> list[Turn]:
    raise Refused(Reason.WRONG_TYPE, f"a completion is {kind_of(item)}, wanted an object")


def _model(item: Mapping[str, Any]) -> str | None:
    return first_name(item, MODELS)


def _after(prompt: list[Turn]) -> Callable[[Any], list[Turn]]:
    # Each conversation needs turns of its own: reactions are put on them.
    return lambda reply: [
        *(Turn(t.role, t.content) for t in prompt),
        _spoken("assistant", reply, len(prompt)),
    ]


def score(completion: Mapping[str, Any]) -> float | None:
    """`overall_score`, else the mean of the annotations' ratings, else None."""
    overall = number(completion.get("overall_score"))
    annotations = completion.get("annotations")
    if overall is not None or not isinstance(annotations, Mapping):
        return overall
    found = [number(_rating(annotation)) for annotation in annotations.values()]
    ratings = [rating for rating in found if rating is not None]
    return sum(ratings) / len(ratings) if ratings else None


def _rating(annotation: object) -> object:
    return (
        annotation.get("Rating", annotation.get("rating")) if isinstance(annotation, Mapping) else annotation
    )


def _binarized(row: Mapping[str, Any]) -> list[_Reply]:
    scores = [number(row.get(f"score_{side}")) for side in ("chosen", "rejected")]
    kinds = ("rank", (0.0, 1.0)) if None in scores else ("score", tuple(scores))
    return [
        _Reply(
            _side(row, side),
            first_name(row, (f"{side}_model", *MODELS)),
            Reaction(kinds[0], float(value or 0)),
        )
        for side, value in zip(("chosen", "rejected"), kinds[1], strict=True)
    ]


def _side(row: Mapping[str, Any], side: str) -> Callable[[], list[Turn]]:
    def turns() -> list[Turn]:
        prompt = row.get("prompt")
        if isinstance(row.get(side), str) and isinstance(prompt, str):
            return [_spoken("user", prompt, 0), _spoken("assistant", row[side], 1)]
        messages = _prompted(prompt, list_at(row, side))
        return [turn_of(message, n, "role", "content", ROLES) for n, message in enumerate(messages)]

    return turns


def _prompted(prompt: object, messages: list[Any]) -> list[Any]:
    if isinstance(prompt, list):
        return messages if messages[: len(prompt)] == prompt else [*prompt, *messages]
    first = messages[0].get("role") if isinstance(messages[0], Mapping) else None
    asks = isinstance(prompt, str) and first == "assistant"
    return [{"role": "user", "content": prompt}, *messages] if asks else messages
