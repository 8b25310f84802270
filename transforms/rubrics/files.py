"""Rubrics and verdicts of others, read as they are published: nothing is guessed, and no text of a row is repeated.

The forms are described in docs/reference/rubrics.md.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple  # Any: rows of JSON

import fsspec
import orjson
import polars as pl

from tilth.schemas import BadInput, NotFound, polars_schema
from tilth.schemas.ids import content_id
from tilth.transforms.inference import tables
from tilth.transforms.rubrics.criteria import CRITERIA, GRADES, criterion_id
from tilth.transforms.rubrics.grading import LINKS, grades_of
from tilth.transforms.rubrics.scoring import EXAMPLE_TAGS

Row = Mapping[str, Any]
_SAID: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_BLANK: Final = ("", "null", "none", "nan")
_BATCH_ROWS: Final = 10_000
# Where a form keeps its criteria, in the order in which they are looked for.
_LISTS: Final = ("criteria", "rubrics", "rubric", "rubric_items")
_TEXTS: Final = ("description", "criterion", "question")
_WEIGHTS: Final = ("weight", "points")


class Rubrics(NamedTuple):
    """What a file of rubrics holds: `CRITERIA` in their order, `EXAMPLE_TAGS`, and `GRADES` that stand beside them."""

    criteria: pl.DataFrame
    example_tags: pl.DataFrame
    grades: pl.DataFrame


class _Line(NamedTuple):
    """A row, its number from 0, and what errors call it."""

    row: Row
    number: int
    where: str

    def bad(self, found: str, wanted: str) -> BadInput:
        return BadInput(self.where, found=found, wanted=wanted, do="see docs/reference/rubrics.md")


def read_rubrics(uri: str) -> Rubrics:
    """Reads rubrics (JSONL or Parquet; any fsspec URI), each row one prompt, in a form told by its columns.

    Tilth's own table (`criteria`), HealthBench and RubricHub (`rubrics` of criterion, points, tags), Rubrics as Rewards
    (`rubric` of title, description, weight, as a list or as JSON), and what HealthBench's grader writes
    (`rubric_items`, with verdicts). A prompt goes by `prompt_id`, `id`, or else its row number from 0; a prompt whose
    rubric comes again must have the same one. A criterion that one rubric holds twice counts twice, as in the published
    code.

    Raises `NotFound`, and `BadInput` naming file, line, what was found and what was wanted.
    """
    known, grades, tags = dict[str, list[Row]](), list[Row](), list[Row]()
    for line in _lines(uri):
        prompt = _prompt(line)
        criteria = _criteria(_items(line, _LISTS), prompt, line)
        if known.setdefault(prompt, criteria) != criteria:
            raise line.bad("another rubric of a prompt that came before", "one rubric a prompt")
        if "rubric_items" in line.row:
            index = _Index((prompt, row["id"], row["description"]) for row in criteria)
            grades += _of_items(line, index)
        tags += [{"prompt_id": prompt, "tag": tag} for tag in _texts(line.row.get("example_tags"), line)]
    return Rubrics(
        _frame([row for rows in known.values() for row in rows], CRITERIA),
        _frame(tags, EXAMPLE_TAGS).unique(maintain_order=True),
        checked(_frame(grades, GRADES), uri),
    )


def read_verdicts(uri: str, criteria: pl.DataFrame) -> pl.DataFrame:
    """Reads verdicts (JSONL, Parquet or CSV) about `criteria`, as `GRADES`.

    One verdict a row (`prompt_id`, `criterion`, `met`, and `response_id`, `judge`), where `criterion` is an id, the
    place in the rubric from 0, or the text; rows with `rubric_items`, as HealthBench's grader writes them; or Tilth's
    table `judgments`, of which those about these criteria are taken. Without `response_id` there is one reply a prompt,
    of the prompt's id.

    Raises `NotFound`, and `BadInput` naming file, line, what was found and what was wanted: verdicts about criteria
    that are not there, and of one judge that contradict each other, among them.
    """
    index = _Index(criteria.select("prompt_id", "id", "description").iter_rows())
    lines = list(_lines(uri))
    if lines and "attribute" in lines[0].row:
        return _of_judgments(lines, index)
    rows = [grade for line in lines for grade in _verdicts(line, index)]
    return checked(_frame(rows, GRADES), uri)


def checked(grades: pl.DataFrame, uri: str) -> pl.DataFrame:
    """`grades`, each once. Raises `BadInput` where one judge says two things of one criterion and reply."""
    once = grades.unique(maintain_order=True)
    torn = once.height - once.n_unique(["prompt_id", "criterion_id", "response_id", "judge"])
    if torn:
        found = f"{torn} verdicts that contradict another of the same judge"
        do = "give replies their own response_id, samples of a judge their own judge"
        raise BadInput(_name(uri), found=found, wanted="one verdict of each judge", do=do)
    return once


def _frame(rows: Sequence[Row], schema: pl.Schema) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=schema)


# Rows


def _name(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[2]


def _lines(uri: str) -> Iterator[_Line]:
    """The rows of a file, JSONL by lines so that errors can name them and rows may differ in their columns."""
    name, form = _name(uri), tables.form(uri)
    fs, path = fsspec.core.url_to_fs(uri)
    if not fs.isfile(path):
        raise NotFound("no such file", found=uri, wanted="a file of rubrics or verdicts")
    if form in (".parquet", ".csv"):
        rows = (row for batch in tables.batches(uri, _BATCH_ROWS) for row in batch.iter_rows(named=True))
        for number, row in enumerate(rows):
            yield _Line(row, number, f"{name}, row {number + 1}")
        return
    with fs.open(path, "rb") as file:
        filled = ((at, text) for at, text in enumerate(file, 1) if text.strip())
        for number, (at, text) in enumerate(filled):
            yield _Line(_parsed(text, f"{name}, line {at}"), number, f"{name}, line {at}")


def _parsed(text: bytes, where: str) -> Row:
    try:
        row = orjson.loads(text)
    except orjson.JSONDecodeError:
        row = None
    if not isinstance(row, dict):
        raise BadInput(where, found="no JSON object", wanted="one row as JSON a line")
    return row


def _prompt(line: _Line) -> str:
    given = line.row.get("prompt_id", line.row.get("id"))
    return str(line.number if given is None else given)


def _items(line: _Line, names: Sequence[str]) -> list[Row]:
    """The criteria of a row, from the first of these columns that it has."""
    given = next((line.row[name] for name in names if line.row.get(name) is not None), None)
    if given is None:
        raise line.bad(f"columns {', '.join(sorted(line.row))}", f"one of {', '.join(names)}")
    if isinstance(given, str):
        given = _json(given, line)
    if not isinstance(given, list) or not all(isinstance(item, dict) for item in given):
        raise line.bad(f"criteria as {type(given).__name__}", "a list of objects")
    return given


def _json(text: str, line: _Line) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise line.bad("criteria as a text that is no JSON", "a list of objects") from None


def _texts(value: object, line: _Line) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise line.bad(f"tags as {type(value).__name__}", "a list of texts")
    return value


def _criteria(items: Sequence[Row], prompt: str, line: _Line) -> list[Row]:
    seen = Counter[str]()
    return [_criterion(item, at, prompt, line, seen) for at, item in enumerate(items)]


def _text(item: Row) -> str:
    return next((item[name] for name in _TEXTS if isinstance(item.get(name), str)), "")


def _criterion(item: Row, at: int, prompt: str, line: _Line, seen: Counter[str]) -> Row:
    text = _text(item)
    weight = next((item[name] for name in _WEIGHTS if item.get(name) is not None), None)
    if not text.strip():
        raise line.bad(f"criterion {at} without a text", f"a text in {' or '.join(_TEXTS)}")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        raise line.bad(
            f"criterion {at} with a weight of {type(weight).__name__}", f"a number in {' or '.join(_WEIGHTS)}"
        )
    plain = criterion_id(prompt, text, item.get("program"))
    seen[plain] += 1
    again = plain if seen[plain] == 1 else content_id(plain, str(seen[plain]))
    return {
        "prompt_id": prompt,
        "id": item.get("id") or again,
        "title": item.get("title"),
        "description": text,
        "weight": float(weight),
        "check": item.get("check"),
        "program": item.get("program"),
        "tags": _texts(item.get("tags"), line),
        "source": item.get("source"),
        "feedback_ids": [],
    }


# Verdicts


class _Index:
    """Criteria of a prompt by what verdicts may call them."""

    def __init__(self, criteria: Iterable[tuple[str, str, str]]) -> None:
        self.ids = dict[str, list[str]]()
        self.prompts = dict[str, str]()
        self._names = dict[tuple[str, str], list[str]]()
        for prompt, one, text in criteria:
            self.ids.setdefault(prompt, []).append(one)
            self.prompts[one] = prompt
            self._names.setdefault((prompt, _plain(text)), []).append(one)

    def find(self, prompt: str, called: object, line: _Line) -> str:
        """The id of a criterion by its id, its place from 0, or its text."""
        ids = self.ids.get(prompt)
        if ids is None:
            raise line.bad("a prompt_id that the rubrics do not have", "a prompt of the rubrics")
        if called in ids:
            return str(called)
        word = str(called).strip()
        if word.isdigit() and int(word) < len(ids):
            return ids[int(word)]
        found = self._names.get((prompt, _plain(word)), [])
        if len(found) != 1:
            many = f"a text that {len(found)} criteria have" if found else "no such criterion"
            raise line.bad(many, f"an id, a place from 0 to {len(ids) - 1}, or the text of one criterion")
        return found[0]


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _verdicts(line: _Line, index: _Index) -> list[Row]:
    if "rubric_items" in line.row:
        return _of_items(line, index)
    row = line.row
    missing = [name for name in ("prompt_id", "criterion", "met") if name not in row]
    if missing:
        wanted = "prompt_id, criterion and met; or prompt_id and rubric_items; or the table judgments"
        raise line.bad(f"no {' and no '.join(missing)}", wanted)
    prompt = _prompt(line)
    one = index.find(prompt, row["criterion"], line)
    return [_grade(prompt, one, row.get("response_id"), row.get("judge"), _met(row["met"], line))]


def _of_items(line: _Line, index: _Index) -> list[Row]:
    """What HealthBench's grader writes: the rubric in its order, or some of its criteria by their texts."""
    prompt, items = _prompt(line), _items(line, ("rubric_items",))
    ids = [row["id"] for row in _criteria(items, prompt, line)]
    if ids != index.ids.get(prompt):
        ids = [index.find(prompt, _text(item), line) for item in items]
    response = line.row.get("completion_id", line.row.get("response_id"))
    judge = line.row.get("judge")
    return [
        _grade(prompt, one, response, judge, _met(item.get("criteria_met"), line))
        for item, one in zip(items, ids, strict=True)
    ]


def _of_judgments(lines: Sequence[_Line], index: _Index) -> pl.DataFrame:
    """Grades from rows of `judgments`: those of other attributes and kinds say nothing of these criteria."""
    asked = [line.row for line in lines if line.row["kind"] == "pointwise"]
    rows = [
        {**row, "prompt_id": index.prompts[row["attribute"]]}
        for row in asked
        if row["attribute"] in index.prompts
    ]
    links = [
        {
            "item_id": row["item_id"],
            "criterion_id": row["attribute"],
            "prompt_id": row["prompt_id"],
            "response_id": row["response_ids"][0],
        }
        for row in rows
    ]
    return grades_of(_frame(links, LINKS).unique(), _frame(rows, polars_schema("judgments")))


def _grade(prompt: str, criterion: str, response: object, judge: object, met: bool | None) -> Row:
    return {
        "prompt_id": prompt,
        "criterion_id": criterion,
        "response_id": prompt if response is None else str(response),
        "judge": "judge" if judge is None else str(judge),
        "met": met,
    }


def _met(value: object, line: _Line) -> bool | None:
    """True, false, or null for a blank; whole numbers and words of either are taken."""
    word = str(value).strip().lower().removesuffix(".0")
    if value is None or word in _BLANK:
        return None
    if word not in _SAID:
        raise line.bad("met that is neither", "true or false (yes or no, 1 or 0), or a blank")
    return _SAID[word]
