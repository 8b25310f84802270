"""Requests and completions are tables: what a step asks, and what was answered, joined by `id` alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple  # Any: rows on their way to a Request

import orjson
import polars as pl

from tilth.schemas import PL_MESSAGES, BadInput, TilthError

REQUESTS: Final = pl.Schema(
    {
        "id": pl.String,  # unique in a run; the step that asks chooses it, the answer comes back under it
        "messages": PL_MESSAGES,
        "sample_index": pl.Int32,  # which of several samples of one prompt
        "seed": pl.Int64,
        "temperature": pl.Float64,
        "top_p": pl.Float64,
        "max_tokens": pl.Int32,
        "stop": pl.List(pl.String),
        "schema": pl.String,  # JSON Schema that the answer must fit, else null
        "choices": pl.List(pl.String),  # the answer is one of these, else null
        "want_logprobs": pl.Boolean,  # log-probabilities of the choices, where the engine gives them
    }
)
COMPLETIONS: Final = pl.Schema(
    {
        "id": pl.String,  # of the request
        "text": pl.String,
        "finish_reason": pl.String,  # stop | length
        "choice_logprobs": pl.List(pl.Float64),  # in the order of the request's choices; null where not given
        "prompt_tokens": pl.Int32,
        "completion_tokens": pl.Int32,
        "model": pl.String,  # the engine's identity: model and revision
    }
)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample one answer. Engine-neutral; every field is part of what the answer is known by."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 1024
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a model."""

    id: str
    messages: Sequence[Mapping[str, str]]
    sampling: Sampling = Sampling()
    sample_index: int = 0
    schema: str | None = None
    choices: tuple[str, ...] | None = None
    want_logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer. `choice_logprobs` stands in the order of the request's choices."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    choice_logprobs: tuple[float, ...] | None = None


class Questions(NamedTuple):
    """Requests (`REQUESTS`), and what each id stands for: `asked` has the columns `id` and what the asker must know."""

    requests: pl.DataFrame
    asked: pl.DataFrame


def demand_settled(
    what: str,
    asked: pl.DataFrame,
    completions: pl.DataFrame,
    failed: pl.DataFrame,
    *,
    about: pl.Series | None = None,
    do: str = "please report this",
) -> None:
    """Raises `TilthError` unless each `id` of `asked` is answered or has failed, exactly once.

    Args:
        what: the answers, as the error calls them.
        asked: an `id` a row.
        completions: an `id` a row.
        failed: an `id` a row, of requests without an answer.
        about: the ids, in their order, of which it is known what they ask about; that must be all of them, once.
        do: what the error says to do.
    """
    known = asked.get_column("id")
    placed = known if about is None else about
    settled = pl.concat([completions.get_column("id"), failed.get_column("id")])
    once = known.n_unique() == known.len() and known.sort().equals(settled.sort())
    if not once or not known.equals(placed):
        different = settled.n_unique()
        found = f"{settled.len()} answered or failed, {different} of them different, {placed.len()} about what is known"
        wanted = f"each of {known.len()} once"
        raise TilthError(f"{what} do not match what was asked", found=found, wanted=wanted, do=do)


def request_key(request: Request, identity: str) -> str:
    """What an answer is known by, 128 bits in hex: everything but the request's id.

    `identity` names model and revision. Messages, sampling, schema, choices and sample index are in the key, so a
    change of any of them is another key, and two rows that ask the same thing share an answer.
    """
    said = [[message["role"], message["content"]] for message in request.messages]
    s = request.sampling
    sampling = [s.temperature, s.top_p, s.max_tokens, s.stop, s.seed]
    shape = [request.schema, request.choices, request.want_logprobs, request.sample_index]
    data = orjson.dumps([identity, said, sampling, shape])
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def to_requests(frame: pl.DataFrame) -> list[Request]:
    """The rows of a request frame. Raises `BadInput` when a column is missing or an id is null or not unique."""
    return [_request(row) for row in _fit(frame).iter_rows(named=True)]


def _request(row: Mapping[str, Any]) -> Request:
    stop, choices = tuple(row["stop"]), row["choices"]
    sampling = Sampling(row["temperature"], row["top_p"], row["max_tokens"], stop, row["seed"])
    return Request(
        row["id"],
        row["messages"],
        sampling,
        row["sample_index"],
        row["schema"],
        None if choices is None else tuple(choices),
        bool(row["want_logprobs"]),
    )


def _fit(frame: pl.DataFrame) -> pl.DataFrame:
    defaults = {"sample_index": 0, "temperature": 0.0, "top_p": 1.0, "max_tokens": 1024}
    missing = {"id", "messages"} - set(frame.columns)
    extra = set(frame.columns) - set(REQUESTS)
    if missing or extra:
        found = ", ".join(sorted(missing | extra))
        raise BadInput(
            "a request frame's columns", found=f"missing or unknown: {found}", wanted=", ".join(REQUESTS)
        )
    columns = [_column(frame, name, kind, defaults.get(name)) for name, kind in REQUESTS.items()]
    fitted = frame.select(columns).with_columns(pl.col("stop").fill_null(pl.lit([], pl.List(pl.String))))
    ids = fitted.get_column("id")
    if ids.null_count() or ids.n_unique() != ids.len():
        found = f"{ids.null_count()} null, {ids.len() - ids.n_unique()} repeated"
        raise BadInput("ids of requests", found=found, wanted="one id per row, each only once")
    return fitted


def _column(frame: pl.DataFrame, name: str, kind: pl.DataType, default: object) -> pl.Expr:
    given = (pl.col(name) if name in frame.columns else pl.lit(None)).cast(kind)
    return (given if default is None else given.fill_null(pl.lit(default, kind))).alias(name)


def to_frame(ids: Sequence[str], completions: Sequence[Completion], identity: str) -> pl.DataFrame:
    """A completion frame from answers and the ids of the requests that they answer."""
    rows = [
        (id_, c.text, c.finish_reason, c.choice_logprobs, c.prompt_tokens, c.completion_tokens, identity)
        for id_, c in zip(ids, completions, strict=True)
    ]
    return pl.DataFrame(rows, schema=COMPLETIONS, orient="row")
