"""Licences of sources: what each allows, and which one follows for data made from several.

Names are those of the Hugging Face Hub (https://huggingface.co/docs/hub/repositories-licenses); SPDX ids
(https://spdx.org/licenses) and the addresses of Creative Commons are understood too. This is a guard against plain
mistakes, not advice of a lawyer.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from tilth.schemas.errors import ConfigError

UNDECLARED: Final = "undeclared"


class Reach(IntEnum):
    """Who may be given the data; false in a condition where nobody may."""

    NOBODY = 0
    ORGANISATION = 1  # not the public; also where the terms are not known
    ANYONE = 2


@dataclass(frozen=True, slots=True)
class Licence:
    """What a licence allows. Where terms are not known, the strictest are assumed.

    Args:
        id: lower case; the Hub's name where it has one. hub_id: the value of `license` in a card.
        redistribute: who may be given it. derivatives: whether what is made from it may be given away.
        share_alike: whether that must be under the same licence. commercial: whether it may be used so.
        attribution: whether its authors must be named.
    """

    id: str
    hub_id: str
    redistribute: Reach
    derivatives: bool
    share_alike: bool
    commercial: bool
    attribution: bool


class Combined(NamedTuple):
    """What holds for data made from several sources: a licence, or why there is none."""

    licence: Licence | None
    refusal: str | None


def _open(
    name: str,
    *,
    derivatives: bool = True,
    share_alike: bool = False,
    commercial: bool = True,
    attribution: bool = True,
) -> Licence:
    return Licence(name, name, Reach.ANYONE, derivatives, share_alike, commercial, attribution)


def _unknown(name: str, hub_id: str = "other", reach: Reach = Reach.ORGANISATION) -> Licence:
    return Licence(
        name, hub_id, reach, reach > Reach.NOBODY, share_alike=True, commercial=False, attribution=True
    )


# From the least restrictive to the most, as far as `combine` needs an order: of those without a condition that
# another lacks, the last one stands for all.
_KNOWN: Final = (
    *(_open(name, attribution=False) for name in ("pddl", "cc0-1.0", "unlicense", "wtfpl")),
    *(_open(name) for name in ("isc", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "apache-2.0", "ecl-2.0")),
    *(
        _open(name)
        for name in ("cdla-permissive-1.0", "cdla-permissive-2.0", "c-uda", "etalab-2.0", "odc-by")
    ),
    *(_open(f"cc-by-{version}") for version in ("2.0", "2.5", "3.0", "4.0")),
    *(_open(f"cc-by-nc-{version}", commercial=False) for version in ("2.0", "3.0", "4.0")),
    *(
        _open(name, share_alike=True)
        for name in ("lgpl-2.1", "lgpl-3.0", "mpl-2.0", "gpl-2.0", "gpl-3.0", "agpl-3.0")
    ),
    *(_open(name, share_alike=True) for name in ("gpl", "gfdl", "odbl", "cdla-sharing-1.0")),
    *(_open(f"cc-by-sa-{version}", share_alike=True) for version in ("3.0", "4.0")),
    *(
        _open(f"cc-by-nc-sa-{version}", share_alike=True, commercial=False)
        for version in ("2.0", "3.0", "4.0")
    ),
    _open("cc-by-nd-4.0", derivatives=False),
    *(_open(f"cc-by-nc-nd-{version}", derivatives=False, commercial=False) for version in ("3.0", "4.0")),
    _unknown("internal"),
    _unknown(UNDECLARED, "unknown"),
    _unknown("proprietary", reach=Reach.NOBODY),
    _unknown("no-redistribution", reach=Reach.NOBODY),
)
LICENCES: Final = {one.id: one for one in _KNOWN}
"""The licences that are known by name."""

_ORDER: Final = {name: place for place, name in enumerate(LICENCES)}
# What a share-alike licence may be changed for: its own later version, or by an explicit permission (of Creative
# Commons for GPL 3, https://creativecommons.org/compatiblelicenses; of section 13 of GPL 3 for AGPL 3).
_BECOMES: Final = {
    "cc-by-sa-3.0": "cc-by-sa-4.0",
    "cc-by-sa-4.0": "gpl-3.0",
    "gpl-3.0": "agpl-3.0",
    "lgpl-2.1": "lgpl-3.0",
    "lgpl-3.0": "gpl-3.0",
    "cc-by-nc-sa-2.0": "cc-by-nc-sa-3.0",
    "cc-by-nc-sa-3.0": "cc-by-nc-sa-4.0",
}
_ALIASES: Final = {
    "cc0": "cc0-1.0",
    "cc-zero": "cc0-1.0",
    "public-domain": "cc0-1.0",
    "apache": "apache-2.0",
    "apache2": "apache-2.0",
    "apache-2": "apache-2.0",
    "expat": "mit",
    "odbl-1.0": "odbl",
    "odc-odbl": "odbl",
    "odc-by-1.0": "odc-by",
    "pddl-1.0": "pddl",
    "gfdl-1.3": "gfdl",
    "unknown": UNDECLARED,
    "none": UNDECLARED,
    "confidential": "proprietary",
    "all-rights-reserved": "proprietary",
}
_FILLERS: Final = {"", "the", "license", "licence", "version", "international", "only"}
_CUSTOM: Final = re.compile(r"other:[a-z0-9][a-z0-9._-]*")
_CREATIVE_COMMONS: Final = re.compile(
    r"https?://creativecommons\.org/(?:licenses|publicdomain)/([a-z-]+)/([0-9.]+).*"
)


def licence(text: str) -> Licence:
    """The licence that a text names, however it is written. Raises `ConfigError` for an unknown one.

    `other:NAME` is a licence of one's own; what it allows is not known.

    >>> licence("CC BY-SA 4.0").id, licence("https://creativecommons.org/licenses/by-nc/4.0/").id
    ('cc-by-sa-4.0', 'cc-by-nc-4.0')
    >>> licence("GPL-3.0-or-later").id, licence("Apache License 2.0").id, licence("other:terms.2").hub_id
    ('gpl-3.0', 'apache-2.0', 'other')
    """
    name = _normal(text)
    if found := LICENCES.get(_ALIASES.get(name, name)):
        return found
    if _CUSTOM.fullmatch(name):
        return _unknown(name)
    near = difflib.get_close_matches(name, LICENCES, n=3, cutoff=0.5) or ["cc-by-4.0", "internal"]
    do = f"use {', '.join(near)}, or other:NAME for terms of your own"
    raise ConfigError("a licence", found=text, wanted="a licence of the Hub or of SPDX", do=do)


def _normal(text: str) -> str:
    name = text.strip().lower()
    if found := _CREATIVE_COMMONS.fullmatch(name):
        kind, version = found.groups()
        return "cc0-1.0" if kind == "zero" else f"cc-{kind}-{version}"
    words = [word for word in re.split(r"[\s_,()-]+", name) if word not in _FILLERS]
    return re.sub(r"-v(?=\d)|-or-later$", lambda hit: "-" if hit[0] == "-v" else "", "-".join(words))


def combine(names: Iterable[str]) -> Combined:
    """The licence for data made from sources under `names`: the most restrictive that all of them allow.

    Takes the ids of licences as `licence` does; nothing at all is undeclared. Of several whose terms are not known
    comes an undeclared one. A refusal says which licences are in the way. Raises `ConfigError` for an unknown name.

    >>> combine(["mit", "cc-by-4.0"]).licence.id
    'cc-by-4.0'
    >>> combine(["cc-by-sa-4.0", "odbl"]).refusal
    'odbl and cc-by-sa-4.0 each ask for themselves'
    """
    found = sorted({licence(name) for name in names}, key=_place) or [LICENCES[UNDECLARED]]
    if refusal := _forbidden(found):
        return Combined(None, refusal)
    if closed := [one for one in found if one.redistribute is Reach.ORGANISATION]:
        return Combined(closed[0] if len(closed) == 1 else LICENCES[UNDECLARED], None)
    return _of_open(found)


def _place(one: Licence) -> tuple[int, str]:
    return _ORDER.get(one.id, len(_ORDER)), one.id


def _forbidden(found: Iterable[Licence]) -> str | None:
    for one in found:
        if not one.redistribute:
            return f"{one.id} forbids to pass it on"
        if not one.derivatives:
            return f"{one.id} forbids to pass on what is made from it"
    return None


def _of_open(found: list[Licence]) -> Combined:
    alike = [one for one in found if one.share_alike]
    if not alike:
        free = [one for one in found if one.commercial]
        return Combined(
            (found if len(free) == len(found) else [one for one in found if not one.commercial])[-1], None
        )
    own = _meeting(alike)
    if own is None:
        return Combined(None, f"{' and '.join(one.id for one in alike)} each ask for themselves")
    if own.commercial and (bound := [one for one in found if not one.commercial]):
        return Combined(
            None, f"{own.id} asks for itself, which {bound[0].id} forbids: it allows no commercial use"
        )
    return Combined(own, None)


def _meeting(alike: list[Licence]) -> Licence | None:
    """The first licence that every one of them may be changed for."""
    first, *rest = [_line(one.id) for one in alike]
    common = [name for name in first if all(name in line for line in rest)]
    return LICENCES[common[0]] if common else None


def _line(name: str) -> list[str]:
    line = [name]
    while following := _BECOMES.get(line[-1]):
        line.append(following)
    return line
