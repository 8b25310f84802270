"""What a recipe would ask, as far as that is known before it asks anything."""

from __future__ import annotations

from dataclasses import dataclass

from tilth.transforms.parts import Shard


@dataclass(frozen=True, slots=True)
class Planned:
    """Calls of one purpose to one role.

    Args:
        purpose: as the run names it.
        role: who would be asked.
        requests: the very requests, where they are known already; then the rest is not looked at.
        calls: how many there may be: an estimate that rests on what is known of the logs.
        prompt_chars: the text of one such call.
        answer_tokens: the longest answer.
    """

    purpose: str
    role: str
    requests: tuple[Shard, ...] = ()
    calls: int = 0
    prompt_chars: int = 0
    answer_tokens: int = 0
