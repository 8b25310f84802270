"""How a call can fail, and what an engine raises when it does. No message here holds text of a prompt or an answer."""

from __future__ import annotations

from tilth.schemas import Reason, TilthError


class CallFailed(Exception):
    """One call got no usable answer.

    `retryable`: asking again may help (408, 409, 429, 5xx, connection loss, timeouts). `retry_after_s`: what the
    server asked to wait. `blames_all`: no other request can succeed either (a refused key, an unknown model).
    `detail` is made of codes and numbers only.
    """

    def __init__(
        self,
        reason: Reason,
        detail: str,
        *,
        retryable: bool = False,
        retry_after_s: float | None = None,
        blames_all: bool = False,
    ) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail
        self.retryable, self.retry_after_s, self.blames_all = retryable, retry_after_s, blames_all


class EngineDied(Exception):
    """The engine's process is gone. `exit_code` and `last_lines` of its log say why, where they are known."""

    def __init__(self, exit_code: int | None, last_lines: tuple[str, ...] = ()) -> None:
        super().__init__(f"the engine ended with exit code {exit_code}")
        self.exit_code, self.last_lines = exit_code, last_lines


class EngineFailed(TilthError):
    """The run was stopped: the engine cannot be started or restarted, or nearly every call fails."""


class CapReached(TilthError):
    """A cap on calls, tokens or cost was reached. Finished rows are kept; a higher cap goes on from there."""

    exit_code = 75
