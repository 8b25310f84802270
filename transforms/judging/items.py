"""What is judged becomes requests, and answers become judgments: joined by id alone, every one answered or failed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple  # Any: parsed JSON

import orjson
import polars as pl

from tilth.schemas import PL_MESSAGES, Reason, TilthError, conform, content_ids
from tilth.transforms.inference.prompts import Trusted
from tilth.transforms.inference.requests import REQUESTS, Questions, demand_settled
from tilth.transforms.inference.sampling import request_id, requests_frame
from tilth.transforms.judging.protocol import Protocol

ITEMS: Final = pl.Schema(
    {
        "item_id": pl.String,
        "prompt": PL_MESSAGES,
        "replies": pl.List(PL_MESSAGES),  # of one pair, the side that may become chosen comes first
        "response_ids": pl.List(pl.String),  # of the replies, in their order
        "checklist": pl.List(pl.String),  # what the user wants of a reply; may be empty
        "prompt_id": pl.String,
        "conversation_id": pl.String,
        "split": pl.String,
    }
)
ASKED: Final = pl.Schema(
    {
        "id": pl.String,  # of the request
        "item_id": pl.String,
        "order": pl.List(pl.Int32),
        "attribute": pl.String,
        "sample_index": pl.Int32,
    }
)
_EVIDENCE_CHARS: Final = 2000
_WINNERS: Final = ("1", "2", "tie")


def items(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with all columns of `ITEMS` but `item_id`, as `ITEMS`; equal ones once, sorted by id."""
    # Each list after its length, so that no other lists give the same string.
    parts = [
        part
        for name in ("response_ids", "checklist")
        for part in (pl.col(name).list.len().cast(pl.String), pl.col(name).list.join("\0"))
    ]
    ids = content_ids(rows, "items", [pl.col("conversation_id"), pl.col("prompt_id"), *parts])
    named = rows.with_columns(ids.alias("item_id")).select(
        pl.col(name).cast(kind) for name, kind in ITEMS.items()
    )
    return named.unique("item_id", keep="first", maintain_order=True).sort("item_id")


# Asking


def orders(protocol: Protocol, item_id: str, replies: int) -> list[list[int]]:
    """In which orders an item is shown: pairs in both; lists in `rotations` turns of an order drawn for the item.

    An order names the reply that stands at each place. It follows from the seed and the item alone.
    """
    if protocol.kind == "pairwise":
        return [[0, 1], [1, 0]]
    drawn = list(range(replies))
    random.Random(f"{protocol.seed}/{item_id}").shuffle(drawn)
    turns = min(protocol.rotations, replies) if protocol.kind == "listwise" else 1
    starts = [turn * replies // turns for turn in range(turns)]
    return [drawn[start:] + drawn[:start] for start in starts]


def judge_requests(items: pl.DataFrame, protocol: Protocol) -> Questions:
    """What one judge is asked about `ITEMS`; every judge of a panel is asked the same.

    Raises `TilthError` for an item with another number of replies than its kind has.
    """
    shown = pl.DataFrame(_shown(items, protocol), schema=_SHOWN, orient="row")
    sizes = shown.get_column("size").unique().sort().to_list()
    parts = [_requests(shown.filter(pl.col("size") == size), protocol, size) for size in sizes]
    asked = [
        (request_id(row["key"], protocol.prompt.id, n), row["item_id"], row["order"], row["attribute"], n)
        for row in shown.iter_rows(named=True)
        for n in range(protocol.evidences)
    ]
    requests = pl.concat([pl.DataFrame(schema=REQUESTS), *parts])
    return Questions(requests, pl.DataFrame(asked, schema=ASKED, orient="row"))


_SHOWN: Final = pl.Schema(
    {
        "key": pl.String,
        "item_id": pl.String,
        "order": pl.List(pl.Int32),
        "attribute": pl.String,
        "description": pl.String,
        "conversation": PL_MESSAGES,
        "replies": pl.List(pl.String),
        "checklist": pl.List(pl.String),
        "size": pl.Int32,
    }
)


def _shown(items: pl.DataFrame, protocol: Protocol) -> Iterator[tuple[Any, ...]]:
    for row in items.iter_rows(named=True):
        texts = ["\n".join(message["content"] for message in reply) for reply in row["replies"]]
        _check_size(len(texts), protocol)
        for order in orders(protocol, row["item_id"], len(texts)):
            replies = [texts[place] for place in order]
            for attribute, description in protocol.attributes or [(None, None)]:
                key = f"{row['item_id']}/{order}/{attribute}"
                wishes, size = row["checklist"], len(texts)
                about = (attribute, description, row["prompt"])
                yield key, row["item_id"], order, *about, replies, wishes, size


def _check_size(replies: int, protocol: Protocol) -> None:
    fits = {"pairwise": replies == 2, "pointwise": replies == 1, "listwise": replies > 0}[protocol.kind]
    if not fits:
        raise TilthError(f"an item for {protocol.kind} judging", found=f"{replies} replies")


def _requests(shown: pl.DataFrame, protocol: Protocol, size: int) -> pl.DataFrame:
    scale = [pl.lit(protocol.low).alias("low"), pl.lit(protocol.high).alias("high")]
    # The descriptions of attributes are ours, not text of users: no block of material around them.
    trusted = [
        pl.Series(name, [text and Trusted(text) for text in shown.get_column(name)], dtype=pl.Object)
        for name in ("attribute", "description")
    ]
    rows = shown.drop("attribute", "description").with_columns(*scale, *trusted)
    return requests_frame(
        protocol.prompt,
        rows,
        "key",
        protocol.sampling,
        schema=answer_schema(protocol, size),
        samples=protocol.evidences,
        run_seed=protocol.seed,
    )


def answer_schema(protocol: Protocol, replies: int) -> str:
    """The JSON Schema of a judgment: evidence first, then scores, then for a pair the verdict.

    A rating may be null: the attribute does not apply.
    """
    score = {"type": "integer", "minimum": protocol.low, "maximum": protocol.high}
    named: dict[str, Any] = {"evidence": {"type": "string", "maxLength": _EVIDENCE_CHARS}}
    if protocol.kind == "pairwise":
        named |= {"score_1": score, "score_2": score, "verdict": {"type": "string", "enum": list(_WINNERS)}}
    else:
        rating = {"anyOf": [score, {"type": "null"}]}
        named |= {f"rating_{n + 1}": rating for n in range(replies)}
    schema = {
        "title": f"tilth.judge.{protocol.kind}",
        "type": "object",
        "properties": named,
        "required": list(named),
        "additionalProperties": False,
    }
    return orjson.dumps(schema).decode()


# Answers


class _Said(NamedTuple):
    """One judgment as it goes into the table; `scores` in the order of the item's replies."""

    verdict: str
    scores: list[float | None] | None
    text: str | None
    reason: str | None


def judgments(
    items: pl.DataFrame,
    asked: pl.DataFrame,
    completions: pl.DataFrame,
    failed: pl.DataFrame,
    judge: str,
    protocol: Protocol,
    model: str,
) -> pl.DataFrame:
    """Rows of the table `judgments`, one for each request that was asked of one judge.

    A verdict that its own scores contradict is failed, as is a request without an answer; neither is a tie.

    Args:
        items: `ITEMS`.
        asked: `ASKED`, of these items.
        completions: `COMPLETIONS`, in any order.
        failed: columns `id` and `reason`, of requests without an answer.
        judge: its name in the panel.
        protocol: what the requests were made with.
        model: the judge's identity: model and revision.

    Raises `TilthError` when an answer belongs to no request, a request has neither answer nor reason, or both, or its
    item is not there.
    """
    _check(items, asked, completions, failed)
    answers = dict(completions.select("id", "text").iter_rows())
    reasons = dict(failed.select("id", "reason").iter_rows())
    said = [
        _failed(reasons[id_]) if id_ in reasons else _said(answers[id_], order, protocol)
        for id_, order in asked.select("id", "order").iter_rows()
    ]
    columns = {
        "verdict": pl.Series([one.verdict for one in said], dtype=pl.String),
        "scores": pl.Series([one.scores for one in said], dtype=pl.List(pl.Float64)),
        "text": pl.Series([one.text for one in said], dtype=pl.String),
        "reason": pl.Series([one.reason for one in said], dtype=pl.String),
    }
    about = items.select("item_id", "response_ids", "prompt_id", "conversation_id", "split")
    rows = asked.drop("id").with_columns(**columns).join(about, on="item_id", maintain_order="left")
    named = rows.with_columns(
        kind=pl.lit(protocol.kind),
        judge=pl.lit(judge),
        model=pl.lit(model),
        protocol=pl.lit(protocol.digest),
        prompt_version=pl.lit(protocol.prompt_version),
        method=pl.lit("model"),
    )
    return conform(named.with_columns(_ids(named)), "judgments").sort("id")


def _ids(rows: pl.DataFrame) -> pl.Series:
    keys = [pl.col(name) for name in ("item_id", "judge", "protocol", "attribute")]
    order = pl.col("order").cast(pl.List(pl.String)).list.join(",")
    return content_ids(rows, "judgments", [*keys, order, pl.col("sample_index").cast(pl.String)])


def _check(items: pl.DataFrame, asked: pl.DataFrame, completions: pl.DataFrame, failed: pl.DataFrame) -> None:
    demand_settled("answers", asked, completions, failed)
    known = items.get_column("item_id")
    lost = len(set(asked.get_column("item_id")) - set(known))
    if lost or known.n_unique() != known.len():
        found = f"{lost} not there, {known.len() - known.n_unique()} there twice"
        raise TilthError("items of judgments", found=found, wanted="each once", do="please report this")


def _failed(reason: str) -> _Said:
    return _Said("failed", None, None, reason)


def _said(text: str, order: Sequence[int], protocol: Protocol) -> _Said:
    answer = orjson.loads(text)
    if protocol.kind == "pairwise":
        return _compared(answer, order)
    scores = _placed([answer[f"rating_{n + 1}"] for n in range(len(order))], order)
    return _Said("ranked" if protocol.kind == "listwise" else "rated", scores, answer["evidence"], None)


def _compared(answer: Mapping[str, Any], order: Sequence[int]) -> _Said:
    shown = [answer["score_1"], answer["score_2"]]
    better = {"1": shown[0] > shown[1], "2": shown[0] < shown[1], "tie": shown[0] == shown[1]}
    if not better[answer["verdict"]]:
        return _Said("failed", None, answer["evidence"], Reason.CONTRADICTORY.value)
    scores = _placed(shown, order)
    first, second = scores
    verdict = "tie" if first == second else "win" if (first or 0) > (second or 0) else "loss"
    return _Said(verdict, scores, answer["evidence"], None)


def _placed(shown: Sequence[float | None], order: Sequence[int]) -> list[float | None]:
    """Scores by place, as scores by reply."""
    placed: list[float | None] = [None] * len(shown)
    for score, reply in zip(shown, order, strict=True):
        placed[reply] = None if score is None else float(score)
    return placed
