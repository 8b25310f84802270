"""The prose of a reply, its words and sentences, and how hard it is to read: expressions, linear in the text."""

from __future__ import annotations

from typing import Final

import polars as pl

MIN_WORDS: Final = 20  # of fewer, one long word or a missing full stop moves the index by several grades

_FENCED: Final = r"(?ms)^[ \t]*(?:```|~~~).*?(?:^[ \t]*(?:```|~~~)[ \t]*$|\z)"
# What Markdown puts before a line: headings' and lists' marks. A list's number is no word and ends no sentence.
_MARKS: Final = r"(?m)^[ \t]*(?:#{1,6}|[-*+•]|\(?\d{1,3}[.):])[ \t]+"
_WIDE: Final = r"\x{3040}-\x{30ff}\x{3400}-\x{4dbf}\x{4e00}-\x{9fff}\x{f900}-\x{faff}"
_WORD: Final = rf"[{_WIDE}]|[^\s—{_WIDE}]*[\p{{L}}\p{{N}}--[{_WIDE}]][^\s—{_WIDE}]*"
_STOPS: Final = r"[.!?…]+[\"'”’»)\]*_]*[ \t]+|[。！？]+"


def without_code(text: pl.Expr) -> pl.Expr:
    """A Markdown text without fenced code; an open fence reaches to the end."""
    return text.str.replace_all(_FENCED, "")


def unmarked(text: pl.Expr) -> pl.Expr:
    """A Markdown text without the marks of headings and lists before its lines."""
    return text.str.replace_all(_MARKS, "")


def words(text: pl.Expr) -> pl.Expr:
    """Runs between white space and dashes with a letter or digit; in Chinese and Japanese each character is one.

    Of an `unmarked` text as many as `tilth.transforms.rubrics.verifier_text.words` counts, but for rare marks of lists.
    """
    return text.str.count_matches(_WORD)


def sentences(text: pl.Expr) -> pl.Expr:
    """How many pieces with a letter or a digit lie between stops and line breaks; "3.5" holds no stop, "e.g. " one."""
    return text.str.replace_all(_STOPS, "\n").str.count_matches(r"[^\n]*[\p{L}\p{N}][^\n]*")


def readability(text: pl.Expr, words: pl.Expr, sentences: pl.Expr) -> pl.Expr:
    """The Automated Readability Index, a US school grade: 4.71 letters/words + 0.5 words/sentences - 21.43.

    Source: Smith and Senter 1967 (AMRL-TR-66-220). Letters are letters and digits. Rounded to a tenth; null for less
    than `MIN_WORDS` words, and where a tenth or more of the letters are not Latin: it was fitted to English.
    """
    letters = text.str.len_chars() - text.str.count_matches(r"[^\p{L}\p{N}]")
    foreign = text.str.count_matches(r"[\p{L}--\p{Latin}]")
    index = 4.71 * letters / words + 0.5 * words / sentences - 21.43
    return pl.when((words >= MIN_WORDS) & (foreign * 10 < letters)).then(index.round(1))
