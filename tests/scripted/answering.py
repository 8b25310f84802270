"""From a frame of requests to a frame of completions, and what could not be answered."""

from __future__ import annotations

from typing import Final, NamedTuple

import orjson
import polars as pl

from loopback.sensible import Habits, Question, sensible_answer
from tilth.schemas import Reason
from tilth.transforms.inference.calling import Patience
from tilth.transforms.inference.render import FAILED
from tilth.transforms.inference.requests import Completion, Request, to_frame, to_requests
from tilth.transforms.inference.structured import Misfit, ask_again, fitted

HONEST: Final = Habits()


class Answered(NamedTuple):
    """`completions` (`COMPLETIONS`), and `failed` (`FAILED`) for requests whose answers never fitted."""

    completions: pl.DataFrame
    failed: pl.DataFrame


def answered(requests: pl.DataFrame, habits: Habits = HONEST, model: str = "scripted") -> Answered:
    """What a sensible model says to each of `REQUESTS`. Raises `AssertionError` for one it does not understand."""
    said = {request.id: _said(request, habits, model) for request in to_requests(requests)}
    fits = {id_: completion for id_, completion in said.items() if completion is not None}
    lost = [(id_, Reason.MALFORMED_OUTPUT.value, "scripted") for id_ in said if id_ not in fits]
    completions = to_frame(list(fits), list(fits.values()), f"{model}@1")
    return Answered(completions, pl.DataFrame(lost, schema=FAILED, orient="row"))


def _said(request: Request, habits: Habits, model: str) -> Completion | None:
    asked = request
    for attempt in range(1, Patience().reasks + 2):
        completion = _once(asked, habits, model)
        try:
            return fitted(request, completion)
        except Misfit as misfit:
            asked = ask_again(request, completion, misfit, attempt)
    return None


def _once(request: Request, habits: Habits, model: str) -> Completion:
    schema = None if request.schema is None else orjson.loads(request.schema)
    text = sensible_answer(Question(request.messages, model, request.sampling.seed, schema), habits)
    assert text is not None, "the script does not know what is asked"
    return Completion(text, "stop", 10, 10)
