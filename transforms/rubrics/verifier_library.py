"""The verifiers: a closed list of what a program can check of a reply, each with its arguments and its docs.

Regular expressions are not offered (one can be made to run for ever), and no code of anybody is run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal  # Any: arguments are checked against their declaration before use

from tilth.transforms.rubrics import verifier_code as code
from tilth.transforms.rubrics import verifier_language as language
from tilth.transforms.rubrics import verifier_text as measure

Arguments = Mapping[str, Any]
MAX_TEXT: Final = 200
MAX_TEXTS: Final = 20
MAX_COUNT: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Argument:
    """What one argument of a verifier may be.

    Args:
        type: integer; text (one line, up to 200 characters); texts (one to 20 of them, whose order means nothing);
            choice (one of `choices`).
        doc: what it means.
        low: the smallest integer.
        high: the largest.
        choices: the words of a choice.
        default: what it is where it is left out; None where it must be given.
    """

    type: Literal["integer", "text", "texts", "choice"]
    doc: str
    low: int = 0
    high: int = MAX_COUNT
    choices: tuple[str, ...] = ()
    default: int | str | None = None


@dataclass(frozen=True, slots=True)
class Verifier:
    """One thing that a program can check of a reply.

    Args:
        name: what programs call it.
        describe: a template for what a reply does that passes; see `Phrase`.
        arguments: by name, in the order in which a value lists them.
        check: whether a reply passes, None where it cannot be told; takes any text, never raises, and is linear.
        doc: what it counts, where the name does not say it.
    """

    name: str
    describe: str
    arguments: Mapping[str, Argument]
    check: Callable[[str, Arguments], bool | None]
    doc: str = ""


@dataclass(frozen=True, slots=True)
class Unit:
    """Something that is counted: its noun, the measure, what counts, and whether a reply may have none."""

    noun: str
    count: Callable[[str], int]
    doc: str
    none: bool = False


UNITS: Final[Mapping[str, Unit]] = {
    "words": Unit("word", measure.words, "runs of letters and digits between white space; code counts"),
    "characters": Unit("character", measure.characters, "characters without white space at both ends"),
    "sentences": Unit("sentence", measure.sentences, "not in code, headings and tables; an item ends one"),
    "paragraphs": Unit("paragraph", measure.paragraphs, "blocks of prose between blank lines"),
    "lines": Unit("line", measure.lines, "lines that are not blank"),
    "list_items": Unit(
        "list item", measure.list_items, "items of the outermost list, of either kind", none=True
    ),
    "bullets": Unit("bullet point", measure.bullets, "outermost items with a bullet", none=True),
    "numbered_items": Unit("numbered item", measure.numbered, "outermost items with a number", none=True),
    "headings": Unit("heading", measure.headings, "lines with # in front, or bold as a whole", none=True),
    "highlights": Unit("highlighted part", measure.highlights, "stretches between asterisks", none=True),
    "code_blocks": Unit(
        "code block", lambda reply: len(measure.code_blocks(reply)), "fenced blocks", none=True
    ),
    "tables": Unit("table", lambda reply: len(measure.tables(reply)), "Markdown's pipe tables", none=True),
    "table_rows": Unit("table row", measure.table_rows, "rows of pipe tables without headers", none=True),
    "questions": Unit("question", measure.questions, "words that end with a question mark", none=True),
    "links": Unit("link", measure.links, "web addresses and Markdown links", none=True),
    "citations": Unit(
        "citation",
        measure.citations,
        "different addresses, DOIs, [1], (Author, 2020), Author (2020)",
        none=True,
    ),
    "placeholders": Unit("placeholder in square brackets", measure.placeholders, "such as [name]", none=True),
    "emojis": Unit("emoji", measure.emojis, "emoji; a flag is one", none=True),
}
"""What `min_`, `max_` and `exact_` verifiers count."""

_KEYWORDS: Final = {
    "keywords": Argument("texts", "words or phrases; case, white space and typographic quotes do not matter"),
    "match": Argument("choice", "whole words, or anywhere", choices=("word", "anywhere"), default="word"),
}
_PHRASE: Final = {"text": Argument("text", "case, white space and typographic quotes do not matter")}
DATE_FORMATS: Final[Mapping[str, str]] = {
    "YYYY-MM-DD": r"\d{4}-\d\d-\d\d",
    "DD/MM/YYYY": r"(?:0?[1-9]|[12]\d|3[01])/(?:0?[1-9]|1[0-2])/\d{4}",
    "MM/DD/YYYY": r"(?:0?[1-9]|1[0-2])/(?:0?[1-9]|[12]\d|3[01])/\d{4}",
    "DD.MM.YYYY": r"(?:0?[1-9]|[12]\d|3[01])\.(?:0?[1-9]|1[0-2])\.\d{4}",
    "Month D, YYYY": r"[A-Z][a-z]{2,8}\.? \d{1,2}(?:st|nd|rd|th)?, \d{4}",
    "D Month YYYY": r"\d{1,2}(?:st|nd|rd|th)? [A-Z][a-z]{2,8}\.?,? \d{4}",
}
_MONTHS: Final = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}"
_DATE: Final = re.compile(
    rf"(?<!\d)(?:\d{{4}}-\d\d-\d\d|\d{{1,2}}[/.]\d{{1,2}}[/.]\d{{4}}"
    rf"|{_MONTHS}\.? \d{{1,2}}(?:st|nd|rd|th)?, \d{{4}}|\d{{1,2}}(?:st|nd|rd|th)? {_MONTHS}\.?,? \d{{4}})(?!\d)"
)
_SMALL_WORDS: Final = frozenset(
    [
        "a",
        "an",
        "the",
        "and",
        "but",
        "or",
        "nor",
        "for",
        "so",
        "yet",
        "of",
        "in",
        "on",
        "at",
        "to",
        "by",
        "up",
        "as",
        "is",
        "if",
        "off",
        "per",
        "via",
        "from",
        "into",
        "with",
        "over",
        "than",
        "that",
    ]
)
_FIRST_PERSON: Final = frozenset(["i", "me", "my", "mine", "myself", "we", "us", "our", "ours", "ourselves"])
_POSTSCRIPT: Final = re.compile(r"[ \t]{0,20}[*_]{0,3}p\.? ?s(?:\b|\.)", re.IGNORECASE)
_FRAME: Final = " \t\r\n*_#>\"'“”‘’"


def _at_least(unit: Unit) -> Callable[[str, Arguments], bool]:
    return lambda reply, given: unit.count(reply) >= given["limit"]


def _at_most(unit: Unit) -> Callable[[str, Arguments], bool]:
    return lambda reply, given: unit.count(reply) <= given["limit"]


def _exactly(unit: Unit) -> Callable[[str, Arguments], bool]:
    return lambda reply, given: abs(unit.count(reply) - given["count"]) <= given["tolerance"]


def _counting() -> list[Verifier]:
    """At least, at most and exactly so many of each unit."""
    made: list[Verifier] = []
    for name, unit in UNITS.items():
        floor = Argument("integer", "the smallest number", low=1)
        ceiling = Argument("integer", "the largest number", low=0 if unit.none else 1)
        count = Argument("integer", "the number", low=1)
        off = Argument("integer", "how far off it may be", default=0)
        made += [
            Verifier(
                f"min_{name}",
                f"{{limit:At least|{unit.noun}}}.",
                {"limit": floor},
                _at_least(unit),
                unit.doc,
            ),
            Verifier(
                f"max_{name}",
                f"{{limit:At most|{unit.noun}}}.",
                {"limit": ceiling},
                _at_most(unit),
                unit.doc,
            ),
            Verifier(
                f"exact_{name}",
                f"{{count:Exactly|{unit.noun}|tolerance}}.",
                {"count": count, "tolerance": off},
                _exactly(unit),
                unit.doc,
            ),
        ]
    return made


def _among(bound: Literal["least", "most", "exactly"]) -> Callable[[str, Arguments], bool | None]:
    def check(reply: str, given: Arguments) -> bool | None:
        counts = measure.entries(reply)
        if not counts:
            return None
        if bound == "exactly":
            return given["count"] in counts
        return max(counts) >= given["limit"] if bound == "least" else min(counts) <= given["limit"]

    return check


def _folded(given: Arguments) -> list[str]:
    return [measure.plain(text) for text in given["keywords"]]


def _stands(reply: str, keyword: str, given: Arguments) -> bool:
    return measure.occurrences(reply, keyword, whole=given["match"] == "word") > 0


def _has_all(reply: str, given: Arguments) -> bool:
    text = measure.plain(reply)
    return all(_stands(text, keyword, given) for keyword in _folded(given))


def _has_none(reply: str, given: Arguments) -> bool:
    text = measure.plain(reply)
    return not any(_stands(text, keyword, given) for keyword in _folded(given))


def _count_of(reply: str, given: Arguments) -> int:
    return measure.occurrences(measure.plain(reply), measure.plain(given["keyword"]), whole=True)


def _starts(reply: str, given: Arguments) -> bool:
    text, wanted = measure.plain(reply), measure.plain(given["text"])
    return text.startswith(wanted) or text.lstrip(_FRAME).startswith(wanted.lstrip(_FRAME))


def _closes(reply: str, given: Arguments) -> bool:
    text, wanted = measure.plain(reply), measure.plain(given["text"])
    return any(text.rstrip(frame).endswith(wanted.rstrip(frame)) for frame in ("", _FRAME, _FRAME + ".!"))


def _cased(reply: str, *, upper: bool) -> bool | None:
    letters = "".join(measure.prose_lines(reply))
    if letters.lower() == letters.upper():
        return None
    return letters == (letters.upper() if upper else letters.lower())


def _title_case(reply: str) -> bool | None:
    tokens = [token.lstrip(_FRAME + "([") for line in measure.prose_lines(reply) for token in line.split()]
    named = [token for token in tokens if token[:1].isalpha() and token.lower() not in _SMALL_WORDS]
    return all(not token[0].islower() for token in named) if named else None


def _quoted(reply: str) -> bool:
    text = reply.strip()
    return len(text) > 1 and (text[0], text[-1]) in (('"', '"'), ("“", "”"), ("«", "»"))


def _ends_with_question(reply: str) -> bool:
    return reply.rstrip().rstrip("\"'”’)*_ ").endswith(("?", "？"))


def _one_of(reply: str, given: Arguments) -> bool:
    text = measure.plain(reply).strip(_FRAME + ".!,;:")
    return text in {measure.plain(option).strip(_FRAME + ".!,;:") for option in given["options"]}


def _separated(reply: str, given: Arguments) -> bool:
    parts = reply.split(given["text"])
    return len(parts) > 1 and all(map(str.strip, parts))


def _impersonal(reply: str) -> bool:
    for token in measure.prose_lines(reply):
        for word in token.replace("’", "'").split():
            bare = word.strip(".,;:!?\"'()*_[]“”").partition("'")[0]
            if bare.lower() in _FIRST_PERSON and bare not in ("i", "US"):
                return False
    return True


def _dated(reply: str, given: Arguments) -> bool | None:
    found = _DATE.findall(reply)
    return all(re.fullmatch(DATE_FORMATS[given["format"]], date) for date in found) if found else None


def _keys(reply: str, given: Arguments) -> bool:
    value = code.json_value(reply, whole=False)
    holders = value if isinstance(value, list) else [value]
    return bool(holders) and all(isinstance(one, dict) and {*given["keys"]} <= {*one} for one in holders)


def _length(reply: str, given: Arguments) -> bool:
    value = code.json_value(reply, whole=False)
    return isinstance(value, list) and len(value) == given["count"]


def _columns(reply: str, given: Arguments) -> bool:
    wanted = {measure.plain(column) for column in given["columns"]}
    return any(
        wanted <= {measure.plain(cell).strip("*_` ") for cell in header}
        for header, _ in measure.tables(reply)
    )


def _titled(reply: str, given: Arguments) -> bool:
    titles = "\n".join(measure.heading_titles(reply))
    return all(measure.occurrences(titles, measure.plain(title), whole=True) for title in given["titles"])


def _fenced(reply: str, given: Arguments) -> bool:
    wanted = code.named_language(given["language"].lower())
    return any(wanted in ("any", code.named_language(block.language)) for block in measure.code_blocks(reply))


def _longest_sentence(reply: str) -> int:
    return max(measure.sentence_lengths(reply), default=0)


_NONE: Final[Mapping[str, Argument]] = {}
_ENTRIES: Final = Argument("integer", "the number of entries", low=1, high=1000)
_ENTRIES_DOC: Final = (
    "examples, tips, options and the like: items, labelled lines, headings or table rows, whichever count fits; "
    "cannot be told of running text"
)

_SINGLE: Final = (
    Verifier("min_entries", "{limit:At least|entry}.", {"limit": _ENTRIES}, _among("least"), _ENTRIES_DOC),
    Verifier("max_entries", "{limit:At most|entry}.", {"limit": _ENTRIES}, _among("most"), _ENTRIES_DOC),
    Verifier("exact_entries", "{count:Exactly|entry}.", {"count": _ENTRIES}, _among("exactly"), _ENTRIES_DOC),
    Verifier(
        "max_sentence_words",
        "No sentence has more than {limit:|word}.",
        {"limit": Argument("integer", "the largest number of words", low=1)},
        lambda reply, given: _longest_sentence(reply) <= given["limit"],
    ),
    Verifier("keywords_present", "Contains {keywords}.", _KEYWORDS, _has_all, "all of them"),
    Verifier("keywords_absent", "Does not contain {keywords:or}.", _KEYWORDS, _has_none, "none of them"),
    Verifier(
        "min_keyword_count",
        "Contains {keyword} {limit:at least|time}.",
        {"limit": Argument("integer", "the smallest number", low=1), "keyword": _PHRASE["text"]},
        lambda reply, given: _count_of(reply, given) >= given["limit"],
        "as a whole word",
    ),
    Verifier(
        "max_keyword_count",
        "Contains {keyword} {limit:at most|time}.",
        {"limit": Argument("integer", "the largest number", low=1), "keyword": _PHRASE["text"]},
        lambda reply, given: _count_of(reply, given) <= given["limit"],
        "as a whole word",
    ),
    Verifier("starts_with", "Starts with {text}.", _PHRASE, _starts, "marks of Markdown and quotes aside"),
    Verifier("ends_with", "Ends with {text}.", _PHRASE, _closes, "marks of Markdown, quotes and a full stop aside"),
    Verifier(
        "contains_exactly",
        "Contains {text}, letter for letter.",
        {"text": Argument("text", "as it must stand")},
        lambda reply, given: given["text"] in reply,
    ),
    Verifier(
        "separated_by",
        "Has parts separated by {text}.",
        {"text": Argument("text", "what stands between the parts")},
        _separated,
        "two parts or more, none empty",
    ),
    Verifier(
        "one_of",
        "Is {options:or}, and nothing else.",
        {"options": Argument("texts", "the answers allowed")},
        _one_of,
        "case, quotes and a full stop aside",
    ),
    Verifier("no_commas", "Has no commas.", _NONE, lambda reply, _: "," not in reply),
    Verifier("lower_case", "Is all in lower case.", _NONE, lambda reply, _: _cased(reply, upper=False), "outside code"),
    Verifier("upper_case", "Is all in capitals.", _NONE, lambda reply, _: _cased(reply, upper=True), "outside code"),
    Verifier(
        "title_case",
        "Is in title case.",
        _NONE,
        lambda reply, _: _title_case(reply),
        "each word but the small ones starts with a capital",
    ),
    Verifier("quoted", "Stands in double quotation marks as a whole.", _NONE, lambda reply, _: _quoted(reply)),
    Verifier(
        "language",
        "Is in {code:language}.",
        {"code": Argument("choice", "an ISO 639-1 code", choices=tuple(sorted(language.LANGUAGES)))},
        lambda reply, given: language.speaks(reply, given["code"]),
        "by script and function words; cannot be told of fewer than eight words",
    ),
    Verifier("ascii_only", "Uses ASCII characters alone.", _NONE, lambda reply, _: reply.isascii()),
    Verifier("no_first_person", "Does not speak in the first person.", _NONE, lambda reply, _: _impersonal(reply)),
    Verifier("ends_with_question", "Ends with a question.", _NONE, lambda reply, _: _ends_with_question(reply)),
    Verifier(
        "postscript",
        "Has a postscript.",
        _NONE,
        lambda reply, _: any(map(_POSTSCRIPT.match, reply.splitlines())),
        "a line that starts with PS or P.S",
    ),
    Verifier(
        "date_format",
        "Writes dates as {format:bare}.",
        {"format": Argument("choice", "the format", choices=tuple(DATE_FORMATS))},
        _dated,
        "every full date; cannot be told without one",
    ),
    Verifier(
        "code_block",
        "Has a code block in {language:language}.",
        {"language": Argument("text", "what the fence names; `any` for any", default="any")},
        _fenced,
    ),
    Verifier("only_code_block", "Is one code block and nothing else.", _NONE, lambda reply, _: code.only_block(reply)),
    Verifier(
        "code_parses",
        "Has well-formed {language:language}.",
        {"language": Argument("choice", "the language", choices=code.LANGUAGES)},
        lambda reply, given: code.parses(reply, given["language"]),
        "fenced blocks of the language, or the whole reply where there is none; parsed, never run; cannot be told "
        f"beyond {code.MAX_CODE:,} characters or {code.MAX_DEPTH} open brackets",
    ),
    Verifier(
        "valid_json",
        "Is valid JSON{where:place}.",
        {"where": Argument("choice", "alone, or also in a fence", choices=("whole", "anywhere"), default="whole")},
        lambda reply, given: code.json_value(reply, whole=given["where"] == "whole") is not code.MISSING,
        "whole: the reply, or the one fenced block that it is; anywhere: also the first block that parses",
    ),
    Verifier(
        "json_keys",
        "Is JSON whose objects have the keys {keys}.",
        {"keys": Argument("texts", "case matters")},
        _keys,
        "an object, or a list of objects that all have them",
    ),
    Verifier(
        "json_array_length",
        "Is a JSON list of {count:|element}.",
        {"count": Argument("integer", "the number of elements")},
        _length,
    ),
    Verifier(
        "table_columns",
        "Has a table with the columns {columns}.",
        {"columns": Argument("texts", "names in the header; case does not matter")},
        _columns,
        "other columns may stand beside them",
    ),
    Verifier(
        "table_column_count",
        "Has a table with {count:|column}.",
        {"count": Argument("integer", "the number of columns", low=1, high=100)},
        lambda reply, given: any(len(header) == given["count"] for header, _ in measure.tables(reply)),
    ),
    Verifier(
        "section_titles",
        "Has headings that name {titles}.",
        {"titles": Argument("texts", "words of the headings; case does not matter")},
        _titled,
    ),
)  # fmt: skip

VERIFIERS: Final[Mapping[str, Verifier]] = {verifier.name: verifier for verifier in (*_counting(), *_SINGLE)}
"""All verifiers by name."""
