"""Does an answer fit what was asked for? Checked here whatever an engine promises, because servers differ."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from typing import Any, Final  # Any: parsed JSON

import orjson

from tilth.schemas import ConfigError
from tilth.transforms.inference.requests import Completion, Request

# A whole answer in one Markdown fence: what models without constrained decoding like to send.
_FENCE: Final = re.compile(r"\A```[a-zA-Z]*\n(.*)\n```\Z", re.DOTALL)


class Misfit(Exception):
    """An answer that does not fit. The message is meant for the model alone: it may quote the answer."""


def fitted(request: Request, completion: Completion) -> Completion:
    """The completion with its text brought to the bare answer. Raises `Misfit` saying what is wrong.

    Without schema and choices any text fits that is not blank.
    """
    text = completion.text.strip() if request.choices or request.schema else completion.text
    if not text.strip():
        raise Misfit("the answer was empty")
    if request.choices:
        _check_choice(text, request.choices)
    elif request.schema:
        text = _check_json(text, request.schema, completion.finish_reason)
    return completion if text == completion.text else replace(completion, text=text)


def _check_choice(text: str, choices: tuple[str, ...]) -> None:
    if text not in choices:
        raise Misfit(f"the answer must be exactly one of: {', '.join(choices)}")


def _check_json(text: str, schema: str, finish_reason: str) -> str:
    fence = _FENCE.match(text)
    bare = fence.group(1) if fence else text
    try:
        value = orjson.loads(bare)
    except orjson.JSONDecodeError as error:
        cut = "the answer was cut off" if finish_reason == "length" else "the answer is not JSON"
        raise Misfit(f"{cut}: {error.msg} at character {error.pos}") from None
    problem = next(_validator(schema).iter_errors(value), None)
    if problem is not None:
        raise Misfit(f"at {problem.json_path}: {problem.message[:500]}")
    return bare


_VALUES: Final = frozenset({"enum", "const", "default", "examples"})  # what they hold is no schema
_NAMED: Final = frozenset(
    {"properties", "patternProperties", "$defs", "definitions"}
)  # schemas by names of ours


@functools.lru_cache(maxsize=256)
def unbounded(schema: str) -> str:
    """The schema as engines are asked to hold it: without `maxLength`, which `fitted` alone sees to.

    Where xgrammar (0.2, vLLM's default) counts the characters of a string, it lets no escape through: a model cannot
    quote a quotation mark, a line break or a backslash (mlc-ai/xgrammar#800). And some servers refuse the keyword.
    """
    return orjson.dumps(_unbounded(orjson.loads(schema))).decode()


def _unbounded(node: Any) -> Any:
    if isinstance(node, list):
        return [_unbounded(one) for one in node]
    if not isinstance(node, dict):
        return node
    kept = {key: value for key, value in node.items() if key != "maxLength"}
    return {key: _below(key, value) for key, value in kept.items()}


def _below(key: str, value: Any) -> Any:
    if key in _VALUES:
        return value
    if key in _NAMED and isinstance(value, dict):
        return {name: _unbounded(one) for name, one in value.items()}
    return _unbounded(value)


@functools.lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    import jsonschema  # only where there is a schema: it takes 0.2 s to load
    from jsonschema import validators

    kind = validators.validator_for(parse_schema(schema), default=jsonschema.Draft202012Validator)
    return kind(orjson.loads(schema))


def parse_schema(text: str) -> dict[str, Any]:
    """A JSON Schema from its text. Raises `ConfigError` when it is no JSON or no schema."""
    import jsonschema

    try:
        schema = orjson.loads(text)
        jsonschema.Draft202012Validator.check_schema(schema)
    except orjson.JSONDecodeError as error:
        raise ConfigError("the answer's schema", found=f"no JSON: {error}", wanted="a JSON Schema") from None
    except jsonschema.SchemaError as error:
        found = f"{error.message} at {error.json_path}"
        raise ConfigError("the answer's schema", found=found, wanted="a JSON Schema") from None
    if not isinstance(schema, dict):
        raise ConfigError("the answer's schema", found=type(schema).__name__, wanted="a JSON object")
    return schema


def ask_again(request: Request, wrong: Completion, misfit: Misfit, attempt: int) -> Request:
    """The request that shows the model its answer and what was wrong with it; another seed, else it says the same."""
    again = {
        "role": "user",
        "content": f"That answer cannot be used: {misfit}. Answer again, with nothing but the answer.",
    }
    messages = [*request.messages, {"role": "assistant", "content": wrong.text or "(nothing)"}, again]
    seed = None if request.sampling.seed is None else request.sampling.seed + attempt
    return replace(request, messages=messages, sampling=replace(request.sampling, seed=seed))
