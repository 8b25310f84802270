"""Whether a reply is in a language: the script of its letters, or function words where several languages share one."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache
from typing import Final

from tilth.schemas.language import function_words
from tilth.transforms.rubrics.verifier_text import prose_lines

LATIN: Final[dict[str, str]] = {
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "de": "German",
    "pt": "Portuguese",
    "it": "Italian",
    "nl": "Dutch",
    "pl": "Polish",
    "tr": "Turkish",
    "id": "Indonesian",
    "vi": "Vietnamese",
    "sv": "Swedish",
    "ro": "Romanian",
}
"""Languages told by function words (those of `tilth.transforms.feedback.language`)."""
SCRIPTED: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "ja": ("Japanese", ("HIRAGANA", "KATAKANA", "CJK")),
    "zh": ("Chinese", ("CJK",)),
    "ko": ("Korean", ("HANGUL",)),
    "ru": ("Russian", ("CYRILLIC",)),
    "uk": ("Ukrainian", ("CYRILLIC",)),
    "ar": ("Arabic", ("ARABIC",)),
    "he": ("Hebrew", ("HEBREW",)),
    "el": ("Greek", ("GREEK",)),
    "hi": ("Hindi", ("DEVANAGARI",)),
    "th": ("Thai", ("THAI",)),
    "ka": ("Georgian", ("GEORGIAN",)),
    "hy": ("Armenian", ("ARMENIAN",)),
    "bn": ("Bengali", ("BENGALI",)),
    "ta": ("Tamil", ("TAMIL",)),
    "te": ("Telugu", ("TELUGU",)),
}
"""Languages told by the script of their letters; a language that shares its script with another is told by letters."""
LANGUAGES: Final[dict[str, str]] = {**LATIN, **{code: name for code, (name, _) in SCRIPTED.items()}}

_SAMPLE: Final = 4000
_MIN_WORDS: Final = 8
_MIN_LETTERS: Final = 10
_IN_SCRIPT: Final = 0.5  # other scripts stand in replies about code, names and formulas
_LATIN_WORD: Final = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_NOT_UKRAINIAN: Final = frozenset("ыэъё")
_UKRAINIAN: Final = frozenset("іїєґ")


def speaks(text: str, code: str) -> bool | None:
    """Whether the prose of a text is in the language of `code`; None where it is too short or too mixed to tell.

    The first 4,000 characters outside of fenced code decide. Heuristic: at least eight words, or ten letters of a
    script of its own; in Latin script the most function words, by half again as many as the runner-up, to say no.
    """
    sample = " ".join(prose_lines(text))[:_SAMPLE].lower()
    if code in LATIN:
        return _by_words(sample, code)
    letters = [letter for letter in sample if letter.isalpha()]
    if len(letters) < _MIN_LETTERS:
        return None
    return _by_script(letters, code)


def _by_script(letters: list[str], code: str) -> bool:
    scripts = Counter(map(_script, letters))
    inside = sum(scripts[name] for name in SCRIPTED[code][1])
    if inside < _IN_SCRIPT * len(letters):
        return False
    kana = scripts["HIRAGANA"] + scripts["KATAKANA"]
    ukrainian = not _UKRAINIAN.isdisjoint(letters) and _NOT_UKRAINIAN.isdisjoint(letters)
    told = {"ja": kana * 10 >= inside, "zh": kana * 10 < inside, "uk": ukrainian, "ru": not ukrainian}
    return told.get(code, True)


@cache
def _script(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]


def _by_words(sample: str, code: str) -> bool | None:
    tokens = _LATIN_WORD.findall(sample.replace("’", "'"))
    if len(tokens) < _MIN_WORDS:
        return None
    foreign = sum(1 for letter in sample if letter.isalpha() and _script(letter) != "LATIN")
    if foreign * 2 > sum(map(len, tokens)):
        return False
    counts = {name: sum(map(_function_words()[name].__contains__, tokens)) for name in LATIN}
    best = max(counts.values())
    if best * 10 < len(tokens):
        return None
    return True if counts[code] == best else None if counts[code] * 3 > best * 2 else False


@cache
def _function_words() -> dict[str, frozenset[str]]:
    listed = function_words()
    return {code: frozenset(listed[code].split()) for code in LATIN}
