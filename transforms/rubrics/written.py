"""Criteria that a model writes: from what the better reply of a pair does and the weaker does not, or from the prompt.

Contrast: OpenRubrics (arXiv 2510.07743, section 4, CRG) with its hard rules and principles. From the prompt alone:
Rubrics as Rewards (arXiv 2507.17746) with its importance and weights, and what RLCF (arXiv 2507.18624) asks of an item.
Where we differ: there is no reference answer; mistakes weigh below 0 (HealthBench) and are put as what can be seen in a
reply (ORBIT, arXiv 2510.15859), never as what it avoids; programs come from a closed library, not from a model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any, Final, NamedTuple  # Any: parsed JSON, rows of frames

import orjson
import polars as pl

from tilth.schemas import ConfigError, Reason
from tilth.schemas.labels import CRITERION_KINDS
from tilth.transforms.feedback.windows import cut
from tilth.transforms.inference.prompts import Prompt, Trusted, packaged_prompt
from tilth.transforms.inference.requests import Questions, Sampling, demand_settled
from tilth.transforms.inference.sampling import request_id, requests_frame, seed_for
from tilth.transforms.pairs.candidates import DROPPED, Ruled
from tilth.transforms.rationales.positions import names_position
from tilth.transforms.rubrics.criteria import CRITERIA, criteria_rows, criterion_id
from tilth.transforms.rubrics.verifiers import (
    NONE,
    VERIFIERS,
    Verifier,
    describe,
    program_from_proposal,
    proposal_schema,
    value_form,
)

ASKED: Final = pl.Schema({"id": pl.String, "prompt_id": pl.String, "source": pl.String})
IMPORTANCE: Final = ("essential", "important", "optional", "pitfall")
_TEMPLATES: Final[Mapping[str, str]] = {"contrast": "contrast", "model": "prompt"}
_TITLE_CHARS: Final = 80
_DESCRIPTION_CHARS: Final = 400
_LEAST_REPLY_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class WritingCriteria:
    """How criteria are asked for, and what they weigh.

    Args:
        min_criteria: the fewest that the prompt asks for; fewer are taken as they are.
        max_criteria: the most of one answer.
        temperature: of the sampling.
        answer_tokens: the longest answer.
        pairs_per_prompt: contrast: how many pairs of a prompt are shown, those with the widest margin first.
        max_reply_chars: contrast: a longer reply is shown cut in the middle.
        essential: weight (this and the next three: Rubrics as Rewards, section 3).
        important: weight.
        optional: weight.
        pitfall: what a mistake takes from the score, above 0.
        seed: of the sampling, and of the order in which the replies of a pair are shown.
    """

    min_criteria: int = 3
    max_criteria: int = 12
    temperature: float = 0.0
    answer_tokens: int = 1536
    pairs_per_prompt: int = 1
    max_reply_chars: int = 12_000
    essential: float = 1.0
    important: float = 0.7
    optional: float = 0.3
    pitfall: float = 0.8
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.min_criteria <= self.max_criteria:
            found = f"{self.min_criteria} to {self.max_criteria}"
            raise ConfigError("criteria of an answer", found=found, wanted="1 or more, at most the most")
        if self.pairs_per_prompt < 1 or self.max_reply_chars < _LEAST_REPLY_CHARS:
            found = f"{self.pairs_per_prompt} pairs, replies of {self.max_reply_chars} characters"
            wanted = f"1 or more, {_LEAST_REPLY_CHARS} or more"
            raise ConfigError("what is shown to write criteria", found=found, wanted=wanted)
        weights = (self.essential, self.important, self.optional, self.pitfall)
        if not all(0 < weight < float("inf") for weight in weights):
            raise ConfigError("weights of criteria", found=", ".join(map(str, weights)), wanted="above 0")

    @property
    def sampling(self) -> Sampling:
        """How each answer is drawn."""
        return Sampling(self.temperature, 1.0, self.answer_tokens)

    def weight(self, importance: str) -> float:
        """What a criterion of this importance adds to the score of a reply that meets it."""
        return -self.pitfall if importance == "pitfall" else float(getattr(self, importance))


def written_prompt(source: str) -> Prompt:
    """The prompt that asks for criteria. Raises `ConfigError` for another source than contrast and model."""
    if source not in _TEMPLATES:
        raise ConfigError("the source of written criteria", found=source, wanted=" or ".join(_TEMPLATES))
    return packaged_prompt("tilth.transforms.rubrics", _TEMPLATES[source])


# Asking


def written_requests(
    prompts: pl.DataFrame, pairs: pl.DataFrame, source: str, config: WritingCriteria = WritingCriteria()
) -> Questions:
    """One request per prompt, sorted; `asked` is `ASKED`. For `contrast`, a prompt without a pair is not asked about.

    The better and the weaker reply of a pair are called so; which of them is shown first follows from the seed and the
    pair's id alone.

    Args:
        prompts: `PROMPTS`; one that is there twice counts once.
        pairs: rows of the table; only `contrast` reads them.
        source: `contrast` or `model` (the prompt alone).
        config: how many criteria, how much is shown.
    """
    prompt = written_prompt(source)
    rows = prompts.sort("prompt_id").unique("prompt_id", keep="first", maintain_order=True)
    rows = rows.select("prompt_id", conversation="prompt")
    if source == "contrast":
        rows = rows.join(_contrasts(pairs, config), on="prompt_id", maintain_order="left")
    verifiers = pl.Series("verifiers", [Trusted(_verifiers())] * rows.height, dtype=pl.Object)
    counts = {"min_criteria": pl.lit(config.min_criteria), "max_criteria": pl.lit(config.max_criteria)}
    shown = rows.with_columns(verifiers, **counts)
    schema = answer_schema(source, config)
    requests = requests_frame(
        prompt, shown, "prompt_id", config.sampling, schema=schema, run_seed=config.seed
    )
    asked = [(request_id(one, prompt.id), one, source) for one in rows.get_column("prompt_id")]
    return Questions(requests, pl.DataFrame(asked, schema=ASKED, orient="row"))


_CONTRAST: Final = pl.List(pl.List(pl.Struct({"better": pl.Boolean, "text": pl.String})))


def _contrasts(pairs: pl.DataFrame, config: WritingCriteria) -> pl.DataFrame:
    """`prompt_id` and `contrasts`: of each pair that is shown, both replies in the order they are shown in."""
    ordered = pairs.unique("id", keep="any").sort(
        "prompt_id", "margin", "id", descending=[False, True, False], nulls_last=True
    )
    first = ordered.group_by("prompt_id", maintain_order=True).head(config.pairs_per_prompt)
    said = [_contrast(row, config) for row in first.select("id", "chosen", "rejected").iter_rows(named=True)]
    shown = first.select("prompt_id", pl.Series("contrasts", said, dtype=_CONTRAST.inner))
    return shown.group_by("prompt_id", maintain_order=True).agg("contrasts")


def _contrast(pair: Mapping[str, Any], config: WritingCriteria) -> list[dict[str, Any]]:
    replies = [
        {"better": side == "chosen", "text": cut(_text(pair[side]), config.max_reply_chars)}
        for side in ("chosen", "rejected")
    ]
    return replies if seed_for(config.seed, pair["id"], 0) % 2 else replies[::-1]


def _text(reply: Sequence[Mapping[str, str]]) -> str:
    return "\n".join(message["content"] for message in reply)


@cache
def _verifiers() -> str:
    """The library in few words: verifiers that count the same thing stand together."""
    groups = groupby(VERIFIERS.values(), key=lambda one: one.doc or one.name)
    return "\n".join(f"- {_listed(list(group))}" for _, group in groups)


def _listed(verifiers: Sequence[Verifier]) -> str:
    forms = " / ".join(f"{one.name} {value_form(one) or '(no value)'}" for one in verifiers)
    named = {name: argument.choices for one in verifiers for name, argument in one.arguments.items()}
    choices = [f"<{name}>: {' | '.join(words)}" for name, words in named.items() if words]
    return ". ".join([forms, *filter(None, [verifiers[0].doc]), *choices])


def answer_schema(source: str, config: WritingCriteria = WritingCriteria()) -> str:
    """The JSON Schema of an answer: a list of flat criteria."""
    fields: dict[str, Any] = {
        "title": {"type": "string", "maxLength": _TITLE_CHARS},
        "description": {"type": "string", "maxLength": _DESCRIPTION_CHARS},
        "kind": {"type": "string", "enum": list(CRITERION_KINDS)},
        "importance": {"type": "string", "enum": list(IMPORTANCE)},
        **proposal_schema(),
    }
    listed = {"type": "array", "items": _object(fields), "maxItems": config.max_criteria}
    return orjson.dumps(
        {"title": f"tilth.rubric.{_TEMPLATES[source]}", **_object({"criteria": listed})}
    ).decode()


def _object(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


# Answers


def criteria_of_answers(
    prompts: pl.DataFrame,
    asked: pl.DataFrame,
    completions: pl.DataFrame,
    failed: pl.DataFrame,
    config: WritingCriteria = WritingCriteria(),
) -> Ruled:
    """`CRITERIA` from a model's answers, joined by id alone, and what was set aside of them; the order of rows decides
    nothing.

    A criterion is set aside that is blank, names a place or another reply (a grader sees one reply), says whether it is
    a mistake in two ways, or says what another of its answer says. The description of one that a program
    checks is what the program checks. A program that was proposed and does not fit is set aside (`unknown_program`)
    while its criterion stays, for a judge to check; one for a mistake is not used, because it would as often check that
    the mistake is absent. A request without an answer is set aside, as is an answer of which
    no criterion is left.

    Args:
        prompts: `PROMPTS`, those asked about among them.
        asked: `ASKED`.
        completions: `COMPLETIONS` that fit `answer_schema`, in any order.
        failed: `FAILED`: id, reason and detail of requests without an answer.
        config: the weights.

    Raises `TilthError` when a request has neither an answer nor a reason, or both, or asks about an unknown prompt.
    """
    known = asked.join(prompts, on="prompt_id", how="semi", maintain_order="left")
    demand_settled("criteria", asked, completions, failed, about=known.get_column("id"))
    answers = (
        asked.join(completions.select("id", "text", "model"), on="id")
        .join(_about(prompts), on="prompt_id")
        .sort("prompt_id", "source")
    )
    read = [_read(row, config) for row in answers.iter_rows(named=True)]
    unanswered = asked.join(failed.select("id", "reason", "detail"), on="id").iter_rows(named=True)
    lost = [row for one in read for row in one.lost]
    lost += [_lost(row, None, row["reason"], row["detail"]) for row in unanswered]
    kept = pl.DataFrame([row for one in read for row in one.kept], schema=_WRITTEN)
    dropped = pl.DataFrame(lost, schema=DROPPED).unique()
    return Ruled(criteria_rows(kept), dropped.sort("key", "reason", "payload"))


def _about(prompts: pl.DataFrame) -> pl.DataFrame:
    """The words of each prompt, which may themselves speak of "option B"."""
    said = pl.col("prompt").list.eval(pl.element().struct.field("content")).list.join("\n", ignore_nulls=True)
    return prompts.unique("prompt_id", keep="any").select("prompt_id", about=said)


_MADE: Final = ("prompt_id", "title", "description", "weight", "kind", "check", "program", "tags", "source")
_WRITTEN: Final = pl.Schema({name: CRITERIA[name] for name in (*_MADE, "model", "prompt_version")})
# How a criterion begins that says what a reply leaves undone: of a mistake, nobody can tell whether it is the mistake
# ("Does not name the dose") or its opposite ("Avoids jargon", as Rubrics as Rewards puts them).
_SUBJECT: Final = r"\W*(?:(?:the|a|this)\s+)?(?:(?:reply|response|answer|assistant|model|it)\s+)?"
_UNDONE: Final = re.compile(
    _SUBJECT
    + r"(?:avoid|refrain|never|not?\b|without|(?:do|does|is|are|must|should|may|can|will)(?:\s+not|n[’']t)\b"
    r"|cannot|free\s+(?:of|from)|(?:stay|keep|steer)s?\s+(?:clear|away|out|from))",
    re.IGNORECASE,
)
_FAILS: Final = re.compile(_SUBJECT + r"(?:fail|forget|neglect)s?\s+to\b", re.IGNORECASE)
# Beside places ("the first reply"): whatever needs a second reply to be understood.
_OTHER_REPLY: Final = re.compile(
    r"\bthe\s+(?:better|best|weaker|worse|worst|other|chosen|rejected|preferred)\s+(?:repl(?:y|ies)|responses?)\b"
    r"|\bthe\s+(?:better|weaker|worse|rejected|preferred)\s+answer\b"
    r"|\b(?:both|either)\s+(?:repl(?:y|ies)|responses?)\b",
    re.IGNORECASE,
)


class _Read(NamedTuple):
    """What one answer gave: rows of `_WRITTEN`, rows of `DROPPED`."""

    kept: list[dict[str, Any]]
    lost: list[dict[str, Any]]


def _read(row: Mapping[str, Any], config: WritingCriteria) -> _Read:
    items: list[dict[str, Any]] = orjson.loads(row["text"])["criteria"]
    kept, lost, seen = list[dict[str, Any]](), list[dict[str, Any]](), set[str]()
    both = _both(items)
    for item in items:
        program = None if _is_mistake(item) else program_from_proposal(item["verifier"], item["value"])
        made = _row(row, item, program, config)
        said = {_folded(item["description"]), _folded(made["description"])}
        if fault := _fault(item, row["about"], bool(said & both)) or _repeated(bool(said & seen)):
            lost.append(_lost(row, item, *fault))
            continue
        seen |= said
        kept.append(made)
        if program is None and item["verifier"] != NONE:
            lost.append(_lost(row, item, *_unused(item)))
    if not kept:
        lost.append(_lost(row, None, Reason.NO_CRITERION, f"of {len(items)} criteria, none can be used"))
    return _Read(kept, lost)


def _folded(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")


def _is_mistake(item: Mapping[str, Any]) -> bool:
    return item["importance"] == "pitfall"


def _both(items: Sequence[Mapping[str, Any]]) -> set[str]:
    """What is said of a mistake and of something good."""
    mistakes, others = (
        {_folded(item["description"]) for item in items if _is_mistake(item) is mistake}
        for mistake in (True, False)
    )
    return mistakes & others


def _fault(item: Mapping[str, Any], about: str, both: bool) -> tuple[Reason, str] | None:
    """Why a criterion cannot be used; null where it can."""
    text, mistake = item["description"], _is_mistake(item)
    if "\0" in text + item["title"] + item["value"]:
        return Reason.NUL_CHARACTER, "it holds a NUL character"
    if not _folded(text):
        return Reason.EMPTY, "its description is blank"
    if names_position(text, about) or _OTHER_REPLY.search(text):
        return Reason.NAMES_POSITION, "it speaks of other replies than the one that is graded"
    if both or (_UNDONE if mistake else _FAILS).match(text):
        return Reason.CONTRADICTORY, "it is told as a mistake and as something good"
    return None


def _repeated(seen: bool) -> tuple[Reason, str] | None:
    return (Reason.DUPLICATE, "another criterion of the answer says it") if seen else None


def _unused(item: Mapping[str, Any]) -> tuple[Reason, str]:
    if _is_mistake(item):
        return Reason.UNKNOWN_PROGRAM, "a judge checks it: no program is used for a mistake"
    return Reason.UNKNOWN_PROGRAM, "a judge checks it: the proposed value does not fit the program"


def _row(
    row: Mapping[str, Any], item: Mapping[str, Any], program: str | None, config: WritingCriteria
) -> dict[str, Any]:
    prompt, words = written_prompt(row["source"]), item["description"].split()
    # What is read must be what is checked, whatever the model made of the two.
    description = describe(program) if program else " ".join(words)
    return {
        "prompt_id": row["prompt_id"],
        "title": " ".join(item["title"].split()) or " ".join(words[:5]),
        "description": description,
        "weight": config.weight(item["importance"]),
        "kind": item["kind"],
        "check": "program" if program else "judge",
        "program": program,
        "tags": [item["importance"]],
        "source": row["source"],
        "model": row["model"],
        "prompt_version": f"{prompt.id}@{prompt.version}",
    }


def _lost(row: Mapping[str, Any], item: Mapping[str, Any] | None, reason: str, detail: str) -> dict[str, Any]:
    """A row of `DROPPED` for a criterion of an answer, or for the whole of it."""
    prompt = row["prompt_id"]
    part = f"&criterion={criterion_id(prompt, item['description'], None)}" if item else ""
    return {
        "source": "rubrics",
        "stage": "rubrics",
        "reason": str(reason),
        "key": f"rubrics#prompt={prompt}{part}",
        "detail": detail,
        "payload": orjson.dumps({"source": row["source"], **(item or {})}).decode(),
        "source_rows": 0,
    }
