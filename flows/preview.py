"""What `tilth run --dry-run` says: what would be read, whom it would ask how often, and what that may cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any  # Any: JSON values

from tilth.catalog import open_catalog
from tilth.flows.conductor import Conductor
from tilth.flows.run import Job, job_of, session_of
from tilth.flows.settings import Settings
from tilth.pipelines.planned import Planned
from tilth.transforms.inference.accounting import measured_rate, priced
from tilth.transforms.inference.cache import CompletionCache, if_there
from tilth.transforms.inference.forecast import forecast, known_of
from tilth.transforms.inference.requests import Request, to_requests
from tilth.transforms.parts import Shard, read_part

_CHARS_PER_TOKEN = 4.0  # for estimates; of English text and most tokenizers about right


def preview(recipe: str, settings: Settings, conductor: Conductor) -> dict[str, Any]:
    """What a run would read and ask. Asks nothing.

    Of a recipe without models nothing is run. One with models runs its steps without a model first, which the run
    itself then finds done; what they would ask is exact, and what depends on answers is an estimate.
    """
    job = job_of(recipe, settings)
    asked = list(_asked(job, settings, conductor)) if job.models else []
    return {
        "recipe": recipe,
        "run_id": job.run_id,
        "status": "forecast",
        "sources": list(job.origin.sources),
        "asked": asked,
        "calls": sum(one["calls"] for one in asked),
        "prompt_tokens": sum(one["prompt_tokens"] for one in asked),
        "completion_tokens_most": sum(one["completion_tokens_most"] for one in asked),
        **_costs(asked, settings),
        "model": settings.engine.model if job.models else None,
    }


def _costs(asked: Sequence[Mapping[str, Any]], settings: Settings) -> dict[str, Any]:
    prices = settings.price_list()
    prompts = sum(one["prompt_tokens"] for one in asked)
    answers = sum(one["completion_tokens_most"] for one in asked)
    cost = round(prices.cost(prompts, answers), 6) if priced(prices) else None
    return {"cost_most": cost, "stops_at": _stops_at(asked, settings, prompts + answers, cost)}


def _stops_at(
    asked: Sequence[Mapping[str, Any]], settings: Settings, tokens: int, cost: float | None
) -> str | None:
    """The first cap that the run would reach, where every answer is as long as it may be."""
    caps = settings.limits()
    amounts = {"max_calls": sum(one["calls"] for one in asked), "max_tokens": tokens, "max_cost": cost or 0.0}
    over = (
        name for name, amount in amounts.items() if (cap := getattr(caps, name)) is not None and amount > cap
    )
    return next(("--" + name.replace("_", "-") for name in over), None)


def _asked(job: Job, settings: Settings, conductor: Conductor) -> Iterator[dict[str, Any]]:
    sitting = session_of(job, settings, conductor, open_catalog(job.workspace))
    with sitting as session, if_there(settings.answers_url()) as cache:
        found = job.recipe.planned(
            job.origin.given, job.logs, job.config, session.means, settings.max_quarantine_share
        )
        for one in found:
            known = bool(one.requests) or not one.calls
            yield _counted(one, job, settings, cache) if known else _estimated(one, job)


def _counted(one: Planned, job: Job, settings: Settings, cache: CompletionCache | None) -> dict[str, Any]:
    from tilth.transforms.inference.tokens import counter  # loads tokenizers

    engine, identity = settings.role(one.role), job.models[one.role]
    rate = measured_rate(job.workspace, identity)
    known = known_of(cache, job.run_id, identity, settings.price_list(), settings.limits(), rate)
    hits = cache.get_many if cache else lambda _: ()
    seen = forecast(map(_requests, one.requests), known, counter(engine.model, engine.revision), hits)
    return {
        "purpose": one.purpose,
        "model": identity,
        "calls": seen.calls,
        "known": "exact",
        "prompt_tokens": seen.prompt_tokens,
        "completion_tokens_most": seen.completion_tokens_most,
    }


def _requests(shard: Shard) -> list[Request]:
    return to_requests(read_part(shard))


def _estimated(one: Planned, job: Job) -> dict[str, Any]:
    return {
        "purpose": one.purpose,
        "model": job.models[one.role],
        "calls": one.calls,
        "known": "estimate",
        "prompt_tokens": round(one.calls * one.prompt_chars / _CHARS_PER_TOKEN),
        "completion_tokens_most": one.calls * one.answer_tokens,
    }
