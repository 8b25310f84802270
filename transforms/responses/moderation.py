"""The moderation hook: what is harmful in a prompt or a reply never becomes a pair.

WildFeedback (arXiv 2408.15549, section 3) filters prompts and replies with OpenAI's moderation endpoint. Here the hook
is a function of yours, or a model that is asked.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, cast

import orjson
import polars as pl

from tilth.schemas import ConfigError
from tilth.transforms.inference.prompts import Prompt
from tilth.transforms.inference.requests import Questions, Sampling
from tilth.transforms.inference.sampling import request_id, requests_frame

CATEGORIES: Final = (
    "hate",
    "harassment",
    "violence",
    "self_harm",
    "sexual",
    "minors",
    "weapons",
    "illicit",
    "privacy",
)
UNCHECKED: Final = "unchecked"  # the flag of what a moderator was asked about and did not answer
ASKED: Final = pl.Schema({"id": pl.String, "response_id": pl.String})

Moderate = Callable[[Sequence[str], Sequence[str]], Sequence[Sequence[str]]]
"""A hook: requests and replies in, the flags of each in the same order; an empty list for none."""


@dataclass(frozen=True, slots=True)
class Moderation:
    """Who looks for harm.

    Args:
        by: `none`, `model` (a model is asked, in the role `moderator`), or `function`.
        function: for `function`: `package.module:name` of a `Moderate`, importable where the run's workers are.
        answer_tokens: the longest answer of a model.
    """

    by: Literal["none", "model", "function"] = "none"
    function: str = ""
    answer_tokens: int = 128

    def __post_init__(self) -> None:
        if self.by not in ("none", "model", "function") or (self.by == "function") != bool(self.function):
            wanted = "none, model, or function with the name of one"
            raise ConfigError("moderation", found=f"{self.by} {self.function}".strip(), wanted=wanted)


def hook(config: Moderation) -> Moderate:
    """The function that a configuration names. Raises `ConfigError` when there is none."""
    module, _, name = config.function.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
        problem = "" if callable(found) else "not a function"
    except (ImportError, AttributeError, ValueError) as error:
        found, problem = None, type(error).__name__
    if problem:
        raise ConfigError(
            "the moderation function",
            found=f"{config.function} ({problem})",
            wanted="package.module:name",
            do="check moderation.function",
        )
    return cast("Moderate", found)


def flags_by_function(responses: pl.DataFrame, moderate: Moderate) -> pl.DataFrame:
    """`response_id` and `flags` of rows of `responses`. Raises `ConfigError` when the hook returns too few."""
    texts = _texts(responses)
    flags = [
        list(found)
        for found in moderate(texts.get_column("request").to_list(), texts.get_column("reply").to_list())
    ]
    if len(flags) != texts.height:
        raise ConfigError("flags of the moderation function", found=len(flags), wanted=texts.height)
    return texts.select("response_id", pl.Series("flags", flags, dtype=pl.List(pl.String)))


def moderation_requests(responses: pl.DataFrame, prompt: Prompt, config: Moderation) -> Questions:
    """Requests about each reply with the request that it answers, and `ASKED`."""
    texts = _texts(responses)
    schema = orjson.dumps(
        {
            "title": "tilth.moderation",
            "type": "object",
            "properties": {
                "flags": {
                    "type": "array",
                    "items": {"type": "string", "enum": list(CATEGORIES)},
                    "maxItems": len(CATEGORIES),
                }
            },
            "required": ["flags"],
            "additionalProperties": False,
        }
    ).decode()
    sampling = Sampling(max_tokens=config.answer_tokens)
    requests = requests_frame(prompt, texts, "response_id", sampling, schema=schema)
    ids = [(request_id(one, prompt.id), one) for one in texts.get_column("response_id")]
    return Questions(requests, pl.DataFrame(ids, schema=ASKED, orient="row"))


def flags_by_model(asked: pl.DataFrame, completions: pl.DataFrame) -> pl.DataFrame:
    """`response_id` and `flags`; a reply that the moderator did not answer about is flagged `unchecked`."""
    told = dict(completions.select("id", "text").iter_rows())
    flags = [
        sorted(set(orjson.loads(told[id_])["flags"])) if id_ in told else [UNCHECKED]
        for id_ in asked.get_column("id")
    ]
    return asked.select("response_id", pl.Series("flags", flags, dtype=pl.List(pl.String)))


def _texts(responses: pl.DataFrame) -> pl.DataFrame:
    content = pl.element().struct.field("content")
    last = pl.col("prompt").list.last().struct.field("content")
    return responses.select(
        response_id="id", request=last, reply=pl.col("completion").list.eval(content).list.join("\n")
    )
