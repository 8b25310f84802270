"""Does this turn say again what the user said before?"""

from __future__ import annotations

from typing import Final

import polars as pl

from tilth.transforms.feedback.patterns import load
from tilth.transforms.feedback.rules import FeedbackRules

_SIDES: Final = ("now", "then")
_COMPARED: Final = 600  # characters of a turn that are compared
_SPELLED: Final = 12  # a shorter turn has too few trigrams to compare


def repeated(messages: pl.DataFrame, turns: pl.DataFrame, rules: FeedbackRules) -> list[pl.Series]:
    """`similar` (0..1, how much of an earlier turn comes back) and `repeats` (it is the same request) per turn.

    `messages` (row, message_index, role, content) are all messages; each row of `turns` (turn, row, message_index) is
    compared with the last `rules.lookback` user turns of its conversation. A turn in which one content word took the
    place of another ("capital of France", "capital of Spain") is a new request, not a repetition.
    """
    said = messages.filter(pl.col("role") == "user").select("row", "message_index", _plain())
    pairs = pl.concat([_paired(turns, said, back) for back in range(1, rules.lookback + 1)])
    best = (
        _scored(pairs.filter(_alike()), rules)
        .group_by("turn")
        .agg(pl.col("similar").max(), pl.col("repeats").any())
    )
    found = turns.select("turn").join(best, on="turn", how="left", maintain_order="left")
    return [found.get_column("similar").fill_null(0.0), found.get_column("repeats").fill_null(value=False)]


def _plain() -> pl.Expr:
    return pl.col("content").str.head(_COMPARED).str.to_lowercase().alias("text")


def _paired(turns: pl.DataFrame, said: pl.DataFrame, back: int) -> pl.DataFrame:
    """Each of `turns` beside what the same user said `back` user turns before."""
    here = pl.col("row") == pl.col("row").shift(back)
    both = said.select(
        "row",
        pl.col("message_index").cast(pl.Int32),
        pl.col("text").alias("now"),
        pl.when(here).then(pl.col("text").shift(back)).alias("then"),
    )
    keys = ["row", "message_index"]
    return (
        turns.select("turn", *keys).join(both.drop_nulls("then"), on=keys, maintain_order="left").drop(keys)
    )


def _alike() -> pl.Expr:
    """A cheap test that a repetition passes: its first or its last long word was there before."""
    first = pl.col("now").str.extract(r"\b([a-z0-9]{4,})", 1)
    last = pl.col("now").str.extract(
        r"([a-z0-9]{4,})[^a-z0-9]*(?:[a-z0-9]{1,3}[^a-z0-9]+)*[a-z0-9]{0,3}[^a-z0-9]*$", 1
    )
    return pl.any_horizontal(
        pl.col("then").str.contains(word.fill_null("\0"), literal=True) for word in (first, last)
    )


def _scored(pairs: pl.DataFrame, rules: FeedbackRules) -> pl.DataFrame:
    pairs = pairs.with_columns(_tokens(side).alias(f"{side}_tokens") for side in _SIDES)
    pairs = pairs.with_columns(_content(side).alias(f"{side}_content") for side in _SIDES)
    common, union = _shared("tokens")
    kept, _ = _shared("content")
    counts = {f"{side}_size": pl.col(f"{side}_content").list.len() for side in _SIDES}
    pairs = pairs.with_columns(common=common, union=union, kept=kept, **counts)
    pairs = pairs.with_columns(
        (pl.col("common") / pl.max_horizontal("union", 1)).alias("jaccard"),
        (pl.col("kept") / pl.max_horizontal("then_size", 1)).alias("containment"),
    )
    return (
        _same_spelling(pairs, rules)
        .with_columns(_repeats(rules).alias("repeats"))
        .select(
            "turn",
            pl.max_horizontal("jaccard", pl.col("containment") * 0.8, "trigrams").alias("similar"),
            "repeats",
        )
    )


def _tokens(side: str) -> pl.Expr:
    return pl.col(side).str.extract_all(r"[a-z0-9]+(?:'[a-z]+)?|[^\x00-\x7f]+").list.unique()


def _content(side: str) -> pl.Expr:
    words = pl.lit(pl.Series([load("_similarity")["function_words"].split()]))
    return pl.col(f"{side}_tokens").list.set_difference(words)


def _shared(kind: str) -> tuple[pl.Expr, pl.Expr]:
    now, then = pl.col(f"now_{kind}"), pl.col(f"then_{kind}")
    common = now.list.set_intersection(then).list.len()
    return common, now.list.len() + then.list.len() - common


def _same_spelling(pairs: pl.DataFrame, rules: FeedbackRules) -> pl.DataFrame:
    """Adds `trigrams`, the overlap of character trigrams, where word overlap is near but below the threshold."""
    near = (pl.col("jaccard") >= rules.repeat_jaccard / 3) & (pl.col("jaccard") < rules.repeat_jaccard)
    enough = pl.all_horizontal(pl.col(side).str.len_bytes() >= _SPELLED for side in _SIDES)
    pairs = pairs.with_row_index("pair")
    close = pairs.filter(near & enough).select("pair", *(_trigrams(side) for side in _SIDES))
    common = pl.col("now").list.set_intersection("then").list.len()
    close = close.select(
        "pair", (common / (pl.col("now").list.len() + pl.col("then").list.len() - common)).alias("trigrams")
    )
    return pairs.join(close, on="pair", how="left", maintain_order="left").with_columns(
        pl.col("trigrams").fill_null(0.0)
    )


def _trigrams(side: str) -> pl.Expr:
    shifted = [pl.col(side).str.slice(start).str.extract_all(r"(?s).{3}") for start in range(3)]
    return pl.concat_list(shifted).list.unique().alias(side)


def _repeats(rules: FeedbackRules) -> pl.Expr:
    new, gone = pl.col("now_size") - pl.col("kept"), pl.col("then_size") - pl.col("kept")
    long_enough = (pl.col("then_size") >= 2) & (pl.col("then_tokens").list.len() >= rules.repeat_min_words)
    said_again = (pl.col("containment") >= rules.repeat_containment) & (
        new <= gone.clip(0) + pl.col("then_size")
    )
    same = (pl.col("jaccard") >= rules.repeat_jaccard) & ((new == 0) | (gone == 0))
    retyped = (pl.col("trigrams") >= rules.repeat_chars) & (new == gone) & (new <= 1)
    return long_enough & ((said_again & (gone == 0)) | same | retyped)
