"""Asking several times and choosing: request frames from rows, seeds, and probabilities of choices."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import polars as pl

from tilth.schemas import BadInput, ConfigError
from tilth.schemas.ids import content_id
from tilth.transforms.inference.prompts import Prompt
from tilth.transforms.inference.requests import REQUESTS, Sampling

PROBABILITIES: Final = pl.Schema(
    {
        "id": pl.String,  # of the request
        "choices": pl.List(pl.String),
        "probabilities": pl.List(
            pl.Float64
        ),  # in the order of the choices, sum 1; null where none can be had
        "method": pl.String,  # logprobs | samples | none
        "samples": pl.Int32,  # how many answers of the row stand behind a share; 1 for logprobs, 0 for none
    }
)


def seed_for(run_seed: int, row_key: str, sample_index: int) -> int:
    """The seed of one sample, in [0, 2^31): from what the row is, never from where it stands.

    >>> seed_for(7, "row", 0) == seed_for(7, "row", 0) != seed_for(7, "row", 1)
    True
    """
    data = f"{run_seed}\0{sample_index}\0{row_key}".encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=4).digest()) & 0x7FFFFFFF


def request_id(row_key: str, prompt_id: str, sample_index: int = 0) -> str:
    """The id under which `requests_frame` asks: of the row and the prompt, then the sample, so that samples of a row
    are known by their ids alone.
    """
    return f"{content_id(row_key, prompt_id)}.{sample_index}"


def requests_frame(
    prompt: Prompt,
    rows: pl.DataFrame,
    key: str,
    sampling: Sampling = Sampling(),  # noqa: B008  # frozen
    *,
    schema: str | None = None,
    choices: Sequence[str] | None = None,
    samples: int = 1,
    run_seed: int | None = None,
    want_logprobs: bool = False,
) -> pl.DataFrame:
    """One request per row and sample, in the form of `REQUESTS`; `key` is the column that names a row.

    Each sample has its own seed, from the run's (`run_seed`, else `sampling.seed`, else 0), the row's key and its
    index. At temperature 0 there is none: all samples would be equal, and rows that ask the same share an answer.
    Raises `ConfigError` for settings that cannot be meant, and for a name that the rows have no column of;
    `BadInput` for keys that are null or repeated.
    """
    _check(sampling, schema, choices, samples, want_logprobs)
    keys = _keys(rows, key)
    seed = run_seed if run_seed is not None else sampling.seed or 0
    said = [prompt.render(row) for row in _values(prompt, rows, key)]
    greedy = sampling.temperature == 0
    asked = [
        (request_id(one, prompt.id, at), messages, at, None if greedy else seed_for(seed, one, at))
        for one, messages in zip(keys, said, strict=True)
        for at in range(samples)
    ]
    return asked_frame(asked, sampling, schema=schema, choices=choices, want_logprobs=want_logprobs)


def asked_frame(
    asked: Sequence[tuple[str, Sequence[Mapping[str, str]], int, int | None]],
    sampling: Sampling,
    *,
    schema: str | None = None,
    choices: Sequence[str] | None = None,
    want_logprobs: bool = False,
) -> pl.DataFrame:
    """Requests in the form of `REQUESTS` from (id, messages, sample index, seed), all drawn in the same way."""
    own = {name: REQUESTS[name] for name in ("id", "messages", "sample_index", "seed")}
    shared = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "stop": list(sampling.stop),
        "schema": schema,
        "choices": None if choices is None else list(choices),
        "want_logprobs": want_logprobs,
    }
    constants = [pl.lit(value, REQUESTS[name]).alias(name) for name, value in shared.items()]
    return pl.DataFrame(asked, schema=own, orient="row").with_columns(constants).select(REQUESTS.names())


def choice_probabilities(requests: pl.DataFrame, completions: pl.DataFrame) -> pl.DataFrame:
    """How probable each choice is, for every answered request that has choices: a frame of `PROBABILITIES`.

    `logprobs`: the engine's log-probabilities, normalised over the choices. `samples`: else, the share of the row's
    samples that chose each, of two or more that were drawn apart (temperature above 0, no seed twice) and chose one.
    `none`: else; one sample is never a probability. Joined by id alone, in the order of the requests. Raises `BadInput`
    for answers to unknown requests, and for two different answers to one.
    """
    answered = _asked(requests).join(_answers(requests, completions), on="id", maintain_order="left")
    given = pl.col("choice_logprobs")
    wrong = answered.filter(given.list.len() != pl.col("choices").list.len()).height
    if wrong:
        raise BadInput(
            "log-probabilities of choices", found=f"{wrong} of another length", wanted="one per choice"
        )
    known = (
        given.list.max().is_finite()
        & ~given.list.eval(pl.element().is_null() | pl.element().is_nan()).list.any()
    )
    known = known.fill_null(value=False)
    joined = answered.join(_shares(answered), on=["row", "asked"], how="left", maintain_order="left")
    counted = pl.col("share").is_not_null()
    by_method = pl.when(known).then(_softmax(given)).otherwise(pl.col("share"))
    return joined.select(
        "id",
        "choices",
        by_method.alias("probabilities"),
        pl.when(known)
        .then(pl.lit("logprobs"))
        .when(counted)
        .then(pl.lit("samples"))
        .otherwise(pl.lit("none"))
        .alias("method"),
        pl.when(known)
        .then(1)
        .when(counted)
        .then(pl.col("drawn"))
        .otherwise(0)
        .cast(pl.Int32)
        .alias("samples"),
    )


def probability_of(probabilities: pl.DataFrame, choice: str) -> pl.DataFrame:
    """The probability of one choice, as `id`, `probability` (null where there is none) and `method`.

    Raises `ConfigError` when some request did not have this choice.
    """
    at = pl.col("choices").list.eval(pl.element() == choice)
    if not probabilities.select(at.list.any().all()).item():
        raise ConfigError(
            "a choice that was not among those asked for", found=choice, do="name one of the choices"
        )
    value = pl.col("probabilities").list.get(at.list.arg_max(), null_on_oob=True)
    return probabilities.select("id", value.alias("probability"), "method")


# Requests


def _check(
    sampling: Sampling, schema: str | None, choices: Sequence[str] | None, samples: int, want_logprobs: bool
) -> None:
    if samples < 1:
        raise ConfigError("samples of a request", found=samples, wanted="1 or more")
    if samples > 1 and sampling.temperature == 0:
        do = "set a temperature, or ask for one sample"
        raise ConfigError(f"{samples} samples at temperature 0 would all be equal", do=do)
    if schema is not None and choices is not None:
        raise ConfigError("a schema and choices at once", wanted="one of them")
    if choices is not None and (not choices or len(set(choices)) != len(choices)):
        raise ConfigError("choices of a request", found=f"{len(choices)}", wanted="one or more, none twice")
    if want_logprobs and choices is None:
        raise ConfigError("log-probabilities without choices", do="name the choices")


def _keys(rows: pl.DataFrame, key: str) -> list[str]:
    if key not in rows.columns:
        raise ConfigError(
            "the column that names a row", found=key, wanted=f"one of {', '.join(rows.columns)}"
        )
    keys = rows.get_column(key).cast(pl.String)
    if keys.null_count() or keys.n_unique() != keys.len():
        found = f"{keys.null_count()} null, {keys.len() - keys.n_unique()} repeated"
        raise BadInput(f"keys of rows, column {key}", found=found, wanted="one key per row, each only once")
    return keys.to_list()


def _values(prompt: Prompt, rows: pl.DataFrame, key: str) -> Iterator[dict[str, object]]:
    """What the templates read of each row; everything when a column is missing, so that the error can list them."""
    wanted = prompt.names | {key}
    return (rows.select(sorted(wanted)) if wanted <= set(rows.columns) else rows).iter_rows(named=True)


# Probabilities


def _asked(requests: pl.DataFrame) -> pl.DataFrame:
    """The requests that have choices, with the row that each is a sample of, which its id tells."""
    ids = requests.get_column("id")
    if ids.null_count() or ids.n_unique() != ids.len():
        raise BadInput("ids of requests", wanted="one id per request, each only once")
    suffix = pl.format(".{}", pl.col("sample_index"))
    row = pl.col("id").str.strip_suffix(suffix)
    asked = pl.col("choices").list.join("\0")
    kept = requests.filter(pl.col("choices").is_not_null())
    return kept.select("id", "choices", "temperature", "seed", row.alias("row"), asked.alias("asked"))


def _answers(requests: pl.DataFrame, completions: pl.DataFrame) -> pl.DataFrame:
    answers = completions.select("id", "text", "choice_logprobs").unique(maintain_order=True)
    unknown = answers.join(requests, on="id", how="anti").height
    if unknown:
        raise BadInput(
            "answers to requests that were not asked",
            found=f"{unknown} unknown ids",
            wanted="ids of requests",
        )
    twice = answers.height - answers.get_column("id").n_unique()
    if twice:
        raise BadInput("requests with two different answers", found=f"{twice}", wanted="one answer per id")
    return answers


def _softmax(logprobs: pl.Expr) -> pl.Expr:
    element = pl.element()
    return logprobs.list.eval((element - element.max()).exp()).list.eval(element / element.sum())


def _shares(answered: pl.DataFrame) -> pl.DataFrame:
    """Per row and choices, the share of its samples that chose each, where at least two that were drawn apart did."""
    said, listed = pl.col("text"), pl.col("choices")
    bare = said.str.strip_chars()
    chosen = pl.when(listed.list.contains(said)).then(said).when(listed.list.contains(bare)).then(bare)
    usable = answered.with_columns(chosen.alias("chosen")).filter(
        pl.col("chosen").is_not_null(), pl.col("temperature") > 0
    )
    apart = pl.col("seed").drop_nulls().is_unique().all()
    grouped = usable.group_by("row", "asked").agg(
        listed.first(), pl.col("chosen"), pl.len().alias("drawn").cast(pl.Int32), apart.alias("apart")
    )
    several = grouped.filter(pl.col("apart"), pl.col("drawn") > 1)
    shares = [
        _share(*pair) for pair in zip(several["choices"].to_list(), several["chosen"].to_list(), strict=True)
    ]
    share = pl.Series("share", shares, dtype=pl.List(pl.Float64))
    return several.select("row", "asked", "drawn").with_columns(share)


def _share(choices: Sequence[str], chosen: Sequence[str]) -> list[float]:
    counts = Counter(chosen)
    return [counts[choice] / len(chosen) for choice in choices]
