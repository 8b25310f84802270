"""Settings: command line over environment (`TILTH_…`) over `tilth.yaml`. Unknown keys are errors.

One direction: file, environment and options become one `Settings`, and `Settings` becomes the frozen configuration
of a recipe. The recipe's own dataclasses are the schema: their fields are the keys. Nothing below this door reads
the environment.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import os
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal  # Any: values of YAML files and of pydantic's own signatures

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, create_model
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from tilth.flows.schedules import Schedule
from tilth.pipelines.ask import AskConfig
from tilth.pipelines.judge_training import JudgeTrainingConfig
from tilth.pipelines.observed import Observed
from tilth.pipelines.orbit import Orbit
from tilth.pipelines.rationales import Rationales
from tilth.pipelines.rubrics import Rubrics
from tilth.pipelines.ultrafeedback import UltraFeedback
from tilth.pipelines.wildfeedback import WildFeedback
from tilth.schemas import ConfigError, NotFound
from tilth.transforms.feedback.classifier import ClassifierConfig
from tilth.transforms.feedback.spur_rubric import SpurConfig
from tilth.transforms.inference.engines import EngineConfig
from tilth.transforms.inference.usage import Caps, Prices
from tilth.transforms.inference.worker import WorkerConfig
from tilth.transforms.shell import Runner

DEFAULT_FILE = "tilth.yaml"
_NO_SETTINGS = ("TILTH_HOME",)  # of prefect.yaml: the folder that a worker finds the settings file in
PARTS = ("model", "judge", "moderator")  # roles that `engine` plays unless `engines` names another
_SECRET = ("user_salt",)  # a key of its own at the top, so that no recipe's configuration spells it out
_NO_KEYS = (
    *_SECRET,
    "forgotten_users",
    "forgotten_conversations",
)  # the last two come from the workspace's ledger


def _model(config: type, like: Any = None) -> type[BaseModel]:
    """A pydantic model with the fields of a dataclass; nested dataclasses become nested models.

    Defaults are those of `like`, an instance of the dataclass: one recipe may draw replies at another temperature than
    the next, and a key that is left out keeps it.
    """
    hints = typing.get_type_hints(config)
    open_fields = [f for f in dataclasses.fields(config) if f.name not in _NO_KEYS]
    shape = config() if like is None else like
    fields: dict[str, Any] = {f.name: _field(hints[f.name], getattr(shape, f.name)) for f in open_fields}
    return create_model(config.__name__, __config__=ConfigDict(extra="forbid", frozen=True), **fields)


def _field(kind: Any, value: Any) -> tuple[Any, Any]:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        model = _model(kind, value)
        return model, Field(default_factory=model)
    return kind, Field(default_factory=lambda: copy.copy(value))


def _build(config: type, model: BaseModel) -> Any:
    """The frozen dataclass that a validated model stands for."""
    hints = typing.get_type_hints(config)
    values = {name: getattr(model, name) for name in type(model).model_fields}
    nested = {
        name: _build(hints[name], value) for name, value in values.items() if isinstance(value, BaseModel)
    }
    return config(**{**values, **nested})


_PASSWORD = re.compile(r"//[^/@:]*:[^/@]+@")

_ObservedModel: Any = _model(Observed)
_SECTIONS: Mapping[str, type] = {
    "wildfeedback": WildFeedback,
    "ultrafeedback": UltraFeedback,
    "rationales": Rationales,
    "rubrics": Rubrics,
    "orbit": Orbit,
    "judge_training": JudgeTrainingConfig,
    "spur": SpurConfig,
    "classifier": ClassifierConfig,
}
_WildFeedbackModel: Any = _model(WildFeedback)
_UltraFeedbackModel: Any = _model(UltraFeedback)
_RationalesModel: Any = _model(Rationales)
_RubricsModel: Any = _model(Rubrics)
_OrbitModel: Any = _model(Orbit)
_JudgeTrainingModel: Any = _model(JudgeTrainingConfig)
_SpurModel: Any = _model(SpurConfig)
_ClassifierModel: Any = _model(ClassifierConfig)
_RunnerModel: Any = _model(Runner)
_EngineModel: Any = _model(EngineConfig)
_WorkerModel: Any = _model(WorkerConfig)
_PricesModel: Any = _model(Prices)
_CapsModel: Any = _model(Caps)
_AskModel: Any = _model(AskConfig)


class Settings(BaseSettings):
    """Everything that a run can be told."""

    model_config = SettingsConfigDict(
        env_prefix="TILTH_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    workspace: str = Field("./tilth-workspace", description="where runs and the catalog live")
    sources: list[str] = Field(default_factory=list, description="URIs or globs of conversation logs")
    dataset: str | None = Field(None, description="the dataset of the catalog that a recipe reads (--from)")
    format: str | None = Field(None, description="the shape of the sources; detected when not given")
    map: str | None = Field(None, description="a YAML column map for a foreign shape")
    incremental: bool = Field(
        False, description="read only what earlier runs over these sources have not read"
    )
    on_deleted: Literal["keep", "drop"] = Field(
        "keep", description="rows of source files that are gone: kept, or dropped from the next version"
    )
    licence: str | None = Field(None, description="the licence of the sources, as cc-by-4.0")
    schedules: dict[str, Schedule] = Field(default_factory=dict, description="what runs by itself, and when")
    licences: dict[str, str] = Field(
        default_factory=dict, description="licences by pattern of a source's URI"
    )
    user_salt: SecretStr = Field(SecretStr(""), description="secret that user ids are hashed with")
    max_quarantine_share: float = Field(0.25, ge=0, le=1, description="a run fails above this share")
    keep_stages: bool = Field(False, description="keep intermediate files after the commit")
    cache_url: SecretStr = Field(SecretStr(""), description="where answers are kept; may hold a password")
    # Models made from dataclasses have no static type.
    runner: _RunnerModel = Field(default_factory=_RunnerModel)  # pyright: ignore[reportInvalidTypeForm]
    engines: dict[str, _EngineModel] = Field(  # pyright: ignore[reportInvalidTypeForm]
        default_factory=dict,
        description="models that play a part of their own, by name; else as `engine` says",
    )
    engine: _EngineModel = Field(default_factory=_EngineModel)  # pyright: ignore[reportInvalidTypeForm]
    worker: _WorkerModel = Field(default_factory=_WorkerModel)  # pyright: ignore[reportInvalidTypeForm]
    prices: _PricesModel = Field(default_factory=_PricesModel)  # pyright: ignore[reportInvalidTypeForm]
    caps: _CapsModel = Field(default_factory=_CapsModel)  # pyright: ignore[reportInvalidTypeForm]
    observed: _ObservedModel = Field(default_factory=_ObservedModel)  # pyright: ignore[reportInvalidTypeForm]
    wildfeedback: _WildFeedbackModel = Field(default_factory=_WildFeedbackModel)  # pyright: ignore[reportInvalidTypeForm]
    ultrafeedback: _UltraFeedbackModel = Field(default_factory=_UltraFeedbackModel)  # pyright: ignore[reportInvalidTypeForm]
    rationales: _RationalesModel = Field(default_factory=_RationalesModel)  # pyright: ignore[reportInvalidTypeForm]
    rubrics: _RubricsModel = Field(default_factory=_RubricsModel)  # pyright: ignore[reportInvalidTypeForm]
    orbit: _OrbitModel = Field(default_factory=_OrbitModel)  # pyright: ignore[reportInvalidTypeForm]
    judge_training: _JudgeTrainingModel = Field(default_factory=_JudgeTrainingModel)  # pyright: ignore[reportInvalidTypeForm]
    spur: _SpurModel = Field(default_factory=_SpurModel)  # pyright: ignore[reportInvalidTypeForm]
    classifier: _ClassifierModel = Field(default_factory=_ClassifierModel)  # pyright: ignore[reportInvalidTypeForm]
    ask: _AskModel = Field(default_factory=_AskModel)  # pyright: ignore[reportInvalidTypeForm]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  (pydantic-settings names them)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line, then environment, then file."""
        return init_settings, env_settings, _FileSource(settings_cls)

    @property
    def names_a_model(self) -> bool:
        """Whether some model is named: `engine` has one, or `engines` has an entry."""
        return bool(self.engine.model or self.engines)

    def section(self, name: str) -> Any:
        """The frozen configuration of a recipe or command with a section of its own; null for another."""
        return _build(_SECTIONS[name], getattr(self, name)) if name in _SECTIONS else None

    def logs(self) -> Observed:
        """How logs are read and mined by rules: the section `observed`, which every recipe begins with."""
        recipe = _build(Observed, self.observed)
        ingest = dataclasses.replace(recipe.ingest, user_salt=self.user_salt.get_secret_value())
        return dataclasses.replace(recipe, ingest=ingest)

    def beam(self) -> Runner:
        """The runner."""
        return _build(Runner, self.runner)

    def model(self) -> EngineConfig:
        """Which model answers, and where it runs."""
        return _build(EngineConfig, self.engine)

    def role(self, name: str) -> EngineConfig:
        """Which model plays a part: the entry of `engines` with this name; `engine` for a part that bears no model's
        name; else the model of this name where `engine` runs."""
        if name in self.engines:
            own = self.engines[name].model_dump(exclude_unset=True)
        else:
            own = {} if name in PARTS else {"model": name, "revision": ""}
        return _build(EngineConfig, self.engine.model_copy(update=own))

    def push(self) -> WorkerConfig:
        """How hard to push, how long to try."""
        return _build(WorkerConfig, self.worker)

    def price_list(self) -> Prices:
        """What tokens cost."""
        return _build(Prices, self.prices)

    def limits(self) -> Caps:
        """Where a run stops."""
        return _build(Caps, self.caps)

    def asking(self) -> AskConfig:
        """What `tilth ask` asks, and how."""
        return _build(AskConfig, self.ask)

    def answers_url(self) -> str:
        """The database that answers are kept in: `cache_url`, else SQLite in the workspace.

        Raises `ConfigError` when the workspace is no folder of this machine and no `cache_url` is set.
        """
        if url := self.cache_url.get_secret_value():
            return url
        if "://" in self.workspace:
            raise ConfigError(
                "answers cannot be kept in this workspace",
                found=self.workspace,
                wanted="a database, where the workspace is no local folder",
                do="set TILTH_CACHE_URL, for example to postgresql://user@host/database",
            )
        return f"sqlite:///{Path(self.workspace).resolve() / 'cache' / 'answers.sqlite'}"


class _FileSource(YamlConfigSettingsSource):
    """The YAML file that `load` was given; read once there, so that its errors name the file."""

    values: Mapping[str, Any] = {}

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls, yaml_file=None)

    def __call__(self) -> dict[str, Any]:
        return dict(self.values)


def load(
    file: str | None = None, options: Mapping[str, Any] | None = None, pairs: Sequence[str] = ()
) -> Settings:
    """Settings from a YAML file (default `tilth.yaml`, if there), the environment, options and `key=value` pairs.

    Raises `ConfigError` naming an unknown key and the nearest known one, or a value of the wrong kind.
    """
    _refuse_unknown_environment()
    _FileSource.values = _read(file)
    given = {key: value for key, value in (options or {}).items() if value not in (None, [])}
    for pair in pairs:
        put(given, pair)
    try:
        return Settings(**given)
    except ValidationError as error:
        raise _explain(error, file) from error
    finally:
        _FileSource.values = {}


def _refuse_unknown_environment() -> None:
    # pydantic-settings passes over names that it does not know: a typing error would change nothing, in silence.
    prefix = "TILTH_"
    known = known_keys()
    for name in os.environ:
        key = name.removeprefix(prefix).lower().replace("__", ".")
        if name.startswith(prefix) and key not in known and name not in _NO_SETTINGS:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5) or _same_leaf(
                key.rpartition(".")[2], known
            )
            do = f"did you mean {prefix}{near[0].replace('.', '__').upper()}?" if near else "unset it"
            raise ConfigError("unknown setting in the environment", found=name, wanted="a known key", do=do)


def _read(file: str | None) -> dict[str, Any]:
    path = Path(file or DEFAULT_FILE)
    if not path.exists():
        if file is None:
            return {}
        raise NotFound("no such settings file", found=file, wanted="a YAML file", do="check --config")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f"line {where.line + 1}" if where else "a syntax error"
        raise ConfigError(
            f"{path} is not YAML", found=line, wanted="keys and values", do="mend the line"
        ) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no settings", found=type(values).__name__, wanted="keys and values")
    return values


def put(into: dict[str, Any], pair: str) -> None:
    """Puts one `key=value` where it belongs. Raises `ConfigError` for a pair without a sign, or a secret."""
    key, sign, text = pair.partition("=")
    if not sign or not key:
        raise ConfigError("--set takes key=value", found=pair, wanted="for example observed.seed=7")
    if key.strip() in _SECRET:
        wanted = f"the environment (TILTH_{key.strip().upper()}) or the settings file"
        raise ConfigError("secrets are not taken from the command line", found=key, wanted=wanted)
    if key.strip() == "cache_url" and _PASSWORD.search(text):
        wanted = "the environment (TILTH_CACHE_URL) or the settings file"
        raise ConfigError("passwords are not taken from the command line", found=key, wanted=wanted)
    *parents, last = key.strip().split(".")
    for parent in parents:
        into = into.setdefault(parent, {})
    into[last] = yaml.safe_load(text)


def _explain(error: ValidationError, file: str | None) -> ConfigError:
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    name = ".".join(path)
    if first["type"] == "extra_forbidden":
        # Schedules have names, so their keys are no keys of the settings' own.
        known = known_keys(Schedule, ".".join(path[:2]) + ".") if path[0] == "schedules" else known_keys()
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5) or _same_leaf(path[-1], known)
        do = f"did you mean {near[0]!r}?" if near else "see docs/reference/settings.md"
        return ConfigError("unknown setting", found=name, wanted="a known key", do=do)
    kind = type(first["input"]).__name__
    where = f"the command line, TILTH_{'__'.join(path).upper()} or {file or DEFAULT_FILE}"
    return ConfigError(
        f"setting {name!r}: {first['msg']}", found=f"a value of type {kind}", do=f"look at {where}"
    )


def _same_leaf(leaf: str, known: Sequence[str]) -> list[str]:
    leaves = {key.rpartition(".")[2]: key for key in known}
    return [leaves[name] for name in difflib.get_close_matches(leaf, leaves, n=1)]


def known_keys(model: type[BaseModel] = Settings, prefix: str = "") -> list[str]:
    """Every key that a settings file may hold, dotted."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += known_keys(field.annotation, f"{prefix}{name}.")
    return keys
