"""Replies that decide not to help. An inability ("I can't find") is no refusal."""

from __future__ import annotations

from typing import Final

import polars as pl

from tilth.schemas.language import EDGE

_OPENING: Final = 400  # characters at the start of a reply that are looked at: a refusal opens it
_SAID: Final = (
    "(?:i|we)(?:'m| am|'d| would|'d really| really| simply| just| also| unfortunately)* "
    "(?:can't|cannot|can not|won't|will not|rather not|must decline to|have to decline to|refuse to|not going to|"
    "not able to|unable to|not comfortable)(?: to)?(?: be able to)? "
    "(?:help|helping|assist|assisting|write|writing|create|creating|generate|produce|pretend|pose|teach|support|guide|"
    "advise|discuss|share (?:his|her|their|someone|anyone|personal|private))"
)
DECLINES: Final = EDGE + _SAID.replace(" ", r"[,\t\n\r\x20]+").replace("'", "'?") + EDGE
"""A regular expression over English in lower case with plain apostrophes."""


def refuses(reply: pl.Expr) -> pl.Expr:
    """Whether a reply (a text) opens by declining to help; English only."""
    opening = reply.str.head(_OPENING).str.to_lowercase().str.replace_all("’", "'", literal=True)
    return opening.str.contains(DECLINES)
