"""Rationales that a model writes: what it is asked, and what its answers become; joined by id alone.

Sources: general and specific reasons, Data-Centric Human Preference with Rationales (arXiv 2407.14477), which always
shows the preferred reply first, so that a model could learn the place: the order is drawn here, and stored. Judgments,
Reasons to Reject (CUT, arXiv 2312.14591), whose judge sees one reply and says what is wrong with it or that it is
satisfied. Options, PODA (arXiv 2409.14495) and PINTO (arXiv 2211.01562): premises, then an analysis of each answer that
cites them, then the best one; written for multiple choice, here for two replies to a request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple  # Any: parsed JSON

import orjson
import polars as pl

from tilth.schemas import PL_MESSAGES, ConfigError, Reason, conform, content_ids, polars_schema
from tilth.schemas.labels import WRITTEN_KINDS
from tilth.transforms.inference.control_tokens import restore
from tilth.transforms.inference.prompts import Prompt, packaged_prompt
from tilth.transforms.inference.requests import Questions, Sampling, demand_settled
from tilth.transforms.inference.sampling import request_id, requests_frame, seed_for
from tilth.transforms.pairs.candidates import quarantined
from tilth.transforms.rationales.checks import Checks, faults, verbatim
from tilth.transforms.rationales.complaints import no_factors

ASKED: Final = pl.Schema(
    {
        "id": pl.String,  # of the request
        "pair_id": pl.String,
        "kind": pl.String,
        "order": pl.List(pl.Int32),  # which side stands at each place: 0 chosen, 1 rejected
        "sample_index": pl.Int32,
    }
)
_SIDES: Final = ("chosen", "rejected")
_QUOTES: Final = 5
_QUOTE_CHARS: Final = 240
_PREMISES: Final = 8
_REASON_CHARS: Final = 1200
_ANALYSIS_CHARS: Final = 800


@dataclass(frozen=True, slots=True)
class Writing:
    """How rationales are written.

    Args:
        samples: drawn for each pair and kind; the votes of their label decide which are kept.
        temperature: of the samples; above 0 when there is more than one.
        answer_tokens: the longest answer.
        max_reply_chars: a longer reply is shown without its middle. Quotes are looked for in the whole reply, so that
            what is kept stands there; one that runs over the gap does not, and is set aside.
        seed: draws samples, and for each pair the order that its replies are shown in.
    """

    samples: int = 1
    temperature: float = 0.0
    answer_tokens: int = 768
    max_reply_chars: int = 12_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or self.temperature < 0 or (self.samples > 1 and self.temperature == 0):
            found = f"{self.samples} at temperature {self.temperature}"
            raise ConfigError("samples of a rationale", found=found, wanted="1, or more above temperature 0")
        if self.answer_tokens < 1 or self.max_reply_chars < 2:
            found = f"answer_tokens={self.answer_tokens}, max_reply_chars={self.max_reply_chars}"
            raise ConfigError("lengths of rationales and replies", found=found, wanted="at least 1; 2")

    @property
    def sampling(self) -> Sampling:
        """How each answer is drawn; the seed of a sample is its own."""
        return Sampling(self.temperature, 1.0, self.answer_tokens)


class Written(NamedTuple):
    """Rationales that pass what can be checked without a judge (`candidate_schema`), and rows of `quarantine` without
    `id` for all others.
    """

    kept: pl.DataFrame
    dropped: pl.DataFrame


def candidate_schema() -> pl.Schema:
    """The columns of the table `rationales`, which sample it is, and how many were asked for."""
    return pl.Schema({**polars_schema("rationales"), "sample_index": pl.Int32, "drawn": pl.Int32})


def written_prompt(kind: str) -> Prompt:
    """The prompt that asks for a kind. Raises `ConfigError` for a kind that no model writes."""
    if kind not in WRITTEN_KINDS:
        raise ConfigError("the kind of a rationale", found=kind, wanted=", ".join(WRITTEN_KINDS))
    return packaged_prompt("tilth.transforms.rationales", kind)


# Asking


def rationale_requests(pairs: pl.DataFrame, kind: str, config: Writing = Writing()) -> Questions:
    """What a model is asked about rows of `pairs`: one request per pair and sample; `asked` is `ASKED`.

    For the kinds general and specific it is told which reply is preferred. For option it is not; for judgment it sees
    the rejected reply alone, and is not told that it lost.
    """
    prompt = written_prompt(kind)
    shown = pl.DataFrame(list(_shown(pairs, config)), schema=_SHOWN, orient="row")
    requests = requests_frame(
        prompt,
        shown,
        "pair_id",
        config.sampling,
        schema=answer_schema(kind),
        samples=config.samples,
        run_seed=config.seed,
    )
    asked = [
        (request_id(pair, prompt.id, n), pair, kind, order, n)
        for pair, order in shown.select("pair_id", "order").iter_rows()
        for n in range(config.samples)
    ]
    return Questions(requests, pl.DataFrame(asked, schema=ASKED, orient="row"))


def shown_order(pair_id: str, seed: int) -> list[int]:
    """Which side of a pair stands at each place, 0 for chosen; it follows from the seed and the pair alone."""
    return [0, 1] if seed_for(seed, f"{pair_id}/order", 0) % 2 else [1, 0]


_SHOWN: Final = pl.Schema(
    {
        "pair_id": pl.String,
        "order": pl.List(pl.Int32),
        "conversation": PL_MESSAGES,
        "replies": pl.List(pl.String),
        "reply": pl.String,
        "better": pl.Int32,
        "weaker": pl.Int32,
        "quotes": pl.Int32,
        "premises": pl.Int32,
    }
)


def _shown(pairs: pl.DataFrame, config: Writing) -> Iterator[tuple[object, ...]]:
    for pair, prompt, *sides in pairs.select("id", "prompt", *_SIDES).iter_rows():
        texts = [_without_middle(_text(side), config.max_reply_chars) for side in sides]
        order = shown_order(pair, config.seed)
        better, weaker = order.index(0) + 1, order.index(1) + 1
        shown = [texts[side] for side in order]
        yield pair, order, prompt, shown, texts[1], better, weaker, _QUOTES, _PREMISES


def _text(messages: Sequence[Mapping[str, str]]) -> str:
    """As quotes are looked for in it, here and in `tilth.schemas.across`."""
    return "\n".join(message["content"] for message in messages)


def _without_middle(text: str, limit: int) -> str:
    """The text up to `limit` characters; of a longer one both ends, with how much is left out between them."""
    if len(text) <= limit:
        return text
    head, tail = text[: limit - limit // 2], text[-(limit // 2) :]
    return f"{head}\n[… {len(text) - limit} characters are left out here …]\n{tail}"


def answer_schema(kind: str) -> str:
    """The JSON Schema of an answer: what is cited first, then the reason."""
    properties = _PROPERTIES[kind]
    schema = {
        "title": f"tilth.rationale.{kind}",
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return orjson.dumps(schema).decode()


def _string(limit: int) -> dict[str, Any]:
    return {"type": "string", "maxLength": limit}


def _listed(items: Mapping[str, Any], limit: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "maxItems": limit}


_CITED: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {"reply": {"type": "integer", "enum": [1, 2]}, "quote": _string(_QUOTE_CHARS)},
    "required": ["reply", "quote"],
    "additionalProperties": False,
}
_NUMBERS: Final = _listed({"type": "integer", "minimum": 1, "maximum": _PREMISES}, _PREMISES)
_PROPERTIES: Final[Mapping[str, Mapping[str, Any]]] = {
    "general": {"reason": _string(_REASON_CHARS)},
    "specific": {"evidence": _listed(_CITED, _QUOTES), "reason": _string(_REASON_CHARS)},
    "judgment": {
        "evidence": _listed(_string(_QUOTE_CHARS), _QUOTES),
        "satisfied": {"type": "boolean"},
        "reason": _string(_REASON_CHARS),
    },
    "option": {
        "premises": _listed(_string(_QUOTE_CHARS), _PREMISES),
        **{
            f"{name}_{place}": shape
            for place in (1, 2)
            for name, shape in (
                ("supports", _NUMBERS),
                ("contradicts", _NUMBERS),
                ("analysis", _string(_ANALYSIS_CHARS)),
            )
        },
        "best": {"type": "string", "enum": ["1", "2", "tie"]},
    },
}


# Answers


def rationales_of(
    pairs: pl.DataFrame,
    asked: pl.DataFrame,
    completions: pl.DataFrame,
    failed: pl.DataFrame,
    kind: str,
    config: Writing = Writing(),
    checks: Checks = Checks(),  # noqa: B008  # frozen
) -> Written:
    """Rationales from a model's answers; of a request every rationale is kept or set aside, once. Joined by id alone.

    An answer is one rationale; for option two, one about each reply. Set aside are requests without an answer, answers
    that speak for the rejected reply (a judgment that is satisfied with it, an option that does not name the chosen one
    the best), those that cite nothing or what does not stand where they say, and what `checks.faults` finds. Quotes are
    kept as they stand in the text that they cite.

    Args:
        pairs: rows of the table, all that were asked about.
        asked: `ASKED`, of this kind.
        completions: `COMPLETIONS` that fit `answer_schema`, in any order.
        failed: columns `id`, `reason` and `detail`, of requests without an answer.
        kind: one of `WRITTEN_KINDS`.
        config: what the requests were made with.
        checks: of `faults`.

    Raises `TilthError` when some request has neither an answer nor a reason, or both, or is about an unknown pair.
    """
    rows = asked.join(pairs, left_on="pair_id", right_on="id", maintain_order="left")
    demand_settled("rationales", asked, completions, failed, about=rows.get_column("id"))
    told = completions.select("id", "text", written_by="model")
    answered = rows.join(told, on="id")
    said = [{**about, **one._asdict()} for about, answer in _told(answered) for one in _READERS[kind](answer)]
    written = _rows(pl.DataFrame(said, schema=_SAID), kind, config)
    lost = [_unanswered(rows, failed), set_aside(written.filter(pl.col("reason").is_not_null()))]
    candidates = written.filter(pl.col("reason").is_null()).drop("reason", "detail")
    found = faults(candidates, pairs, checks).select("id", "reason", "detail")
    faulty = candidates.join(found, on="id")
    kept = candidates.join(found, on="id", how="anti").sort("id")
    return Written(kept.select(candidate_schema().names()), pl.concat([*lost, set_aside(faulty)]))


def _unanswered(rows: pl.DataFrame, failed: pl.DataFrame) -> pl.DataFrame:
    joined = rows.join(failed.select("id", "reason", "detail"), on="id")
    nothing = pl.lit(None, pl.String)
    return set_aside(joined.with_columns(side=nothing, text=nothing))


def set_aside(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of quarantine without `id` from rationales with `reason` and `detail`: one each, under its pair."""
    named = rows.with_columns(source=pl.lit("pairs"), id=pl.format("pairs#id={}", "pair_id"))
    return quarantined(named, "rationales", ["kind", "side", "sample_index", "text"])


# Reading


class _Said(NamedTuple):
    """One rationale of an answer; with a reason, one that cannot be used."""

    side: str | None
    text: str | None = None
    evidence: Sequence[Mapping[str, str]] = ()
    reason: str | None = None
    detail: str | None = None


class _Told(NamedTuple):
    """An answer, the order of the replies that it is about, and the texts that it may cite."""

    answer: Mapping[str, Any]
    order: Sequence[int]
    texts: Mapping[str, str]

    def side(self, number: int) -> str:
        """Which reply stood under a number."""
        return _SIDES[self.order[number - 1]]


def _general(told: _Told) -> Iterator[_Said]:
    yield _reasoned(None, told.answer["reason"], [])


def _specific(told: _Told) -> Iterator[_Said]:
    quotes = [(told.side(one["reply"]), one["quote"]) for one in told.answer["evidence"]]
    yield _cited(None, told.answer["reason"], quotes, told.texts)


def _judgment(told: _Told) -> Iterator[_Said]:
    text = told.answer["reason"]
    if told.answer["satisfied"]:
        why = "the model is satisfied with the rejected reply"
        yield _unfit("rejected", text, Reason.LABEL_NOT_RECOVERED, why)
    else:
        quotes = [("rejected", quote) for quote in told.answer["evidence"]]
        yield _cited("rejected", text, quotes, told.texts)


def _option(told: _Told) -> Iterator[_Said]:
    said = told.answer["best"]
    best = None if said == "tie" else told.side(int(said))
    for number in (1, 2):
        yield _analysed(told, number, best)


def _analysed(told: _Told, number: int, best: str | None) -> _Said:
    side, text = told.side(number), told.answer[f"analysis_{number}"]
    premises = told.answer["premises"]
    supports, contradicts = told.answer[f"supports_{number}"], told.answer[f"contradicts_{number}"]
    if best != "chosen":
        why = f"the model names {'the rejected reply' if best else 'neither reply'} as the best"
        return _unfit(side, text, Reason.LABEL_NOT_RECOVERED, why)
    if set(supports) & set(contradicts):
        why = "a premise both supports and contradicts the reply"
        return _unfit(side, text, Reason.CONTRADICTORY, why)
    if max([*supports, *contradicts], default=0) > len(premises):
        return _unfit(side, text, Reason.EVIDENCE_NOT_FOUND, "it cites a premise that is not there")
    if not supports and not contradicts:
        return _unfit(side, text, Reason.EVIDENCE_NOT_FOUND, "it cites nothing of the request")
    return _cited(side, text, [("prompt", premises[n - 1]) for n in [*supports, *contradicts]], told.texts)


_READERS: Final[Mapping[str, Callable[[_Told], Iterator[_Said]]]] = {
    "general": _general,
    "specific": _specific,
    "judgment": _judgment,
    "option": _option,
}


def _cited(side: str | None, text: str, quotes: Sequence[tuple[str, str]], texts: Mapping[str, str]) -> _Said:
    """Evidence in the words of what it cites; words that do not stand there are left as they are, for `faults`."""
    restored = [(where, restore(quote)) for where, quote in quotes]  # prompts show control tokens broken
    exact = dict.fromkeys((where, verbatim(quote, texts[where]) or quote) for where, quote in restored)
    return _reasoned(side, text, [{"side": where, "quote": quote} for where, quote in exact])


def _reasoned(side: str | None, text: str, evidence: Sequence[Mapping[str, str]]) -> _Said:
    if "\0" in text:
        return _unfit(side, "", Reason.NUL_CHARACTER, "the rationale holds a NUL character")
    return _Said(side, restore(text).strip(), evidence)


def _unfit(side: str | None, text: str, reason: Reason, detail: str) -> _Said:
    return _Said(side, restore(text).strip().replace("\0", ""), (), reason.value, detail)


# Rows


_SAID: Final = pl.Schema(
    {
        "pair_id": pl.String,
        "conversation_id": pl.String,
        "split": pl.String,
        "order": pl.List(pl.Int32),
        "sample_index": pl.Int32,
        "model": pl.String,
        "side": pl.String,
        "text": pl.String,
        "evidence": pl.List(pl.Struct({"side": pl.String, "quote": pl.String})),
        "reason": pl.String,
        "detail": pl.String,
    }
)


def _told(rows: pl.DataFrame) -> Iterator[tuple[dict[str, Any], _Told]]:
    """What the rationales of each answer are known by, and the answer itself."""
    about = ("pair_id", "conversation_id", "split", "order", "sample_index")
    for row in rows.iter_rows(named=True):
        texts = {name: _text(row[name]) for name in (*_SIDES, "prompt")}
        known = {name: row[name] for name in about} | {"model": row["written_by"]}
        yield known, _Told(orjson.loads(row["text"]), row["order"], texts)


def _rows(said: pl.DataFrame, kind: str, config: Writing) -> pl.DataFrame:
    """`candidate_schema`, and `reason` and `detail` of those that cannot be used."""
    prompt = written_prompt(kind)
    named = said.with_columns(
        kind=pl.lit(kind), prompt_version=pl.lit(f"{prompt.id}@{prompt.version}"), method=pl.lit("model")
    )
    keys = ("pair_id", "kind", "side", "sample_index", "text", "prompt_version")
    ids = content_ids(named, "rationales", [pl.col(name).cast(pl.String) for name in keys])
    own = ("sample_index", "reason", "detail")
    table = conform(named.drop(own).with_columns(ids.alias("id"), no_factors()), "rationales")
    drawn = pl.lit(config.samples, pl.Int32).alias("drawn")
    return pl.concat([table, named.select(own)], how="horizontal").with_columns(drawn)
