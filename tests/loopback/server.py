"""The loopback server: HTTP/1.1 by hand, because benchmarks need more than 8,000 requests a second from one core."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final, cast  # Any: JSON

import orjson

from loopback.answers import answer, cut, logprobs, opening_hash, prompt_hash, request_hash
from loopback.behaviour import Behaviour, Fate
from loopback.sensible import Question, sensible_answer

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_KEY: Final = re.compile(rb"\r\nauthorization: *Bearer +([^\r]*)", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_PHRASES: Final = {int(one): one.phrase for one in HTTPStatus}
_OPENAI: Final = frozenset(
    {
        "model",
        "messages",
        "seed",
        "temperature",
        "top_p",
        "max_tokens",
        "max_completion_tokens",
        "stop",
        "n",
        "user",
    }
    | {"response_format", "logprobs", "top_logprobs", "stream", "frequency_penalty", "presence_penalty"}
)


class Refusal(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, kind: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": None, "code": status, **more}}


@dataclass(slots=True, eq=False)
class Call:
    """One chat request on its way."""

    connection: Connection
    body: Mapping[str, Any]
    prompt: str
    digest: str
    fate: Fate
    latency_s: float
    tries: int
    timer: asyncio.TimerHandle | None = None
    working: bool = False
    done: bool = False


class Statistics:
    """Counts since the last reset."""

    def __init__(self) -> None:
        self.by_prompt: Counter[str] = Counter()
        self.by_request: Counter[str] = Counter()
        self.by_opening: Counter[str] = Counter()
        self.by_status: Counter[str] = Counter()
        self.received = self.finished = self.dropped = 0
        self.in_flight = self.max_in_flight = 0
        self.busy_s = 0.0
        self.first_s = self.last_s = 0.0

    def summary(self) -> dict[str, Any]:
        """What GET /stats says."""
        span = max(self.last_s - self.first_s, 0.0)
        names = ("received", "finished", "dropped", "in_flight", "max_in_flight", "busy_s")
        counts = {name: getattr(self, name) for name in names}
        maps = {"by_prompt": self.by_prompt, "by_request": self.by_request, "by_status": self.by_status}
        return counts | maps | {"span_s": span, "mean_busy": self.busy_s / span if span else 0.0}


class Server:
    """All state of one server process."""

    def __init__(self, behaviour: Behaviour, log: str | None = None) -> None:
        self.behaviour = behaviour
        self.seen = Statistics()
        self.total = 0  # chats since the start of the process
        self.waiting: deque[Call] = deque()
        self.busy = 0
        self._turned_s = time.monotonic()
        self._log = None if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def connection(self) -> Connection:
        """A protocol for one client connection."""
        return Connection(self)

    # other paths

    def get(self, path: str) -> tuple[int, bytes, bytes]:
        """Status, content type and body of a GET."""
        now = self.behaviour
        if path == "/stats":
            self._count_busy(0)
            return 200, b"application/json", orjson.dumps(self.seen.summary())
        if path == "/control":
            return 200, b"application/json", orjson.dumps(asdict(now))
        if path == "/health":
            return 200, b"application/json", b"{}"
        if path == "/version" and now.vllm:
            return 200, b"application/json", b'{"version":"0.32.0"}'
        if path == "/v1/models":
            owner = "vllm" if now.vllm else "loopback"
            card = {"id": now.model, "object": "model", "created": 0, "owned_by": owner}
            return 200, b"application/json", orjson.dumps({"object": "list", "data": [card]})
        if path == "/metrics" and now.metrics:
            return 200, b"text/plain; version=0.0.4", self._gauges().encode()
        return 404, b"application/json", b'{"detail":"Not Found"}'

    def post(self, path: str, body: bytes) -> tuple[int, bytes, bytes]:
        """Status, content type and body of a POST that is not a chat."""
        if path == "/reset":
            in_flight = self.seen.in_flight
            self.seen = Statistics()
            self.seen.in_flight = self.seen.max_in_flight = in_flight
            return 200, b"application/json", b"{}"
        if path != "/control":
            return 404, b"application/json", b'{"detail":"Not Found"}'
        try:
            self.behaviour = self.behaviour.changed(orjson.loads(body))
        except TypeError as error:
            return 400, b"application/json", orjson.dumps({"detail": str(error)})
        self._fill()
        return 200, b"application/json", orjson.dumps(asdict(self.behaviour))

    def _gauges(self) -> str:
        use = min(1.0, self.busy / (self.behaviour.slots or 1024))
        values = {"num_requests_running": float(self.busy), "num_requests_waiting": float(len(self.waiting))}
        values["kv_cache_usage_perc"] = use
        label = f'{{engine="0",model_name="{self.behaviour.model}"}}'
        lines = [f"# TYPE vllm:{name} gauge\nvllm:{name}{label} {value}" for name, value in values.items()]
        return "\n".join(lines) + "\n"

    # chats

    def chat(self, connection: Connection, key: str, data: bytes) -> Call | None:
        """Takes a chat; answers at once what is refused."""
        body = orjson.loads(data)
        messages, seed = body["messages"], body.get("seed")
        prompt, digest = prompt_hash(messages), request_hash(messages, seed)
        self._receive(prompt, digest)
        call = Call(connection, body, prompt, digest, Fate.ANSWER, 0.0, self._tries(messages))
        try:
            self._refuse(key, body)
        except Refusal as refusal:
            self._finish(call, refusal.status, orjson.dumps(refusal.body))
            return None
        attempt = self.seen.by_request[digest]
        call.fate = Fate.THROTTLE if self._bursting() else self.behaviour.fate(digest, attempt)
        call.latency_s = self.behaviour.latency(digest, attempt)
        self._enter(call)
        return None if call.done else call

    def _tries(self, messages: list[Mapping[str, Any]]) -> int:
        if not self.behaviour.malformed_tries:
            return 0
        opening = opening_hash(messages)
        self.seen.by_opening[opening] += 1
        return self.seen.by_opening[opening]

    def _receive(self, prompt: str, digest: str) -> None:
        self.total += 1
        self._write("received", prompt, digest, 0)
        if self.behaviour.die_after and self.total > self.behaviour.die_after:
            os._exit(70)
        seen = self.seen
        seen.received += 1
        seen.by_prompt[prompt] += 1
        seen.by_request[digest] += 1
        seen.in_flight += 1
        seen.max_in_flight = max(seen.max_in_flight, seen.in_flight)
        seen.first_s = seen.first_s or time.monotonic()

    def _refuse(self, key: str, body: Mapping[str, Any]) -> None:
        now = self.behaviour
        if now.api_key and key != now.api_key:
            raise Refusal(
                401, "invalid_request_error", f"Incorrect API key provided: {key}", code="invalid_api_key"
            )
        if now.forbid:
            raise Refusal(403, "permission_error", "You may not use this model", code="forbidden")
        if now.strict_model and body["model"] != now.model:
            raise Refusal(404, "NotFoundError", f"The model `{body['model']}` does not exist.", param="model")
        unknown = set() if now.vllm else body.keys() - _OPENAI
        if unknown or body.get("stream"):
            raise Refusal(400, "invalid_request_error", f"Unrecognized request argument: {sorted(unknown)}")
        said = " ".join(str(message["content"]) for message in body["messages"])
        if now.poison and now.poison in said:
            raise Refusal(400, "BadRequestError", f"Refused for its content: {said}", param=said, code=said)
        if now.max_model_len:
            self._refuse_long(len(said.split()), _max_tokens(body) or 1)

    def _refuse_long(self, prompt: int, wanted: int) -> None:
        limit = self.behaviour.max_model_len
        if prompt + wanted > limit:
            message = (
                f"This model's maximum context length is {limit} tokens. However, you requested {wanted} output "
                f"tokens and your prompt contains at least {prompt} input tokens, for a total of at least "
                f"{prompt + wanted} tokens. Please reduce the length of the input prompt or the number of requested "
                f"output tokens. (parameter=input_tokens, value={prompt})"
            )
            raise Refusal(400, "BadRequestError", message, param="input_tokens")

    def _bursting(self) -> bool:
        every = self.behaviour.burst_every_s
        return bool(every) and (time.monotonic() - self.seen.first_s) % every < self.behaviour.burst_s

    def _enter(self, call: Call) -> None:
        if call.fate is Fate.THROTTLE:
            self._throttle(call)
        elif call.fate is not Fate.NEVER:
            self.waiting.append(call)
            self._fill()

    def _throttle(self, call: Call) -> None:
        refusal = Refusal(429, "rate_limit_error", "Rate limit reached", code="rate_limit_exceeded")
        self._finish(call, 429, orjson.dumps(refusal.body), self._retry_after())

    def _retry_after(self) -> bytes:
        seconds, form = self.behaviour.retry_after_s, self.behaviour.retry_after_form
        if seconds is None:
            return b""
        if form == "ms":
            return b"Retry-After-Ms: %d\r\n" % round(seconds * 1000)
        if form == "date":
            return b"Retry-After: %s\r\n" % formatdate(time.time() + seconds, usegmt=True).encode()
        return b"Retry-After: %s\r\n" % f"{seconds:g}".encode()

    def _fill(self) -> None:
        limit = self.behaviour.slots or 1 << 30
        while self.waiting and self.busy < limit:
            call = self.waiting.popleft()
            if not call.done:
                self._work(call)

    def _work(self, call: Call) -> None:
        self._count_busy(1)
        call.working = True
        if call.latency_s > 0:
            call.timer = asyncio.get_running_loop().call_later(call.latency_s, self._ring, call)
        else:
            self._complete(call)

    def _ring(self, call: Call) -> None:
        self._complete(call)
        self._fill()

    def _complete(self, call: Call) -> None:
        self._count_busy(-1)
        call.working = False
        self._answer(call)

    def _count_busy(self, change: int) -> None:
        now = time.monotonic()
        self.seen.busy_s += self.busy * (now - self._turned_s)
        self._turned_s = now
        self.busy += change

    def _answer(self, call: Call) -> None:
        match call.fate:
            case Fate.ERROR:
                status = self.behaviour.error_status
                headers = b"Location: /v1/chat/completions\r\n" if 300 <= status < 400 else b""
                self._finish(
                    call, status, orjson.dumps(Refusal(status, "server_error", "Injected").body), headers
                )
            case Fate.CUT_BEFORE:
                self._finish(call, 0, b"")
            case Fate.NOT_JSON:
                self._finish(call, 200, b"<html>busy</html>")
            case Fate.NO_CHOICES:
                self._finish(call, 200, b'{"object":"chat.completion","choices":[]}')
            case _:
                self._finish(call, 200, orjson.dumps(self._chat_body(call)))

    def _chat_body(self, call: Call) -> dict[str, Any]:
        body = call.body
        schema, choices = _shape(body)
        text = "" if call.fate is Fate.EMPTY else self._text(call, schema, choices)
        if (schema is not None or choices) and 0 < call.tries <= self.behaviour.malformed_tries:
            text = f"Sure: {text[: len(text) // 2]}"
        text, reason = cut(text, _max_tokens(body), _stop(body))
        choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}}
        choice |= {"finish_reason": reason, "logprobs": None}
        if body.get("logprobs"):
            choice["logprobs"] = logprobs(text, choices, call.digest, body.get("top_logprobs") or 0)
        return {
            "id": f"chatcmpl-{self.total}", "object": "chat.completion", "created": 0, "model": body.get("model"),
            "choices": [choice], "usage": _usage(body, text),
        }  # fmt: skip

    def _text(self, call: Call, schema: Mapping[str, Any] | None, choices: list[str] | None) -> str:
        now, body, said = self.behaviour, call.body, None
        if now.script and not choices:
            asked = Question(body["messages"], str(body.get("model")), body.get("seed"), schema)
            said = sensible_answer(asked, now.habits)
        return answer(call.digest, schema, choices) if said is None else said

    def _finish(self, call: Call, status: int, body: bytes, headers: bytes = b"") -> None:
        self._leave(call)
        self.seen.finished += 1
        self.seen.by_status[str(status)] += 1
        self._write("finished", call.prompt, call.digest, status)
        if status == 0:
            call.connection.cut(b"")
        elif call.fate is Fate.CUT_WITHIN:
            call.connection.cut(_response(status, b"application/json", body)[: -len(body) // 2])
        else:
            call.connection.send(_response(status, b"application/json", body, headers))

    def drop(self, call: Call) -> None:
        """The client went away: its work ends and its slot is free."""
        if call.done:
            return
        self._leave(call)
        self.seen.dropped += 1
        self._write("dropped", call.prompt, call.digest, 0)
        if call.timer is not None:
            call.timer.cancel()
        if call.working:
            self._count_busy(-1)
        elif call in self.waiting:
            self.waiting.remove(call)
        self._fill()

    def _leave(self, call: Call) -> None:
        call.done = True
        call.connection.call = None
        self.seen.in_flight -= 1
        self.seen.last_s = time.monotonic()

    def _write(self, kind: str, prompt: str, digest: str, status: int) -> None:
        if self._log is not None:
            os.write(self._log, f"{kind} {prompt} {digest} {time.monotonic():.6f} {status}\n".encode())


class Connection(asyncio.Protocol):
    """One client connection, kept alive; requests that come early wait their turn."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.call: Call | None = None
        self._buffer = b""
        self._closing = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.call is not None:
            self.server.drop(self.call)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        self._take()

    def send(self, response: bytes) -> None:
        """Answers the request that is being worked on, and takes the next."""
        self._transport.write(response)
        if self._closing:
            self._transport.close()
        elif self._buffer:
            asyncio.get_running_loop().call_soon(self._take)

    def cut(self, part: bytes) -> None:
        """Ends the connection after a part of an answer."""
        self._transport.write(part)
        self._transport.close()

    def _take(self) -> None:
        while self._buffer and self.call is None and not self._closing:
            ends = self._buffer.find(b"\r\n\r\n")
            if ends < 0:
                return
            head = self._buffer[:ends]
            length = _LENGTH.search(head)
            size = ends + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < size:
                return
            body, self._buffer = self._buffer[ends + 4 : size], self._buffer[size:]
            self._handle(head, body)

    def _handle(self, head: bytes, body: bytes) -> None:
        method, path, _ = head.split(b" ", 2)
        self._closing = _CLOSE.search(head) is not None
        if path == b"/v1/chat/completions":
            self._chat(head, body)
            return
        name = path.decode().partition("?")[0]
        status, kind, answered = self.server.get(name) if method == b"GET" else self.server.post(name, body)
        self.send(_response(status, kind, answered))

    def _chat(self, head: bytes, body: bytes) -> None:
        key = _KEY.search(head)
        try:
            self.call = self.server.chat(self, key[1].decode() if key else "", body)
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            refusal = Refusal(400, "BadRequestError", f"Cannot read the request: {type(error).__name__}")
            self.send(_response(400, b"application/json", orjson.dumps(refusal.body)))


def _response(status: int, kind: bytes, body: bytes, headers: bytes = b"") -> bytes:
    phrase = _PHRASES.get(status, "Unknown").encode()
    return b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\n%sContent-Length: %d\r\n\r\n%s" % (
        status, phrase, kind, headers, len(body), body,
    )  # fmt: skip


def _shape(body: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, list[str] | None]:
    """The schema and the choices that the answer must fit."""
    structured = body.get("structured_outputs") or {}
    schema = structured.get("json")
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        schema = form["json_schema"]["schema"]
    elif form.get("type") == "json_object":
        schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    schema = orjson.loads(schema) if isinstance(schema, str) else schema
    return schema, structured.get("choice")


def _max_tokens(body: Mapping[str, Any]) -> int | None:
    return body.get("max_completion_tokens") or body.get("max_tokens")


def _stop(body: Mapping[str, Any]) -> list[str]:
    stop = body.get("stop") or []
    return [stop] if isinstance(stop, str) else stop


def _usage(body: Mapping[str, Any], text: str) -> dict[str, int]:
    asked = sum(1 + len(str(message["content"]).split()) for message in body["messages"])
    said = max(1, len(text.split()))
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}
