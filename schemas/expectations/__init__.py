"""Which counts are allowed: one suite of expectations per table, kept as YAML beside this file.

An expectation applies a stock Great Expectations type to one metric of `tilth.schemas.contracts` and says in
a sentence why. `critical` blocks the commit; `warning` asks to be looked at; `info` is worth knowing. A drift rule
says how far a metric may be from what it was in another version. A user's own suites, in a folder of files with the
same names and form, add to ours and replace entries about the same metric; they make no critical one weaker.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeVar  # Any: what a YAML file holds

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tilth.schemas.across import metric_names
from tilth.schemas.contracts import CONTRACTS
from tilth.schemas.errors import ConfigError
from tilth.schemas.tables import TABLES

Severity = Literal["critical", "warning", "info"]
BETWEEN: Final = "expect_column_values_to_be_between"
OF_RUNS: Final = ("quarantined_share",)
"""What versions say of themselves, for drift rules of `conversations`: the share of source rows set aside."""


class Expectation(BaseModel):
    """One claim about one metric of a table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str
    type: str = Field(
        default=BETWEEN, pattern="^expect_column_"
    )  # looked up among the stock ones when judged
    kwargs: dict[str, float | int | list[float]]
    severity: Severity
    why: str = Field(min_length=20)

    @property
    def wanted(self) -> str:
        """The bounds in words.

        >>> Expectation(metric="rows", type="expect_column_values_to_be_between", kwargs={"max_value": 0},
        ...             severity="info", why="there is a reason for it").wanted
        'at most 0'
        """
        low, high = self.kwargs.get("min_value"), self.kwargs.get("max_value")
        match low, high:
            case None, None:
                return ", ".join(f"{name}={value}" for name, value in self.kwargs.items())
            case None, _:
                return f"at most {high}"
            case _, None:
                return f"at least {low}"
            case _:
                return f"from {low} to {high}"


class DriftRule(BaseModel):
    """How far one metric may be from what it was.

    Exactly one bound: `max_absolute` (difference), `max_relative` (difference over what it was), `max_loss` (the same,
    only downwards), `max_psi` (population stability index over the bins of a histogram, which `metric` then names).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str
    max_absolute: float | None = Field(default=None, ge=0)
    max_relative: float | None = Field(default=None, ge=0)
    max_loss: float | None = Field(default=None, ge=0, le=1)
    max_psi: float | None = Field(default=None, ge=0)
    severity: Severity
    why: str = Field(min_length=10)

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if len(self._bounds()) != 1:
            raise ValueError("exactly one of max_absolute, max_relative, max_loss, max_psi")
        return self

    def _bounds(self) -> dict[str, float]:
        names = ("max_absolute", "max_relative", "max_loss", "max_psi")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def kind(self) -> str:
        """Which bound it is, without `max_`."""
        return next(iter(self._bounds())).removeprefix("max_")

    @property
    def allowed(self) -> float:
        """The bound."""
        return next(iter(self._bounds().values()))


Entry = TypeVar("Entry", Expectation, DriftRule)


class Suite(BaseModel):
    """The expectations on one table.

    `metrics` are a user's own: a name, and one SELECT over the view `rows` that gives one number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str
    expectations: tuple[Expectation, ...] = Field(min_length=1)
    drift: tuple[DriftRule, ...] = ()
    metrics: Mapping[str, str] = Field(default_factory=dict)


class _OwnSuite(Suite):
    table: str = ""
    expectations: tuple[Expectation, ...] = ()


def load_suite(table: str, own: str | None = None) -> Suite:
    """The suite of `table`, with what `<own>/<table>.yaml` says where `own` is a folder that has it.

    Raises `ConfigError`, naming file and entry, for a user's suite that is malformed, is about an unknown table or
    metric, speaks twice of one, or makes a critical expectation weaker.
    """
    ours = _ours(table)
    if own is None:
        return ours
    folder = Path(own)
    _check_names(folder)
    path = folder / f"{table}.yaml"
    return _joined(ours, _read(path, table), path) if path.exists() else ours


@cache
def _ours(table: str) -> Suite:
    import yaml

    text = files(__name__).joinpath(f"{table}.yaml").read_text(encoding="utf-8")
    return Suite.model_validate(yaml.safe_load(text))


def _check_names(folder: Path) -> None:
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        if path.stem not in TABLES or path.suffix != ".yaml":
            do = _nearest(path.stem, TABLES)
            raise ConfigError(
                f"the suite {path}", found=path.name, wanted="the name of a table and .yaml", do=do
            )


def _nearest(name: str, known: Iterable[str]) -> str | None:
    near = difflib.get_close_matches(name, list(known), n=3)
    return f"perhaps {', '.join(near)}" if near else "see docs/reference/checks.md"


def _read(path: Path, table: str) -> Suite:
    import yaml

    try:
        raw: Any = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        found = f"line {mark.line + 1}" if mark else "no YAML"
        raise ConfigError(f"the suite {path} is no YAML", found=found, do="mend it there") from None
    try:
        suite = _OwnSuite.model_validate({"table": table, **raw} if isinstance(raw, dict) else raw)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        entry = ".".join(str(step) for step in first["loc"]) or "the file"
        raise ConfigError(
            f"the suite {path}, entry {_named(raw, first['loc'])}",
            found=f"{entry}: {first['msg']}",
            do="see docs/how-to/checks.md",
        ) from None
    if suite.table != table:
        raise ConfigError(
            f"the suite {path}, entry table",
            found=suite.table,
            wanted=table,
            do="change it, or move the file",
        )
    return suite


def _named(raw: Any, loc: tuple[int | str, ...]) -> str:
    """The metric that an entry is about, else its place."""
    match raw, loc:
        case dict(), (str(section), int(at), *_):
            entry = raw[section][at]
            return str(entry.get("metric", at)) if isinstance(entry, dict) else str(at)
        case _:
            return str(loc[0]) if loc else "the file"


def _joined(ours: Suite, own: Suite, path: Path) -> Suite:
    known, bins = metric_names(ours.table), CONTRACTS[ours.table].bins
    for name in own.metrics:
        if name in known or not name.isidentifier():
            wanted = "a name of its own: letters, digits, underscores"
            raise ConfigError(f"the suite {path}, entry metrics.{name}", found=name, wanted=wanted)
    for entries in (own.expectations, own.drift):
        twice = [name for name, count in Counter(entry.metric for entry in entries).items() if count > 1]
        if twice:
            do = "join its entries"
            raise ConfigError(f"the suite {path}, entry {twice[0]}", found="two of it", wanted="one", do=do)
    for claim in own.expectations:
        _refuse_unknown(claim.metric, {*known, *own.metrics}, path)
        _refuse_weaker(claim, ours, path)
    for rule in own.drift:
        _refuse_unknown(rule.metric, bins if rule.kind == "psi" else {*known, *own.metrics, *OF_RUNS}, path)
    return Suite(
        table=ours.table,
        expectations=_replaced(ours.expectations, own.expectations),
        drift=_replaced(ours.drift, own.drift),
        metrics=own.metrics,
    )


def _refuse_unknown(metric: str, known: Iterable[str], path: Path) -> None:
    if metric not in known:
        what = f"the suite {path}, entry {metric}"
        raise ConfigError(what, found="no such metric", do=_nearest(metric, known))


def _refuse_weaker(claim: Expectation, ours: Suite, path: Path) -> None:
    """A critical claim of ours may get tighter bounds; what is let through otherwise would be a wrong label."""
    strict = [one for one in ours.expectations if one.metric == claim.metric and one.severity == "critical"]
    if not strict or (claim.severity == "critical" and _holds_whenever(strict[0], claim)):
        return
    raise ConfigError(
        f"the suite {path}, entry {claim.metric}",
        found=f"{claim.wanted} ({claim.severity})",
        wanted=f"{strict[0].wanted} or less room, critical",
        do="leave the entry out: only warnings and infos can be loosened",
    )


def _holds_whenever(ours: Expectation, own: Expectation) -> bool:
    """Whether what `own` lets through `ours` lets through too."""
    if own.type != ours.type or ours.type != BETWEEN:
        return own == ours
    (low, high), (own_low, own_high) = _bounds(ours), _bounds(own)
    return own_low >= low and own_high <= high


def _bounds(claim: Expectation) -> tuple[float, float]:
    low, high = claim.kwargs.get("min_value", -math.inf), claim.kwargs.get("max_value", math.inf)
    return (
        (low, high)
        if isinstance(low, int | float) and isinstance(high, int | float)
        else (math.nan, math.nan)
    )


def _replaced(ours: tuple[Entry, ...], own: tuple[Entry, ...]) -> tuple[Entry, ...]:
    named = {entry.metric for entry in own}
    return (*(entry for entry in ours if entry.metric not in named), *own)
