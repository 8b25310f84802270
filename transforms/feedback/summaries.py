"""Preference summaries: what a user who was dissatisfied with a reply wants of a good one, as short statements.

Step 2 of WildFeedback (arXiv 2408.15549): a model reads the conversation up to the feedback and writes the statements.
They go to the model that answers anew and to the judge; no stored prompt ever holds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple  # Any: parsed JSON

import orjson
import polars as pl

from tilth.schemas import ConfigError, Reason, conform, content_ids
from tilth.schemas.ids import messages_key
from tilth.transforms.feedback.labelling import once
from tilth.transforms.feedback.windows import Window, excerpt
from tilth.transforms.inference.prompts import Prompt, packaged_prompt
from tilth.transforms.inference.requests import Questions, Sampling
from tilth.transforms.inference.sampling import request_id, requests_frame
from tilth.transforms.pairs.candidates import DROPPED, replies

ASKED: Final = pl.Schema({"id": pl.String, "conversation_id": pl.String, "target_index": pl.Int32})
_STATEMENT_CHARS: Final = 300
_TARGET: Final = ["conversation_id", "target_index"]


@dataclass(frozen=True, slots=True)
class Summaries:
    """Which replies a summary is written for, and how.

    Args:
        min_strength: weakest complaint that asks for one; below it the rules only found a request put again.
        statements: the most of one summary.
        window: how much of a conversation one call is shown.
        temperature: of the sampling.
        answer_tokens: the longest answer.
        seed: of the sampling; without effect at temperature 0.
    """

    min_strength: float = 0.55
    statements: int = 8
    window: Window = field(default_factory=Window)
    temperature: float = 0.0
    answer_tokens: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        if self.statements < 1 or not 0 <= self.min_strength <= 1:
            found = f"statements={self.statements}, min_strength={self.min_strength}"
            raise ConfigError("summaries of preferences", found=found, wanted="at least 1; 0 to 1")

    @property
    def sampling(self) -> Sampling:
        """How each answer is drawn; the seed of a sample is its own."""
        return Sampling(self.temperature, 1.0, self.answer_tokens)


class Targets(NamedTuple):
    """Criticised replies, and rows of `quarantine` without `id` for those that may not become a rejection.

    `kept` has one row per conversation_id and target_index, in their order: `prompt_id`, `prompt` (ends with a user
    turn), `reply` (a list of one message), `said_in` (the places of the complaints), `feedback_ids`, `source`,
    `record_id`, `model`, `split`, `tool_calls_json` (of the prompt).
    """

    kept: pl.DataFrame
    dropped: pl.DataFrame


class Summarised(NamedTuple):
    """Rows of the table `preferences`, rows of `quarantine` without `id`, and targets by what became of them."""

    preferences: pl.DataFrame
    dropped: pl.DataFrame
    counts: dict[str, int]


def summary_prompt() -> Prompt:
    """The prompt that asks for a summary."""
    return packaged_prompt("tilth.transforms.feedback", "preferences")


# Which replies


def targets(
    feedback: pl.DataFrame,
    conversations: pl.DataFrame,
    config: Summaries = Summaries(),
) -> Targets:
    """The replies that users complained about in words, with the prompt that each of them answered.

    A reply is set aside when any complaint about it is flagged `on_refusal`, when its prompt does not end with a user
    turn that has text, or when it has none itself or calls tools.

    Args:
        feedback: rows of the table, of all methods; thumbs have no words and ask for no summary.
        conversations: rows of the table.
        config: how strong a complaint must be.
    """
    complaints = feedback.filter(pl.col("polarity") == "negative", pl.col("method") != "reaction")
    by_reply = complaints.group_by(_TARGET).agg(
        pl.col("on_refusal").fill_null(False).any(),
        pl.col("message_index").filter(_strong(config)).unique().sort().alias("said_in"),
        pl.col("id").filter(_strong(config)).unique().sort().alias("feedback_ids"),
    )
    found = by_reply.filter(pl.col("said_in").list.len() > 0).with_columns(index="target_index")
    placed = replies(found, conversations)
    marked = placed.with_columns(
        content_ids(placed, "prompts", [messages_key("prompt")]).alias("prompt_id"), _objection()
    ).sort(_TARGET)
    kept = marked.filter(pl.col("reason").is_null()).drop("reason", "index", "on_refusal", "calls_tools")
    return Targets(kept, _unfit(marked.filter(pl.col("reason").is_not_null())))


def _strong(config: Summaries) -> pl.Expr:
    return pl.col("strength") >= config.min_strength


def _objection() -> pl.Expr:
    last = pl.col("prompt").list.last()
    asked = (last.struct.field("role") == "user") & _speaks(last)
    return (
        pl.when("on_refusal")
        .then(pl.lit(Reason.CORRECT_REFUSAL.value))
        .when(~asked.fill_null(False))
        .then(pl.lit(Reason.PROMPT_NOT_FROM_USER.value))
        .when("calls_tools")
        .then(pl.lit(Reason.UNSUPPORTED_CONTENT.value))
        .when(~_speaks(pl.col("reply").list.first()))
        .then(pl.lit(Reason.EMPTY_MESSAGE.value))
        .alias("reason")
    )


def _speaks(message: pl.Expr) -> pl.Expr:
    return (message.struct.field("content").str.strip_chars() != "").fill_null(False)


_DETAILS: Final = {
    Reason.CORRECT_REFUSAL.value: "the reply looks like a correct refusal",
    Reason.PROMPT_NOT_FROM_USER.value: "the prompt does not end with a turn of the user that has text",
    Reason.UNSUPPORTED_CONTENT.value: "the reply calls tools, outside its text",
    Reason.EMPTY_MESSAGE.value: "the reply has no text",
}


def _unfit(rows: pl.DataFrame) -> pl.DataFrame:
    detail = pl.col("reason").replace_strict(_DETAILS, return_dtype=pl.String)
    return _quarantined(rows, detail, pl.struct(*_TARGET, "feedback_ids").struct.json_encode())


def _quarantined(rows: pl.DataFrame, detail: pl.Expr, payload: pl.Expr) -> pl.DataFrame:
    key = pl.format("conversations#id={}&message={}", *_TARGET)
    fixed = {"stage": pl.lit("preferences"), "source_rows": pl.lit(0)}
    named = rows.select("source", "reason", key=key, detail=detail, payload=payload, **fixed)
    return named.select(pl.col(name).cast(kind) for name, kind in DROPPED.items())


# Asking


def summary_requests(
    targets: pl.DataFrame,
    conversations: pl.DataFrame,
    config: Summaries = Summaries(),
) -> Questions:
    """One request per criticised reply (`Targets.kept`), with the conversation up to the last complaint about it.

    `asked` is `ASKED`: the id of the request and the reply it stands for.
    """
    prompt = summary_prompt()
    rows = pl.DataFrame(list(_shown(targets, conversations, config)), schema=_SHOWN, orient="row")
    rows = rows.with_columns(statements=pl.lit(config.statements))
    schema = answer_schema(config.statements)
    requests = requests_frame(prompt, rows, "key", config.sampling, schema=schema, run_seed=config.seed)
    ids = pl.Series("id", [request_id(name, prompt.id) for name in rows.get_column("key")], dtype=pl.String)
    return Questions(requests, rows.select(ids, "conversation_id", target_index="target"))


_MESSAGE: Final = pl.Struct({"index": pl.Int32, "role": pl.String, "content": pl.String})
_SHOWN: Final = pl.Schema(
    {
        "key": pl.String,
        "conversation_id": pl.String,
        "target": pl.Int32,
        "said_in": pl.List(pl.Int32),
        "turns": pl.List(_MESSAGE),
    }
)


def _shown(
    targets: pl.DataFrame, conversations: pl.DataFrame, config: Summaries
) -> Iterator[tuple[object, ...]]:
    logged = conversations.select("messages", conversation_id="id").unique("conversation_id", keep="first")
    rows = targets.join(logged, on="conversation_id").sort(_TARGET)
    for name, target, said_in, messages in rows.select(*_TARGET, "said_in", "messages").iter_rows():
        # The reply and its request come first: they are shown whatever else there is no room for.
        turns = excerpt(messages, [target, target - 1, *said_in], config.window)
        listed = [{key: turn[key] for key in ("index", "role", "content")} for turn in turns]
        visible = [turn["index"] for turn in turns if turn["index"] in said_in]
        yield f"{name}#{target}", name, target, visible, listed


def answer_schema(statements: int) -> str:
    """The JSON Schema of a summary of up to so many statements."""
    statement = {"type": "string", "maxLength": _STATEMENT_CHARS}
    listed = {"type": "array", "items": statement, "maxItems": statements}
    schema: dict[str, Any] = {
        "title": "tilth.feedback.preferences",
        "type": "object",
        "properties": {"preferences": listed},
        "required": ["preferences"],
        "additionalProperties": False,
    }
    return orjson.dumps(schema).decode()


# Answers


def summaries(targets: pl.DataFrame, asked: pl.DataFrame, completions: pl.DataFrame) -> Summarised:
    """Rows of the table `preferences` from a model's answers, joined by id alone.

    Blank statements, and those that say the same but for case and white space, are left out; a reply with none left is
    set aside. One without an answer is counted: what asked has set its request aside.

    Args:
        targets: `Targets.kept`.
        asked: what the requests stand for.
        completions: `COMPLETIONS` that fit `answer_schema`, in any order, with the model that answered.
    """
    models = completions.select("id", written_by="model").unique("id")
    answers = asked.join(once(completions), on="id").join(models, on="id", how="left")
    said = [statements(orjson.loads(text)["preferences"]) for text in answers.get_column("text")]
    told = answers.with_columns(pl.Series("preferences", said, dtype=pl.List(pl.String))).drop("id", "text")
    joined = targets.join(told, on=_TARGET).sort(_TARGET)
    silent = pl.col("preferences").list.len() == 0
    empty = joined.filter(silent).with_columns(reason=pl.lit(Reason.EMPTY.value))
    dropped = _quarantined(
        empty, pl.lit("no statement"), pl.struct(*_TARGET, "feedback_ids").struct.json_encode()
    )
    rows = _rows(joined.filter(~silent))
    counts = {"targets": targets.height, "summaries": rows.height, "without_statement": empty.height}
    return Summarised(rows, dropped, counts | {"without_answer": targets.height - joined.height})


def statements(said: list[str]) -> list[str]:
    """Statements without runs of white space, blank ones, those with NUL and repetitions, in order.

    >>> statements(["Is  short. ", "", "is short."])
    ['Is short.']
    """
    kept = dict[str, str]()
    for text in (" ".join(one.split()) for one in said):
        kept.setdefault(text.casefold(), text)
    return [text for text in kept.values() if text and "\0" not in text]


def _rows(rows: pl.DataFrame) -> pl.DataFrame:
    prompt = summary_prompt()
    version = pl.lit(f"{prompt.id}@{prompt.version}")
    made = rows.select(
        *_TARGET, "prompt_id", "preferences", "feedback_ids", "split", model="written_by",
        prompt_version=version, method=pl.lit("model"),
    )  # fmt: skip
    keys = [pl.col("conversation_id"), pl.col("target_index").cast(pl.String), pl.col("prompt_version")]
    said = pl.col("preferences").list.join("\0")
    return conform(
        made.with_columns(content_ids(made, "preferences", [*keys, said]).alias("id")), "preferences"
    )
