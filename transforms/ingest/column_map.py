"""Column maps: a few lines of YAML that say where a foreign log keeps what.

turns: utterances            # required: the list of turns; all places are dotted paths into a row
speaker: speaker             # key of a turn: who speaks (default role)
text: text                   # key of a turn: what is said (default content)
roles:                       # speaker -> user | assistant | system | tool (default: the usual names)
  customer: user
  agent: assistant
id: conversation_id          # the rest is optional
user: caller.id
started_at: opened
model: bot_version
language: locale
system: instructions         # a key of the row with the system prompt
merge_consecutive: true      # two turns of one speaker in a row are joined with a newline (default: set aside)
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final

from tilth.schemas import BadInput, NotFound
from tilth.transforms.ingest.shapes.chat import ChatShape
from tilth.transforms.ingest.sources import open_bytes
from tilth.transforms.ingest.turns import ROLES

_PATHS: Final = ("turns", "speaker", "text", "id", "user", "started_at", "model", "language", "system")
_KEYS: Final = (*_PATHS, "roles", "merge_consecutive")
_ROLE_NAMES: Final = ("user", "assistant", "system", "tool")


def load(uri: str) -> dict[str, Any]:
    """The column map at `uri` as plain values, checked. Raises `NotFound`, `BadInput`."""
    import yaml

    try:
        with open_bytes(uri) as file:
            value = yaml.safe_load(file)
    except FileNotFoundError as error:
        raise NotFound(f"the column map {uri!r}", do="check the path") from error
    except yaml.YAMLError as error:
        raise BadInput(f"the column map {uri!r}", found="text that is no YAML", wanted="YAML") from error
    shape_of(value, uri)
    return value


def shape_of(mapping: object, named: str = "the column map") -> ChatShape:
    """The shape that a column map describes. Raises `BadInput` naming the key and the nearest known one."""
    if not isinstance(mapping, Mapping):
        raise BadInput(f"{named!r}", found=type(mapping).__name__, wanted="keys and values")
    for key in mapping:
        if key not in _KEYS:
            raise _unknown(key, named)
    for key in _PATHS:
        if not isinstance(mapping.get(key, ""), str):
            raise BadInput(f"`{key}` of {named!r}", found=type(mapping[key]).__name__, wanted="a dotted path")
    if not mapping.get("turns"):
        raise BadInput(f"{named!r} has no `turns`", wanted="the path of the list of turns")
    if not isinstance(mapping.get("merge_consecutive", False), bool):
        raise BadInput(f"`merge_consecutive` of {named!r}", wanted="true or false")
    return _shape(mapping, _roles(mapping.get("roles"), named))


def _unknown(key: object, named: str) -> BadInput:
    near = difflib.get_close_matches(str(key), _KEYS, n=1)
    do = f"did you mean `{near[0]}`?" if near else None
    return BadInput(f"unknown key `{key}` in {named!r}", wanted=f"one of {', '.join(_KEYS)}", do=do)


def _roles(roles: object, named: str) -> Mapping[str, str]:
    if roles is None:
        return ROLES
    if not isinstance(roles, Mapping) or any(role not in _ROLE_NAMES for role in roles.values()):
        raise BadInput(f"`roles` of {named!r}", wanted=f"speaker: one of {', '.join(_ROLE_NAMES)}")
    return {str(speaker): role for speaker, role in roles.items()}


def _shape(mapping: Mapping[str, Any], roles: Mapping[str, str]) -> ChatShape:
    def paths(key: str) -> tuple[str, ...]:
        return (mapping[key],) if mapping.get(key) else ()

    return ChatShape(
        "map",
        mapping["turns"],
        speaker=mapping.get("speaker") or "role",
        text=mapping.get("text") or "content",
        roles=roles,
        ids=paths("id"),
        users=paths("user"),
        instants=paths("started_at"),
        models=paths("model"),
        languages=paths("language"),
        system=mapping.get("system"),
        merge=mapping.get("merge_consecutive", False),
    )
