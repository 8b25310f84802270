"""A rubric of user satisfaction: items with names and descriptions, thresholds, and what they were learned with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final  # Any: JSON values

import fsspec
import numpy as np

from tilth.schemas import BadInput, ConfigError, NotFound, fingerprint
from tilth.transforms.parts import write_bytes

FORM: Final = 1  # of the file
LABELS: Final = ("SAT", "DSAT", "neutral")
SIDES: Final = ("sat", "dsat")
MOST: Final = 10  # the largest impact of an item, and the most items of a side
LIMIT: Final = MOST * MOST  # of a score, on either side of 0
_NAME_CHARS: Final = 60
_DESCRIPTION_CHARS: Final = 400


@dataclass(frozen=True, slots=True)
class SpurConfig:
    """How a rubric is learned and used; the fields are the keys of section `spur` in `tilth.yaml`.

    Args:
        reasons: the most reasons that one conversation gives (the paper: 3).
        items: the most items of a side, at most 10 (the paper: 10).
        batch: reasons that one call merges into the rubric (the paper: 100).
        trial_share: the share of the labelled conversations that thresholds are chosen on, and the rubric is not
            learned from. 0 learns and chooses on all of them, as the paper does.
        reply_chars: an assistant's longer turn is cut in the middle to so many; users' turns are never cut.
        temperature: of the sampling.
        answer_tokens: the longest answer.
        seed: draws the trial share and the order of reasons.
    """

    reasons: int = 3
    items: int = MOST
    batch: int = 100
    trial_share: float = 0.3
    reply_chars: int = 1_000
    temperature: float = 0.0
    answer_tokens: int = 2_048
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.reasons >= 1 and 1 <= self.items <= MOST and self.batch >= 1):
            found = f"reasons={self.reasons}, items={self.items}, batch={self.batch}"
            raise ConfigError("the size of a rubric", found=found, wanted="1 or more; 1 to 10; 1 or more")
        if not (0 <= self.trial_share < 1 and self.reply_chars >= 100):
            found = f"trial_share={self.trial_share}, reply_chars={self.reply_chars}"
            raise ConfigError("learning a rubric", found=found, wanted="0 to below 1; 100 or more")


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that users do or say."""

    id: str  # sat_1 … sat_10, dsat_1 … dsat_10
    name: str
    description: str


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Which scores mean what: SAT from `sat_from` up, DSAT from `dsat_to` down, neutral between."""

    sat_from: int = 1
    dsat_to: int = -1

    def __post_init__(self) -> None:
        if not -LIMIT - 1 <= self.dsat_to < self.sat_from <= LIMIT + 1:
            found = f"dsat_to={self.dsat_to}, sat_from={self.sat_from}"
            raise ConfigError(
                "thresholds of a rubric", found=found, wanted="dsat_to below sat_from, -101 to 101"
            )

    def label(self, score: int) -> str:
        """SAT, DSAT or neutral.

        >>> [Thresholds(5, -5).label(score) for score in (5, 4, -5)]
        ['SAT', 'neutral', 'DSAT']
        """
        return "SAT" if score >= self.sat_from else "DSAT" if score <= self.dsat_to else "neutral"


@dataclass(frozen=True, slots=True)
class Rubric:
    """Items of both sides, thresholds, and what made them.

    `model` and `prompts` (id and version -> digest) witness what the thresholds were chosen with: impacts are not
    comparable between models. `learned_from` counts conversations, reasons and calls.
    """

    satisfaction: tuple[Item, ...]
    dissatisfaction: tuple[Item, ...]
    thresholds: Thresholds = Thresholds()
    model: str = ""
    prompts: Mapping[str, str] = field(default_factory=dict)
    learned_from: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_side(self.satisfaction, "sat")
        _check_side(self.dissatisfaction, "dsat")

    @property
    def items(self) -> tuple[Item, ...]:
        """All items, satisfaction first."""
        return (*self.satisfaction, *self.dissatisfaction)

    @property
    def version(self) -> str:
        """128 bits of items, thresholds, prompts and model, in hex; what scores name as theirs."""
        deciding = [self.satisfaction, self.dissatisfaction, self.thresholds, self.model, self.prompts]
        return fingerprint(deciding)

    def with_thresholds(self, thresholds: Thresholds, learned: Mapping[str, float]) -> Rubric:
        """The same items with thresholds, and more of what is known of the learning."""
        return replace(self, thresholds=thresholds, learned_from={**self.learned_from, **learned})


def numbered_items(side: str, said: Sequence[tuple[str, str]], most: int) -> tuple[Item, ...]:
    """Items of a side from names and descriptions; blank ones and repeated names are passed over.

    >>> [item.id for item in numbered_items("sat", [("Thanks", "x"), (" thanks ", "y"), ("", "z"), ("Joy", "j")], 10)]
    ['sat_1', 'sat_2']
    """
    kept: dict[str, tuple[str, str]] = {}
    for name, description in said:
        bare = " ".join(name.split()), " ".join(description.split())
        if all(bare):
            kept.setdefault(bare[0].casefold(), bare)
    return tuple(Item(f"{side}_{n}", *one) for n, one in enumerate([*kept.values()][:most], 1))


def _check_side(items: Sequence[Item], side: str) -> None:
    ids = [f"{side}_{n}" for n in range(1, len(items) + 1)]
    if [item.id for item in items] != ids or not 1 <= len(items) <= MOST:
        found = ", ".join(item.id for item in items) or "no item"
        raise BadInput(
            "items of a rubric", found=found, wanted=f"{side}_1 to at most {side}_{MOST}, in order"
        )
    names = {item.name.casefold() for item in items}
    long = [i.id for i in items if len(i.name) > _NAME_CHARS or len(i.description) > _DESCRIPTION_CHARS]
    if len(names) != len(items) or long or not all(item.name and item.description for item in items):
        wanted = f"names of up to {_NAME_CHARS} and descriptions of up to {_DESCRIPTION_CHARS} characters, none twice"
        raise BadInput(
            "items of a rubric", found=", ".join(long) or "a blank or repeated name", wanted=wanted
        )


def choose_thresholds(scores: Sequence[int], labels: Sequence[str]) -> tuple[Thresholds, float]:
    """The thresholds of the best weighted F1 over scored conversations with known labels, and that F1.

    Weighted F1: the mean of the F1 of the labels, by how many conversations bear each (the paper's figure). Of equals
    those nearest to 0 are taken. Where no conversation is neutral, no score is either.
    """
    at = np.asarray(scores, int) + LIMIT + 1  # 1 … 201; thresholds stand between 0 and 202
    counts = np.stack(
        [np.bincount(at[[one == label for one in labels]], minlength=2 * LIMIT + 3) for label in LABELS]
    )
    below = np.concatenate([np.zeros((3, 1), int), counts.cumsum(axis=1)], axis=1)  # [:, t]: scores under t
    total = counts.sum(axis=1)
    sat_from = np.arange(1, 2 * LIMIT + 3)[:, None]
    dsat_to = np.arange(0, 2 * LIMIT + 2)[None, :]
    sat, dsat = total[:, None, None] - below[:, sat_from], below[:, dsat_to + 1]
    said = (sat, dsat, total[:, None, None] - sat - dsat)
    f1 = sum((total[n] * _f1(said[n], total[n], n) for n in range(3)), np.zeros(()))
    allowed = (dsat_to == sat_from - 1) if total[2] == 0 else (dsat_to < sat_from)
    distance = np.abs(sat_from - LIMIT - 1.5) + np.abs(dsat_to - LIMIT - 0.5)
    best = np.where(allowed, np.round(f1, 9), -1.0)
    winner = np.where(best == best.max(), distance, np.inf).argmin()
    row, column = np.unravel_index(winner, best.shape)
    chosen = Thresholds(int(sat_from[row, 0]) - LIMIT - 1, int(dsat_to[0, column]) - LIMIT - 1)
    return chosen, float(best[row, column] / max(len(labels), 1))


def _f1(said: np.ndarray, total: int, at: int) -> np.ndarray:
    """F1 of one label for all pairs of thresholds; `said` counts what is called so, by true label."""
    return 2 * said[at] / np.maximum(said.sum(axis=0) + total, 1)


# The file


def save_rubric(rubric: Rubric, uri: str) -> None:
    """Writes the rubric as JSON that people can read."""
    held = {"form": FORM, "version": rubric.version, **asdict(rubric)}
    write_bytes((json.dumps(held, indent=2, ensure_ascii=False) + "\n").encode(), uri)


def load_rubric(uri: str) -> Rubric:
    """The rubric in a file of `save_rubric`; one that was edited by hand bears no `version`, or its own.

    Raises `NotFound`, and `BadInput` for another file, another form, or a version that is not that of the items.
    """
    fs, path = fsspec.core.url_to_fs(uri)
    if not fs.isfile(path):
        raise NotFound("no such rubric", found=uri, wanted="a file that `tilth feedback learn` wrote")
    try:
        held: dict[str, Any] = json.loads(fs.cat_file(path))
        form, version = held.pop("form", None), held.pop("version", None)
        rubric = _rubric(held) if form == FORM else None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, BadInput | ConfigError):
            raise
        raise BadInput(
            "not a rubric", found=type(error).__name__, wanted="JSON as `tilth feedback learn` writes"
        ) from None
    if rubric is None:
        raise BadInput("a rubric of another version of Tilth", found=f"form {form}", wanted=f"form {FORM}")
    if version not in (None, rubric.version):
        do = "take the line `version` out of an edited rubric: it gets a new one"
        raise BadInput(
            "a rubric that was changed", found="another version than recorded", wanted=rubric.version, do=do
        )
    return rubric


def _rubric(held: Mapping[str, Any]) -> Rubric:
    return Rubric(
        tuple(Item(**item) for item in held["satisfaction"]),
        tuple(Item(**item) for item in held["dissatisfaction"]),
        Thresholds(**held["thresholds"]),
        held["model"],
        held["prompts"],
        held["learned_from"],
    )
