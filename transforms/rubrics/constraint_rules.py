"""The rules by which constraints are found."""

from __future__ import annotations

import re
from typing import Final

from tilth.transforms.rubrics.verifiers import program_of

_MAX_WORDS: Final = re.compile(
    r"\b(?:in|under|at most|no more than|maximum of) (\d{1,5}) words\b", re.IGNORECASE
)


def programs_in(text: str) -> dict[str, str]:
    """Programs by the words that state them."""
    return {
        program_of("max_words", {"limit": int(found[1])}): found[0]
        for found in _MAX_WORDS.finditer(text)
        if int(found[1])
    }
