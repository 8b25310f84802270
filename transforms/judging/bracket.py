"""A tournament as far as it has been judged: a function of the replies and of the judgments so far, nothing kept."""

from __future__ import annotations

from typing import Final, NamedTuple

import polars as pl

from tilth.schemas import PL_MESSAGES
from tilth.transforms.judging.aggregate import by_panel
from tilth.transforms.judging.items import items
from tilth.transforms.judging.protocol import Protocol
from tilth.transforms.judging.tournament import PLAYED, Round, first_round, next_round, played
from tilth.transforms.judging.votes import votes_of

VERDICTS_OF_MATCHES: Final = pl.Schema(
    {
        "match_id": pl.String,
        "verdict": pl.String,  # of the match's first side
        "first_score": pl.Float64,
        "second_score": pl.Float64,
        "judgment_ids": pl.List(pl.String),
    }
)


class Bracket(NamedTuple):
    """The round that is to be judged now, and what came of all before it (`PLAYED`, `VERDICTS_OF_MATCHES`)."""

    now: Round
    results: pl.DataFrame
    verdicts: pl.DataFrame


def bracket(responses: pl.DataFrame, judgments: pl.DataFrame, protocol: Protocol) -> Bracket:
    """Plays all rounds that have been judged again. A round counts as judged when one of its matches has a judgment.

    Whatever rule the protocol sums up by, a side plays on by merit only where it won in both orders.

    Args:
        responses: `id` and `prompt_id` of the replies that take part.
        judgments: rows of the table, of all rounds so far, in any order.
        protocol: how they were judged.
    """
    now = first_round(responses.select("prompt_id", response_id="id"), protocol.seed)
    results, verdicts = [pl.DataFrame(schema=PLAYED)], [pl.DataFrame(schema=VERDICTS_OF_MATCHES)]
    while now.matches.height:
        said = verdicts_of(now.matches, judgments, protocol)
        if said.is_empty():
            break
        results.append(played(now, said))
        verdicts.append(said)
        now = next_round(now, results[-1])
    return Bracket(now, pl.concat(results), pl.concat(verdicts))


def verdicts_of(matches: pl.DataFrame, judgments: pl.DataFrame, protocol: Protocol) -> pl.DataFrame:
    """`VERDICTS_OF_MATCHES` of those `MATCHES` that were judged, found by the two replies alone."""
    sides = judgments.select(
        "item_id",
        first_id=pl.col("response_ids").list.get(0, null_on_oob=True),
        second_id=pl.col("response_ids").list.get(1, null_on_oob=True),
    ).unique("item_id", keep="any")
    asked = matches.join(sides, on=["first_id", "second_id"])
    about = judgments.join(asked, on="item_id", how="semi")
    panel = by_panel(votes_of(about), protocol.aggregation.strict, protocol.weights)
    ids = about.group_by("item_id").agg(judgment_ids=pl.col("id").sort())
    told = asked.join(panel, on="item_id").join(ids, on="item_id")
    named = told.rename({"score_a": "first_score", "score_b": "second_score"})
    return named.select(pl.col(name).cast(kind) for name, kind in VERDICTS_OF_MATCHES.items()).sort(
        "match_id"
    )


def match_items(matches: pl.DataFrame, responses: pl.DataFrame) -> pl.DataFrame:
    """`ITEMS` of `MATCHES`: the first side first."""
    about = responses.select("id", "completion", "prompt", "conversation_id", "split")
    both = matches.join(about, left_on="first_id", right_on="id").join(
        about.select("id", "completion"), left_on="second_id", right_on="id", suffix="_other"
    )
    replies = [list(pair) for pair in both.select("completion", "completion_other").iter_rows()]
    return items(
        both.with_columns(
            pl.Series("replies", replies, dtype=pl.List(PL_MESSAGES)),
            response_ids=pl.concat_list("first_id", "second_id"),
            checklist=pl.lit([], pl.List(pl.String)),
        )
    )
