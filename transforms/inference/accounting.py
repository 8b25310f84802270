"""What a run used: in this sitting, and over all of its sittings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any  # Any: JSON values

import fsspec

from tilth.schemas import fingerprint
from tilth.transforms.inference.usage import Prices, Usage
from tilth.transforms.parts import write_bytes

_COUNTS = tuple(one.name for one in fields(Usage))


@dataclass(frozen=True, slots=True)
class Accounting:
    """What was used, as plain values. Costs are null where no prices are set."""

    model: str  # what answers are known by: model, revision, and what else changes them
    sitting: Mapping[str, Any]  # counts, tokens_per_s, mean_in_flight, seconds, cost
    run: Mapping[str, Any]  # counts and cost since the run began

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self)

    def properties(self) -> dict[str, str]:
        """What a catalog version carries of it."""
        return {"tilth.usage": json.dumps(self.to_dict(), sort_keys=True)}


def account(model: str, told: Sequence[Mapping[str, Any]], spent: Usage, prices: Prices) -> Accounting:
    """The accounting of a run from what the lanes told in this sitting and what the run's account holds."""
    used = used_of(told)
    seconds = max((note["seconds"] for note in told), default=0.0)
    flow = {
        "seconds": round(seconds, 3),
        "tokens_per_s": round(tokens_per_s(used, seconds), 1),
        "mean_in_flight": round(sum(note["mean_in_flight"] for note in told), 1),
    }
    return Accounting(model, {**_counted(used, prices), **flow}, _counted(spent, prices))


def used_of(told: Sequence[Mapping[str, Any]]) -> Usage:
    """What the lanes used together, from what they told."""
    used = Usage()
    for note in told:
        used.add(Usage(**{name: note[name] for name in _COUNTS}))
    return used


def tokens_per_s(used: Usage, seconds: float) -> float:
    """Prompt and completion tokens per second; 0.0 when nothing was measured."""
    return (used.prompt_tokens + used.completion_tokens) / seconds if seconds else 0.0


def priced(prices: Prices) -> bool:
    """Whether prices are set."""
    return bool(prices.prompt or prices.completion)


def _counted(used: Usage, prices: Prices) -> dict[str, Any]:
    cost = prices.cost(used.prompt_tokens, used.completion_tokens) if priced(prices) else None
    return {**asdict(used), "cost": None if cost is None else round(cost, 6)}


# Measured rates


def remember_rate(workspace: str, accounting: Accounting) -> None:
    """Keeps how fast the model was in this sitting; a sitting without a call says nothing."""
    if accounting.sitting["calls"] and accounting.sitting["tokens_per_s"]:
        kept = {name: accounting.sitting[name] for name in ("tokens_per_s", "seconds", "calls")}
        data = json.dumps({"model": accounting.model, **kept}, sort_keys=True)
        write_bytes(data.encode(), _rate_uri(workspace, accounting.model))


def measured_rate(workspace: str, model: str) -> float | None:
    """Tokens per second of the last sitting with this model in this workspace; null when there was none."""
    fs, path = fsspec.core.url_to_fs(_rate_uri(workspace, model))
    return float(json.loads(fs.cat_file(path))["tokens_per_s"]) if fs.exists(path) else None


def _rate_uri(workspace: str, model: str) -> str:
    return f"{workspace}/rates/{fingerprint(model)}.json"
