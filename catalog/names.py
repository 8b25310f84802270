"""Names: `family.table` for a dataset, `family.table@YYYY.MM.DD.N` for one version of it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Final, NamedTuple

from tilth.schemas import BadInput, NotFound

_NAME: Final = re.compile(r"(?P<family>[a-z][a-z0-9_]*)\.(?P<table>[a-z][a-z0-9_]*)(@(?P<version>[0-9.]+))?")
_FAMILY: Final = re.compile(r"[a-z][a-z0-9_]*")
_RUN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Name(NamedTuple):
    """A parsed name; `version` is null for the latest."""

    family: str
    table: str
    version: str | None

    @property
    def dataset(self) -> str:
        """The name without a version.

        >>> parse("observed.pairs@2026.11.21.1").dataset
        'observed.pairs'
        """
        return f"{self.family}.{self.table}"


def parse(name: str) -> Name:
    """Takes a name apart. Raises `BadInput` when it is none."""
    found = _NAME.fullmatch(name)
    if not found:
        raise BadInput(
            "the name of a dataset", found=name, wanted="FAMILY.TABLE or FAMILY.TABLE@YYYY.MM.DD.N"
        )
    return Name(found["family"], found["table"], found["version"])


def check_family(family: str) -> None:
    """Raises `BadInput` unless `family` is lower case letters, digits and underscores."""
    if not _FAMILY.fullmatch(family):
        raise BadInput(
            "the name of a dataset family", found=family, wanted="lower case letters, digits, underscores"
        )


def check_run(run_id: str) -> None:
    """Raises `BadInput` unless `run_id` can be part of a path."""
    if not _RUN.fullmatch(run_id):
        raise BadInput(
            "a run id", found=run_id, wanted="up to 128 letters, digits, dots, dashes, underscores"
        )


def next_label(day: date, taken: Iterable[str]) -> str:
    """The next free version of a day.

    >>> next_label(date(2026, 11, 21), ["2026.11.21.1", "2026.11.21.9", "2026.11.20.30"])
    '2026.11.21.10'
    """
    prefix = f"{day:%Y.%m.%d}."
    numbers = [int(label.removeprefix(prefix)) for label in taken if label.startswith(prefix)]
    return f"{prefix}{max(numbers, default=0) + 1}"


def ordinal(label: str) -> tuple[int, ...]:
    """Sorts versions: the tenth of a day after its ninth."""
    return tuple(int(part) for part in label.split("."))


def not_found(kind: str, name: str, existing: Sequence[str]) -> NotFound:
    """The error for an unknown dataset or version, naming what comes nearest."""
    near = difflib.get_close_matches(name, existing, n=3, cutoff=0.5) or list(existing[-5:])
    do = "see them all with `tilth catalog ls`" if existing else "make some with `tilth run`"
    return NotFound(f"no {kind} {name}", found=", ".join(near) or "none at all", do=do)
