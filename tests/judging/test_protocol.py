"""The judging protocol: what cannot be meant is refused, and its digest covers all that decides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tilth.schemas import ConfigError, fingerprint
from tilth.transforms.inference.prompts import Prompt, packaged_prompt
from tilth.transforms.judging.protocol import Aggregation, Judge, Judging, Protocol

PROMPT = Prompt.of("judge/test", "1", user="{{ replies[0] }} or {{ replies[1] }}?")
ASPECTS = (("honesty", "Says what is so."),)
PAIRS = Protocol(PROMPT, (Judge("one"), Judge("two", 2.0)))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("small", Judge("small", 1.0)),
        ("large=2", Judge("large", 2.0)),
        ("org/model-7b=0.5", Judge("org/model-7b", 0.5)),
        ("a=b=3", Judge("a=b", 3.0)),
    ],
)
def test_a_judge_is_read_from_its_name_and_weight(text: str, wanted: Judge) -> None:
    """`name` or `name=weight`; what stands after the last sign is the weight."""
    assert Judge.of(text) == wanted


@pytest.mark.parametrize("text", ["", "=2", "a=", "a=much", "a=0", "a=-1", "a=nan", "a=inf"])
def test_a_judge_without_name_or_weight_is_refused(text: str) -> None:
    """No guess at a name, nor at a weight."""
    with pytest.raises(ConfigError):
        Judge.of(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"judges": ()},
        {"judges": (Judge("one"), Judge("one", 2.0))},
        {"evidences": 0},
        {"evidences": 3},  # at temperature 0: all would be equal
        {"low": 5, "high": 5},
        {"low": 9, "high": 1},
        {"rotations": 0},
        {"attributes": ASPECTS},  # of a pair
        {"kind": "listwise"},  # without attributes
    ],
)
def test_a_protocol_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    """Before anybody is asked."""
    with pytest.raises(ConfigError):
        replace(PAIRS, **wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rule": "first"},
        {"tie_margin": -1.0},
        {"tie_margin": float("inf")},
        {"tie_margin": float("nan")},
        {"person_share": 1.1},
        {"person_share": float("nan")},
    ],
)
def test_an_aggregation_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    """A margin that is no number would make ties of everything, or of nothing."""
    with pytest.raises(ConfigError):
        Aggregation(**wrong)


CHANGES: list[dict[str, Any]] = [
    {"prompt": replace(PROMPT, version="2")},
    {"prompt": Prompt.of("judge/test", "1", user="Which? {{ replies[0] }} {{ replies[1] }}")},
    {"judges": (Judge("one"),)},
    {"judges": (Judge("one"), Judge("two", 3.0))},
    {"evidences": 3, "temperature": 1.0},
    {"temperature": 1.0},
    {"answer_tokens": 9},
    {"low": 0},
    {"high": 5},
    {"aggregation": Aggregation("mean")},
    {"aggregation": Aggregation(tie_margin=1.0)},
    {"seed": 1},
]


@pytest.mark.parametrize("change", CHANGES)
def test_the_digest_covers_what_decides(change: dict[str, Any]) -> None:
    """Equal protocols have equal digests; a change of prompt, panel, scale, sampling or rule is another one."""
    assert replace(PAIRS).digest == PAIRS.digest == fingerprint(PAIRS)
    assert replace(PAIRS, **change).digest != PAIRS.digest


def test_settings_become_a_protocol() -> None:
    """Each setting goes to its place; the packaged prompt is asked unless a file is named."""
    how = Judging(("a=2", "b"), 3, 1.0, 99, "mean", 0.5, 0.1, 0, 4, 2)
    made = how.pairwise(7)
    assert made.prompt == packaged_prompt("tilth.transforms.judging", "pairwise")
    assert made.weights == {"a": 2.0, "b": 1.0}
    assert (made.evidences, made.sampling.temperature, made.sampling.max_tokens) == (3, 1.0, 99)
    assert made.aggregation == Aggregation("mean", 0.5, 0.1)
    assert (made.low, made.high, made.seed, made.kind) == (0, 4, 7, "pairwise")
    rating = how.rating(ASPECTS)
    assert (rating.kind, rating.attributes, rating.rotations) == ("listwise", ASPECTS, 2)
    assert rating.prompt == packaged_prompt("tilth.transforms.judging", "rating")


def test_a_prompt_of_ones_own_takes_the_place_of_the_packaged_one(tmp_path: Path) -> None:
    """What the file holds is asked, and its version is what judgments say."""
    file = tmp_path / "mine.md"
    file.write_text(
        "---\nid: judge/mine\nversion: 9\n---\n=== user ===\n{{ replies[0] }}, {{ replies[1] }}?\n"
    )
    made = Judging(prompt_file=str(file)).pairwise()
    assert made.prompt_version == "judge/mine@9"
