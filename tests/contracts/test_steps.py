"""What every step of every recipe keeps: it is a value, it pickles, its configuration can be fingerprinted."""

from __future__ import annotations

import dataclasses
import importlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tilth.schemas import TABLES, conform, fingerprint
from tilth.transforms.feedback import FeedbackRules, mine, observe_reactions
from tilth.transforms.feedback.cascade import Cascade
from tilth.transforms.feedback.labelling import Labelling
from tilth.transforms.feedback.spur_rubric import Item, Rubric
from tilth.transforms.feedback.spur_steps import (
    Apart,
    ExtractRequests,
    MergeRequests,
    ReadScores,
    ScoreRequests,
)
from tilth.transforms.feedback.summaries import Summaries
from tilth.transforms.hygiene import SplitConfig, assign, keys
from tilth.transforms.inference.ask import Ask
from tilth.transforms.inference.engines import EngineConfig
from tilth.transforms.inference.prompts import Prompt
from tilth.transforms.inference.render import ReadRows, Render
from tilth.transforms.inference.worker import Account
from tilth.transforms.ingest import Ingest, expand, plan, read
from tilth.transforms.judging.curation_steps import JudgeTraining, LabelItems
from tilth.transforms.judging.evaluation import AnswerRequests, Match, ReadAnswers
from tilth.transforms.judging.protocol import Judging
from tilth.transforms.judging.steps import JudgeRequests, ReadJudgments
from tilth.transforms.judging.tournament import EloFit
from tilth.transforms.model_steps import (
    Compare,
    JudgedPairs,
    LoggedReplies,
    ModerationRequests,
    PreferenceRequests,
    ReadLabels,
    ReadPreferences,
    Replies,
    ReplyRequests,
    Represent,
    SettleTurns,
)
from tilth.transforms.pairs import PairPolicy, recovery_pairs, sibling_pairs, unpaired_labels
from tilth.transforms.rating_steps import (
    PairRated,
    PairWon,
    PolicyReplies,
    PolicyRequests,
    PromptPlaces,
    RankPolicies,
    Rate,
    RateTogether,
    SeatMatches,
    UniquePrompts,
)
from tilth.transforms.rationales.steps import (
    RationaleRequests,
    ReadRationales,
    RecoverItems,
    RuleRationales,
    SettleRationales,
)
from tilth.transforms.responses.candidates import Replying
from tilth.transforms.responses.comparisons import Compared
from tilth.transforms.responses.moderation import Moderation
from tilth.transforms.rubrics.observed import ObservedRubrics
from tilth.transforms.rubrics.orbit_steps import (
    OrbitRequests,
    ReadOrbit,
    ReadRollouts,
    ReadSeeds,
    RolloutRequests,
)
from tilth.transforms.rubrics.passrates import PassRates
from tilth.transforms.rubrics.steps import (
    CriteriaRequests,
    GatherComplaints,
    GradeItems,
    MergeCriteria,
    PairByRubric,
    PlacedPrompts,
    ReadCriteria,
    RuleCriteria,
    SettleRubrics,
    Sides,
)
from tilth.transforms.selection.representatives import Representatives
from tilth.transforms.stage import Stage, Step, Task
from tilth.transforms.steps import Assign, Mine, Pair, Settle

_ASK = Ask("model@1", EngineConfig("openai", "model"), "sqlite:///answers.sqlite", Account("run"))
_RENDER = Render(Prompt.of("ask", "1", user="{{ text }}"))
_PROTOCOL = Judging(("large=2", "small")).pairwise()
_RUBRIC = Rubric(
    (Item("sat_1", "Thanks.", "Says thanks."),), (Item("dsat_1", "Wrong.", "Says it is wrong."),)
)
OBSERVED: list[Step] = [Ingest(), Assign(), Mine(), Pair(), Settle(), ReadRows(), _RENDER, _ASK]
FEEDBACK: list[Step] = [
    SettleTurns(Cascade(), FeedbackRules(), Labelling()),
    ReadLabels(Labelling()),
    PreferenceRequests(Summaries()),
    ReadPreferences(),
]
RESPONSES: list[Step] = [
    ReplyRequests("expert", _RENDER.prompt),
    Replies("expert", "model@1", guided=True),
    LoggedReplies(),
    ModerationRequests(_RENDER.prompt, Moderation("model")),
    Compare(Compared(), Moderation("model"), ("test",)),
]
JUDGING: list[Step] = [
    JudgeRequests(_PROTOCOL),
    ReadJudgments(_PROTOCOL, "large", "model@1"),
    JudgedPairs(_PROTOCOL),
    Represent(Representatives()),
    AnswerRequests("answers", Replying()),
    ReadAnswers("answers"),
    Match(),
]
RATING: list[Step] = [
    PromptPlaces(),
    UniquePrompts(),
    PolicyRequests("one", ("one", "two")),
    PolicyReplies("model@1"),
    RateTogether(),
    Rate({"large": 2.0}, ()),
    PairRated(),
    SeatMatches(_PROTOCOL),
    PairWon(_PROTOCOL),
    RankPolicies(EloFit()),
]
SPUR: list[Step] = [
    Apart(),
    ExtractRequests(),
    MergeRequests(),
    ScoreRequests(_RUBRIC),
    ReadScores(_RUBRIC, "model@1"),
]
REASONS: list[Step] = [
    RuleRationales(),
    RationaleRequests("general"),
    ReadRationales("general"),
    RecoverItems(),
    SettleRationales(_PROTOCOL),
    LabelItems(),
    JudgeTraining(_PROTOCOL),
]
RUBRICS: list[Step] = [
    Sides(),
    PlacedPrompts("observed.conversations@2026.11.21.1"),
    GatherComplaints(),
    RuleCriteria(("constraints",)),
    CriteriaRequests("contrast"),
    ReadCriteria("contrast"),
    MergeCriteria(),
    GradeItems(),
    SettleRubrics(pass_rates=PassRates()),
    PairByRubric(),
    ObservedRubrics(),
    ReadSeeds("seeds.jsonl", "0" * 32),
    OrbitRequests(),
    ReadOrbit(),
    RolloutRequests("small"),
    ReadRollouts("small", "model@1"),
]
STEPS = [*OBSERVED, *FEEDBACK, *RESPONSES, *JUDGING, *RATING, *SPUR, *REASONS, *RUBRICS]
ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / "samples" / "logs"


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
    for field in dataclasses.fields(step):  # pyright: ignore[reportArgumentType]  (steps are dataclasses)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(step, field.name, None)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_step_has_a_fingerprint(step: Step) -> None:
    """Equal configurations have equal fingerprints, of 128 bits."""
    assert fingerprint(step) == fingerprint(pickle.loads(pickle.dumps(step)))
    assert len(fingerprint(step)) == 32


def test_steps_have_names_of_their_own() -> None:
    """No two steps share a name: Beam's labels and the stages' folders are made of them."""
    assert len({step.name for step in STEPS}) == len(STEPS)


def test_no_step_is_forgotten() -> None:
    """Every class that the transforms run on tasks is among those that are looked at here."""
    files = [file.relative_to(ROOT) for file in (ROOT / "transforms").rglob("*.py") if _has_step(file)]
    modules = [importlib.import_module(".".join(("tilth", *file.with_suffix("").parts))) for file in files]
    steps = {
        one
        for module in modules
        for one in vars(module).values()
        if isinstance(one, type) and one.__module__ == module.__name__ and {"run", "name"} <= vars(one).keys()
    }
    assert steps == {type(step) for step in STEPS}


def _has_step(file: Path) -> bool:
    return file.name != "stage.py" and "def run(self, task: Task, out: Output)" in file.read_text()


def test_where_a_classifier_lies_decides_nothing() -> None:
    """The same classifier in another place finds the work done; another classifier does not."""
    task = Task("000000")
    here = SettleTurns(Cascade(), FeedbackRules(), Labelling(), "here.json", "digest")
    there = dataclasses.replace(here, classifier="there.json")
    other = dataclasses.replace(here, classifier_digest="another")
    keys = [Stage(step, "stages").key(task) for step in (here, there, other)]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["recovery_pairs", "sibling_pairs", "unpaired_labels"])
def test_what_a_rule_drops_is_quarantine(rule: str, conversations: pl.DataFrame) -> None:
    """Dropped candidates have the columns of quarantine, and stand for no source row."""
    dropped = RULES[rule](conversations, _signals(conversations)).dropped
    assert set(dropped.columns) == set(TABLES["quarantine"].names) - {"id"}
    assert dropped["source_rows"].sum() == 0
