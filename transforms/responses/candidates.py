"""Replies of models to logged prompts: requests, and the rows of table `responses` that answers become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final  # Any: rows of frames

import polars as pl

from tilth.schemas import PL_MESSAGES, ConfigError, Reason, conform, content_ids, polars_schema
from tilth.schemas.ids import messages_key
from tilth.transforms.inference.prompts import Prompt, as_chat, restore
from tilth.transforms.inference.requests import Questions, Sampling, demand_settled
from tilth.transforms.inference.sampling import asked_frame, request_id, seed_for
from tilth.transforms.pairs.candidates import DROPPED

PLACES: Final = pl.Schema(
    {
        "conversation_id": pl.String,
        "target_index": pl.Int32,  # where in the conversation the reply would stand
        "prompt_id": pl.String,
        "prompt": PL_MESSAGES,  # ends with a user turn
        "preferences": pl.List(pl.String),  # what the user wants of a reply; never part of a stored prompt
        "source": pl.String,
        "split": pl.String,
    }
)
ASKED: Final = pl.Schema(
    {"id": pl.String, "conversation_id": pl.String, "target_index": pl.Int32, "sample_index": pl.Int32}
)
PART: Final = "reply"  # of a prompt's id, where a reply is asked for without guidance


@dataclass(frozen=True, slots=True)
class Replying:
    """How replies of models are drawn.

    Args:
        temperature: of each sample; several samples need one above 0.
        top_p: the nucleus.
        answer_tokens: the longest reply; one that was cut off there is set aside, because it would teach to stop short.
    """

    temperature: float = 0.7
    top_p: float = 1.0
    answer_tokens: int = 1024

    @property
    def sampling(self) -> Sampling:
        """How each reply is drawn; the seed of a sample is its own."""
        return Sampling(self.temperature, self.top_p, self.answer_tokens)


def reply_requests(
    places: pl.DataFrame, replying: Replying, guidance: Prompt | None, samples: int = 1, seed: int = 0
) -> Questions:
    """Asks for replies at `PLACES`: the conversation as it was logged, guided by a system message where one is given.

    `guidance` is a prompt with a system message that reads `preferences`; the logged system message stays in front of
    it. The user message of `guidance` is not sent: the conversation is. Raises `ConfigError` for several samples at
    temperature 0, which would all be equal.
    """
    if samples < 1 or (samples > 1 and replying.temperature == 0):
        found = f"{samples} at temperature {replying.temperature}"
        raise ConfigError("samples of a reply", found=found, wanted="1, or more above temperature 0")
    name = guidance.id if guidance else PART
    keys = pl.concat_str(["conversation_id", pl.col("target_index").cast(pl.String)], separator="/")
    rows = list(places.with_columns(keys.alias("key")).iter_rows(named=True))
    greedy = replying.temperature == 0
    drawn = [(row, n, _messages(row, guidance)) for row in rows for n in range(samples)]
    ids = [request_id(row["key"], name, n) for row, n, _ in drawn]
    seeds = [None if greedy else seed_for(seed, row["key"], n) for row, n, _ in drawn]
    said = [(id_, messages, n, at) for id_, (_, n, messages), at in zip(ids, drawn, seeds, strict=True)]
    asked = [
        (id_, row["conversation_id"], row["target_index"], n)
        for id_, (row, n, _) in zip(ids, drawn, strict=True)
    ]
    return Questions(asked_frame(said, replying.sampling), pl.DataFrame(asked, schema=ASKED, orient="row"))


def _messages(row: Mapping[str, Any], guidance: Prompt | None) -> list[dict[str, str]]:
    chat = as_chat(row["prompt"])
    if guidance is None:
        return chat
    system = guidance.render(row)[0]["content"]
    if chat[0]["role"] == "system":
        return [{"role": "system", "content": f"{chat[0]['content']}\n\n{system}"}, *chat[1:]]
    return [{"role": "system", "content": system}, *chat]


def replies_of(
    places: pl.DataFrame,
    asked: pl.DataFrame,
    completions: pl.DataFrame,
    failed: pl.DataFrame,
    role: str,
    model: str,
    *,
    guided: bool,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of `responses`, and rows of quarantine without `id` for requests that gave no usable reply.

    A reply that is blank, was cut off or holds NUL is none. Control tokens that a model repeats from a prompt, where
    they were broken, are whole again. Joined by id alone. Raises `TilthError` when some request has neither an answer
    nor a reason, or both, or asks about a place that is not there.
    """
    keys = ["conversation_id", "target_index"]
    rows = asked.join(places, on=keys, maintain_order="left")
    demand_settled("replies", asked, completions, failed, about=rows.get_column("id"))
    texts = pl.Series("text", [restore(text) for text in completions.get_column("text")], dtype=pl.String)
    told = completions.select("id", "finish_reason", texts)
    answered = rows.join(told, on="id", maintain_order="left").with_columns(_fault())
    usable = answered.filter(pl.col("reason").is_null())
    reply = pl.concat_list(pl.struct(role=pl.lit("assistant"), content="text")).cast(PL_MESSAGES)
    made = usable.with_columns(
        completion=reply,
        role=pl.lit(role),
        model=pl.lit(model),
        guided=pl.lit(guided),
        method=pl.lit("model"),
    )
    faults = [
        _lost(answered.filter(pl.col("reason") == reason), reason, detail, role)
        for reason, detail in _FAULTS.items()
    ]
    return response_rows(made), pl.concat([*faults, *_failures(rows, failed, role)])


_FAULTS: Final = {
    Reason.TOO_LONG.value: "the reply was cut off",
    Reason.EMPTY_MESSAGE.value: "the reply is blank",
    Reason.NUL_CHARACTER.value: "the reply holds a NUL character",
}


def _fault() -> pl.Expr:
    """Why an answer is no usable reply; null for one that is."""
    text = pl.col("text")
    return (
        pl.when(pl.col("finish_reason") == "length")
        .then(pl.lit(Reason.TOO_LONG.value))
        .when(text.str.strip_chars() == "")
        .then(pl.lit(Reason.EMPTY_MESSAGE.value))
        .when(text.str.contains("\0", literal=True))
        .then(pl.lit(Reason.NUL_CHARACTER.value))
        .alias("reason")
    )


def response_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of table `responses` with their ids, from frames that hold its columns and others; equal ones once."""
    columns = ("conversation_id", "prompt_id", "role", "model")
    keys = [*(pl.col(name) for name in columns), pl.col("sample_index").cast(pl.String)]
    ids = content_ids(rows, "responses", [*keys, messages_key("completion")])
    known = [name for name in polars_schema("responses") if name in rows.columns and name != "id"]
    kept = rows.select(known).with_columns(ids.alias("id"))
    return conform(kept, "responses").unique("id", keep="first", maintain_order=True).sort("id")


def _failures(rows: pl.DataFrame, failed: pl.DataFrame, role: str) -> list[pl.DataFrame]:
    joined = rows.join(failed.select("id", "reason", "detail"), on="id", maintain_order="left")
    return [
        _lost(part, str(reason), str(detail), role)
        for (reason, detail), part in joined.group_by("reason", "detail", maintain_order=True)
    ]


def _lost(rows: pl.DataFrame, reason: str, detail: str, role: str) -> pl.DataFrame:
    return rows.select(
        source="source",
        stage=pl.lit(role),
        reason=pl.lit(reason),
        key=pl.format("conversations#id={}&message={}", "conversation_id", "target_index"),
        detail=pl.lit(detail),
        payload=pl.struct("conversation_id", "target_index", "sample_index").struct.json_encode(),
        source_rows=pl.lit(0, pl.Int32),
    ).cast(DROPPED)


def logged_replies(places: pl.DataFrame, replies: pl.Series, models: pl.Series) -> pl.DataFrame:
    """Rows of `responses` for what the assistant answered at these places when the conversation was logged."""
    rows = places.with_columns(
        completion=replies.cast(PL_MESSAGES),
        model=models,
        role=pl.lit("logged"),
        guided=pl.lit(False),
        method=pl.lit("observed"),
        sample_index=pl.lit(0, pl.Int32),
    )
    return response_rows(rows)
