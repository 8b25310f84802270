"""What a model is shown of a conversation: all of it where it fits, else windows of bounded length.

Every turn that is to be looked at stands in exactly one window, with the reply it follows and the request before that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final, NamedTuple  # Any: rows of frames

import polars as pl

from tilth.schemas import ConfigError

SHOWN: Final = pl.List(
    pl.Struct({"index": pl.Int32, "role": pl.String, "content": pl.String, "asked": pl.Boolean})
)
WINDOWS: Final = pl.Schema(
    {
        "conversation_id": pl.String,
        "window": pl.Int32,  # of the conversation, from 0
        "shown": SHOWN,  # messages in order, with their places in the conversation
        "turns": pl.List(pl.Int32),  # the places of those that are asked about
    }
)
_LEAST_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Window:
    """How much of a conversation one call is shown, in characters.

    A conversation up to its last turn in question that is no longer than `chars` is shown whole, and nothing is cut.

    Args:
        chars: the most text of one call.
        message_chars: of a conversation that is longer, a message is cut in the middle to so many.
        context_chars: how much before the first turn in question, its reply and its request is shown as well.
        turns: the most turns that one call is asked about, since the answer grows with them.
    """

    chars: int = 24_000
    message_chars: int = 6_000
    context_chars: int = 6_000
    turns: int = 32

    def __post_init__(self) -> None:
        if self.message_chars < _LEAST_CHARS or self.chars < 3 * self.message_chars:
            found = f"chars={self.chars}, message_chars={self.message_chars}"
            wanted = f"message_chars of {_LEAST_CHARS} or more, and chars for three messages"
            raise ConfigError("the size of a window", found=found, wanted=wanted)
        if self.context_chars < 0 or self.turns < 1:
            found = f"context_chars={self.context_chars}, turns={self.turns}"
            raise ConfigError("the size of a window", found=found, wanted="at least 0; at least 1")


class Place(NamedTuple):
    """A turn in question and what it cannot be understood without, as places in the conversation."""

    turn: int
    target: int  # the reply
    request: int | None  # what the reply answers


def windows(conversations: pl.DataFrame, turns: pl.DataFrame, window: Window) -> pl.DataFrame:
    """Rows of `WINDOWS`: each of `turns` in exactly one; conversations without turns have none.

    Args:
        conversations: id and messages are read.
        turns: conversation_id, message_index and target_index (the reply that the turn follows).
        window: the bounds. What is shown in one window is never longer.
    """
    asked = turns.sort("message_index").group_by("conversation_id", maintain_order=True)
    grouped = asked.agg(pl.struct("message_index", "target_index").alias("places"))
    logged = conversations.select("messages", conversation_id="id").unique("conversation_id", keep="first")
    rows = logged.join(grouped, on="conversation_id", how="inner").sort("conversation_id")
    return pl.DataFrame(list(_rows(rows, window)), schema=WINDOWS, orient="row")


def _rows(rows: pl.DataFrame, window: Window) -> Iterator[tuple[object, ...]]:
    for name, messages, places in rows.select("conversation_id", "messages", "places").iter_rows():
        where = [place(messages, found["message_index"], found["target_index"]) for found in places]
        for number, (shown, turns) in enumerate(divided(messages, where, window)):
            yield name, number, shown, turns


def place(messages: Sequence[Mapping[str, Any]], turn: int, target: int) -> Place:
    """A turn with its reply, and the last user turn before that."""
    users = (at for at in range(target - 1, -1, -1) if messages[at]["role"] == "user")
    return Place(turn, target, next(users, None))


def divided(
    messages: Sequence[Mapping[str, Any]], places: Sequence[Place], window: Window
) -> Iterator[tuple[list[dict[str, Any]], list[int]]]:
    """What each window of one conversation shows and asks about; `places` are in order, none twice."""
    whole = sum(len(message["content"] or "") for message in messages[: places[-1].turn + 1])
    if whole <= window.chars and len(places) <= window.turns:
        turns = [one.turn for one in places]
        yield _shown(messages, range(places[-1].turn + 1), turns, window.chars), turns
        return
    before = _before(messages, window.message_chars)
    for group in _groups(places, before, window):
        turns = [one.turn for one in group]
        chosen = _chosen(group, before, window)
        yield _shown(messages, chosen, turns, window.message_chars), turns


def excerpt(
    messages: Sequence[Mapping[str, Any]], needed: Sequence[int], window: Window
) -> list[dict[str, Any]]:
    """What is shown of a conversation up to the last of the `needed` messages: these always, and what fits beside them.

    Whole if it fits; else messages are cut, the needed ones shorter where they are many, and the last of those that
    even so do not fit are left out; of the others, those nearest to the end are shown.
    """
    needed = needed[: window.chars // _LEAST_CHARS]
    last = max(needed)
    if sum(len(message["content"] or "") for message in messages[: last + 1]) <= window.chars:
        return _shown(messages, range(last + 1), needed, window.chars)
    limit = min(window.message_chars, window.chars // len(set(needed)))
    chosen = _filled(set(needed), _before(messages, limit), window.chars)
    return _shown(messages, chosen, needed, limit)


def _before(messages: Sequence[Mapping[str, Any]], limit: int) -> list[int]:
    """The length of all messages before each, cut to `limit`; one entry more than messages."""
    return [0, *accumulate(min(len(message["content"] or ""), limit) for message in messages)]


def _first(one: Place) -> int:
    return one.target if one.request is None else one.request


def _groups(places: Sequence[Place], before: Sequence[int], window: Window) -> Iterator[list[Place]]:
    """Neighbouring turns whose stretch of the conversation fits into one window."""
    group = list[Place]()
    for one in places:
        start = _first(group[0] if group else one)
        stretch = before[one.turn + 1] - before[start]
        if group and (stretch > window.chars or len(group) == window.turns):
            yield group
            group = []
        group.append(one)
    yield group


def _chosen(group: Sequence[Place], before: Sequence[int], window: Window) -> list[int]:
    """The places that a window shows: what its turns need, what stands between, and context before."""
    needed = {at for one in group for at in one if at is not None}
    stretch = before[group[-1].turn + 1] - before[_first(group[0])]
    return _filled(needed, before, min(window.chars, stretch + window.context_chars))


def _filled(needed: set[int], before: Sequence[int], budget: int) -> list[int]:
    """`needed` and, back from the last of them, what still fits into `budget`."""
    chosen = set(needed)
    left = budget - sum(before[at + 1] - before[at] for at in needed)
    for at in range(max(needed), -1, -1):
        left -= 0 if at in needed else before[at + 1] - before[at]
        if left < 0:
            break
        chosen.add(at)
    return sorted(chosen)


def _shown(
    messages: Sequence[Mapping[str, Any]], places: Sequence[int], asked: Sequence[int], limit: int
) -> list[dict[str, Any]]:
    def message(at: int) -> dict[str, Any]:
        said = messages[at]
        content = cut(said["content"] or "", limit)
        return {"index": at, "role": said["role"], "content": content, "asked": at in asked}

    return [message(at) for at in places]


def cut(text: str, limit: int) -> str:
    """`text`, with a mark in place of its middle where it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    mark = f"\n[… about {len(text) - limit:,} characters are left out here …]\n"
    keep = limit - len(mark)
    return text[: keep - keep // 2] + mark + text[len(text) - keep // 2 :]
