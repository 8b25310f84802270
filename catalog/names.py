"""Names: `family.table` for a dataset, `family.table@YYYY.MM.DD.N` for one version of it, `family.table@TAG` too."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Final, NamedTuple

from tilth.schemas import BadInput, NotFound

_TAG: Final = re.compile(r"(?!latest$)[a-z][a-z0-9_-]{0,63}")  # `latest` is what no version at all means
_LABEL: Final = re.compile(r"\d{4}\.\d\d\.\d\d\.\d+")
_FAMILY: Final = re.compile(r"[a-z][a-z0-9_]*")
_NAME: Final = re.compile(
    rf"(?P<family>{_FAMILY.pattern})\.(?P<table>[a-z][a-z0-9_]*)(@(?P<version>[0-9.]+|{_TAG.pattern}))?"
)
_RELEASE: Final = re.compile(
    rf"(?P<family>{_FAMILY.pattern})(\.[a-z][a-z0-9_]*)?(@(?P<version>[0-9.]+|{_TAG.pattern}))?"
)
_RUN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Name(NamedTuple):
    """A parsed name; `version` is a version, a tag, or null for the latest."""

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
            "the name of a dataset",
            found=name,
            wanted="FAMILY.TABLE, FAMILY.TABLE@YYYY.MM.DD.N or FAMILY.TABLE@TAG",
        )
    return Name(found["family"], found["table"], found["version"])


def parse_release(name: str) -> tuple[str, str | None]:
    """The family and the version or tag that a name means, with or without a table. Raises `BadInput`.

    >>> parse_release("observed@2026.11.21.1"), parse_release("observed.pairs@golden"), parse_release("observed")
    (('observed', '2026.11.21.1'), ('observed', 'golden'), ('observed', None))
    """
    found = _RELEASE.fullmatch(name)
    if not found:
        raise BadInput("the name of a family", found=name, wanted="FAMILY, FAMILY@YYYY.MM.DD.N or FAMILY@TAG")
    return found["family"], found["version"]


def is_label(version: str) -> bool:
    """Whether this is a version and not a tag."""
    return _LABEL.fullmatch(version) is not None


def check_tag(tag: str) -> None:
    """Raises `BadInput` unless `tag` can stand in the place of a version."""
    if not _TAG.fullmatch(tag):
        wanted = "a lower case letter, then letters, digits, dashes, underscores; not `latest`"
        raise BadInput("a tag", found=tag, wanted=wanted)


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
    """The next free version of a day, or of the latest day that has one: what comes later sorts later.

    >>> next_label(date(2026, 11, 21), ["2026.11.21.1", "2026.11.21.9", "2026.11.20.30"])
    '2026.11.21.10'
    """
    labels = list(taken)
    latest = max((label.rpartition(".")[0] for label in labels), default="")
    prefix = max(f"{day:%Y.%m.%d}", latest) + "."
    numbers = [int(label.removeprefix(prefix)) for label in labels if label.startswith(prefix)]
    return f"{prefix}{max(numbers, default=0) + 1}"


def ordinal(label: str) -> tuple[int, ...]:
    """Sorts versions: the tenth of a day after its ninth."""
    return tuple(int(part) for part in label.split("."))


def not_found(kind: str, name: str, existing: Sequence[str]) -> NotFound:
    """The error for an unknown dataset or version, naming what comes nearest."""
    near = difflib.get_close_matches(name, existing, n=3, cutoff=0.5) or list(existing[-5:])
    do = "see them all with `tilth catalog ls`" if existing else "make some with `tilth run`"
    return NotFound(f"no {kind} {name}", found=", ".join(near) or "none at all", do=do)
