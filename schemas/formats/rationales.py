"""Rationales as training rows: questions with their answers, preferences with a reason, judged replies (CUT)."""

from __future__ import annotations

from typing import Final

import polars as pl

from tilth.schemas.errors import BadInput, ConfigError
from tilth.schemas.formats.turns import conversation, message, spoken
from tilth.schemas.ids import content_id, messages_key
from tilth.schemas.tables import PL_MESSAGES

JUDGED_KINDS: Final = ("user_complaint", "judgment")


def rationale_sft(rationales: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """A rationale a row, as a question and its answer: id, prompt, completion, kind, order, split.

    The user asks which of two replies is better, and why; the assistant answers with the rationale, then the verdict.
    Source: RDPO (arXiv 2407.14477), whose loader always shows the chosen reply first; here the replies stand in the
    rationale's own `order`, or in one drawn from its id, and `order` says which: [1, 0] shows the rejected one first. A
    rationale about one reply alone says which. Raises `BadInput` for rationales whose pair is not there.
    """
    drawn = [int(id_[0], 16) % 2 for id_ in rationales.get_column("id")]
    first = pl.coalesce(pl.col("order").list.first(), pl.Series(drawn, dtype=pl.Int32))
    rows = _with_pairs(rationales.with_columns(first=first), pairs)
    swapped = pl.col("first") == 1
    texts = [spoken("chosen"), spoken("rejected")]
    shown = [pl.when(swapped).then(other).otherwise(one) for one, other in (texts, texts[::-1])]
    question = pl.format(
        "Two replies could come next in this conversation. Which one is better, and why?\n\n"
        "The conversation:\n\n{}\n\nReply 1:\n\n{}\n\nReply 2:\n\n{}",
        conversation("prompt"),
        *shown,
    )
    verdict = pl.when(swapped).then(pl.lit("Reply 2 is better.")).otherwise(pl.lit("Reply 1 is better."))
    answer = pl.concat_str([_about(), pl.col("text"), pl.lit("\n\n"), verdict])
    return rows.select(
        "id",
        prompt=message("user", question),
        completion=message("assistant", answer),
        kind="kind",
        order=pl.concat_list("first", 1 - pl.col("first")),
        split="split",
    )


def _about() -> pl.Expr:
    """What a rationale about one reply is led in by; nothing for one that compares both."""
    side = pl.col("side")
    return (
        pl.when(pl.col("kind") == "user_complaint")
        .then(pl.lit("What the user said of the weaker reply: "))
        .when(side == "rejected")
        .then(pl.lit("Of the weaker reply: "))
        .when(side == "chosen")
        .then(pl.lit("Of the better reply: "))
        .otherwise(pl.lit(""))
    )


def rationale_dpo(rationales: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Preferences with a reason beside them (RDPO): id, prompt, chosen, rejected, margin, rationale, kind, split.

    One row for each pair and kind, with its best-ranked rationale (those without a rank last, then by id), so that no
    pair counts more often for having more of one kind. `id` is the rationale's. Filter by `kind`: kinds are not to be
    mixed unawares. Raises `BadInput` for rationales whose pair is not there.
    """
    best = rationales.sort("rank", "id", nulls_last=True).unique(["pair_id", "kind"], keep="first")
    rows = _with_pairs(best, pairs).sort("pair_id", "kind")
    return rows.select(
        "id", "prompt", "chosen", "rejected", "margin", rationale="text", kind="kind", split="split"
    )


def _with_pairs(rationales: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Rationales, in their order, with prompt_id, prompt, chosen, rejected and margin of their pairs."""
    known = pairs.select("prompt_id", "prompt", "chosen", "rejected", "margin", pair_id="id")
    once = known.unique("pair_id", keep="any")
    rows = rationales.join(once, on="pair_id", maintain_order="left")
    if rows.height != rationales.height:
        lost = rationales.height - rows.height
        do = "project them with the pairs that they were written for"
        raise BadInput("rationales without their pairs", found=f"{lost} of {rationales.height}", do=do)
    return rows


def cut_triples(
    rationales: pl.DataFrame, pairs: pl.DataFrame, satisfied_share: float = 0.25, seed: int = 0
) -> pl.DataFrame:
    """Judged replies for CUT, sorted by id; columns as they are told of here, besides id, prompt, polarity and split.

    A negative row is a judged reply: `output` is the rejected reply, `judgment` what a user complained of in it or what
    a model found weak, `improved` the chosen reply. `prompt_aligned` asks for a reply that the judgment would be true
    of, `prompt_misaligned` is the request alone. A positive row is a chosen reply that no pair rejects: its judgment is
    null, the request alone is aligned, nothing is misaligned. Of the positive rows of a split int(negatives *
    `satisfied_share`) are kept, or all where there are less, drawn by `seed` and id. A blank judgment is no judgment.

    Source: Reasons to Reject (arXiv 2312.14591), `finetune_unlikelihood.py`, which draws by place and takes an empty
    judgment for one.

    Raises:
        BadInput: for rationales whose pair is not there.
        ConfigError: for a share below 0.
    """
    if satisfied_share < 0:
        raise ConfigError("the share of satisfied replies", found=satisfied_share, wanted="0 or more")
    negative = _judged(rationales, pairs)
    positive = _satisfied(pairs, negative, satisfied_share, seed)
    return pl.concat([negative, positive]).sort("id")


def _judged(rationales: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """A row for each rejected reply and what is said of it; what is said of it in several pairs counts once."""
    about = pl.col("kind").is_in(JUDGED_KINDS) & (pl.col("side").fill_null("rejected") == "rejected")
    told = pl.col("text").str.strip_chars() != ""
    rows = _with_pairs(rationales.filter(about & told), pairs).sort("id")
    keyed = rows.with_columns(output=messages_key("rejected"))
    once = keyed.unique(["prompt_id", "output", "text", "split"], keep="first", maintain_order=True)
    last = pl.col("prompt").list.last().struct.field("content")
    asked = pl.format("{}\n\n(Write a reply that this judgment would be true of: {})", last, pl.col("text"))
    aligned = pl.concat_list(
        pl.col("prompt").list.head(pl.col("prompt").list.len() - 1), message("user", asked)
    )
    return once.select(
        "id",
        "prompt",
        output="rejected",
        judgment="text",
        improved="chosen",
        prompt_aligned=aligned,
        prompt_misaligned="prompt",
        polarity=pl.lit("negative"),
        split="split",
    )


def _satisfied(pairs: pl.DataFrame, negative: pl.DataFrame, share: float, seed: int) -> pl.DataFrame:
    """The chosen replies that are kept, each once."""
    keyed = pairs.with_columns(reply=messages_key("chosen"), lost=messages_key("rejected")).sort("id")
    rejected = keyed.select("prompt_id", reply="lost")
    good = keyed.join(rejected, on=["prompt_id", "reply"], how="anti", maintain_order="left")
    once = good.unique(["prompt_id", "reply", "split"], keep="first", maintain_order=True)
    lots = [content_id("cut", str(seed), id_) for id_ in once.get_column("id")]
    limits = negative.group_by("split").len()
    drawn = once.with_columns(pl.Series("lot", lots, dtype=pl.String)).join(limits, on="split").sort("lot")
    kept = drawn.filter(pl.int_range(pl.len()).over("split") < (pl.col("len") * share).cast(pl.Int64))
    nothing = pl.lit(None, PL_MESSAGES)
    return kept.select(
        "id",
        "prompt",
        output="chosen",
        judgment=pl.lit(None, pl.String),
        improved=nothing,
        prompt_aligned="prompt",
        prompt_misaligned=nothing,
        polarity=pl.lit("positive"),
        split="split",
    )
