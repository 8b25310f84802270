"""How replies are judged: one value, stored with the data that it made."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from tilth.schemas import ConfigError, fingerprint
from tilth.transforms.inference.prompts import Prompt, load_prompt, packaged_prompt
from tilth.transforms.inference.requests import Sampling

Kind = Literal["pairwise", "pointwise", "listwise"]


@dataclass(frozen=True, slots=True)
class Judge:
    """One member of a panel.

    Args:
        name: what its judgments are known by; also the role that a recipe asks.
        weight: its say in the panel's verdict, above 0.
    """

    name: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.name or not 0 < self.weight < float("inf"):
            raise ConfigError(
                "a judge of the panel",
                found=f"{self.name!r}, weight {self.weight}",
                wanted="a name, a weight above 0",
            )

    @classmethod
    def of(cls, text: str) -> Judge:
        """A judge from `name` or `name=weight`.

        >>> Judge.of("large=2"), Judge.of("small")
        (Judge(name='large', weight=2.0), Judge(name='small', weight=1.0))
        """
        name, sign, weight = text.rpartition("=")
        try:
            return cls(name, float(weight)) if sign else cls(weight)
        except ValueError as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError("the weight of a judge", found=weight, wanted="a number") from None


@dataclass(frozen=True, slots=True)
class Aggregation:
    """How the judgments of one item become one verdict.

    Args:
        rule: `both_orders` (WildFeedback, arXiv 2408.15549, step 3): a side wins when it wins in both orders; what
            the orders do not agree in is inconsistent. `mean` (FairEval, arXiv 2305.17926): the mean score over both
            orders decides, and a judge is never inconsistent with itself; for scores and reports, since a bias that
            meets a tie then decides (benchmarks/label_integrity.py). Pairs are held to both orders under either.
        tie_margin: a difference of mean scores up to this is a tie.
        person_share: the share of items, those of the highest entropy, that a person should look at (FairEval: 0.2).
    """

    rule: Literal["both_orders", "mean"] = "both_orders"
    tie_margin: float = 0.0
    person_share: float = 0.2

    def __post_init__(self) -> None:
        if self.rule not in ("both_orders", "mean"):
            raise ConfigError("the rule of aggregation", found=self.rule, wanted="both_orders or mean")
        if not (0 <= self.tie_margin < float("inf") and 0 <= self.person_share <= 1):
            found = f"tie_margin={self.tie_margin}, person_share={self.person_share}"
            raise ConfigError("the margins of aggregation", found=found, wanted="at least 0; 0 to 1")

    @property
    def strict(self) -> Aggregation:
        """The same with the rule `both_orders`: what pairs are made by, whatever scores are summed up by."""
        return replace(self, rule="both_orders")


@dataclass(frozen=True, slots=True)
class Protocol:
    """Everything that decides what judges are asked and how their answers become verdicts.

    Pairs are always shown in both orders. `evidences` samples are drawn per order (multiple evidence, FairEval: 3 at
    temperature 1); the answer's shape has the evidence before the scores.

    Args:
        prompt: what judges are asked; reads `conversation`, `replies` (as shown), `checklist`, `low`, `high`,
            `attribute` and `description`.
        judges: the panel.
        kind: pairwise (two replies), pointwise (one) or listwise (any number in one call).
        evidences: samples per order.
        temperature: of the samples; above 0 when there is more than one.
        answer_tokens: the longest answer.
        low: the smallest score.
        high: the largest.
        attributes: what is rated, by name, with what it means; empty for pairs.
        rotations: listwise: in how many orders the list is shown.
        aggregation: how judgments become a verdict.
        seed: draws samples and orders.
    """

    prompt: Prompt
    judges: tuple[Judge, ...]
    kind: Kind = "pairwise"
    evidences: int = 1
    temperature: float = 0.0
    answer_tokens: int = 1024
    low: int = 1
    high: int = 10
    attributes: tuple[tuple[str, str], ...] = ()
    rotations: int = 2
    aggregation: Aggregation = field(default_factory=Aggregation)
    seed: int = 0

    def __post_init__(self) -> None:
        names = [judge.name for judge in self.judges]
        if not names or len(set(names)) != len(names):
            raise ConfigError("the panel of judges", found=f"{len(names)}", wanted="one or more, none twice")
        if self.evidences < 1 or (self.evidences > 1 and self.temperature <= 0):
            found = f"{self.evidences} at temperature {self.temperature}"
            raise ConfigError("evidences of a judge", found=found, wanted="1, or more above temperature 0")
        if not self.low < self.high or self.rotations < 1:
            found = f"{self.low} to {self.high}, {self.rotations} orders"
            raise ConfigError("scale and orders of judging", found=found, wanted="low below high, 1 or more")
        if (self.kind == "pairwise") == bool(self.attributes):
            raise ConfigError("attributes of a protocol", wanted="some for ratings, none for pairs")

    @property
    def sampling(self) -> Sampling:
        """How each judgment is drawn; the seed of a sample is its own."""
        return Sampling(self.temperature, 1.0, self.answer_tokens)

    @property
    def digest(self) -> str:
        """What the `protocol` column of `judgments` holds: 128 bits of everything that is asked and how it counts."""
        return fingerprint(self)

    @property
    def prompt_version(self) -> str:
        """What the `prompt_version` column holds."""
        return f"{self.prompt.id}@{self.prompt.version}"

    @property
    def weights(self) -> dict[str, float]:
        """The panel's weights by judge."""
        return {judge.name: judge.weight for judge in self.judges}


@dataclass(frozen=True, slots=True)
class Judging:
    """How a recipe judges, as plain settings.

    Args:
        judges: the panel, each `name` or `name=weight`; a name is an entry of `engines`, or a model of the engine.
        evidences: samples per order; see `Protocol`.
        temperature: of the samples.
        answer_tokens: the longest judgment.
        rule: see `Aggregation`.
        tie_margin: see `Aggregation`.
        person_share: see `Aggregation`.
        low: the smallest score.
        high: the largest.
        rotations: listwise: in how many orders the list is shown.
        prompt_file: a template of your own in place of the packaged one.
    """

    judges: tuple[str, ...] = ("judge",)
    evidences: int = 1
    temperature: float = 0.0
    answer_tokens: int = 1024
    rule: Literal["both_orders", "mean"] = "both_orders"
    tie_margin: float = 0.0
    person_share: float = 0.2
    low: int = 1
    high: int = 10
    rotations: int = 2
    prompt_file: str = ""

    def pairwise(self, seed: int = 0) -> Protocol:
        """The protocol for pairs. Raises `ConfigError` for settings that cannot be meant."""
        return self._protocol("pairwise", "pairwise", (), seed)

    def rating(self, attributes: tuple[tuple[str, str], ...], seed: int = 0) -> Protocol:
        """The protocol that rates lists of replies in these attributes: (name, what it means)."""
        return self._protocol("listwise", "rating", attributes, seed)

    def _protocol(
        self, kind: Kind, prompt: str, attributes: tuple[tuple[str, str], ...], seed: int
    ) -> Protocol:
        asked = (
            load_prompt(self.prompt_file)
            if self.prompt_file
            else packaged_prompt("tilth.transforms.judging", prompt)
        )
        return Protocol(
            prompt=asked,
            judges=tuple(Judge.of(text) for text in self.judges),
            kind=kind,
            evidences=self.evidences,
            temperature=self.temperature,
            answer_tokens=self.answer_tokens,
            low=self.low,
            high=self.high,
            attributes=attributes,
            rotations=self.rotations,
            aggregation=Aggregation(self.rule, self.tie_margin, self.person_share),
            seed=seed,
        )


@dataclass(frozen=True, slots=True)
class Panel:
    """Who judges and how often, where a recipe itself decides what is asked and how it counts.

    Args:
        judges: the panel, each `name` or `name=weight`; a name is an entry of `engines`, or a model of the engine.
        evidences: samples of each judge, per order where there are two.
        temperature: of the samples; above 0 when there is more than one.
        answer_tokens: the longest judgment.
    """

    judges: tuple[str, ...] = ("judge",)
    evidences: int = 1
    temperature: float = 0.0
    answer_tokens: int = 1024

    @property
    def names(self) -> list[str]:
        """The judges without their weights."""
        return [Judge.of(text).name for text in self.judges]

    def judging(self) -> Judging:
        """The same as `Judging`, with its defaults for the rest."""
        return Judging(self.judges, self.evidences, self.temperature, self.answer_tokens)
