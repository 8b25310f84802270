"""Single-elimination tournaments over the replies to a prompt: n - 1 comparisons instead of all of them.

Varco Arena (arXiv 2411.01281). A round is judged like any other pairs, so the bracket is a state between rounds:
`first_round`, then `played` with the verdicts and `next_round`, until no match is left. `elo` ranks contestants by all
matches of all prompts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, NamedTuple  # Any: arrays of numpy

import polars as pl

from tilth.schemas import BadInput, ConfigError, content_ids
from tilth.schemas.labels import VERDICTS
from tilth.transforms.hygiene.hashing import mixed, text_hashes
from tilth.transforms.judging.rewards import once

MATCHES: Final = pl.Schema(
    {
        "match_id": pl.String,  # the same for both orders of its sides
        "prompt_id": pl.String,
        "round": pl.Int32,  # 1 is the first
        "seat": pl.Int32,
        "first_id": pl.String,
        "second_id": pl.String,
    }
)
PLAYED: Final = pl.Schema(
    {
        **MATCHES,
        "verdict": pl.String,  # of the first: win | loss | tie | inconsistent | failed
        "winner_id": pl.String,  # null where the verdict names none
        "advanced_id": pl.String,  # who plays on: the winner, else whom the lot falls on
    }
)
ELO: Final = pl.Schema(
    {
        "contestant": pl.String,
        "elo": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "matches": pl.Int64,  # with a winner
        "wins": pl.Int64,
    }
)
_SIDES: Final = ("first_id", "second_id")


class Round(NamedTuple):
    """One round of all prompts' brackets: `MATCHES`, and who waits (`prompt_id`, `response_id`) without one."""

    number: int
    seed: int
    matches: pl.DataFrame
    waiting: pl.DataFrame


def first_round(entries: pl.DataFrame, seed: int) -> Round:
    """The first round over `entries` (`prompt_id`, `response_id`); each prompt's replies are shuffled by their ids.

    In a round of an odd number one reply waits; it plays in the next. M replies play M - 1 matches in all.
    """
    known = entries.select("prompt_id", "response_id").unique()
    lots = _lots(known, "response_id", "seats", seed)
    drawn = known.with_columns(lots).sort("prompt_id", "lot", "response_id")
    return _paired(drawn.select("prompt_id", "response_id"), 1, seed)


def played(this: Round, verdicts: pl.DataFrame) -> pl.DataFrame:
    """`PLAYED`: the matches of a round with what came of them.

    Varco Arena's judge knows no ties. Here a tie, an inconsistent or a failed verdict, and a match without one (counted
    as failed), has no winner: one side plays on by lot, but nothing is said of which is better, so the match counts
    neither in ratings nor in pairs. The lot follows from the seed and the ids alone.

    Args:
        this: the round.
        verdicts: `match_id`, `verdict` of the match's first side; those of other matches count nowhere.

    Raises:
        BadInput: for an unknown verdict, and for two of one match.
    """
    strange = verdicts.filter(~pl.col("verdict").is_in(VERDICTS).fill_null(value=False)).height
    if strange:
        raise BadInput("verdicts of matches", found=f"{strange} others", wanted=", ".join(VERDICTS))
    said = once(verdicts.select("match_id", "verdict"), ["match_id"])
    joined = this.matches.join(said, on="match_id", how="left", maintain_order="left")
    first, second = (_lots(joined, side, f"round {this.number}", this.seed) for side in _SIDES)
    verdict = pl.col("verdict").fill_null("failed")
    winner = pl.when(verdict == "win").then("first_id").when(verdict == "loss").then("second_id")
    by_lot = pl.when(first <= second).then("first_id").otherwise("second_id")
    decided = joined.with_columns(verdict=verdict, winner_id=winner)
    return decided.with_columns(advanced_id=pl.coalesce("winner_id", by_lot)).select(PLAYED.names())


def next_round(this: Round, results: pl.DataFrame) -> Round:
    """The round after `this`; it has no matches when every prompt has its champion, who then is among the waiting.

    Args:
        this: the round that was played.
        results: what `played` says of it.
    """
    advanced = results.sort("prompt_id", "seat").select("prompt_id", response_id="advanced_id")
    # Who waited stands first, so that nobody waits twice in a row.
    return _paired(pl.concat([this.waiting, advanced]), this.number + 1, this.seed)


def better_and_worse(results: pl.DataFrame) -> pl.DataFrame:
    """`match_id`, `prompt_id`, `chosen_id`, `rejected_id` of each match (`PLAYED`) that has a winner."""
    decided = results.filter(pl.col("winner_id").is_not_null())
    loser = pl.when(pl.col("winner_id") == pl.col("first_id")).then("second_id").otherwise("first_id")
    return decided.select("match_id", "prompt_id", chosen_id="winner_id", rejected_id=loser)


def champions(this: Round, results: pl.DataFrame) -> pl.DataFrame:
    """`prompt_id`, `response_id`, `by_lot` of who won the last round: the best of n as the tournament sees it.

    `by_lot` is whether some match on its way, among all `results` (`PLAYED`), was settled by lot.
    """
    lots = results.filter(pl.col("winner_id").is_null()).select("prompt_id", response_id="advanced_id")
    lucky = lots.unique().with_columns(by_lot=True)
    joined = this.waiting.join(lucky, on=["prompt_id", "response_id"], how="left", maintain_order="left")
    return joined.with_columns(pl.col("by_lot").fill_null(value=False))


def contests(results: pl.DataFrame, contestants: pl.DataFrame) -> pl.DataFrame:
    """`prompt_id`, `winner`, `loser` of each decided match (`PLAYED`), as contestants; none against itself.

    Args:
        results: what `played` says, of all rounds.
        contestants: `response_id`, `contestant` (the model that wrote it).
    """
    known = once(contestants.select("response_id", "contestant"), ["response_id"])
    decided = better_and_worse(results)
    named = decided.join(known.rename({"contestant": "winner"}), left_on="chosen_id", right_on="response_id")
    both = named.join(known.rename({"contestant": "loser"}), left_on="rejected_id", right_on="response_id")
    apart = both.filter(pl.col("winner") != pl.col("loser"))
    return apart.select("prompt_id", "winner", "loser").sort("prompt_id", "winner", "loser")


@dataclass(frozen=True, slots=True)
class EloFit:
    """How ratings are fitted.

    Args:
        prior: standard deviation, in points, of the normal prior on each rating. It keeps one who never lost finite.
        resamples: bootstrap samples of prompts behind an interval.
        level: of the interval.
        seed: draws the samples.
    """

    prior: float = 400.0
    resamples: int = 200
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.prior < math.inf and self.resamples >= 1 and 0 < self.level < 1):
            found = f"prior={self.prior}, resamples={self.resamples}, level={self.level}"
            raise ConfigError("how Elo ratings are fitted", found=found, wanted="above 0; 1 or more; 0 to 1")


def elo(games: pl.DataFrame, fit: EloFit) -> pl.DataFrame:
    """`ELO`, the best first: maximum a posteriori of Bradley-Terry, P(a > b) = 1 / (1 + 10^((b - a) / 400)), mean 1000.

    Intervals are percentiles over bootstrap samples of prompts, because matches of one prompt are not independent. Only
    differences mean something. In a tournament the weak play rarely, so their intervals are wide.

    Args:
        games: `prompt_id`, `winner`, `loser`.
        fit: prior and bootstrap.
    """
    import numpy as np

    rows = games.sort("prompt_id", "winner", "loser")
    names = pl.concat([rows.get_column("winner"), rows.get_column("loser")]).unique().sort()
    if len(names) < 2:
        raise BadInput("matches to rate", found=f"{len(names)} contestants", wanted="two or more")
    places = pl.int_range(len(names), eager=True)
    sides = [rows.get_column(side).replace_strict(names, places).to_numpy() for side in ("winner", "loser")]
    prompt = (rows.get_column("prompt_id").rle_id()).to_numpy()
    cells, prompts = sides[0] * len(names) + sides[1], int(prompt[-1]) + 1
    rng = np.random.default_rng(fit.seed)
    drawn = (
        np.bincount(rng.integers(prompts, size=prompts), minlength=prompts) for _ in range(fit.resamples)
    )
    points = _bradley_terry(cells, np.ones(len(cells)), len(names), fit.prior)
    samples = [_bradley_terry(cells, counts[prompt], len(names), fit.prior) for counts in drawn]
    low, high = np.quantile(samples, [(1 - fit.level) / 2, (1 + fit.level) / 2], axis=0)
    wins, losses = (np.bincount(side, minlength=len(names)) for side in sides)
    values = (names, points, low, high, wins + losses, wins)
    table = pl.DataFrame(dict(zip(ELO.names(), values, strict=True)), schema=ELO)
    return table.sort("elo", "contestant", descending=[True, False])


def _bradley_terry(cells: Any, weights: Any, count: int, prior: float) -> Any:
    """Ratings by contestant; `cells` are winner * count + loser. A logistic regression on who played whom."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    won = np.bincount(cells, weights=weights, minlength=count * count)
    (used,) = np.nonzero(won)
    design = np.zeros((len(used), count))
    each = np.arange(len(used))
    design[each, used // count], design[each, used % count] = 1.0, -1.0
    scale = 400 / math.log(10)
    model = LogisticRegression(C=(prior / scale) ** 2, fit_intercept=False, max_iter=1000, tol=1e-8)
    # Each match from both sides at half its weight: the same likelihood, and both classes are there.
    both, half = np.vstack([design, -design]), np.tile(won[used] / 2, 2)
    model.fit(both, np.repeat([1, 0], len(used)), sample_weight=half)
    strengths = model.coef_[0] * scale
    return strengths - strengths.mean() + 1000


def _paired(standing: pl.DataFrame, number: int, seed: int) -> Round:
    """Neighbours in the order of rows play each other; the last of an odd number waits."""
    place = pl.int_range(pl.len(), dtype=pl.Int32).over("prompt_id")
    seated = standing.with_columns(seat=place // 2, side=place % 2)
    first, second = (seated.filter(pl.col("side") == side).drop("side") for side in (0, 1))
    both = first.join(second, on=["prompt_id", "seat"], how="left", suffix="_other", maintain_order="left")
    alone = pl.col("response_id_other").is_null()
    names = {"first_id": "response_id", "second_id": "response_id_other"}
    pairs = both.filter(~alone).select("prompt_id", "seat", **names)
    low, high = pl.min_horizontal(*_SIDES), pl.max_horizontal(*_SIDES)
    ids = content_ids(pairs, "matches", [pl.col("prompt_id"), low, high]).alias("match_id")
    matches = pairs.with_columns(ids, round=pl.lit(number, pl.Int32)).select(MATCHES.names())
    return Round(number, seed, matches, both.filter(alone).select("prompt_id", "response_id"))


def _lots(rows: pl.DataFrame, column: str, purpose: str, seed: int) -> pl.Series:
    """A number per row, `lot`, from the ids of prompt and reply and what it is drawn for, never from the place."""
    text = pl.concat_str([pl.lit(purpose), pl.col("prompt_id"), pl.col(column)], separator="\0")
    return mixed(text_hashes(rows.select(lot=text).get_column("lot")), seed)
