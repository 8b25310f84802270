"""Errors that name the thing, what was found, what was wanted and what to do next; reasons for quarantine."""

from __future__ import annotations

from enum import StrEnum


class TilthError(Exception):
    """Root of every error that Tilth raises on purpose.

    The message has up to four parts, and never holds text that a user of a chat product wrote.
    Parts are attributes, and the error survives pickling from a worker.
    """

    exit_code = 1

    def __init__(
        self, what: str, *, found: object = None, wanted: object = None, do: str | None = None
    ) -> None:
        self.what, self.found, self.wanted, self.do = what, found, wanted, do
        super().__init__(what)

    def __str__(self) -> str:
        parts = [self.what]
        if self.found is not None:
            parts.append(f"found: {self.found}")
        if self.wanted is not None:
            parts.append(f"wanted: {self.wanted}")
        if self.do is not None:
            parts.append(f"do: {self.do}")
        return "\n  ".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.found, self.wanted, self.do)


def _rebuild(kind: type[TilthError], what: str, found: object, wanted: object, do: str | None) -> TilthError:
    return kind(what, found=found, wanted=wanted, do=do)


class BadInput(TilthError, ValueError):
    """A source, a map or a value that cannot be read as asked."""


class ConfigError(TilthError, ValueError):
    """A setting that is unknown or has a value of the wrong kind."""

    exit_code = 2


class NotFound(TilthError, FileNotFoundError):
    """A source, a dataset or a version that does not exist."""

    def __str__(self) -> str:
        return TilthError.__str__(self)


class MissingExtra(TilthError, ImportError):
    """An optional part that is not installed; `do` names the extra."""

    def __str__(self) -> str:
        return TilthError.__str__(self)


class QuarantineOverflow(TilthError):
    """More rows were set aside than the configured share allows."""


class ChecksFailed(TilthError):
    """A critical data quality check failed; nothing was committed."""

    exit_code = 3


class Reason(StrEnum):
    """Why a row could not go on. The value is what the `reason` column of `quarantine` holds."""

    # the bytes
    BROKEN_JSON = "broken_json"
    INVALID_UTF8 = "invalid_utf8"
    TRUNCATED = "truncated"
    UNREADABLE = "unreadable"
    TOO_LARGE = "too_large"
    # the record
    NOT_A_CONVERSATION = "not_a_conversation"
    WRONG_TYPE = "wrong_type"
    EMPTY = "empty"
    EMPTY_MESSAGE = "empty_message"
    UNKNOWN_ROLE = "unknown_role"
    ROLES_DO_NOT_ALTERNATE = "roles_do_not_alternate"
    NO_ASSISTANT_TURN = "no_assistant_turn"
    NUL_CHARACTER = "nul_character"
    UNSUPPORTED_CONTENT = "unsupported_content"
    ORPHAN_MESSAGE = "orphan_message"
    DELETED_MESSAGE = "deleted_message"
    # against other records
    DUPLICATE = "duplicate"
    CONFLICTING_DUPLICATE = "conflicting_duplicate"
    # asked to be forgotten: `tilth catalog forget`
    FORGOTTEN = "forgotten"
    # candidates for pairs and labels
    TIE = "tie"
    IDENTICAL_SIDES = "identical_sides"
    CONTRADICTORY = "contradictory"
    NEW_CONSTRAINTS = "new_constraints"
    CORRECT_REFUSAL = "correct_refusal"
    PROMPT_NOT_FROM_USER = "prompt_not_from_user"
    SPLIT_LEAK = "split_leak"
    # what a model said of a conversation
    EVIDENCE_NOT_FOUND = "evidence_not_found"
    TARGET_NOT_FOUND = "target_not_found"
    # replies of models, and what judges said of them
    MODERATED = "moderated"
    NO_CANDIDATE = "no_candidate"
    JUDGES_PREFER_REJECTED = "judges_prefer_rejected"
    JUDGES_TIED = "judges_tied"
    JUDGES_INCONSISTENT = "judges_inconsistent"
    JUDGES_FAILED = "judges_failed"
    CONSTRAINT_VIOLATED = "constraint_violated"
    # rationales and criteria that models wrote
    NAMES_POSITION = "names_position"
    COPIES_REPLY = "copies_reply"
    LABEL_NOT_RECOVERED = "label_not_recovered"
    UNKNOWN_PROGRAM = "unknown_program"
    NOT_DISCRIMINATING = "not_discriminating"
    SATURATED = "saturated"
    LOW_SEPARATION = "low_separation"
    NO_CRITERION = "no_criterion"
    # answers of a model
    REQUEST_REFUSED = "request_refused"
    TOO_LONG = "too_long"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    CONNECTION_LOST = "connection_lost"
    TIMED_OUT = "timed_out"
    MALFORMED_OUTPUT = "malformed_output"
