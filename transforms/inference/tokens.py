"""How many tokens prompts have: by the model's own tokenizer where it lies on this host, else by a rule of thumb.

Nothing is fetched from anywhere. Chat templates are rendered as `transformers` does (`apply_chat_template` with
`add_generation_prompt`), in a sandbox, without `transformers`. Heavy: tokenizers, jinja2 and huggingface_hub are
loaded here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol  # Any: what a tokenizer's files and Jinja2 hold

from huggingface_hub import try_to_load_from_cache
from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from tilth.schemas import BadInput

ASCII_BYTES: Final = (
    4.0  # per token, of English text: OpenAI's rule of thumb ("What are tokens and how to count them")
)
OTHER_BYTES: Final = (
    2.5  # ours: a Cyrillic letter has two bytes, a Chinese one three, and each is about one token
)
MESSAGE_TOKENS: Final = (
    4  # role and delimiters, as in ChatML; OpenAI's cookbook counts three and one for a name
)
BATCH: Final = 4096  # rendered prompts that are in memory at once

_NOT_ASCII: Final = bytes(range(128, 256))


class TokenCounter(Protocol):
    """Counts the tokens of prompts for a forecast, and says how."""

    exact: bool
    how: str

    def count(self, prompts: Sequence[Sequence[Mapping[str, str]]]) -> list[int]:
        """The number of prompt tokens of each; a prompt is a list of messages."""
        ...


def counter(model: str, revision: str = "") -> TokenCounter:
    """Counts for a model: a folder, or a name on the hub whose files are in the local cache. Never a download.

    Without a `tokenizer.json` on this host it estimates. Raises `BadInput` when the tokenizer or its chat template is
    there and cannot be read.
    """
    folder = _folder(model, revision)
    return EstimatedCounter() if folder is None else ModelCounter(folder)


def _folder(model: str, revision: str) -> Path | None:
    here = Path(model)
    if model and here.is_dir():
        return here if (here / "tokenizer.json").is_file() else None
    try:
        cached = try_to_load_from_cache(model, "tokenizer.json", revision=revision or None)
    except ValueError:  # no name that the hub could have
        return None
    return Path(cached).parent if isinstance(cached, str) else None


class EstimatedCounter:
    """A rule of thumb on UTF-8 bytes; right within a third for prose, further off for code and rare scripts."""

    exact = False
    how = "an estimate of 4 bytes a token"

    def count(self, prompts: Sequence[Sequence[Mapping[str, str]]]) -> list[int]:
        """The number of prompt tokens of each, estimated."""
        return [
            sum(_estimate(message["content"]) + MESSAGE_TOKENS for message in prompt) for prompt in prompts
        ]


def _estimate(text: str) -> int:
    if text.isascii():
        return math.ceil(len(text) / ASCII_BYTES)
    data = text.encode(errors="replace")
    plain = len(data.translate(None, _NOT_ASCII))
    return math.ceil(plain / ASCII_BYTES + (len(data) - plain) / OTHER_BYTES)


class ModelCounter:
    """Counts with the tokenizer and the chat template of a folder: what an engine would see.

    `refused` counts prompts that the template does not take (an engine would refuse them too); their contents are
    counted alone. Without a chat template all are counted so, and the count is not exact.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer = _tokenizer(folder / "tokenizer.json")
        config = _settings(folder / "tokenizer_config.json")
        source = _template_source(folder, config)
        self._render = None if source is None else _renderer(source, config, folder)
        self.exact = self._render is not None
        self.how = "the model's tokenizer" + ("" if self.exact else ", without a chat template")
        self.refused = 0

    def count(self, prompts: Sequence[Sequence[Mapping[str, str]]]) -> list[int]:
        """The number of prompt tokens of each."""
        counts: list[int] = []
        for start in range(0, len(prompts), BATCH):
            counts += self._count(prompts[start : start + BATCH])
        return counts

    def _count(self, prompts: Sequence[Sequence[Mapping[str, str]]]) -> list[int]:
        texts, extra = zip(*map(self._text, prompts), strict=True)
        # the template writes the special tokens: the tokenizer must not add them again
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(one) + more for one, more in zip(encoded, extra, strict=True)]

    def _text(self, prompt: Sequence[Mapping[str, str]]) -> tuple[str, int]:
        """The rendered prompt, and the tokens that are not in it."""
        if self._render is not None:
            try:
                return self._render(prompt), 0
            except (TemplateError, TypeError, ValueError, LookupError):
                self.refused += 1
        return "\n".join(message["content"] for message in prompt), MESSAGE_TOKENS * len(prompt)


def _tokenizer(path: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise _unreadable(path, "a file that the tokenizers library cannot load") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _unreadable(path: Path, found: str) -> BadInput:
    return BadInput(
        f"the model's {path.name}",
        found=found,
        wanted="the file as the model's authors published it",
        do=f"copy or download the model again; the file is {path}",
    )


def _settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _unreadable(path, "a file that is not JSON") from error
    if not isinstance(settings, dict):
        raise _unreadable(path, "JSON that is not an object")
    return settings


def _template_source(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The chat template: a file of its own goes before the entry in the configuration, as in transformers."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    entry = config.get("chat_template")
    if isinstance(entry, list):  # several, by name
        named = {one.get("name"): one.get("template") for one in entry if isinstance(one, dict)}
        entry = named.get("default")
    return entry if isinstance(entry, str) else None


def _renderer(
    source: str, config: Mapping[str, Any], folder: Path
) -> Callable[[Sequence[Mapping[str, str]]], str]:
    try:
        template = _environment().from_string(source)
    except TemplateSyntaxError as error:
        found = f"a mistake in line {error.lineno}: {error.message}"
        raise _unreadable(folder / "chat_template", found) from error
    constants = {name: _token(value) for name, value in config.items() if name.endswith("_token")}
    constants = {name: value for name, value in constants.items() if value is not None}

    def render(prompt: Sequence[Mapping[str, str]]) -> str:
        messages = [{"role": message["role"], "content": message["content"]} for message in prompt]
        return template.render(
            **constants, messages=messages, tools=None, documents=None, add_generation_prompt=True
        )

    return render


def _token(value: Any) -> str | None:
    token = value.get("content") if isinstance(value, dict) else value
    return token if isinstance(token, str) else None


def _environment() -> ImmutableSandboxedEnvironment:
    """What chat templates are written for: `transformers.utils.chat_template_utils`."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    environment.filters["tojson"] = _tojson
    functions: dict[str, Any] = {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    environment.globals.update(functions)
    return environment


class _Generation(Extension):
    """`{% generation %}`: marks what the model is trained on; means nothing to a prompt."""

    tags = {"generation"}  # noqa: RUF012 - Jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    """Jinja2's own would escape for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
