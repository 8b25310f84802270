"""The lexicon: patterns as data, compiled to regular expressions that need neither lookaround nor Unicode tables.

A file of `lexicon/` holds the patterns of one label; a long pattern is a list of alternatives. In a pattern, a space
stands for any run of spaces and commas, an apostrophe is optional ("don't" finds "dont"), `{name}` is a macro of
`_macros.yaml`, every group is non-capturing, and letters are lower case, because patterns are matched against
`tilth.transforms.feedback.speech.spoken`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

from tilth.schemas import ConfigError
from tilth.schemas.language import EDGE
from tilth.schemas.refusals import DECLINES
from tilth.transforms.feedback.taxonomy import DSAT, SAT

SCOPES: Final = ("anywhere", "start", "end", "whole", "clause")
CONTEXTS: Final = (
    "asked",
    "failed",
    "apologised",
    "refused",
    "code",
    "suggested",
    "offered",
    "confirming",
    "lost",
    "invited",
)
# ASCII white space: the Unicode class makes the automaton of each pattern several times larger.
_SPACE: Final = r"\t\n\r\x20"
_GAP: Final = rf"[,{_SPACE}]+"
_KEYS: Final = {"pattern", "weight", "scope", "match", "no_match", "unless", "when", "not_when", "edges"}


@dataclass(frozen=True, slots=True)
class Pattern:
    """One way to say one thing.

    Args:
        label: what it is a sign of.
        index: its place in its label's file; `label` and `index` name it.
        scope: where in the turn it must stand, one of `SCOPES`.
        weight: how sure a single match is, in (0, 1].
        regex: the compiled form; group 1 is what comes before the evidence, group 2 the evidence.
        unless: a regular expression that takes the match back when it is found anywhere in the turn.
        when: facts about the exchange (see `CONTEXTS`) that must hold, any of them.
        not_when: facts of which none may hold.
        match: texts that it must find.
        no_match: texts that it must not find.
    """

    label: str
    index: int
    scope: str
    weight: float
    regex: str
    unless: str | None
    when: tuple[str, ...]
    not_when: tuple[str, ...]
    match: tuple[str, ...]
    no_match: tuple[str, ...]


@cache
def lexicon() -> Mapping[str, tuple[Pattern, ...]]:
    """All patterns by label. Raises `ConfigError` on a file that is not as this module describes."""
    return {label: tuple(_patterns(label)) for label in (*SAT, *DSAT)}


@cache
def context() -> Mapping[str, str]:
    """Regular expressions over replies and requests by name, from `_context.yaml`; of `declines`, the schemas'."""
    found = load("_context")
    facts = {
        name: compiled(text, "anywhere", edges=name in found["words"])
        for name, text in found["facts"].items()
    }
    return {**facts, "declines": DECLINES}


def load(name: str) -> Any:  # Any: what a YAML file holds
    """The content of `lexicon/<name>.yaml`."""
    import yaml

    file = resources.files("tilth.transforms.feedback").joinpath("lexicon").joinpath(f"{name}.yaml")
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def compiled(text: str, scope: str, *, edges: bool) -> str:
    """The regular expression of a pattern's `text`, with the groups that `Pattern.regex` promises."""
    lead, trail = _expand(_macros()["lead"]), _expand(_macros()["trail"])
    edge = EDGE if edges else ""
    body = f"{edge}(?:{_expand(text)}){edge}"
    before = {"start": f"^{lead}", "whole": f"^{lead}", "clause": _expand(_macros()["clause"])}.get(scope, "")
    after = {"end": f"{trail}$", "whole": f"{trail}$"}.get(scope, "")
    return f"({before})({body}){after}"


@cache
def _macros() -> Mapping[str, str]:
    return load("_macros")


def _expand(text: str) -> str:
    while found := re.search(r"\{([a-z_]+)\}", text):
        text = text.replace(found[0], f"(?:{_macros()[found[1]]})")
    parts = re.split(r"(\[(?:\\.|[^\]\\])*\])", text)  # character classes stand at the odd places
    return "".join(
        _outside(part) if at % 2 == 0 else part.replace(r"\s", _SPACE) for at, part in enumerate(parts)
    )


def _outside(part: str) -> str:
    part = re.sub(r"(?<!\\)\((?!\?)", "(?:", part).replace(r"\s", f"[{_SPACE}]")
    return part.replace(" ?", "( )?").replace("( )?", f"(?:{_GAP})?").replace(" ", _GAP).replace("'", "'?")


def _patterns(label: str) -> list[Pattern]:
    return [_pattern(label, index, entry) for index, entry in enumerate(load(label))]


def _pattern(label: str, index: int, entry: Mapping[str, Any]) -> Pattern:  # Any: what a YAML file holds
    _check(label, index, entry)
    pattern, unless = _joined(entry["pattern"]), _joined(entry.get("unless", ""))
    return Pattern(
        label=label,
        index=index,
        scope=entry["scope"],
        weight=float(entry["weight"]),
        regex=compiled(pattern, entry["scope"], edges=entry.get("edges", True)),
        unless=compiled(unless, "anywhere", edges=True) if unless else None,
        when=tuple(entry.get("when", ())),
        not_when=tuple(entry.get("not_when", ())),
        match=tuple(entry["match"]),
        no_match=tuple(entry["no_match"]),
    )


def _joined(alternatives: str | list[str]) -> str:
    return alternatives if isinstance(alternatives, str) else "|".join(alternatives)


def _check(label: str, index: int, entry: Mapping[str, Any]) -> None:  # Any: what a YAML file holds
    unknown = {*entry} - _KEYS | {*entry.get("when", ()), *entry.get("not_when", ())} - {*CONTEXTS}
    missing = _KEYS - {*entry} - {"unless", "when", "not_when", "edges"}
    if unknown or missing or entry["scope"] not in SCOPES or not 0 < entry["weight"] <= 1:
        raise ConfigError(
            f"lexicon entry {index} of {label}",
            found=f"unknown: {sorted(unknown)}, missing: {sorted(missing)}, scope: {entry.get('scope')}",
            wanted=f"keys {sorted(_KEYS)}, scope of {SCOPES}, weight in (0, 1]",
        )
