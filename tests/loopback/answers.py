"""What the loopback server answers: a function of the messages, the seed and the asked shape, nothing else."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any  # Any: JSON

import orjson

WORDS = 12  # of an answer without a shape
_NOISE = ("the", "a", "\n")  # tokens beside the choices in top_logprobs


def prompt_hash(messages: Sequence[Mapping[str, Any]]) -> str:
    """What a prompt is counted and logged by, 128 bits in hex."""
    return request_hash(messages, None)


def request_hash(messages: Sequence[Mapping[str, Any]], seed: int | None) -> str:
    """What the attempts and the fate of a request are known by: messages and seed."""
    said = [[message["role"], message["content"]] for message in messages]
    return hashlib.blake2b(orjson.dumps([said, seed]), digest_size=16).hexdigest()


def opening_hash(messages: Sequence[Mapping[str, Any]]) -> str:
    """Messages up to the first of a user: the same when a prompt is asked again with more turns and another seed."""
    for n, message in enumerate(messages):
        if message["role"] == "user":
            return prompt_hash(messages[: n + 1])
    return prompt_hash(messages)


def expected_answer(
    messages: Sequence[Mapping[str, Any]],
    seed: int | None = None,
    *,
    schema: str | Mapping[str, Any] | None = None,
    choices: Sequence[str] | None = None,
) -> str:
    """The right answer to a prompt, before `max_tokens` and `stop` cut it."""
    parsed = orjson.loads(schema) if isinstance(schema, str) else schema
    return answer(request_hash(messages, seed), parsed, choices)


def answer(digest: str, schema: Mapping[str, Any] | None, choices: Sequence[str] | None) -> str:
    """The answer to a request with this hash."""
    if choices:
        return _choice(digest, choices)
    if schema is not None:
        return orjson.dumps(_value(schema, _draws(digest), schema)).decode()
    return _words(digest, WORDS)


def _choice(digest: str, choices: Sequence[str]) -> str:
    """The same whichever way round the choices stand."""
    return sorted(choices)[int(digest[:8], 16) % len(choices)]


def _words(digest: str, count: int) -> str:
    letters = hashlib.shake_128(digest.encode()).hexdigest(4 * count)
    return " ".join(letters[n : n + 8] for n in range(0, 8 * count, 8))


def _draws(digest: str) -> Iterator[int]:
    count = 0
    while True:
        yield int.from_bytes(hashlib.blake2b(f"{digest}{count}".encode(), digest_size=6).digest())
        count += 1


def _value(schema: Mapping[str, Any], draws: Iterator[int], root: Mapping[str, Any]) -> Any:
    """A value that fits the schema."""
    if "$ref" in schema:
        return _value(_referred(schema["$ref"], root), draws, root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][next(draws) % len(schema["enum"])]
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return _value(schema[key][0], draws, root)
    return _typed(schema, draws, root)


def _referred(path: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = root
    for part in path.removeprefix("#/").split("/"):
        found = found[part]
    return found


def _typed(schema: Mapping[str, Any], draws: Iterator[int], root: Mapping[str, Any]) -> Any:
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind
    match kind:
        case "object":
            return {name: _value(one, draws, root) for name, one in schema.get("properties", {}).items()}
        case "array":
            return [
                _value(schema.get("items", {"type": "string"}), draws, root)
                for _ in range(_size(schema, draws))
            ]
        case "integer":
            low = schema.get("minimum", 0)
            return low + next(draws) % (schema.get("maximum", low + 10) - low + 1)
        case "number":
            low = schema.get("minimum", 0)
            return low + (schema.get("maximum", low + 1) - low) * (next(draws) % 1001) / 1000
        case "boolean":
            return next(draws) % 2 == 1
        case "null":
            return None
        case _:
            return _string(schema, f"{next(draws):012x}")


def _size(schema: Mapping[str, Any], draws: Iterator[int]) -> int:
    low = schema.get("minItems", 1)
    return low + next(draws) % (schema.get("maxItems", low + 2) - low + 1)


def _string(schema: Mapping[str, Any], digest: str) -> str:
    text = f"{digest[:6]} {digest[6:]}"
    text = (text * (1 + schema.get("minLength", 0) // len(text)))[: schema.get("maxLength")]
    return text.ljust(schema.get("minLength", 0), "x")


def cut(text: str, max_tokens: int | None, stop: Sequence[str]) -> tuple[str, str]:
    """The text as far as it may go, and why it ends there. A token is a word."""
    words = text.split(" ")
    reason = "stop"
    if max_tokens is not None and len(words) > max_tokens:
        text, reason = " ".join(words[:max_tokens]), "length"
    places = [place for place in (text.find(one) for one in stop) if place >= 0]
    return (text[: min(places)], "stop") if places else (text, reason)


def logprobs(text: str, choices: Sequence[str] | None, digest: str, top: int) -> dict[str, Any]:
    """`logprobs` of a chat choice: one token per word, alternatives of the first are first words of the choices."""
    words = text.split(" ")
    tokens = [word if n == 0 else f" {word}" for n, word in enumerate(words)]
    ranked = choice_logprobs(choices, digest) if choices else {tokens[0]: -0.1}
    first = [_token(one, value) for one, value in ranked.items()][:top]
    content = [{**_token(token, -0.1), "top_logprobs": [_token(token, -0.1)][:top]} for token in tokens]
    content[0] = {**_token(tokens[0], ranked.get(tokens[0], -0.1)), "top_logprobs": first}
    return {"content": content}


def choice_logprobs(choices: Sequence[str], digest: str) -> dict[str, float]:
    """Log-probabilities of the first words of the choices and of some other tokens, the most likely first."""
    tokens = list(dict.fromkeys([choice.split(" ")[0] for choice in choices] + list(_NOISE)))
    weights = [1 + zlib.crc32(f"{digest}{token}".encode()) % 97 for token in tokens]
    weights[tokens.index(_choice(digest, choices).split(" ")[0])] += 97
    total = sum(weights)
    pairs = [(token, math.log(weight / total)) for token, weight in zip(tokens, weights, strict=True)]
    return dict(sorted(pairs, key=lambda pair: -pair[1]))


def _token(token: str, value: float) -> dict[str, Any]:
    return {"token": token, "logprob": value, "bytes": list(token.encode())}
