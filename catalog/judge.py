"""Great Expectations, and nothing else of it: expectations on observed numbers in, verdicts out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tilth.schemas import TilthError
from tilth.schemas.expectations import Expectation, Suite

if TYPE_CHECKING:
    from great_expectations.data_context.data_context.ephemeral_data_context import EphemeralDataContext

Claim = tuple[Expectation, float | int | None]


def judge(claims: Sequence[Claim]) -> list[bool | None]:
    """Whether each expectation holds for its observed number, in order; null where nothing was observed.

    Raises `TilthError` when Great Expectations fails to judge at all.
    """
    verdicts: list[bool | None] = [None] * len(claims)
    observed = {str(place): number for place, (_, number) in enumerate(claims) if number is not None}
    if not observed:
        return verdicts
    # The import takes 3 to 6 s, and warns of what later Pythons deprecate (`sre_constants`).
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for result in _validate(observed, claims):
            config = result.expectation_config
            if result.exception_info.get("raised_exception", True):
                raise TilthError(
                    f"expectation {config.type} cannot be judged", do="mend its type or kwargs in the suite"
                )
            verdicts[int(config.kwargs["column"])] = bool(result.success)
    return verdicts


def as_gx(suite: Suite) -> dict[str, Any]:  # Any: JSON values
    """A suite as the JSON that `great_expectations.ExpectationSuite(**json)` loads.

    Its columns are our metrics: validate a frame of one row that has them as columns.
    """
    return {
        "name": f"tilth.{suite.table}",
        "meta": {"table": suite.table},
        "expectations": [
            {
                "type": claim.type,
                "kwargs": {"column": claim.metric, **claim.kwargs},
                "severity": claim.severity,
                "meta": {"why": claim.why},
            }
            for claim in suite.expectations
        ],
    }


def _validate(
    observed: dict[str, float | int], claims: Sequence[Claim]
) -> Sequence[Any]:  # Any: GX's result class
    import great_expectations as gx
    import pandas as pd

    context = _context()
    asset = context.data_sources.add_pandas("audit").add_dataframe_asset("metrics")
    # One column per claim, one row: GX sees numbers under ordinal names.
    frame = pd.DataFrame({column: [float(number)] for column, number in observed.items()})
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    suite = gx.ExpectationSuite(
        "audit",
        expectations=[
            _expectation(claim.type, {"column": column, "severity": claim.severity, **claim.kwargs})
            for column, claim in ((column, claims[int(column)][0]) for column in observed)
        ],
    )
    return batch.validate(suite, result_format="BOOLEAN_ONLY").results


def _expectation(kind: str, options: Mapping[str, Any]) -> Any:  # Any: GX's classes and their options
    from great_expectations.expectations.registry import get_expectation_impl

    return get_expectation_impl(kind)(**options)


def _context() -> EphemeralDataContext:
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    # Some of its loggers are set to INFO and tell of temporary folders, which Beam's logging set-up would show.
    logging.getLogger("great_expectations").propagate = False
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context
