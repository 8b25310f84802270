"""What every step of every recipe keeps: it is a value, it pickles, its configuration can be fingerprinted."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tilth.schemas import TABLES, conform, fingerprint
from tilth.transforms.feedback import mine, observe_reactions
from tilth.transforms.hygiene import SplitConfig, assign, keys
from tilth.transforms.inference.ask import Ask
from tilth.transforms.inference.engines import EngineConfig
from tilth.transforms.inference.prompts import Prompt
from tilth.transforms.inference.render import ReadRows, Render
from tilth.transforms.inference.worker import Account
from tilth.transforms.ingest import Ingest, expand, plan, read
from tilth.transforms.pairs import PairPolicy, recovery_pairs, sibling_pairs, unpaired_labels
from tilth.transforms.stage import Step
from tilth.transforms.steps import Assign, Mine, Pair, Settle

_ASK = Ask("model@1", EngineConfig("openai", "model"), "sqlite:///answers.sqlite", Account("run"))
_RENDER = Render(Prompt.of("ask", "1", user="{{ text }}"))
STEPS: list[Step] = [Ingest(), Assign(), Mine(), Pair(), Settle(), ReadRows(), _RENDER, _ASK]
LOGS = Path(__file__).resolve().parents[2] / "samples" / "logs"


@pytest.fixture(scope="module")
def conversations() -> pl.DataFrame:
    """The sample trees: shared turns, ranks, emojis, feedback."""
    tasks = plan(expand([str(LOGS / "community.oasst.jsonl")]))
    frames = [batch.conversations for task in tasks for batch in read(task)]
    return conform(pl.concat(frames), "conversations").with_columns(split=pl.lit("train"))


def _signals(conversations: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([mine(conversations).feedback, observe_reactions(conversations)])


RULES: dict[str, Callable[[pl.DataFrame, pl.DataFrame], Any]] = {
    "keys": lambda conversations, _: keys(conversations),
    "assign": lambda conversations, _: assign(keys(conversations), SplitConfig()),
    "mine": lambda conversations, _: mine(conversations),
    "observe_reactions": lambda conversations, _: observe_reactions(conversations),
    "recovery_pairs": lambda conversations, said: recovery_pairs(conversations, said, PairPolicy()),
    "sibling_pairs": lambda conversations, said: sibling_pairs(conversations, PairPolicy(), said),
    "unpaired_labels": lambda conversations, said: unpaired_labels(conversations, said, PairPolicy()),
}


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_step_is_a_value_that_travels(step: Step) -> None:
    """A step pickles by reference to an equal value, and cannot be changed."""
    assert pickle.loads(pickle.dumps(step)) == step
    field = dataclasses.fields(step)[0].name  # pyright: ignore[reportArgumentType]  (steps are dataclasses)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(step, field, None)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_step_has_a_fingerprint(step: Step) -> None:
    """Equal configurations have equal fingerprints, of 128 bits."""
    assert fingerprint(step) == fingerprint(pickle.loads(pickle.dumps(step)))
    assert len(fingerprint(step)) == 32


def test_steps_have_names_of_their_own() -> None:
    """No two steps share a name: Beam's labels and the stages' folders are made of them."""
    assert len({step.name for step in STEPS}) == len(STEPS)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_leaves_its_input_as_it_was(rule: str, conversations: pl.DataFrame) -> None:
    """Rules are pure: the frames they are given are equal afterwards, and a second call gives the same."""
    said = _signals(conversations)
    before = conversations.clone(), said.clone()
    first, second = RULES[rule](conversations, said), RULES[rule](conversations, said)
    assert conversations.equals(before[0])
    assert said.equals(before[1])
    one, two = ([first], [second]) if isinstance(first, pl.DataFrame) else (first, second)
    assert all(a.equals(b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("rule", ["recovery_pairs", "sibling_pairs", "unpaired_labels"])
def test_what_a_rule_drops_is_quarantine(rule: str, conversations: pl.DataFrame) -> None:
    """Dropped candidates have the columns of quarantine, and stand for no source row."""
    dropped = RULES[rule](conversations, _signals(conversations)).dropped
    assert set(dropped.columns) == set(TABLES["quarantine"].names) - {"id"}
    assert dropped["source_rows"].sum() == 0
