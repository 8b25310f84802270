"""Whether text is well-formed JSON, Python, YAML or XML. It is parsed and never run; bombs are refused, not unfolded.

None says that it cannot be told: text beyond `MAX_CODE` characters or `MAX_DEPTH` open brackets is not parsed.
"""

from __future__ import annotations

import warnings
from typing import Any, Final  # Any: parsed JSON

from tilth.transforms.rubrics.verifier_text import code_blocks

LANGUAGES: Final = ("json", "python", "xml", "yaml")
MAX_CODE: Final = 20_000
MAX_DEPTH: Final = (
    60  # parsers of Python and YAML take time that grows with the square of the depth, or worse
)
_NAMES: Final = {"py": "python", "python3": "python", "yml": "yaml", "svg": "xml", "js": "javascript"}
MISSING: Final = object()


def named_language(fence: str) -> str:
    """The language that a fence names, without options and with usual short names spelt out."""
    word = fence.split()[0].strip("{}.,:") if fence.split() else ""
    return _NAMES.get(word, word)


def json_value(text: str, *, whole: bool) -> Any:
    """The JSON value of a reply: the reply itself or one fenced block; `MISSING` where there is none.

    Args:
        text: the reply.
        whole: nothing else may stand beside the value or its fence.
    """
    value = _json(text)
    if value is not MISSING:
        return value
    blocks = code_blocks(text)
    if whole:
        alone = len(blocks) == 1 and only_block(text)
        return _json(blocks[0].code) if alone else MISSING
    fenced = (block for block in blocks if named_language(block.language) in ("", "json"))
    return next(
        (found for found in map(_json, (block.code for block in fenced)) if found is not MISSING), MISSING
    )


def only_block(text: str) -> bool:
    """Whether a reply is one fenced block and nothing beside it."""
    from tilth.transforms.rubrics.verifier_text import split_code

    prose, blocks = split_code(text)
    return len(blocks) == 1 and not any(map(str.strip, prose))


def _json(text: str) -> Any:
    import orjson

    try:
        return orjson.loads(text)
    except ValueError:
        return MISSING


def parses(text: str, language: str) -> bool | None:
    """Whether every fenced block of a language parses; a reply without such a block is taken as a whole."""
    named = [block.code for block in code_blocks(text) if named_language(block.language) == language]
    unnamed = [block.code for block in code_blocks(text) if not block.language]
    answers = [_parses(code, language) for code in named or unnamed or [text]]
    if False in answers:
        return False
    return None if None in answers else True


def _parses(code: str, language: str) -> bool | None:
    if not code.strip():
        return False
    if language == "json":
        return _json(code) is not MISSING
    if len(code) > MAX_CODE or _depth(code) > MAX_DEPTH:
        return None
    return {"python": _python, "xml": _xml, "yaml": _yaml}[language](code)


def _depth(code: str) -> int:
    depth = deepest = 0
    for sign in code:
        if sign in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in ")]}":
            depth = max(0, depth - 1)
    return deepest


def _python(code: str) -> bool | None:
    import ast
    import textwrap

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in strings: they are no errors
        try:
            ast.parse(textwrap.dedent(code))
        except (SyntaxError, ValueError):
            return False
        except (RecursionError, MemoryError):
            return None
    return True


def _yaml(code: str) -> bool:
    """Whether it is a mapping or a sequence, by events alone: neither aliases nor tags are resolved."""
    import yaml

    collections = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
    heads: list[bool] = []
    depth = 0
    try:
        for event in yaml.parse(code, Loader=yaml.SafeLoader):
            if not depth and isinstance(event, yaml.NodeEvent):
                heads.append(isinstance(event, collections))
            depth += isinstance(event, collections) - isinstance(event, yaml.CollectionEndEvent)
    except (yaml.YAMLError, ValueError):
        return False
    return bool(heads) and all(heads)


class _Declared(Exception):
    """A document type of its own: what entity bombs are made of."""


def _xml(code: str) -> bool | None:
    from xml.parsers import expat

    parser = expat.ParserCreate("utf-8")
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(code.strip().encode("utf-8", "surrogatepass"), True)
    except expat.ExpatError:
        return False
    except _Declared:
        return None
    return True


def _refuse(_name: str, _system: str | None, _public: str | None, internal: bool) -> None:
    if internal:
        raise _Declared
