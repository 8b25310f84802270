"""Chooses how a run is conducted: as a Prefect flow when a Prefect API is configured, else directly, and says so."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any  # Any: settings as the command line holds them

from tilth.flows.progress import Bars
from tilth.flows.settings import load


def launch(
    recipe: str, config: str | None, options: Mapping[str, Any], sets: Sequence[str], *, quiet: bool = False
) -> dict[str, Any]:
    """Runs a recipe and returns its result as plain values.

    With `PREFECT_API_URL` in the environment the run is a flow run of that server. Without it the same steps run here:
    Prefect would start a temporary server first, which takes 13 to 22 s and remembers nothing.
    """
    settings = load(config, options, sets)
    if os.environ.get("PREFECT_API_URL"):
        from tilth.flows.prefect_run import recipe_flow

        return recipe_flow(recipe, config, options, list(sets))
    from tilth.flows.conductor import Conductor
    from tilth.flows.run import run

    if not quiet:
        sys.stderr.write(
            "running directly; set PREFECT_API_URL to make this a flow run of a Prefect server\n"
        )
    with Bars(enabled=not quiet) as bars:
        return run(recipe, settings, Conductor(bars.update)).to_dict()


def preview(
    recipe: str, config: str | None, options: Mapping[str, Any], sets: Sequence[str], *, quiet: bool = False
) -> dict[str, Any]:
    """What a run of a recipe would read, ask and spend. Asks nothing."""
    from tilth.flows.conductor import Conductor
    from tilth.flows.preview import preview as look

    with Bars(enabled=not quiet) as bars:
        return look(recipe, load(config, options, sets), Conductor(bars.update))


def launch_ask(
    errand: Mapping[str, Any],
    config: str | None,
    options: Mapping[str, Any],
    sets: Sequence[str],
    *,
    quiet: bool = False,
) -> dict[str, Any]:
    """Runs `tilth ask` here and returns its result, or its forecast, as plain values."""
    from tilth.flows.ask import Errand, ask
    from tilth.flows.conductor import Conductor

    settings = load(config, options, sets)
    with Bars(enabled=not quiet) as bars:
        return ask(settings, Errand(**errand), Conductor(bars.update)).to_dict()
