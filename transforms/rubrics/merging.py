"""Criteria of a prompt made one set: what is no criterion goes, what says the same is said once, the heaviest stay."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple  # Any: values of rows

import orjson
import polars as pl

from tilth.schemas import ConfigError, Reason
from tilth.transforms.pairs.candidates import DROPPED
from tilth.transforms.rubrics.criteria import CRITERIA, criteria_rows
from tilth.transforms.rubrics.likeness import Grams, content_words, grams, likeness, words

SOURCE: Final = "rubrics"
PAYLOAD_CHARS: Final = 16_384  # at most 64 KiB as UTF-8
Row = dict[str, Any]
_ENDING: Final = re.compile(r"(?<=\w{3})(?:ing|ed|es|s|e|ly)$")
_NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)*")
_TURNS: Final = frozenset(  # words that turn a sense round, by which texts may differ in nothing else
    words(
        "no not never none nor neither without cannot don doesn isn aren won avoid avoids avoiding fails fail lacks "
        "least most more less fewer minimum maximum min max over under above below before after"
    )
)


@dataclass(frozen=True, slots=True)
class Merging:
    """How criteria of one prompt become one set.

    Args:
        max_likeness: criteria whose words are at least so alike (mean Jaccard of 1-grams and 2-grams) say the same;
            1 merges only equal sets of words. Never those of opposite signs, with other numbers, other negations or
            other programs, nor where one word of content took the place of another.
        max_criteria: the heaviest stay; 0 for all.
        max_weight: heavier ones, mistakes too, weigh so much (10 is the bound of HealthBench and RubricHub).
    """

    max_likeness: float = 0.85
    max_criteria: int = 0
    max_weight: float = 10.0

    def __post_init__(self) -> None:
        if not (0 < self.max_likeness <= 1 and self.max_criteria >= 0 and 0 < self.max_weight < math.inf):
            wanted = "max_likeness in (0, 1], max_criteria of 0 or more, max_weight above 0"
            raise ConfigError("how criteria are merged", found=self, wanted=wanted)


class Merged(NamedTuple):
    """`CRITERIA` that stay, and rows of `quarantine` without `id`."""

    kept: pl.DataFrame
    dropped: pl.DataFrame


def merged(criteria: pl.DataFrame, config: Merging | None = None) -> Merged:
    """Each prompt's criteria, each said once, by prompt, weight and id; the order of rows decides nothing.

    White space is collapsed and weights are clamped; what has no text, or a weight of 0 or none, is set aside
    (RubricHub, arXiv 2601.08430, `common.py`; its duplicates are found by a key that never collapses white space). Of
    criteria that say the same, one stays (`duplicate`): one with a program, then the heaviest, then by its content. It
    takes over feedback, tags and the greatest weight of all. An equal text with both signs contradicts itself, and
    goes. Merging what is merged changes nothing.

    Args:
        criteria: `CRITERIA` of any sources; ids are given anew.
        config: see `Merging`.
    """
    config = config or Merging()
    rows, odd = _normalised(criteria, config)
    several = pl.len().over("prompt_id") > 1
    alone, together = rows.filter(~several), rows.filter(several)
    kept, dropped = list[Row](), odd
    for group in _groups(together):
        stay, gone = _merge(group, config)
        kept += stay
        dropped += gone
    whole = pl.concat([alone, pl.DataFrame(kept, schema=CRITERIA)])
    ordered = whole.sort("prompt_id", "weight", "id", descending=[False, True, False])
    return Merged(ordered, pl.DataFrame(dropped, schema=DROPPED).sort("key", "reason", "payload"))


def set_aside(row: Row, reason: Reason, detail: str) -> dict[str, object]:
    """A criterion as a row of `quarantine` without `id`; its text stands in `payload` alone."""
    shown = {name: row[name] for name in ("description", "weight", "program", "source")}
    if shown["weight"] is not None and not math.isfinite(shown["weight"]):
        shown["weight"] = str(shown["weight"])
    return {
        "source": SOURCE,
        "stage": "rubrics",
        "reason": reason.value,
        "key": f"rubrics#prompt={row['prompt_id']}&criterion={row['id']}",
        "detail": detail,
        "payload": orjson.dumps(shown).decode()[:PAYLOAD_CHARS],
        "source_rows": 0,
    }


def _normalised(criteria: pl.DataFrame, config: Merging) -> tuple[pl.DataFrame, list[dict[str, object]]]:
    said = pl.col("description").str.replace_all(r"\s+", " ").str.strip_chars()
    rows = criteria_rows(criteria.with_columns(said)).select(CRITERIA.names())
    weighs = (pl.col("weight").is_finite() & (pl.col("weight") != 0)).fill_null(value=False)
    blank = (pl.col("description") == "").fill_null(value=True)
    odd = [set_aside(row, Reason.EMPTY, "no text") for row in rows.filter(blank).iter_rows(named=True)]
    light = rows.filter(~blank & ~weighs).iter_rows(named=True)
    odd += [set_aside(row, Reason.NO_CRITERION, "a weight of 0, or none") for row in light]
    clamped = pl.col("weight").clip(-config.max_weight, config.max_weight)
    return rows.filter(~blank & weighs).with_columns(clamped), odd


def _groups(rows: pl.DataFrame) -> Iterable[list[Row]]:
    """The criteria of each prompt, those that would rather stay first."""
    size, bare = pl.col("weight").abs(), pl.col("program").is_null()
    rest = pl.struct(pl.all()).struct.json_encode()
    ordered = rows.sort("prompt_id", bare, -size, "id", rest)
    for group in ordered.partition_by("prompt_id", maintain_order=True):
        yield group.to_dicts()


class _Sense(NamedTuple):
    """What a text says, as far as its words tell."""

    numbers: tuple[str, ...]
    turns: tuple[str, ...]
    stems: frozenset[str]
    grams: Grams


@lru_cache(maxsize=4096)  # rules say the same of many prompts
def _sense(text: str) -> _Sense:
    tokens = words(text)
    turns = tuple(sorted(word for word in tokens if word in _TURNS))
    stems = frozenset(_ENDING.sub("", word) for word in content_words(text))
    return _Sense(tuple(sorted(_NUMBER.findall(text))), turns, stems, grams(tokens))


@dataclass(slots=True)
class _Said:
    """A criterion that stays, and those that say the same."""

    row: Row
    text: str
    others: list[Row]


def _said(row: Row) -> _Said:
    return _Said(row, row["description"].lower(), [])


def _merge(group: list[Row], config: Merging) -> tuple[list[Row], list[dict[str, object]]]:
    torn = _contradictory(group)
    stay, gone = list[_Said](), list[dict[str, object]]()
    for one in map(_said, group):
        same = next((other for other in stay if _same(one, other, config.max_likeness)), None)
        if one.text in torn:
            gone.append(set_aside(one.row, Reason.CONTRADICTORY, "wanted and a mistake in equal words"))
        elif same is None:
            stay.append(one)
        else:
            same.others.append(one.row)
            gone.append(set_aside(one.row, Reason.DUPLICATE, f"says the same as criterion {same.row['id']}"))
    rows = _heaviest_first([_united(one) for one in stay])
    limit = config.max_criteria or len(rows)
    over = f"beyond the {limit} heaviest of its prompt"
    return rows[:limit], gone + [set_aside(row, Reason.TOO_LARGE, over) for row in rows[limit:]]


def _heaviest_first(rows: list[Row]) -> list[Row]:
    """By weight, but a wanted thing before all mistakes: mistakes alone make no rubric."""
    ordered = sorted(rows, key=lambda row: (-abs(row["weight"]), row["id"]))
    wanted = [row for row in ordered if row["weight"] > 0][:1]
    return wanted + [row for row in ordered if row not in wanted]


def _contradictory(group: list[Row]) -> set[str]:
    """The texts that stand with both signs."""
    sides = [
        {row["description"].lower() for row in group if (row["weight"] > 0) is good} for good in (True, False)
    ]
    return sides[0] & sides[1]


def _same(one: _Said, other: _Said, max_likeness: float) -> bool:
    if (one.row["weight"] > 0) != (other.row["weight"] > 0):
        return False
    programs = {row["program"] for row in (one.row, other.row)}
    if one.text == other.text or (len(programs) == 1 and None not in programs):
        return True
    return None in programs and _alike(_sense(one.text), _sense(other.text), max_likeness)


def _alike(one: _Sense, other: _Sense, max_likeness: float) -> bool:
    if (one.numbers, one.turns) != (other.numbers, other.turns):
        return False
    exchanged = one.stems - other.stems and other.stems - one.stems
    return not exchanged and likeness(one.grams, other.grams) >= max_likeness


def _united(said: _Said) -> Row:
    """What stays, with what the others bring."""
    rows = [said.row, *said.others]
    heaviest = max(rows, key=lambda row: abs(row["weight"]))
    lists = {name: sorted({one for row in rows for one in row[name]}) for name in ("tags", "feedback_ids")}
    return {**said.row, **lists, "weight": heaviest["weight"]}
