"""The wire of OpenAI-compatible servers: what is sent, what comes back, and what a failure means."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final  # Any: JSON

import orjson

from tilth.schemas import Reason
from tilth.transforms.inference.engines import Load
from tilth.transforms.inference.failures import CallFailed
from tilth.transforms.inference.requests import Completion, Request
from tilth.transforms.inference.structured import unbounded

TOP_LOGPROBS: Final = 20  # what OpenAI and vLLM give at most without being configured
AMBIGUOUS_SHARE: Final = 1e-3  # of the choices' probability, that may lie on tokens which begin two of them
_CODE: Final = re.compile(r"[a-z_0-9]{1,40}")
_TOO_LONG_CODES: Final = frozenset(
    {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"}
)
_TOO_LONG_PARAMS: Final = frozenset({"input_tokens", "input_text"})  # vLLM's
_TOO_LONG_WORDS: Final = re.compile(
    r"context.?(length|window|size)|must have less than \d+ tokens", re.IGNORECASE
)
_BLAMES_ALL: Final = frozenset({401, 403, 404, 429})  # 429 only when it is the quota
_GAUGE: Final = re.compile(
    rb"^vllm:(num_requests_running|num_requests_waiting|kv_cache_usage_perc)(?:\{[^\n]*\})? +([-+.\deE]+)",
    re.MULTILINE,
)


def body_of(request: Request, model: str, *, vllm: bool, completion_tokens: bool) -> bytes:
    """The body of a chat request.

    top_p and temperature are always sent: vLLM would put the model's own defaults in their place. `max_tokens` is sent
    as `max_completion_tokens` to OpenAI, whose newer models refuse the other name, which most servers know. Choices
    are `structured_outputs` for vLLM; others get a JSON schema with one field, see `completion_of`.
    """
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": model, "messages": list(request.messages), "temperature": sampling.temperature,
        "top_p": sampling.top_p, "max_completion_tokens" if completion_tokens else "max_tokens": sampling.max_tokens,
    }  # fmt: skip
    if sampling.stop:
        body["stop"] = sampling.stop
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    body |= _shape(request, vllm=vllm)
    if request.want_logprobs and request.choices:
        body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
    return orjson.dumps(body)


def _shape(request: Request, *, vllm: bool) -> dict[str, Any]:
    if request.choices:
        return (
            {"structured_outputs": {"choice": request.choices}}
            if vllm
            else _promised(_wrapped(request.choices))
        )
    return {} if request.schema is None else _promised(orjson.Fragment(unbounded(request.schema)))


def _promised(schema: object) -> dict[str, Any]:
    return {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema, "strict": True},
        }
    }


def _wrapped(choices: Sequence[str]) -> dict[str, Any]:
    answer = {"type": "string", "enum": choices}
    return {
        "type": "object",
        "properties": {"answer": answer},
        "required": ["answer"],
        "additionalProperties": False,
    }


def completion_of(request: Request, body: bytes, *, wrapped: bool) -> Completion:
    """The answer in a body of status 200; `wrapped` when a choice stands in a JSON object and is taken out of it.

    Raises `CallFailed` for a body that is no answer.
    """
    try:
        parsed = orjson.loads(body)
        choice = parsed["choices"][0]
        text = choice["message"]["content"]
        reason = choice.get("finish_reason")
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        raise CallFailed(Reason.MALFORMED_OUTPUT, "200 no_answer_in_body", retryable=True) from None
    if not isinstance(text, str) or not (text or request.sampling.stop) or reason == "content_filter":
        raise _empty(choice, reason)
    answer, at = _unwrapped(text) if wrapped else (text, 0)
    logprobs = _choice_logprobs(choice, at, request) if request.want_logprobs else None
    prompt, completion = _counts(parsed)
    return Completion(answer, "length" if reason == "length" else "stop", prompt, completion, logprobs)


def _empty(choice: Mapping[str, Any], reason: object) -> CallFailed:
    """A refusal by the model or a filter is final; an answer without text may come out otherwise the next time."""
    if reason == "content_filter" or choice["message"].get("refusal"):
        return CallFailed(
            Reason.REQUEST_REFUSED, "200 content_filter" if reason == "content_filter" else "200 refusal"
        )
    return CallFailed(Reason.MALFORMED_OUTPUT, "200 empty_content", retryable=True)


def _unwrapped(text: str) -> tuple[str, int]:
    """The value of `answer` and where it begins; the text itself when it is not what was asked for."""
    try:
        value = orjson.loads(text)["answer"]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return text, -1
    if not isinstance(value, str):
        return text, -1
    return value, text.find(json.dumps(value, ensure_ascii=False)[1:-1], text.find(":"))


def _counts(parsed: Mapping[str, Any]) -> tuple[int, int]:
    usage = parsed.get("usage") or {}
    return int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)


def _choice_logprobs(choice: Mapping[str, Any], at: int, request: Request) -> tuple[float, ...] | None:
    """Log-probabilities of the choices, from the alternatives of the token that begins at this character."""
    content = (choice.get("logprobs") or {}).get("content") or ()
    begins = 0
    for token in content:
        if begins == at:
            ranked = {one["token"]: one["logprob"] for one in token.get("top_logprobs") or ()}
            return match_choices(ranked, request.choices or ())
        begins += len(token["token"])
    return None


def match_choices(ranked: Mapping[str, float], choices: Sequence[str]) -> tuple[float, ...] | None:
    """The log-probability of each choice, in their order: the sum over first tokens that begin it and no other.

    Null when a choice has no such token among those given, or when tokens that begin two choices hold more than
    `AMBIGUOUS_SHARE` of the probability: then the first token does not decide.
    """
    mass = dict.fromkeys(choices, 0.0)
    ambiguous = 0.0
    for token, logprob in ranked.items():
        begun = [choice for choice in mass if token and choice.startswith(token)]
        if len(begun) == 1:
            mass[begun[0]] += math.exp(logprob)
        elif begun:
            ambiguous += math.exp(logprob)
    if not mass or min(mass.values()) <= 0.0 or ambiguous > AMBIGUOUS_SHARE * sum(mass.values()):
        return None
    return tuple(min(0.0, math.log(mass[choice])) for choice in choices)


def failure_of(status: int, headers: Mapping[str, str], body: bytes) -> CallFailed:
    """What an answer other than 200 means. Its detail holds the status and the error's code, never its message."""
    error = _error(body)
    code = _code(error)
    detail = f"{status} {code}".strip()
    if status == HTTPStatus.TOO_MANY_REQUESTS and code != "insufficient_quota":
        return CallFailed(Reason.RATE_LIMITED, detail, retryable=True, retry_after_s=retry_after_s(headers))
    if status == HTTPStatus.REQUEST_TIMEOUT:
        return CallFailed(Reason.TIMED_OUT, detail, retryable=True, retry_after_s=retry_after_s(headers))
    if status == HTTPStatus.CONFLICT or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return CallFailed(Reason.SERVER_ERROR, detail, retryable=True, retry_after_s=retry_after_s(headers))
    # A redirect would take prompts where they were not sent, and every other request would meet it too.
    if status < HTTPStatus.BAD_REQUEST or status in _BLAMES_ALL:
        return CallFailed(Reason.REQUEST_REFUSED, detail, blames_all=True)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE or _says_too_long(error, code):
        return CallFailed(Reason.TOO_LONG, detail)
    return CallFailed(Reason.REQUEST_REFUSED, detail, blames_all=code == "model_not_found")


def _error(body: bytes) -> Mapping[str, Any]:
    """The error object; vLLM once sent it bare."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    found = parsed.get("error", parsed) if isinstance(parsed, dict) else {}
    return found if isinstance(found, dict) else {}


def _code(error: Mapping[str, Any]) -> str:
    """Code or type when it looks like one. Other values may hold anything, even a piece of the prompt."""
    for name in ("code", "type"):
        value = error.get(name)
        if isinstance(value, str) and _CODE.fullmatch(value):
            return value
    return ""


def _says_too_long(error: Mapping[str, Any], code: str) -> bool:
    if code in _TOO_LONG_CODES or error.get("param") in _TOO_LONG_PARAMS:
        return True
    message = error.get("message")
    return isinstance(message, str) and _TOO_LONG_WORDS.search(message) is not None


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: Retry-After-Ms, or Retry-After in seconds or as a date. Never below 0."""
    for name, scale in (("Retry-After-Ms", 1000), ("Retry-After", 1)):
        try:
            seconds = float(headers.get(name, "")) / scale
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        return max(0.0, parsedate_to_datetime(headers.get("Retry-After", "")).timestamp() - time.time())
    except (ValueError, TypeError, IndexError):
        return None


def load_of(metrics: bytes) -> Load | None:
    """The load in vLLM's Prometheus text: requests summed over its engines, cache use averaged; null without them."""
    found: dict[bytes, list[float]] = {}
    for name, value in _GAUGE.findall(metrics):
        found.setdefault(name, []).append(float(value))
    if len(found) < 3:
        return None
    use = found[b"kv_cache_usage_perc"]
    running, waiting = (int(sum(found[name])) for name in (b"num_requests_running", b"num_requests_waiting"))
    return Load(running, waiting, min(1.0, max(0.0, sum(use) / len(use))))
