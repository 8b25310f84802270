"""What can be counted in a reply: words, sentences, items, headings, code, tables. Every measure is one pass over the
text (no expression that can backtrack without a bound), takes any string, and never raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_ITEM: Final = re.compile(
    r"[ \t]*+(?:(?P<bullet>[-*+•‣◦▪●·➤►✅✔])\ufe0f?"
    r"|(?P<number>(?:[#*_]{1,6}[ \t]?)?\(?(?:\d{1,3}|[A-Za-z](?=\)))[.):][*_]{0,3}|\d\ufe0f?\u20e3))[ \t]+(?=\S)"
)
_LABELLED: Final = re.compile(
    r"[ \t]{0,8}(?:[#*_]{1,6}[ \t]?)?[A-Z][a-z]{1,15} #?\d{1,3}[*_]{0,3}(?:[:.)]|[ \t][-–—])"
)
_HEADING: Final = re.compile(r" {0,3}#{1,6}[ \t]+\S")
_BOLD_LINE: Final = re.compile(r" {0,3}(\*\*|__)(?P<title>[^*_\n]{1,120})\1:?[ \t]*$")
_RULE: Final = re.compile(r" {0,3}(?:[-*_=][ \t]?){3,200}$")
_TABLE_RULE: Final = re.compile(r"[-:| \t]+$")
_FENCE: Final = re.compile(r" {0,8}(?P<fence>`{3,20}|~{3,20})(?P<language>[^`\n]{0,60})")
_LINK: Final = re.compile(r"https?://\S|www\.[A-Za-z0-9]|\]\([^\s()]{1,5}")
_URL: Final = re.compile(r"https?://[^\s<>()\[\]\"']{3,500}|\b10\.\d{4,9}/[^\s<>()\[\]\"']{1,200}")
_MARKER: Final = re.compile(r"\[\^?(\d{1,3}(?:, ?\d{1,3}){0,9})\](?!\()")
_AUTHOR_YEAR: Final = re.compile(
    r"\([^()\n]{0,10}[A-Z][^()\n]{1,80}?,? (?:1[5-9]|20)\d\d[a-z]?[^()\n]{0,20}\)"
    r"|[A-Z][^\s()]{1,30}(?: et al\.?| (?:and|&) [A-Z][^\s()]{1,30})? \((?:1[5-9]|20)\d\d[a-z]?\)"
)
_PLACEHOLDER: Final = re.compile(r"\[(?![ xX]?\]|\^?\d)[^\[\]\n]{1,60}\](?!\()")
_EMOJI: Final = re.compile(
    "[\U0001f1e6-\U0001f1ff]{2}"
    "|[\U0001f300-\U0001f5ff\U0001f600-\U0001f64f\U0001f680-\U0001f6ff\U0001f900-\U0001faff✨❌❓-❕❗❤⭐⚡✅☀-☄☹☺♥]"
)
_HIGHLIGHT: Final = re.compile(r"(?<![*\w])(\*{1,3})(?![*\s])[^*\n]{1,200}(?<![*\s])\1(?![*\w])")
_IDEOGRAPHS: Final = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_ENDS: Final = ".!?…"
_WIDE_ENDS: Final = re.compile("[。！？]+")
_CLOSERS: Final = "\"'”’»)]*_"
_ABBREVIATIONS: Final = frozenset(
    [
        "mr",
        "mrs",
        "ms",
        "dr",
        "prof",
        "st",
        "jr",
        "sr",
        "vs",
        "etc",
        "e.g",
        "i.e",
        "eg",
        "ie",
        "cf",
        "al",
        "fig",
        "no",
        "approx",
        "inc",
        "ltd",
        "co",
        "dept",
        "est",
        "vol",
        "pp",
        "a.m",
        "p.m",
        "u.s",
    ]
)
_QUOTES: Final = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "\u00a0": " "})


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """A fenced block: what stands after the fence in lower case ("" for nothing), and what it holds."""

    language: str
    code: str


@lru_cache(maxsize=64)
def split_code(text: str) -> tuple[tuple[str, ...], tuple[CodeBlock, ...]]:
    """The lines outside of fenced code, and the blocks in order; a fence that is never closed runs to the end."""
    prose: list[str] = []
    blocks: list[CodeBlock] = []
    fence, language, held = "", "", list[str]()
    for line in text.splitlines():
        found = _FENCE.match(line)
        if not fence and found:
            fence, language, held = found["fence"], found["language"].strip().lower(), []
            prose.append("")
        elif fence and found and found["fence"].startswith(fence) and not line.strip(" \t`~"):
            blocks.append(CodeBlock(language, "\n".join(held)))
            fence = ""
        else:
            (held if fence else prose).append(line)
    if fence:
        blocks.append(CodeBlock(language, "\n".join(held)))
    return tuple(prose), tuple(blocks)


def code_blocks(text: str) -> tuple[CodeBlock, ...]:
    """The fenced blocks of a text."""
    return split_code(text)[1]


def prose_lines(text: str) -> tuple[str, ...]:
    """The lines that stand outside of fenced code."""
    return split_code(text)[0]


def plain(text: str) -> str:
    """One line without case: white space runs are one space, typographic quotes are straight."""
    return " ".join(text.translate(_QUOTES).casefold().split())


def _is_word(token: str) -> bool:
    return any(map(str.isalnum, token))


def words(text: str) -> int:
    """Runs between white space and dashes that hold a letter or digit, without the marks of lists; code counts too.

    In Chinese and Japanese each character is a word, as word processors count.
    """
    return sum(_words_of(_unmarked(line)) for line in text.splitlines())


def _words_of(line: str) -> int:
    wide = 0 if line.isascii() else len(_IDEOGRAPHS.findall(line))
    rest = _IDEOGRAPHS.sub(" ", line) if wide else line
    return wide + sum(map(_is_word, rest.replace("—", " ").split()))


def _item(line: str) -> re.Match[str] | None:
    return None if _RULE.match(line) else _ITEM.match(line)


def _unmarked(line: str) -> str:
    found = _item(line)
    return line[found.end() :] if found else line


def characters(text: str) -> int:
    """Characters without white space at both ends."""
    return len(text.strip())


def lines(text: str) -> int:
    """Lines that are not blank."""
    return sum(1 for line in text.splitlines() if line.strip())


def _title(line: str) -> bool:
    return bool(_HEADING.match(line) or _BOLD_LINE.match(line))


def _apart(line: str) -> bool:
    """Whether a line is no prose: a heading, a rule, a row of a table."""
    return _title(line) or bool(_RULE.match(line)) or line.lstrip().startswith("|")


def paragraphs(text: str) -> int:
    """Blocks between blank lines that hold prose: not headings, rules, tables, code or items of lists alone."""
    count, prose = 0, False
    for line in (*prose_lines(text), ""):
        if line.strip():
            prose = prose or not (_apart(line) or _item(line))
        else:
            count, prose = count + prose, False
    return count


def _stretches(text: str) -> Iterator[list[str]]:
    """The words of each paragraph and each item."""
    held: list[str] = []
    for line in (*prose_lines(text), ""):
        item = _item(line)
        if held and (item or not line.strip() or _apart(line)):
            yield held
            held = []
        if line.strip() and not (_apart(line) and not item):
            held.extend((line[item.end() :] if item else line).split())
    if held:
        yield held


def sentence_lengths(text: str) -> list[int]:
    """The words of each sentence outside of code, headings and tables; a paragraph or item ends one in any case."""
    lengths: list[int] = []
    for tokens in _stretches(text):
        length = 0
        for at, token in enumerate(tokens):
            *whole, last = _WIDE_ENDS.split(token)
            for part in whole:
                length += _words_of(part)
                if length:
                    lengths.append(length)
                length = 0
            length += _words_of(last)
            if length and _ends(token, tokens[at + 1] if at + 1 < len(tokens) else ""):
                lengths.append(length)
                length = 0
        if length:
            lengths.append(length)
    return lengths


def _ends(token: str, following: str) -> bool:
    bare = token.rstrip(_CLOSERS)
    if not bare or bare[-1] not in _ENDS:
        return False
    word = bare.rstrip(_ENDS).lstrip("\"'“‘(*_").lower()
    initial = len(word) == 1 and word not in ("i", "a") and word.isalpha()
    short = bare[-1] == "." and (word in _ABBREVIATIONS or initial)
    quoted = bare != token or bare.endswith(("...", "…"))
    return not (short and following) and not (quoted and following[:1].islower())


def sentences(text: str) -> int:
    """Sentences outside of code, headings and tables."""
    return len(sentence_lengths(text))


def list_items(text: str) -> int:
    """Items of the outermost list: those of the kind (bullet or number) and the indent of the first one."""
    found = [match for match in map(_item, prose_lines(text)) if match]
    if not found:
        return 0
    kind, indent = found[0].lastgroup, _indent(found[0][0])
    return sum(1 for match in found if match.lastgroup == kind and _indent(match[0]) <= indent + 1)


def bullets(text: str) -> int:
    """Items with a bullet, those of the smallest indent."""
    return _outermost(text, "bullet")


def numbered(text: str) -> int:
    """Items with a number or letter, those of the smallest indent."""
    return _outermost(text, "number")


def _outermost(text: str, kind: str) -> int:
    found = [match for match in map(_item, prose_lines(text)) if match and match.lastgroup == kind]
    indents = [_indent(match[0]) for match in found]
    return sum(1 for indent in indents if indent <= min(indents) + 1)


def _indent(mark: str) -> int:
    return len(mark) - len(mark.lstrip())


def headings(text: str) -> int:
    """Lines with Markdown's # in front, and lines that are bold as a whole."""
    return sum(1 for line in prose_lines(text) if _title(line))


def heading_titles(text: str) -> list[str]:
    """What the headings say, as `plain` text without marks."""
    return [plain(line.strip(" \t#*_:")) for line in prose_lines(text) if _title(line)]


def entries(text: str) -> frozenset[int]:
    """How many entries (examples, tips, options) a reply may be said to list: as items, labelled lines ("Tip 3:"),
    headings, or rows of a table. Empty where it has none of these, so that it cannot be told.
    """
    labelled = sum(1 for line in prose_lines(text) if _LABELLED.match(line))
    counts = (list_items(text), bullets(text), numbered(text), headings(text), table_rows(text), labelled)
    return frozenset(count for count in counts if count)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def tables(text: str) -> list[tuple[list[str], int]]:
    """Markdown's pipe tables in order: the cells of the header, and how many rows follow the rule."""
    found: list[tuple[list[str], int]] = []
    rows = prose_lines(text)
    at = 1
    while at < len(rows):
        if "|" in rows[at] and "-" in rows[at] and _TABLE_RULE.match(rows[at]) and "|" in rows[at - 1]:
            start = at = at + 1
            while at < len(rows) and "|" in rows[at]:
                at += 1
            found.append((_cells(rows[start - 2]), at - start))
        at += 1
    return found


def table_rows(text: str) -> int:
    """Rows of all pipe tables, without headers."""
    return sum(count for _, count in tables(text))


def occurrences(text: str, phrase: str, *, whole: bool) -> int:
    """How often a phrase stands in a text; `whole`: not inside of a longer word. Both are taken as they are."""
    count, at = 0, text.find(phrase)
    while at >= 0:
        end = at + len(phrase)
        inside = whole and (_joins(text, at - 1, phrase[0]) or _joins(text, end, phrase[-1]))
        count += not inside
        at = text.find(phrase, end if not inside else at + 1)
    return count


def _joins(text: str, at: int, edge: str) -> bool:
    return 0 <= at < len(text) and text[at].isalnum() and edge.isalnum()


def questions(text: str) -> int:
    """Words that end with a question mark."""
    return sum(1 for token in text.split() if token.rstrip(_CLOSERS + "!").endswith(("?", "？")))


def links(text: str) -> int:
    """Web addresses and Markdown links."""
    return len(_LINK.findall(text.replace("](http", "] (http")))


def citations(text: str) -> int:
    """Different sources cited: web addresses and DOIs, [1], (Author, 2020), Author (2020)."""
    marks = {number for found in _MARKER.findall(text) for number in found.split(",")}
    return len({mark.strip() for mark in marks}) + len({*_URL.findall(text), *_AUTHOR_YEAR.findall(text)})


def placeholders(text: str) -> int:
    """Places left open in square brackets, such as [name]; not [1], not links, not boxes to tick."""
    return len(_PLACEHOLDER.findall(text))


def emojis(text: str) -> int:
    """Emoji; a flag is one."""
    return 0 if text.isascii() else len(_EMOJI.findall(text))


def highlights(text: str) -> int:
    """Stretches within a line that Markdown's asterisks set off."""
    return len(_HIGHLIGHT.findall("\n".join(prose_lines(text))))
