"""Schedules: the part `schedules:` of a settings file, as values and as text that keeps its comments.

The file is the truth. `tilth schedule` edits it and `tilth up` follows it; no other place holds a schedule.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import re
from collections.abc import Generator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Final, Self  # Any: values of YAML files
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tilth.flows.cache import parse_age
from tilth.schemas import BadInput, ConfigError, NotFound

EPOCH: Final = datetime(
    2020, 1, 1, tzinfo=UTC
)  # `every` counts from here, so that a restart does not shift it
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_DAY_NAMES: Final = "(MON|TUE|WED|THU|FRI|SAT|SUN|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC)"
_PASSWORD: Final = re.compile(r"//[^/@:\s]*:[^/@\s]+@")
_SECRET: Final = re.compile(r"(^|_)(salt|password|secret|token|api_key)$")


class Schedule(BaseModel):
    """When a recipe runs by itself, and what it is told over the rest of the settings file.

    Args:
        recipe: what is run.
        cron: five fields, as cron has them; the times are those of `timezone` (UTC when that is left out).
        every: an interval like 20s, 15m or 6h, counted from 2020-01-01 00:00 UTC; instead of `cron`.
        timezone: a name of the IANA database, as Europe/Berlin; only with `cron`.
        paused: it stays in the file and does not run.
        settings: keys as in the settings file; never a secret, because the server stores them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str = Field(min_length=1)
    cron: str | None = None
    every: str | None = None
    timezone: str | None = None
    paused: bool = False
    settings: dict[str, Any] = Field(default_factory=dict)

    @field_validator("cron")
    @classmethod
    def _cron(cls, value: str | None) -> str | None:
        if value is not None:
            _check_cron(value)
        return value

    @field_validator("every")
    @classmethod
    def _every(cls, value: str | None) -> str | None:
        if value is not None and parse_age(value) < 1:
            raise ValueError("an interval is one second at least")
        return value

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                ZoneInfo(value)
            except (KeyError, ValueError, OSError):
                raise ValueError(
                    "a time zone is a name of the IANA database, as Europe/Berlin or UTC"
                ) from None
        return value

    @field_validator("settings")
    @classmethod
    def _settings(cls, value: dict[str, Any]) -> dict[str, Any]:
        if "schedules" in value:
            raise ValueError("settings of a schedule hold no schedules")
        for key, found in _leaves(value):
            if _SECRET.search(key) or (isinstance(found, str) and _PASSWORD.search(found)):
                raise ValueError(
                    f"{key} holds a secret, and the server stores what schedules say: "
                    "put it in the environment or at the top of the settings file"
                )
        return value

    @model_validator(mode="after")
    def _once(self) -> Self:
        if (self.cron is None) == (self.every is None):
            raise ValueError("a schedule has either `cron` or `every`")
        if self.every and self.timezone:
            raise ValueError("`timezone` goes with `cron`; an interval has none")
        return self

    @property
    def interval(self) -> timedelta | None:
        """`every` as a duration."""
        return None if self.every is None else timedelta(seconds=parse_age(self.every))

    @property
    def when(self) -> str:
        """When it runs, for people."""
        return f"every {self.every}" if self.every else f"{self.cron} {self.timezone or 'UTC'}"

    @property
    def options(self) -> dict[str, Any]:
        """What a run is told: to read only what is new, unless the settings say otherwise."""
        return {"incremental": True, **self.settings}

    def after(self, moment: datetime, count: int = 1) -> list[datetime]:
        """The next times after an aware `moment`; none while paused."""
        return [] if self.paused else list(islice(self._times(moment), count))

    def check(self, file: Path) -> None:
        """Loads the settings as a run will. Raises `ConfigError` for what a run could not begin with."""
        from tilth.flows.recipes import RECIPES
        from tilth.flows.settings import load

        if self.recipe not in RECIPES:
            raise ConfigError("no such recipe", found=self.recipe, wanted=", ".join(RECIPES))
        settings = load(str(file) if file.exists() else None, self.options)
        reads = "dataset" if RECIPES[self.recipe].tables else "sources"
        if not getattr(settings, reads):
            do = f"add --{'from' if reads == 'dataset' else 'source'}, or `{reads}:` to {file.name}"
            raise ConfigError(f"the recipe {self.recipe} has nothing to read", wanted=f"`{reads}`", do=do)

    def _times(self, moment: datetime) -> Iterator[datetime]:
        if self.interval is None:
            from cronsim import CronSim

            yield from CronSim(str(self.cron), moment.astimezone(ZoneInfo(self.timezone or "UTC")))
            return
        step = (moment - EPOCH) // self.interval
        while True:
            step += 1
            yield EPOCH + step * self.interval


def _check_cron(text: str) -> None:
    """Refuses what programs read in different ways: seconds, `L`, `W`, `#`, `@daily`, two days with a star in one."""
    from cronsim import CronSim, CronSimError

    fields = text.split()
    plain = re.compile(r"[\d*,/-]+")
    if len(fields) != 5 or not all(plain.fullmatch(re.sub(_DAY_NAMES, "0", f.upper())) for f in fields):
        raise ValueError(
            "cron has five fields of numbers, names, `*`, `,`, `-` and `/`: minute hour day month weekday"
        )
    days = (fields[2], fields[4])
    if "*" not in days and any(field.startswith("*") for field in days):
        raise ValueError(
            "a day of the month and a weekday, one of them by `*/n`, mean different days to different programs"
        )
    try:
        next(CronSim(text, EPOCH))
    except (CronSimError, StopIteration) as error:
        raise ValueError(f"cron: {error or 'no day is like that'}") from None


def _leaves(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        elif isinstance(value, list):
            yield from ((str(key), item) for item in value)
        else:
            yield str(key), value


def check_name(name: str) -> str:
    """The name of a schedule, if it can be one. Raises `BadInput`."""
    if not _NAME.fullmatch(name):
        wanted = "up to 63 of a-z, 0-9, - and _, a letter or a digit first"
        raise BadInput("a schedule cannot be called so", found=name, wanted=wanted)
    return name


def schedules_of(file: Path) -> dict[str, Schedule]:
    """The schedules of a settings file by name; none where there is no file. Raises `ConfigError` as `load` does."""
    from tilth.flows.settings import load

    if not file.exists():
        return {}
    schedules = load(str(file)).schedules
    return {check_name(name): schedule for name, schedule in schedules.items()}


# The file


@contextlib.contextmanager
def edited(file: Path, *, dry_run: bool = False) -> Generator[Any]:  # ruamel's map has no static type
    """The schedules of a settings file, to change in the block; then the file is replaced in one step.

    Comments and the order of keys stay. The file is made when it is missing. Two edits at once follow each other.
    Raises `BadInput` for a file that is not YAML, or holds something else under `schedules`.
    """
    from ruamel.yaml.comments import CommentedMap

    target = file.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(target.parent):
        yaml, text, root = _parsed(target)
        values = CommentedMap() if root is None else root
        schedules = values.get("schedules")
        if schedules is None:
            schedules = values["schedules"] = CommentedMap()
        if not isinstance(schedules, dict):
            raise BadInput(f"`schedules` in {file}", found=type(schedules).__name__, wanted="a map by name")
        yield schedules
        if not schedules:
            del values["schedules"]
        if not dry_run:
            # A file of comments alone is no map to ruamel, which would lose them.
            head = text if root is None else ""
            _replace(target, head + (_dumped(yaml, values) if values else ""))


def block_of(name: str, values: Mapping[str, Any]) -> str:
    """A schedule as it stands in the file."""
    from ruamel.yaml import YAML

    return _dumped(YAML(), {"schedules": {name: dict(values)}})


def found_in(schedules: Mapping[str, Any], name: str) -> Any:
    """The schedule of this name in the map that `edited` gives. Raises `NotFound`."""
    if name not in schedules:
        known = ", ".join(map(str, schedules)) or "no schedule"
        raise NotFound("no such schedule", found=name, wanted=known, do="tilth schedule ls names them")
    return schedules[name]


def _parsed(file: Path) -> tuple[Any, str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError
    from ruamel.yaml.util import load_yaml_guess_indent

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096  # or long lines would be broken
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    try:
        root: Any = yaml.load(text)
        _, indent, offset = load_yaml_guess_indent(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "a syntax error"
        raise BadInput(f"{file} is not YAML", found=where, do="mend the line") from None
    if root is not None and not isinstance(root, dict):
        raise BadInput(f"{file} holds no settings", found=type(root).__name__, wanted="keys and values")
    if indent and offset is not None:
        yaml.indent(mapping=2, sequence=indent, offset=offset)
    return yaml, text, root


def _dumped(yaml: Any, values: Any) -> str:
    out = io.StringIO()
    yaml.dump(values, out)
    return out.getvalue()


def _replace(file: Path, text: str) -> None:
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    mode = file.stat().st_mode & 0o777 if file.exists() else None
    try:
        with beside.open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        if mode is not None:
            beside.chmod(mode)
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(folder: Path) -> Generator[None]:
    # The folder is locked, not the file: the file is replaced, and a lock on the old one would hold nothing.
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
