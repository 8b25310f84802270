"""People in the loop: what they should look at, what they are shown, and what their verdicts do to pairs."""

from __future__ import annotations

from typing import Final, NamedTuple

import polars as pl

from tilth.schemas import BadInput, Reason
from tilth.schemas.ids import content_id
from tilth.transforms.judging.items import ITEMS, items
from tilth.transforms.pairs.candidates import quarantined

REVIEW: Final = pl.Schema(
    {
        "item_id": pl.String,
        "conversation": pl.String,  # `role: text`, a blank line between turns
        "checklist": pl.String,  # what the user wants of a reply, one wish a line
        "reply_a": pl.String,
        "reply_b": pl.String,
        "verdict": pl.String,  # to be filled in: a, b, tie or skip
        "note": pl.String,
        "annotator": pl.String,
    }
)
GOLD: Final = pl.Schema(
    {
        "item_id": pl.String,
        "gold": pl.String,  # win | loss | tie of the first of the item's replies, by more than half of the people
        "wins": pl.Int32,  # people
        "losses": pl.Int32,
        "ties": pl.Int32,
        "skips": pl.Int32,
    }
)
SAYS: Final = ("a", "b", "tie", "skip")
_TURNED_DOWN: Final = {"loss": Reason.JUDGES_PREFER_REJECTED.value, "tie": Reason.JUDGES_TIED.value}
_DETAILS: Final = {
    "loss": "people prefer the rejected reply",
    "tie": "people say that both replies are as good",
}
_PAYLOAD: Final = ["origin", "conversation_id", "prompt", "chosen", "rejected"]


class Reviewed(NamedTuple):
    """What people said (`GOLD`), and how much of it: numbers alone."""

    gold: pl.DataFrame
    counts: dict[str, int]


class Applied(NamedTuple):
    """Pairs that stay, and those that people turned down as rows of `quarantine` without `id`."""

    kept: pl.DataFrame
    dropped: pl.DataFrame


# What people are shown


def swapped(item_id: str) -> bool:
    """Whether an item's first reply is shown as reply b: a coin that the item's id tosses, so that no file keeps it."""
    return int(content_id("review", item_id)[:8], 16) % 2 == 1


def review_items(judgments: pl.DataFrame, responses: pl.DataFrame, wishes: pl.DataFrame) -> pl.DataFrame:
    """The pairs that were judged, as `ITEMS`, from the tables of one release.

    An item's id is a hash of its checklist too, so of the `wishes` (columns conversation_id, prompt_id, checklist)
    only those count that make the id; the checklist is empty where none does. Raises `BadInput` for judgments of
    replies that `responses` does not have.
    """
    about = ("item_id", "response_ids", "prompt_id", "conversation_id", "split")
    judged = (
        judgments.filter(pl.col("kind") == "pairwise").select(about).unique("item_id", maintain_order=True)
    )
    texts = responses.select("id", "prompt", "completion").unique("id", maintain_order=True)
    each = judged.explode("response_ids", empty_as_null=False)
    said = each.join(texts, left_on="response_ids", right_on="id", how="inner", maintain_order="left")
    if said.height != 2 * judged.height:
        found = f"{2 * judged.height - said.height} of {2 * judged.height} replies are missing"
        raise BadInput("items that judges compared", found=found, wanted="both replies in table responses")
    firsts = (pl.col(name).first() for name in ("prompt", "prompt_id", "conversation_id", "split"))
    rows = said.group_by("item_id", maintain_order=True).agg(*firsts, "response_ids", replies="completion")
    return _with_checklists(rows, wishes)


def _with_checklists(rows: pl.DataFrame, wishes: pl.DataFrame) -> pl.DataFrame:
    places = ["conversation_id", "prompt_id"]
    known = wishes.select(*places, "checklist").drop_nulls().unique()
    guessed = items(rows.drop("item_id").join(known, on=places, how="inner"))
    fitting = guessed.select("item_id", "checklist").unique("item_id")
    joined = rows.join(fitting, on="item_id", how="left")
    none = pl.col("checklist").fill_null(pl.lit([], ITEMS["checklist"]))
    return (
        joined.with_columns(none)
        .select(pl.col(name).cast(kind) for name, kind in ITEMS.items())
        .sort("item_id")
    )


def review_rows(
    items: pl.DataFrame, verdicts: pl.DataFrame, count: int, show_judges: bool = False
) -> pl.DataFrame:
    """The `count` items that judges are least sure of, as `REVIEW`, the least sure first.

    In this order: entropy of the votes (BPDE; FairEval, arXiv 2305.17926, section 3.3), of equal ones those that are
    inconsistent or failed, then the narrower margin, then the id. Which reply is a or b says nothing of what judges
    think of them (`swapped`); only with `show_judges` does a column `judges` count their votes, as the replies are
    shown.
    """
    unsure = pl.col("verdict").is_in(("inconsistent", "failed"))
    keys = [
        pl.col("bpde").fill_null(0.0).round(9),
        unsure,
        pl.col("margin").abs().round(9),
        pl.col("item_id"),
    ]
    ranked = verdicts.sort(keys, descending=[True, True, False, False], nulls_last=True).head(count)
    rows = ranked.rename({"verdict": "said"}).join(items, on="item_id", how="inner", maintain_order="left")
    turned = pl.Series("turned", [swapped(id_) for id_ in rows.get_column("item_id")], dtype=pl.Boolean)
    shown = rows.with_columns(turned).with_columns(
        pl.lit("").alias("verdict"),
        pl.lit("").alias("note"),
        pl.lit("").alias("annotator"),
        conversation=_transcript(),
        checklist=pl.col("checklist").list.join("\n"),
        reply_a=pl.when("turned").then(_reply(1)).otherwise(_reply(0)),
        reply_b=pl.when("turned").then(_reply(0)).otherwise(_reply(1)),
        judges=_votes(),
    )
    return shown.select(*REVIEW.names(), *(["judges"] if show_judges else []))


def _transcript() -> pl.Expr:
    turn = pl.element().struct
    said = pl.concat_str(turn.field("role"), turn.field("content"), separator=": ")
    return pl.col("prompt").list.eval(said).list.join("\n\n")


def _reply(place: int) -> pl.Expr:
    return pl.col("replies").list.get(place).list.eval(pl.element().struct.field("content")).list.join("\n")


def _votes() -> pl.Expr:
    for_a = pl.when("turned").then("losses").otherwise("wins")
    for_b = pl.when("turned").then("wins").otherwise("losses")
    return pl.format("a: {}, b: {}, tie: {}, failed: {}", for_a, for_b, "ties", "failed")


# What people said


def read_verdicts(rows: pl.DataFrame, known: pl.Series) -> Reviewed:
    """People's verdicts from filled-in rows: columns item_id and verdict, and annotator where several took part.

    A verdict is a, b, tie or skip, in any case; an empty one was not given. Of several people, more than half of
    those that did not skip decide; an item in which nobody has the majority has no gold verdict and is counted as
    `disputed`. The order of rows decides nothing. Raises `BadInput`, with counts, for a missing column, an item that
    is not among the `known`, another verdict, and two verdicts of one person on one item.
    """
    said = _said(rows)
    _check(said, known)
    given = said.filter(pl.col("verdict") != "")
    people = given.group_by("item_id").agg(
        (pl.col("verdict") == word).sum().cast(pl.Int32).alias(name)
        for word, name in (("a", "for_a"), ("b", "for_b"), ("tie", "ties"), ("skip", "skips"))
    )
    turned = pl.Series("turned", [swapped(id_) for id_ in people.get_column("item_id")], dtype=pl.Boolean)
    counted = people.with_columns(turned).with_columns(
        wins=pl.when("turned").then("for_b").otherwise("for_a"),
        losses=pl.when("turned").then("for_a").otherwise("for_b"),
    )
    decided = counted.with_columns(voters=pl.sum_horizontal("wins", "losses", "ties")).filter(
        pl.col("voters") > 0
    )
    settled = decided.with_columns(gold=_majority())
    gold = (
        settled.drop_nulls("gold")
        .select(pl.col(name).cast(kind) for name, kind in GOLD.items())
        .sort("item_id")
    )
    return Reviewed(gold, _counts(said, given, settled))


def _said(rows: pl.DataFrame) -> pl.DataFrame:
    missing = sorted({"item_id", "verdict"} - set(rows.columns))
    if missing:
        raise BadInput(
            "a file of verdicts", found=f"no column {', '.join(missing)}", wanted="item_id and verdict"
        )
    annotator = pl.col("annotator") if "annotator" in rows.columns else pl.lit("")
    named = {"item_id": pl.col("item_id"), "verdict": pl.col("verdict"), "annotator": annotator}
    return rows.select(
        value.cast(pl.String).fill_null("").str.strip_chars().alias(n) for n, value in named.items()
    ).with_columns(pl.col("verdict").str.to_lowercase())


def _check(said: pl.DataFrame, known: pl.Series) -> None:
    unknown = said.filter(~pl.col("item_id").is_in(known.implode())).height
    if unknown:
        do = "name the dataset that the file was exported from"
        raise BadInput("verdicts on unknown items", found=f"{unknown} of {said.height} rows", do=do)
    odd = said.filter(~pl.col("verdict").is_in(("", *SAYS))).height
    if odd:
        raise BadInput("verdicts of people", found=f"{odd} rows say something else", wanted=", ".join(SAYS))
    given = said.filter(pl.col("verdict") != "")
    twice = given.height - given.select("item_id", "annotator").n_unique() if given.height else 0
    if twice:
        do = "say in the column annotator who gave each verdict"
        raise BadInput("verdicts of one person on one item", found=f"{twice} too many", wanted="one", do=do)


def _majority() -> pl.Expr:
    """More than half of those who did not skip; null for none."""
    named = (("wins", "win"), ("losses", "loss"), ("ties", "tie"))
    return pl.coalesce(
        pl.when(pl.col(name) * 2 > pl.col("voters")).then(pl.lit(word)) for name, word in named
    )


def _counts(said: pl.DataFrame, given: pl.DataFrame, settled: pl.DataFrame) -> dict[str, int]:
    most = pl.max_horizontal("wins", "losses", "ties")
    return {
        "rows": said.height,
        "unanswered": said.height - given.height,
        "skipped": given.filter(pl.col("verdict") == "skip").height,
        "annotators": given.get_column("annotator").n_unique() if given.height else 0,
        "items": settled.height,
        "settled": settled.filter(pl.col("gold").is_not_null()).height,
        "disputed": settled.filter(pl.col("gold").is_null()).height,
        "not_unanimous": settled.filter(most < pl.col("voters")).height,
    }


# What it does to pairs


def turn_down(
    pairs: pl.DataFrame, judgments: pl.DataFrame, responses: pl.DataFrame, gold: pl.DataFrame
) -> Applied:
    """Sets aside the pairs that people turned down; nothing is ever turned round. Rows in = kept + dropped.

    A verdict counts for a pair whose two sides are the replies that people compared, among those that its
    `judgment_ids` lead to. `judges_prefer_rejected`: people prefer the rejected side. `judges_tied`: they prefer
    none. Pairs that nobody looked at, or on which people had no majority, stay.
    """
    verdicts = _on_pairs(pairs, judgments, responses, gold)
    against = verdicts.filter(pl.col("said").is_in(tuple(_TURNED_DOWN)))
    worst = against.sort("said").unique("id", keep="first", maintain_order=True)  # loss before tie
    marked = pairs.join(worst, on="id", how="left", maintain_order="left")
    down = marked.filter(pl.col("said").is_not_null()).with_columns(
        source=pl.format("conversations#id={}", "conversation_id"),
        reason=pl.col("said").replace_strict(_TURNED_DOWN, return_dtype=pl.String),
        detail=pl.lit("pairs: ") + pl.col("said").replace_strict(_DETAILS, return_dtype=pl.String),
    )
    kept = marked.filter(pl.col("said").is_null()).drop("said")
    return Applied(kept, quarantined(down, "review", _PAYLOAD))


def _on_pairs(
    pairs: pl.DataFrame, judgments: pl.DataFrame, responses: pl.DataFrame, gold: pl.DataFrame
) -> pl.DataFrame:
    """`id` of a pair and what people `said` of its chosen side: win, loss or tie."""
    links = pairs.select("id", "chosen", "rejected", judgment_id="judgment_ids").explode("judgment_id")
    pairwise = judgments.filter(pl.col("kind") == "pairwise").select("id", "item_id", "response_ids")
    rows = links.join(pairwise, left_on="judgment_id", right_on="id").join(gold, on="item_id")
    texts = responses.select("id", "completion").unique("id", maintain_order=True)
    for n in (0, 1):
        side = texts.select(pl.col("id").alias(f"reply_{n}"), pl.col("completion").alias(f"text_{n}"))
        rows = rows.with_columns(pl.col("response_ids").list.get(n).alias(f"reply_{n}")).join(
            side, on=f"reply_{n}"
        )
    straight = (pl.col("chosen") == pl.col("text_0")) & (pl.col("rejected") == pl.col("text_1"))
    crossed = (pl.col("chosen") == pl.col("text_1")) & (pl.col("rejected") == pl.col("text_0"))
    turned = pl.col("gold").replace_strict(
        {"win": "loss", "loss": "win", "tie": "tie"}, return_dtype=pl.String
    )
    said = pl.when(straight).then("gold").when(crossed).then(turned)
    return rows.select("id", said=said).drop_nulls("said").unique()
