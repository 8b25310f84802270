"""How the loopback server behaves, and what happens to one attempt of one request."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from statistics import NormalDist
from typing import Any, Final  # Any: JSON

from loopback.sensible import Habits

_NORMAL: Final = NormalDist()


class Fate(StrEnum):
    """What becomes of one attempt."""

    ANSWER = "answer"
    ERROR = "error"  # HTTP 500
    THROTTLE = "throttle"  # HTTP 429
    NEVER = "never"  # no answer until the client goes away; holds no slot
    CUT_BEFORE = "cut_before"  # the connection ends before the first byte
    CUT_WITHIN = "cut_within"  # the connection ends in the middle of the body
    NOT_JSON = "not_json"
    NO_CHOICES = "no_choices"
    EMPTY = "empty"  # content is the empty string


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Settings of the server. Shares are of attempts and are drawn from the request's content and attempt number."""

    seed: int = 0
    model: str = "loopback"
    vllm: bool = True  # answers /version, owns its models as vllm, takes `structured_outputs`
    metrics: bool = True  # GET /metrics in vLLM's text
    api_key: str = ""  # other keys get 401; "" takes any
    strict_model: bool = False  # other models get 404
    forbid: bool = False  # every chat gets 403
    # what is answered: "" any text that fits, "sensible" what `loopback.sensible` says where it knows what is asked
    script: str = ""
    position_bias: float = 0.0  # of sensible judges: `loopback.sensible.Habits`
    tie_share: float = 0.0
    garble_share: float = 0.0
    # time
    latency_s: float = 0.0  # median
    sigma: float = 0.0  # of the lognormal; 0 for a constant
    slots: int = 0  # answers worked on at once; others wait in line; 0 for no limit
    # faults, by attempt
    error_share: float = 0.0
    throttle_share: float = 0.0
    never_share: float = 0.0
    cut_before_share: float = 0.0
    cut_within_share: float = 0.0
    not_json_share: float = 0.0
    no_choices_share: float = 0.0
    empty_share: float = 0.0
    faulty_attempts: int = 0  # the first so many attempts of every request draw a fault; 0 for all attempts
    error_status: int = 500  # of the error share; any status
    # faults, by time and by count
    burst_every_s: float = 0.0  # a burst of 429 begins every so many seconds after the first chat; 0 for none
    burst_s: float = 0.0
    retry_after_s: float | None = 1.0  # what 429 says; null for no header
    retry_after_form: str = "seconds"  # seconds | date | ms
    malformed_tries: int = 0  # answers with a shape are broken for the first so many tries of a prompt
    poison: str = ""  # a prompt that holds this gets 400, with the prompt in the body
    max_model_len: int = 0  # words of prompt and max_tokens beyond it get vLLM's 400; 0 for no limit
    die_after: int = 0  # the process ends on the chat after so many; 0 for never

    def __post_init__(self) -> None:
        if self.script not in ("", "sensible"):
            raise TypeError(f"no such script: {self.script}")

    @property
    def habits(self) -> Habits:
        """How sensible judges err."""
        return Habits(self.position_bias, self.tie_share, self.garble_share, self.seed)

    def changed(self, settings: Mapping[str, Any]) -> Behaviour:
        """A copy with other settings. Raises TypeError for an unknown one."""
        known = {one.name: getattr(self, one.name) for one in fields(self)}
        return Behaviour(**{**known, **settings})

    def fate(self, digest: str, attempt: int) -> Fate:
        """What becomes of this attempt (1 is the first)."""
        shares = self._shares()
        if not shares or (self.faulty_attempts and attempt > self.faulty_attempts):
            return Fate.ANSWER
        left = self._draw(digest, attempt, "fate")
        for fate, share in shares:
            left -= share
            if left < 0:
                return fate
        return Fate.ANSWER

    def latency(self, digest: str, attempt: int) -> float:
        """Seconds of work that this attempt takes once it has a slot."""
        if not self.sigma or not self.latency_s:
            return self.latency_s
        drawn = min(max(self._draw(digest, attempt, "latency"), 1e-9), 1 - 1e-9)
        return self.latency_s * math.exp(self.sigma * _NORMAL.inv_cdf(drawn))

    def _shares(self) -> list[tuple[Fate, float]]:
        pairs = [(fate, getattr(self, f"{fate}_share")) for fate in Fate if fate is not Fate.ANSWER]
        return [(fate, share) for fate, share in pairs if share > 0]

    def _draw(self, digest: str, attempt: int, what: str) -> float:
        """A number in [0, 1)."""
        data = hashlib.blake2b(f"{self.seed}/{digest}/{attempt}/{what}".encode(), digest_size=7).digest()
        return int.from_bytes(data) / 2**56
