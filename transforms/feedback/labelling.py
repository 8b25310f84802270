"""Feedback by a model: which labels each unsettled user turn bears, about which reply, and the words that show it.

Step 1 of WildFeedback (arXiv 2408.15549), whose prompt is not public: labels and states are its, the wording is ours.
What differs: words that do not stand in the turn are refused (arXiv 2407.10944 has the same guard), only turns
that the rules could not settle are asked about, and no confidence is asked for (96 % of them say the highest there).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple  # Any: parsed JSON and rows of frames

import orjson
import polars as pl

from tilth.schemas import BadInput, ConfigError, Reason
from tilth.transforms.feedback.table import feedback_rows
from tilth.transforms.feedback.taxonomy import DIALOGUE_STATES, DSAT, SAT
from tilth.transforms.feedback.windows import Window, windows
from tilth.transforms.inference.control_tokens import restore
from tilth.transforms.inference.prompts import Prompt, packaged_prompt
from tilth.transforms.inference.requests import Questions, Sampling
from tilth.transforms.inference.sampling import request_id, requests_frame
from tilth.transforms.pairs.candidates import DROPPED

ASKED: Final = pl.Schema(
    {
        "id": pl.String,  # of the request
        "conversation_id": pl.String,
        "window": pl.Int32,
        "turns": pl.List(pl.Int32),  # those it asks about
        "shown": pl.List(pl.Int32),  # those it shows
    }
)
_EVIDENCE_CHARS: Final = 300
_LABELS: Final = 3  # of one side in one turn
_SIDES: Final = (("positive", "satisfaction"), ("negative", "dissatisfaction"))


@dataclass(frozen=True, slots=True)
class Labelling:
    """How turns are labelled.

    Args:
        window: how much of a conversation one call is shown.
        strength: what a model's label counts for, in (0, 1], beside the strengths of the rules. A guess: models'
            own confidences say nothing, and no figure for a model was measured here.
        temperature: of the sampling.
        answer_tokens: the longest answer; an entry takes about 100 tokens.
        seed: of the sampling; without effect at temperature 0.
    """

    window: Window = field(default_factory=Window)
    strength: float = 0.8
    temperature: float = 0.0
    answer_tokens: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise ConfigError(
                "the strength of a model's label", found=self.strength, wanted="above 0, up to 1"
            )

    @property
    def sampling(self) -> Sampling:
        """How each answer is drawn; the seed of a sample is its own."""
        return Sampling(self.temperature, 1.0, self.answer_tokens)


class Labelled(NamedTuple):
    """What a model's answers come to.

    `feedback`: rows of the table with `owned`, on every path of a tree that holds the turn. `dropped`: rows of
    `quarantine` without `id`, one for each signal that was refused. `answered`: conversation_id and message_index of
    the turns with an answer that could be used, on every path; no label is an answer. `counts`: turns by what became
    of them: asked = answered + refused + unanswered (forgotten in an answer) + failed (a request without an answer).
    """

    feedback: pl.DataFrame
    dropped: pl.DataFrame
    answered: pl.DataFrame
    counts: dict[str, int]


def label_prompt() -> Prompt:
    """The prompt that asks for labels."""
    return packaged_prompt("tilth.transforms.feedback", "label")


# Asking


def label_requests(
    conversations: pl.DataFrame,
    turns: pl.DataFrame,
    config: Labelling = Labelling(),
) -> Questions:
    """One request per window of each conversation with turns to ask about; `asked` is `ASKED`.

    Args:
        conversations: id and messages are read.
        turns: conversation_id, message_index, target_index (`Settled.asked`).
        config: how much is shown, and how answers are drawn.
    """
    prompt = label_prompt()
    shown = windows(conversations, turns, config.window)
    key = pl.format("{}#{}", "conversation_id", "window")
    rows = shown.select(key.alias("key"), turns="shown", asked="turns")
    schema = answer_schema(config.window.turns)
    requests = requests_frame(prompt, rows, "key", config.sampling, schema=schema, run_seed=config.seed)
    ids = pl.Series("id", [request_id(name, prompt.id) for name in rows.get_column("key")], dtype=pl.String)
    places = pl.col("shown").list.eval(pl.element().struct.field("index"))
    return Questions(requests, shown.select(ids, "conversation_id", "window", "turns", places))


def answer_schema(turns: int) -> str:
    """The JSON Schema of an answer about up to so many turns."""
    state = {"type": "string", "enum": list(DIALOGUE_STATES)}
    place = {"type": "integer", "minimum": 0}
    named = {
        "turn": place,
        "satisfaction": _labels(SAT),
        "dissatisfaction": _labels(DSAT),
        "state": state,
        "target": place,
        "evidence": {"type": "string", "maxLength": _EVIDENCE_CHARS},
        "refusal_was_right": {"type": "boolean"},
    }
    listed = {"type": "array", "items": _object(named), "maxItems": turns}
    return orjson.dumps({"title": "tilth.feedback.label", **_object({"turns": listed})}).decode()


def _object(named: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": named, "required": list(named), "additionalProperties": False}


def _labels(names: Sequence[str]) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string", "enum": list(names)}, "maxItems": _LABELS}


# Answers


class _Entry(NamedTuple):
    """What one answer says about one turn; `span` are the characters of the evidence in it."""

    conversation_id: str
    message_index: int
    target_index: int
    sides: dict[str, list[str]]  # labels by polarity
    state: str
    span: tuple[int, int] | None
    refusal_was_right: bool
    reason: Reason | None  # why it is refused
    raw: object


def labelled(
    conversations: pl.DataFrame,
    turns: pl.DataFrame,
    asked: pl.DataFrame,
    completions: pl.DataFrame,
    config: Labelling = Labelling(),
) -> Labelled:
    """The feedback in a model's answers, joined by id alone.

    Only turns that were asked about count. A signal is refused when its evidence does not stand in the turn (exactly,
    or at one place only if case and white space are set aside), when its target is no earlier reply that was shown,
    or when two entries for one turn name different targets. A turn with labels of both sides gives two rows.

    Args:
        conversations: rows of the table; all paths of a tree among them.
        turns: `cascade.TURNS`, which tell what other paths hold a turn.
        asked: `ASKED`.
        completions: `COMPLETIONS` that fit `answer_schema`, in any order; others than to `asked` are left alone.
        config: what the requests were made with.
    """
    named = asked.select("id", "conversation_id", "turns", "shown")
    answers = once(completions).join(named, on="id").sort("conversation_id", "id")
    logged = conversations.join(answers.select(id="conversation_id"), on="id", how="semi")
    messages = dict(logged.select("id", "messages").iter_rows())
    entries = [
        entry
        for _, text, name, wanted, shown in answers.iter_rows()
        for entry in _entries(text, name, messages[name], wanted, shown)
    ]
    usable = [entry for entry in entries if entry.reason is None]
    prompt = label_prompt()
    rows = _signals(usable, config.strength, turns, conversations)
    feedback = feedback_rows(rows, conversations, "model", f"{prompt.id}@{prompt.version}")
    everywhere = _everywhere(_placed(usable), turns).select("conversation_id", "message_index")
    return Labelled(feedback, _dropped(entries, conversations), everywhere, _counts(entries, asked, answers))


def once(completions: pl.DataFrame) -> pl.DataFrame:
    """`id` and `text` of answers, each once. Raises `BadInput` for two different answers to one request."""
    answers = completions.select("id", "text").unique()
    twice = answers.height - answers.get_column("id").n_unique()
    if twice:
        raise BadInput("requests with two different answers", found=f"{twice}", wanted="one answer per id")
    return answers


def _entries(
    text: str, name: str, messages: Sequence[Mapping[str, Any]], wanted: Sequence[int], shown: Sequence[int]
) -> Iterator[_Entry]:
    """One entry for each turn in question that the answer speaks of; repeated ones are put together."""
    said = dict[int, list[dict[str, Any]]]()
    for item in orjson.loads(text)["turns"]:
        if item["turn"] in wanted:
            said.setdefault(item["turn"], []).append(item)
    replies = {at for at in shown if _is_reply(messages[at])}
    for turn, items in said.items():
        yield _entry(name, turn, items, messages[turn]["content"] or "", replies)


def _is_reply(message: Mapping[str, Any]) -> bool:
    return message["role"] == "assistant" and bool((message["content"] or "").strip())


def _entry(name: str, turn: int, items: Sequence[dict[str, Any]], content: str, replies: set[int]) -> _Entry:
    telling = [item for item in items if item["satisfaction"] or item["dissatisfaction"]]
    first = (telling or items)[0]
    sides = {
        polarity: list(dict.fromkeys(label for item in telling for label in item[key]))
        for polarity, key in _SIDES
    }
    span = found(first["evidence"], content)
    right = any(item["refusal_was_right"] for item in telling)
    reason = _refused(telling, turn, replies, span) if telling else None
    return _Entry(name, turn, first["target"], sides, first["state"], span, right, reason, items)


def _refused(
    telling: Sequence[dict[str, Any]], turn: int, replies: set[int], span: tuple[int, int] | None
) -> Reason | None:
    targets = {item["target"] for item in telling}
    if len(targets) > 1:
        return Reason.CONTRADICTORY
    if not targets <= {at for at in replies if at < turn}:
        return Reason.TARGET_NOT_FOUND
    return Reason.EVIDENCE_NOT_FOUND if span is None else None


def found(evidence: str, content: str) -> tuple[int, int] | None:
    """Where `evidence` stands in `content`, as characters, end exclusive; None where it does not.

    The first place where it stands exactly, control tokens put back; else the only one where it stands if case and the
    kind and amount of white space do not count.

    >>> found("that's  WRONG", "No, that's wrong!"), found("fine", "No, that's wrong!")
    ((4, 16), None)
    """
    quoted = evidence.strip()
    if not quoted:
        return None
    for exact in (quoted, restore(quoted)):
        at = content.find(exact)
        if at >= 0:
            return at, at + len(exact)
    loose = re.compile(r"\s+".join(map(re.escape, restore(quoted).split())), re.IGNORECASE)
    matches = [match.span() for match in loose.finditer(content)]
    return matches[0] if len(matches) == 1 else None


# Rows

_PLACED: Final = pl.Schema({"entry": pl.Int64, "conversation_id": pl.String, "message_index": pl.Int32})
_SPOKEN: Final = pl.Schema(
    {
        "entry": pl.Int64,
        "conversation_id": pl.String,
        "message_index": pl.Int32,
        "target_index": pl.Int32,
        "polarity": pl.String,
        "labels": pl.List(pl.String),
        "evidence": pl.List(
            pl.Struct({"label": pl.String, "text": pl.String, "start": pl.Int32, "end": pl.Int32})
        ),
        "dialogue_state": pl.String,
        "on_refusal": pl.Boolean,
    }
)


def _placed(entries: Sequence[_Entry]) -> pl.DataFrame:
    rows = [(at, one.conversation_id, one.message_index) for at, one in enumerate(entries)]
    return pl.DataFrame(rows, schema=_PLACED, orient="row")


def _everywhere(rows: pl.DataFrame, turns: pl.DataFrame) -> pl.DataFrame:
    """`rows` (conversation_id, message_index and others) once for each path that holds their turn."""
    where = ["conversation_id", "message_index"]
    named = turns.select(*where, "turn_id")
    known = rows.join(named, on=where, how="inner").drop(where)
    return known.join(named, on="turn_id", how="inner").drop("turn_id")


def _signals(
    entries: Sequence[_Entry], strength: float, turns: pl.DataFrame, conversations: pl.DataFrame
) -> pl.DataFrame:
    """Signals as `feedback_rows` takes them."""
    contents = _texts(entries, conversations)
    rows = [row for at, entry in enumerate(entries) for row in _spoken(at, entry, contents)]
    everywhere = _everywhere(pl.DataFrame(rows, schema=_SPOKEN, orient="row"), turns)
    places = conversations.select(conversation_id="id").with_row_index("row")
    located = everywhere.join(places.unique("conversation_id", keep="first"), on="conversation_id")
    return located.with_columns(strength=pl.lit(strength)).drop("conversation_id", "entry")


def _texts(entries: Sequence[_Entry], conversations: pl.DataFrame) -> dict[tuple[str, int], str]:
    """The turns of the entries, in full."""
    wanted = _placed(entries)
    messages = conversations.select("messages", conversation_id="id").unique("conversation_id", keep="first")
    said = wanted.join(messages, on="conversation_id")
    content = pl.col("messages").list.get(pl.col("message_index")).struct.field("content").fill_null("")
    rows = said.select("conversation_id", "message_index", content.alias("content")).iter_rows()
    return {(name, at): text for name, at, text in rows}


def _spoken(at: int, entry: _Entry, contents: Mapping[tuple[str, int], str]) -> Iterator[tuple[object, ...]]:
    """One row for each polarity of an entry, with the quote for each label."""
    if entry.span is None:
        return
    start, end = entry.span
    text = contents[entry.conversation_id, entry.message_index][start:end]
    for polarity, labels in entry.sides.items():
        quotes = [{"label": label, "text": text, "start": start, "end": end} for label in labels]
        flag = polarity == "negative" and entry.refusal_was_right
        where = (at, entry.conversation_id, entry.message_index, entry.target_index)
        if labels:
            yield *where, polarity, labels, quotes, entry.state, flag


def _dropped(entries: Sequence[_Entry], conversations: pl.DataFrame) -> pl.DataFrame:
    sources = (
        dict(conversations.select("id", "source").iter_rows()) if "source" in conversations.columns else {}
    )
    rows = [
        {
            "source": sources.get(entry.conversation_id),
            "stage": "label",
            "reason": entry.reason.value,
            "key": f"conversations#id={entry.conversation_id}&message={entry.message_index}",
            "detail": _DETAILS[entry.reason],
            "payload": orjson.dumps(entry.raw).decode(),
            "source_rows": 0,
        }
        for entry in entries
        if entry.reason is not None
    ]
    return pl.DataFrame(rows, schema=DROPPED)


_DETAILS: Final = {
    Reason.CONTRADICTORY: "entries for one turn name different targets",
    Reason.TARGET_NOT_FOUND: "the target is no earlier reply that the model was shown",
    Reason.EVIDENCE_NOT_FOUND: "the evidence does not stand in the turn",
}


def _counts(entries: Sequence[_Entry], asked: pl.DataFrame, answers: pl.DataFrame) -> dict[str, int]:
    wanted, reached = (int(frame.get_column("turns").list.len().sum()) for frame in (asked, answers))
    refused = sum(entry.reason is not None for entry in entries)
    return {
        "turns_asked": wanted,
        "turns_answered": len(entries) - refused,
        "turns_refused": refused,
        "turns_unanswered": reached - len(entries),
        "turns_failed": wanted - reached,
    }
