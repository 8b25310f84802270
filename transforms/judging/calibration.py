"""From how sure judges seem to how often people agree: learned on a gold slice, measured on items it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import polars as pl

from tilth.schemas import BadInput, ConfigError
from tilth.transforms.inference.sampling import seed_for

Method = Literal["isotonic", "platt"]
Fitted = Callable[[np.ndarray], np.ndarray]

_BINS: Final = 10
_POINTS: Final = 65  # of the curve that is kept of a logistic map
_CERTAIN: Final = 30.0  # of log-odds: beyond it a logistic function is 0 or 1 in 13 digits


@dataclass(frozen=True, slots=True)
class Bin:
    """Verdicts whose probability lies in one tenth of [0, 1]: how many, what was said on average, how often it held."""

    n: int
    said: float
    held: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """How probable it is that people agree with a verdict, as a map from how sure the judges seem.

    Args:
        method: `isotonic` (steps that never fall) or `platt` (a logistic curve).
        signal: what the map reads: `margin` (of mean scores, without its sign) or `share` (of votes for the verdict).
        n: gold items behind it.
        curve: the map, fitted on all of them: (signal, probability), rising signals; straight between, flat outside.
        brier_before: mean squared error of the votes' own share as a probability.
        brier_after: of the map, on folds of items that it was not fitted on.
        ece_before: expected calibration error over ten bins of equal width: mean |said - held|, by size of bin.
        ece_after: the same of the map, on folds it was not fitted on.
        before: the bins of the votes' share, those with items in them.
        after: the bins of the map.
    """

    method: Method
    signal: str
    n: int
    curve: tuple[tuple[float, float], ...]
    brier_before: float
    brier_after: float
    ece_before: float
    ece_after: float
    before: tuple[Bin, ...]
    after: tuple[Bin, ...]

    def probability(self, signals: Sequence[float]) -> list[float]:
        """How probable it is that people agree, for each signal of a verdict.

        >>> made = Calibration("platt", "margin", 50, ((0.0, 0.5), (4.0, 0.9)), 0, 0, 0, 0, (), ())
        >>> [round(p, 2) for p in made.probability([2, 9])]
        [0.7, 0.9]
        """
        at, value = zip(*self.curve, strict=True)
        return np.interp(np.asarray(signals, dtype=float), at, value).tolist()


def calibrate(
    verdicts: pl.DataFrame,
    gold: pl.DataFrame,
    method: Method = "isotonic",
    *,
    folds: int = 5,
    at_least: int = 50,
    seed: int = 0,
) -> Calibration:
    """Learns from gold how probable it is that people agree with a verdict.

    Only wins and losses are calibrated; a gold tie does not agree with either. Folds are drawn per item, so that the
    order of rows changes nothing, and a verdict and its mirror image have the same probability.

    Args:
        verdicts: `VERDICTS`.
        gold: `item_id`, `gold` (win, loss or tie of reply a), each item once.
        method: of the map; `platt` needs fewer items, `isotonic` assumes no shape.
        folds: of the cross-validation.
        at_least: fewer decided gold items than this are refused.
        seed: draws the folds.

    Raises `BadInput` for too few items, `ConfigError` for an unknown method.
    """
    if method not in ("isotonic", "platt"):
        raise ConfigError("a method of calibration", found=method, wanted="isotonic or platt")
    rows, signal = _rows(verdicts, gold)
    if rows.height < max(at_least, folds):
        raise BadInput(
            "gold for calibration",
            found=f"{rows.height} items with a gold label and a win or a loss of the judges",
            wanted=f"at least {max(at_least, folds)}",
            do="label more items (tilth review), or leave calibration out",
        )
    sure, share, agrees = (rows.get_column(name).to_numpy() for name in ("sure", "share", "agrees"))
    fold = np.array([seed_for(seed, item, 0) % folds for item in rows.get_column("item_id")])
    unseen = _cross_validated(sure, agrees, fold, method)
    return Calibration(
        method,
        signal,
        rows.height,
        _curve(sure, agrees, method),
        brier_before=_brier(share, agrees),
        brier_after=_brier(unseen, agrees),
        ece_before=_error(share, agrees),
        ece_after=_error(unseen, agrees),
        before=_bins(share, agrees),
        after=_bins(unseen, agrees),
    )


def _rows(verdicts: pl.DataFrame, gold: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Decided gold items: how sure the judges seem, the share of votes for the verdict, whether people agree."""
    decided = verdicts.filter(pl.col("verdict").is_in(("win", "loss")))
    known = gold.filter(pl.col("gold").is_not_null()).select("item_id", "gold")
    rows = decided.join(known, on="item_id", validate="1:1").sort("item_id")
    for_it = pl.when(pl.col("verdict") == "win").then("wins").otherwise("losses")
    share = (for_it + pl.col("ties") / 2) / pl.sum_horizontal("wins", "losses", "ties")
    signal = "share" if rows.get_column("margin").has_nulls() else "margin"
    sure = share if signal == "share" else pl.col("margin").abs()
    agrees = (pl.col("gold") == pl.col("verdict")).cast(pl.Float64)
    return rows.select("item_id", sure=sure, share=share, agrees=agrees), signal


def _cross_validated(sure: np.ndarray, agrees: np.ndarray, fold: np.ndarray, method: Method) -> np.ndarray:
    said = np.empty(len(sure))
    for one in np.unique(fold):
        rest = fold != one
        said[~rest] = _fit(sure[rest], agrees[rest], method)(sure[~rest]) if rest.any() else agrees.mean()
    return said


def _fit(sure: np.ndarray, agrees: np.ndarray, method: Method) -> Fitted:
    if agrees.min() == agrees.max():  # nothing to tell apart; a logistic fit would not even start
        return lambda signals: np.full(len(signals), agrees[0])
    if method == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        return IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(sure, agrees).predict
    return _logistic(sure, agrees)


def _logistic(sure: np.ndarray, agrees: np.ndarray) -> Fitted:
    from sklearn.linear_model import LogisticRegression

    # In units of its spread, so that the penalty means the same on every scale of scores.
    middle, spread = sure.mean(), sure.std() or 1.0
    model = LogisticRegression().fit(((sure - middle) / spread)[:, None], agrees)
    slope, at_middle = float(model.coef_[0, 0]), float(model.intercept_[0])

    def probability(signals: np.ndarray) -> np.ndarray:
        odds = np.clip(at_middle + slope * (signals - middle) / spread, -_CERTAIN, _CERTAIN)
        return 1 / (1 + np.exp(-odds))

    return probability


def _curve(sure: np.ndarray, agrees: np.ndarray, method: Method) -> tuple[tuple[float, float], ...]:
    at = np.unique(sure) if method == "isotonic" else np.linspace(sure.min(), sure.max(), _POINTS)
    values = _fit(sure, agrees, method)(at)
    bends = np.ones(len(at), dtype=bool)
    bends[1:-1] = (values[1:-1] != values[:-2]) | (
        values[1:-1] != values[2:]
    )  # the rest lies on flat stretches
    return tuple(zip(at[bends].tolist(), values[bends].tolist(), strict=True))


def _bins(said: np.ndarray, agrees: np.ndarray) -> tuple[Bin, ...]:
    place = np.minimum((said * _BINS).astype(int), _BINS - 1)
    groups = [place == n for n in range(_BINS)]
    return tuple(
        Bin(int(one.sum()), float(said[one].mean()), float(agrees[one].mean())) for one in groups if one.any()
    )


def _error(said: np.ndarray, agrees: np.ndarray) -> float:
    return sum(one.n * abs(one.said - one.held) for one in _bins(said, agrees)) / len(said)


def _brier(said: np.ndarray, agrees: np.ndarray) -> float:
    return float(((said - agrees) ** 2).mean())
