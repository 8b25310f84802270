"""Which counts are allowed: one suite of expectations per table, kept as YAML beside this file.

An expectation applies a stock Great Expectations type to one metric of `tilth.schemas.contracts` and says in
a sentence why. `critical` blocks the commit; `warning` asks to be looked at; `info` is worth knowing.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Severity = Literal["critical", "warning", "info"]


class Expectation(BaseModel):
    """One claim about one metric of a table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str
    type: str = Field(pattern="^expect_column_")  # looked up among the stock ones when judged
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


class Suite(BaseModel):
    """The expectations on one table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str
    expectations: tuple[Expectation, ...] = Field(min_length=1)


@cache
def load_suite(table: str) -> Suite:
    """The suite of `table`. Raises `FileNotFoundError` for none, `ValidationError` when malformed."""
    import yaml

    text = files(__name__).joinpath(f"{table}.yaml").read_text(encoding="utf-8")
    return Suite.model_validate(yaml.safe_load(text))
