"""What stays of all candidates: no duplicates, contradictions or prompts in two splits; a seeded order."""

from __future__ import annotations

from typing import Final, NamedTuple

import polars as pl

from tilth.schemas import Reason
from tilth.schemas.contracts import JUDGED_ORIGINS
from tilth.transforms.hygiene import id_hashes
from tilth.transforms.pairs.candidates import normalised, quarantined
from tilth.transforms.pairs.spread import shuffled, spread

# What people did comes before what they said, and that before what models made of it.
_PRIORITY: Final = {
    origin: place
    for place, origin in enumerate(("human_rank", "reaction", "observed_recovery", *JUDGED_ORIGINS))
}
_SPLITS: Final = {"train": 0, "validation": 1, "test": 2}
_PAYLOADS: Final = {
    "pairs": ["origin", "conversation_id", "prompt", "chosen", "rejected"],
    "unpaired": ["label", "conversation_id", "prompt", "completion"],
    "rationales": ["conversation_id", "pair_id", "text"],
}
_DETAILS: Final = {
    Reason.CONTRADICTORY: "other evidence for the same prompt and replies says the opposite",
    Reason.SPLIT_LEAK: "most rows with this prompt are in another split",
    Reason.DUPLICATE: "the same row with better evidence is kept",
}


class Settled(NamedTuple):
    """The final tables, and what was set aside as rows of `quarantine` without `id`."""

    pairs: pl.DataFrame
    unpaired: pl.DataFrame
    rationales: pl.DataFrame
    dropped: pl.DataFrame


def bucket(frame: pl.DataFrame, n: int) -> pl.Series:
    """The bucket, 0 to `n` - 1, of each row of `pairs` or `unpaired`: a function of its `prompt_id` only."""
    return (id_hashes(frame.get_column("prompt_id")) % n).cast(pl.UInt32).alias("bucket")


def settle(pairs: pl.DataFrame, unpaired: pl.DataFrame, rationales: pl.DataFrame, seed: int) -> Settled:
    """Decides over all candidates whose prompts fall into one bucket. Rows in = rows out + dropped.

    In this order, for a prompt with its replies:

    1. Contradictions: pairs of the same two replies in both directions, and labels of the same reply both
       ways, are all dropped as `contradictory`, whoever said it and however strongly. Replies that differ at
       most in case and white space are the same here.
    2. Splits: rows with one prompt stay in the split that holds most of them (`train`, then `validation` at a
       tie); the others are dropped as `split_leak`. They are not moved, because then a user would be in two
       splits.
    3. Duplicates: of one pair, the evidence of the strongest origin stays (`human_rank`, `reaction`,
       `observed_recovery`, then those that judges decided), then the smallest conversation id; of one label,
       the largest weight. The others are dropped as `duplicate`.

    Cycles of three or more pairs (a > b > c > a) are left: rankings by several people hold them.

    Rationales follow their pair: they stay with it, or are dropped for its reason. Pairs and rationales come
    in a shuffled order, unpaired rows as `tilth.transforms.pairs.spread.spread` says; both are functions of
    ids and `seed`.
    """
    pairs_in, unpaired_in = _contradictions(pairs, unpaired)
    homes = _homes(pairs_in, unpaired_in)
    priority = pl.col("origin").replace_strict(_PRIORITY, return_dtype=pl.Int8)
    marked = {
        "pairs": _copies(_leaks(pairs_in, homes), [priority, "conversation_id", -pl.col("margin")]),
        "unpaired": _copies(_leaks(unpaired_in, homes), [-pl.col("weight"), "conversation_id", "method"]),
    }
    marked["rationales"] = _followers(rationales, marked["pairs"])
    kept = {name: frame.filter(pl.col("reason").is_null()) for name, frame in marked.items()}
    return Settled(
        pairs=shuffled(kept["pairs"], seed).select(pairs.columns),
        unpaired=spread(kept["unpaired"], seed).select(unpaired.columns),
        rationales=shuffled(kept["rationales"], seed).select(rationales.columns),
        dropped=pl.concat([_dropped(frame, name) for name, frame in marked.items()]),
    )


def _contradictions(pairs: pl.DataFrame, unpaired: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    one, other = pl.col("_one"), pl.col("_other")
    low, high = pl.min_horizontal(one, other), pl.max_horizontal(one, other)
    both_ways = (one < other).n_unique().over("prompt_id", low, high) > 1
    both_labels = pl.col("label").n_unique().over("prompt_id", one) > 1
    return (
        _contradicted(pairs, {"_one": "chosen", "_other": "rejected"}, both_ways),
        _contradicted(unpaired, {"_one": "completion"}, both_labels),
    )


def _contradicted(rows: pl.DataFrame, sides: dict[str, str], opposed: pl.Expr) -> pl.DataFrame:
    """`rows` with `reason`, looked for among those that share their prompt."""
    # polars' own hash is good enough within one process: only its equality counts.
    hashes = {name: normalised(side).hash() for name, side in sides.items()}
    numbered = rows.with_row_index("_row")
    sharing = numbered.filter(pl.col("prompt_id").is_duplicated())
    found = (
        sharing.with_columns(**hashes)
        .filter(opposed)
        .select("_row", reason=pl.lit(Reason.CONTRADICTORY.value))
    )
    return numbered.join(found, on="_row", how="left", maintain_order="left").drop("_row")


def _homes(pairs: pl.DataFrame, unpaired: pl.DataFrame) -> pl.DataFrame:
    """The split of most rows by prompt."""
    rows = pl.concat(
        [frame.filter(pl.col("reason").is_null()).select("prompt_id", "split") for frame in (pairs, unpaired)]
    )
    counts = rows.group_by("prompt_id", home="split").len()
    order = pl.col("home").replace_strict(_SPLITS, default=len(_SPLITS), return_dtype=pl.Int8)
    ordered = counts.sort(-pl.col("len").cast(pl.Int64), order, "home")
    return ordered.unique("prompt_id", keep="first", maintain_order=True).drop("len")


def _leaks(rows: pl.DataFrame, homes: pl.DataFrame) -> pl.DataFrame:
    at_home = rows.join(homes, on="prompt_id", how="left", maintain_order="left")
    leak = pl.col("reason").is_null() & pl.col("split").ne_missing(pl.col("home"))
    return at_home.with_columns(reason=_unless(leak, Reason.SPLIT_LEAK)).drop("home")


def _copies(rows: pl.DataFrame, order: list[pl.Expr | str]) -> pl.DataFrame:
    """Marks all rows of one id but the first by `order`, among those without a reason."""
    free = pl.col("reason").is_null()
    seen = pl.int_range(pl.len()).over("id", free)
    ordered = rows.sort(*order, pl.col("feedback_ids").list.join(" "))
    return ordered.with_columns(reason=_unless(free & (seen > 0), Reason.DUPLICATE))


def _unless(found: pl.Expr, reason: Reason) -> pl.Expr:
    return pl.when(found).then(pl.lit(reason.value)).otherwise(pl.col("reason"))


def _followers(rationales: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Rationales with the reason of their pair; in another split than their pair they would leak it."""
    known = pairs.sort(pl.col("reason"), nulls_last=False).unique("id", keep="first", maintain_order=True)
    fates = known.select(pair_id="id", reason="reason", home="split")
    followed = rationales.join(fates, on="pair_id", how="inner", maintain_order="left")
    if followed.height != rationales.height:
        raise ValueError("a rationale came without its pair")
    leak = pl.col("reason").is_null() & pl.col("split").ne_missing(pl.col("home"))
    return _copies(
        followed.with_columns(reason=_unless(leak, Reason.SPLIT_LEAK)).drop("home"), ["conversation_id"]
    )


def _dropped(marked: pl.DataFrame, table: str) -> pl.DataFrame:
    details = {reason.value: text for reason, text in _DETAILS.items()}
    detail = pl.col("reason").replace_strict(details, return_dtype=pl.String)
    rows = marked.filter(pl.col("reason").is_not_null()).with_columns(
        # A candidate stands in no file; its conversation leads back to one.
        source=pl.format("conversations#id={}", "conversation_id"),
        detail=pl.format("{}: {}", pl.lit(table), detail),
    )
    return quarantined(rows, "settle", _PAYLOADS[table])
