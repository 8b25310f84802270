"""Programs: one verifier of the library with its arguments, as canonical text; proposed, described and run.

A program is data. Nothing that a model writes is executed: it can only name a verifier and a value. (RLCF, arXiv
2507.18624, has a model write Python for what can be checked exactly; its released script never uses the results.)
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final  # Any: parsed JSON

import polars as pl

from tilth.schemas import BadInput
from tilth.transforms.rubrics.criteria import GRADES, PROGRAM, program_json
from tilth.transforms.rubrics.verifier_language import LANGUAGES
from tilth.transforms.rubrics.verifier_library import (
    MAX_TEXT,
    MAX_TEXTS,
    VERIFIERS,
    Argument,
    Arguments,
    Verifier,
)

__all__ = [
    "VERIFIERS",
    "Argument",
    "Verifier",
    "describe",
    "grade_by_program",
    "library",
    "parse_program",
    "passes",
    "program_from_proposal",
    "program_of",
    "proposal_schema",
    "verdict",
]

NONE: Final = "none"
_SPELT: Final = {
    **LANGUAGES,
    "any": "any language",
    "json": "JSON",
    "python": "Python",
    "xml": "XML",
    "yaml": "YAML",
}
_NAME: Final = re.compile(r"[a-z_]{1,40}")
_INTEGER: Final = re.compile(r"\d{1,7}|\d{1,3}(?:,\d{3}){1,2}")
_NOTHING: Final = ("", "-", "yes", "true", NONE)


def program_of(verifier: str, arguments: Mapping[str, object]) -> str:
    """A program as canonical text, with what is left out filled in.

    Raises `BadInput` on a verifier that does not exist (naming the nearest), on arguments that are unknown or missing,
    and on values of the wrong type or out of bounds.

    >>> program_of("exact_words", {"count": 100})
    '{"arguments":{"count":100,"tolerance":0},"verifier":"exact_words"}'
    """
    declared = _verifier(verifier).arguments
    missing = [name for name, one in declared.items() if name not in arguments and one.default is None]
    if missing or {*arguments} - {*declared}:
        wanted = ", ".join(declared) or "none"
        raise BadInput(f"the arguments of {verifier}", found=f"{len(arguments)}", wanted=wanted)
    whole = {name: arguments.get(name, one.default) for name, one in declared.items()}
    return program_json(verifier, {name: _valid(verifier, name, whole[name]) for name in declared})


def _verifier(name: str) -> Verifier:
    if name in VERIFIERS:
        return VERIFIERS[name]
    near = difflib.get_close_matches(name[:40], VERIFIERS, n=1, cutoff=0.0)
    shown = name if _NAME.fullmatch(name) else "something that is no name"
    raise BadInput(
        "a verifier", found=shown, wanted=f"one of {len(VERIFIERS)}", do=f"did you mean {near[0]}?"
    )


def _valid(verifier: str, name: str, value: object) -> object:
    declared = VERIFIERS[verifier].arguments[name]
    fitting = _KINDS[declared.type](declared, value)
    if fitting is None:
        raise BadInput(f"{name} of {verifier}", found=f"a {type(value).__name__}", wanted=_wanted(declared))
    return fitting


def _wanted(declared: Argument) -> str:
    return {
        "integer": f"an integer from {declared.low} to {declared.high}",
        "text": f"one line of 1 to {MAX_TEXT} characters",
        "texts": f"1 to {MAX_TEXTS} lines of 1 to {MAX_TEXT} characters",
        "choice": f"one of {', '.join(declared.choices)}",
    }[declared.type]


def _integer(declared: Argument, value: object) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if declared.low <= value <= declared.high else None


def _text(_declared: Argument, value: object) -> str | None:
    text = value.strip() if isinstance(value, str) else ""
    return text if 0 < len(text) <= MAX_TEXT and text.isprintable() else None


def _texts(declared: Argument, value: object) -> list[str] | None:
    if not isinstance(value, list | tuple):
        return None
    texts = [_text(declared, item) for item in value]
    fitting = sorted({text for text in texts if text is not None})
    return fitting if 0 < len(texts) <= MAX_TEXTS and None not in texts else None


def _choice(declared: Argument, value: object) -> str | None:
    return value if isinstance(value, str) and value in declared.choices else None


_KINDS: Final[Mapping[str, Callable[[Argument, object], object]]] = {
    "integer": _integer,
    "text": _text,
    "texts": _texts,
    "choice": _choice,
}


@lru_cache(maxsize=4096)
def parse_program(text: str) -> tuple[Verifier, Arguments]:
    """The verifier and the arguments of a program. Raises `BadInput` as `program_of` does, and on other text."""
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    fits = isinstance(value, dict) and {*value} == {"verifier", "arguments"}
    if not fits or not isinstance(value["verifier"], str) or not isinstance(value["arguments"], dict):
        raise BadInput("a program", found="other text", wanted='{"verifier": name, "arguments": {…}}')
    checked = json.loads(program_of(value["verifier"], value["arguments"]))
    return VERIFIERS[checked["verifier"]], checked["arguments"]


@dataclass(frozen=True, slots=True)
class Phrase:
    """A value in a description. Integers take `<comparison>|<noun>` and, as a third, the name of a tolerance: "At most
    3 words"; texts are quoted and joined by `and` or `or`; `language` and `bare` take the quotes away.
    """

    value: int | str | list[str]
    all: Arguments

    def __format__(self, form: str) -> str:
        if isinstance(self.value, int):
            return _counted(self.value, form, self.all)
        if form == "place":
            return "" if self.value == "whole" else ", or has it in a code block"
        if form == "bare":
            return str(self.value)
        if form == "language":
            return _SPELT.get(str(self.value), str(self.value))
        texts = [self.value] if isinstance(self.value, str) else self.value
        return f" {form or 'and'} ".join(f'"{text}"' for text in texts)


@dataclass(frozen=True, slots=True)
class Blank:
    """The name of an argument in capitals in place of its value, for listings of the library."""

    name: str

    def __format__(self, form: str) -> str:
        if "|" in form:
            comparison, noun, *_ = form.split("|")
            return f"{comparison} {self.name.upper()} {_plural(noun)}".strip()
        return "" if form == "place" else self.name.upper()


def _plural(noun: str) -> str:
    if noun.startswith("placeholder"):
        return noun.replace("placeholder", "placeholders")
    return f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}s"


def _counted(value: int, form: str, every: Arguments) -> str:
    comparison, noun, *tolerance = form.split("|")
    off, plural = every[tolerance[0]] if tolerance else 0, _plural(noun)
    lead = f"Between {max(0, value - off)} and {value + off}" if off else f"{comparison} {value}".strip()
    if value == 0 and comparison:
        return f"No {plural}"
    return f"{lead} {noun if value == 1 and not off else plural}"


def describe(program: str) -> str:
    """What a reply does that passes, as an English sentence.

    >>> describe(program_of("max_words", {"limit": 100})), describe(program_of("max_emojis", {"limit": 0}))
    ('At most 100 words.', 'No emojis.')
    """
    verifier, arguments = parse_program(program)
    return verifier.describe.format(**{name: Phrase(value, arguments) for name, value in arguments.items()})


def verdict(program: str, reply: str) -> bool | None:
    """Whether a reply passes a program; None where that cannot be told. Raises `BadInput` on no program alone."""
    verifier, arguments = parse_program(program)
    return verifier.check(reply, arguments)


def passes(program: str, reply: str) -> bool:
    """Whether a reply passes a program. What cannot be told counts for the reply, so a failure is always one."""
    return verdict(program, reply) is not False


def grade_by_program(criteria: pl.DataFrame, replies: pl.DataFrame) -> pl.DataFrame:
    """Every criterion that a program checks, with every reply of its prompt; `met` is null where it cannot be told.

    What the assistant says last is what is checked.

    Args:
        criteria: `CRITERIA`; those that a judge checks are passed over.
        replies: `REPLIES`.

    Returns:
        `GRADES`, sorted, with the judge `program`.
    """
    checked = (
        criteria.filter(pl.col("check") == PROGRAM).select("prompt_id", "program", criterion_id="id").unique()
    )
    said = replies.select(
        "prompt_id",
        "response_id",
        reply=pl.col("completion").list.last().struct.field("content").fill_null(""),
    ).unique(["prompt_id", "response_id"], keep="first", maintain_order=True)
    rows = checked.join(said, on="prompt_id").sort("prompt_id", "criterion_id", "response_id")
    met = [verdict(program, reply) for program, reply in rows.select("program", "reply").iter_rows()]
    graded = rows.with_columns(judge=pl.lit(PROGRAM), met=pl.Series(met, dtype=pl.Boolean))
    return graded.select(pl.col(name).cast(kind) for name, kind in GRADES.items())


def value_form(verifier: Verifier) -> str:
    """How a value is written for a verifier: its arguments in order, those with a default in brackets.

    >>> value_form(VERIFIERS["exact_words"])
    '<count>[; <tolerance>]'
    """
    parts = [
        f"<{name}, …>" if one.type == "texts" else f"<{name}>" for name, one in verifier.arguments.items()
    ]
    given = [one.default is None for one in verifier.arguments.values()]
    return "".join(
        f"{'; ' if at else ''}{part}" if needed else f"[{'; ' if at else ''}{part}]"
        for at, (part, needed) in enumerate(zip(parts, given, strict=True))
    )


def library() -> list[dict[str, object]]:
    """All verifiers as plain data: name, what a reply does that passes, the form of a value, what is counted how, and
    the arguments with docs and bounds.
    """
    return [
        {
            "verifier": verifier.name,
            "checks": verifier.describe.format(**{name: Blank(name) for name in verifier.arguments}),
            "value": value_form(verifier),
            "doc": verifier.doc,
            "arguments": {
                name: f"{argument.doc} ({_wanted(argument)})" for name, argument in verifier.arguments.items()
            },
        }
        for verifier in VERIFIERS.values()
    ]


def proposal_schema() -> dict[str, object]:
    """The properties by which a model proposes a program in a structured answer: `verifier` and `value`."""
    return {
        "verifier": {"type": "string", "enum": [NONE, *VERIFIERS]},
        "value": {"type": "string", "maxLength": MAX_TEXT},
    }


def program_from_proposal(verifier: str, value: str) -> str | None:
    """The program that a model proposed, None where the value does not fit: it is never guessed.

    A value holds the arguments in their order, separated by `;`: integers in digits ("100", "1,000"), texts as they
    are, several texts separated by commas, choices word by word. Arguments with a default may be left out. Without
    arguments it is empty, `-`, `none`, `yes` or `true`.

    >>> program_from_proposal("keywords_present", "apple, pear")
    '{"arguments":{"keywords":["apple","pear"],"match":"word"},"verifier":"keywords_present"}'
    >>> program_from_proposal("max_words", "a hundred") is None
    True
    """
    if verifier not in VERIFIERS:
        return None
    declared = VERIFIERS[verifier].arguments
    if not declared:
        return program_of(verifier, {}) if value.strip().lower() in _NOTHING else None
    try:
        return program_of(verifier, _read(declared, value))
    except BadInput:
        return None


def _read(declared: Mapping[str, Argument], value: str) -> dict[str, object]:
    """Arguments from a value; the last text takes what is left, so that it may hold a semicolon."""
    names = list(declared)
    parts = value.split(";", len(names) - 1) if value.strip() else []
    return {name: _typed(declared[name], part.strip()) for name, part in zip(names, parts, strict=False)}


def _typed(declared: Argument, part: str) -> object:
    if declared.type == "integer":
        return int(part.replace(",", "")) if _INTEGER.fullmatch(part) else None
    if declared.type == "texts":
        return [_bare(item) for item in part.split(",")]
    return _bare(part) if declared.type == "text" else part


def _bare(text: str) -> str:
    stripped = text.strip()
    quoted = len(stripped) > 1 and (stripped[0], stripped[-1]) in (('"', '"'), ("'", "'"), ("“", "”"))
    return stripped[1:-1].strip() if quoted else stripped
