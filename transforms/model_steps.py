"""The steps of recipes that ask models: each reads parts, calls pure rules, writes parts. No rule lives here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from tilth.transforms.feedback import FeedbackRules, observe_reactions
from tilth.transforms.feedback.cascade import TURNS, Cascade, Settled, joined, settle_turns
from tilth.transforms.feedback.labelling import ASKED as LABELS_ASKED
from tilth.transforms.feedback.labelling import Labelling, label_prompt, label_requests, labelled
from tilth.transforms.feedback.refusals import flagged
from tilth.transforms.feedback.summaries import (
    Summaries,
    summaries,
    summary_prompt,
    summary_requests,
    targets,
)
from tilth.transforms.inference.asking import answered, write_questions
from tilth.transforms.inference.prompts import Prompt
from tilth.transforms.judging.aggregate import by_panel
from tilth.transforms.judging.protocol import Protocol
from tilth.transforms.judging.votes import votes_of
from tilth.transforms.pairs.judged import judged_pairs
from tilth.transforms.parts import read_part
from tilth.transforms.responses.candidates import Replying, logged_replies, replies_of, reply_requests
from tilth.transforms.responses.comparisons import (
    COMPARISONS,
    Compared,
    comparison_items,
    comparisons,
    uncompared,
)
from tilth.transforms.responses.moderation import (
    Moderation,
    flags_by_function,
    flags_by_model,
    hook,
    moderation_requests,
)
from tilth.transforms.responses.places import answerable, places
from tilth.transforms.selection.representatives import Representatives, representatives
from tilth.transforms.stage import Output, Task, rows_of
from tilth.transforms.steps import CANDIDATE_ROWS, in_buckets


@dataclass(frozen=True, slots=True)
class SettleTurns:
    """Settles the turns that rules, and a classifier, are sure of; asks a model about the others.

    Input: final `conversations`. Writes `turns`, `known` (feedback that stands unless a model says otherwise),
    `requests` and `asked`.
    """

    cascade: Cascade
    rules: FeedbackRules
    labelling: Labelling
    classifier: str = field(default="", compare=False)  # a file; known by its digest
    classifier_digest: str = ""
    prompt_digest: str = field(default_factory=lambda: label_prompt().digest)  # read when the step is made
    name: ClassVar[str] = "cascade"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        conversations = rows_of(task, "conversations")
        probabilities = None
        if self.classifier:
            from tilth.transforms.feedback import classifier  # loads scikit-learn

            probabilities = classifier.probabilities(
                conversations, classifier.load_classifier(self.classifier)
            )
        settled = settle_turns(
            conversations, self.cascade, self.rules, probabilities, self.classifier_digest[:12]
        )
        questions = label_requests(conversations, settled.asked, self.labelling)
        out.write("turns", settled.turns)
        out.write("known", settled.feedback)
        write_questions(questions, out)
        for name, count in settled.counts.items():
            out.count(f"cascade.{name}", count)


@dataclass(frozen=True, slots=True)
class ReadLabels:
    """Joins what the model said of turns with what was known of them.

    Inputs: `conversations`, `turns`, `known`, `asked`, `completions`, `quarantine`. Writes final `feedback` and
    `signals`: feedback as every path of a tree sees it, which pairing needs.
    """

    labelling: Labelling
    prompt_digest: str = field(default_factory=lambda: label_prompt().digest)
    name: ClassVar[str] = "labels"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        conversations = rows_of(task, "conversations")
        signals = observe_reactions(conversations.clear()).schema
        turns, known = rows_of(task, "turns", TURNS), rows_of(task, "known", signals)
        completions, _ = answered(task)
        asked = rows_of(task, "asked", LABELS_ASKED)
        said = labelled(conversations, turns, asked, completions, self.labelling)
        settled = Settled(known, turns, {})
        words = joined(settled, said.feedback, said.answered, conversations)
        # Thumbs come last: a flag that words raised about a right refusal holds for them too.
        signals = flagged(pl.concat([words, observe_reactions(conversations)]), conversations)
        out.write("feedback", signals.filter("owned").drop("owned"))
        out.write("signals", signals)
        out.write("quarantine", said.dropped)
        _hand_on(task, out)
        for name, count in said.counts.items():
            out.count(f"labels.{name}", count)


@dataclass(frozen=True, slots=True)
class PreferenceRequests:
    """Asks what users want of the replies that they complained about.

    Inputs: `conversations`, and final `feedback` or, for a forecast, what is `known` of it. Writes `targets`,
    `requests` and `asked`.
    """

    summaries: Summaries
    prompt_digest: str = field(default_factory=lambda: summary_prompt().digest)
    name: ClassVar[str] = "preference_requests"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        conversations = rows_of(task, "conversations")
        known = [read_part(shard).filter("owned").drop("owned") for shard in task.inputs.get("known", ())]
        feedback = pl.concat([rows_of(task, "feedback"), *known])
        found = targets(feedback, conversations, self.summaries)
        questions = summary_requests(found.kept, conversations, self.summaries)
        out.write("targets", found.kept)
        write_questions(questions, out)
        out.write("quarantine", found.dropped)


@dataclass(frozen=True, slots=True)
class ReadPreferences:
    """Reads what users want. Inputs: `targets`, `asked`, `completions`, `quarantine`. Writes `preferences`."""

    name: ClassVar[str] = "preferences"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        if task.inputs["targets"]:
            found = rows_of(task, "targets")
            asked = rows_of(task, "asked")
            completions, _ = answered(task)
            made = summaries(found, asked, completions)
            out.write("preferences", made.preferences)
            out.write("quarantine", made.dropped)
            for name, count in made.counts.items():
                out.count(f"preferences.{name}", count)
        _hand_on(task, out)


def _hand_on(task: Task, out: Output) -> None:
    """Requests without an answer, as the step that asked set them aside."""
    for shard in task.inputs.get("quarantine", ()):
        out.write("quarantine", read_part(shard))


@dataclass(frozen=True, slots=True)
class ReplyRequests:
    """Asks for replies at the places that users criticised.

    Inputs: `preferences` and `conversations` of one part. Writes `requests` and `asked`.
    """

    role: str
    guidance: Prompt | None
    replying: Replying = field(default_factory=Replying)
    samples: int = 1
    seed: int = 0
    name: ClassVar[str] = "reply_requests"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        where = answerable(_places(task))
        asked = reply_requests(where, self.replying, self.guidance, self.samples, self.seed)
        write_questions(asked, out)


@dataclass(frozen=True, slots=True)
class Replies:
    """Reads what one role replied.

    Inputs: those of `ReplyRequests`, `asked`, `completions`, `quarantine`. Writes `responses`; what is no usable reply
    is set aside.
    """

    role: str
    model: str
    guided: bool
    name: ClassVar[str] = "replies"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        completions, failed = answered(task)
        asked = rows_of(task, "asked")
        made, lost = replies_of(
            _places(task), asked, completions, failed, self.role, self.model, guided=self.guided
        )
        out.write("responses", made)
        out.write("quarantine", lost)


@dataclass(frozen=True, slots=True)
class ModerationRequests:
    """Asks the moderator about replies. Inputs: `responses`. Writes `requests` and `asked`."""

    prompt: Prompt
    moderation: Moderation
    name: ClassVar[str] = "moderation_requests"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        write_questions(moderation_requests(rows_of(task, "responses"), self.prompt, self.moderation), out)


@dataclass(frozen=True, slots=True)
class LoggedReplies:
    """The logged replies that users criticised, as rows of `responses`. Inputs: `preferences`, `conversations`."""

    name: ClassVar[str] = "logged_replies"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        where = _places(task)
        out.write("responses", logged_replies(where, where.get_column("reply"), where.get_column("model")))


@dataclass(frozen=True, slots=True)
class Compare:
    """Puts candidates beside what they are compared with.

    Inputs: `preferences`, `conversations`, `responses` of all roles, and for a moderator `asked` and `completions`.
    Writes final `responses` with their flags, `comparisons`, `items` and `held_out`; places without a candidate are set
    aside.
    """

    compared: Compared
    moderation: Moderation = field(default_factory=Moderation)
    held_out: tuple[str, ...] = ()  # splits of which places go to the evaluation set as well
    name: ClassVar[str] = "compare"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        responses = self._flagged(task)
        where = _places(task)
        rows = comparisons(where, responses, self.compared)
        out.write("responses", responses)
        out.write("comparisons", rows)
        # What is flagged becomes no pair: no judge is asked about it.
        clean = rows.filter(pl.col("flags").list.len() == 0)
        out.write("items", comparison_items(clean) if clean.height else clean)
        out.write("held_out", self._held_out(where, responses))
        out.write("quarantine", uncompared(where, responses, rows))

    def _held_out(self, where: pl.DataFrame, responses: pl.DataFrame) -> pl.DataFrame:
        flagged = responses.filter(pl.col("role") == "logged", pl.col("flags").list.len() > 0)
        kept = where.join(flagged, on=["conversation_id", "prompt_id"], how="anti")
        rows = kept.filter(pl.col("split").is_in(self.held_out))
        same = ("prompt", "prompt_id", "feedback_ids", "conversation_id", "split")
        return rows.select(*same, checklist="preferences", reference="reply")

    def _flagged(self, task: Task) -> pl.DataFrame:
        responses = rows_of(task, "responses")
        if self.moderation.by == "none":
            return responses
        if self.moderation.by == "function":
            flags = flags_by_function(responses, hook(self.moderation))
        else:
            completions, _ = answered(task)
            flags = flags_by_model(rows_of(task, "asked"), completions)
        named = flags.select(id="response_id", found="flags")
        flagged = responses.join(named, on="id", how="left", maintain_order="left")
        return flagged.with_columns(flags="found").drop("found")


@dataclass(frozen=True, slots=True)
class JudgedPairs:
    """Keeps the comparisons that the panel decided for the side that is meant to be better.

    Inputs: `comparisons`, `judgments`. Writes `candidate_pairs`, which `Settle` decides over. Whatever rule the
    protocol sums up by, a pair must be won in both orders: in a mean over orders a bias outweighs a tie.
    """

    protocol: Protocol
    name: ClassVar[str] = "judged_pairs"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        rows = rows_of(task, "comparisons", COMPARISONS)
        judgments = rows_of(task, "judgments")
        verdicts = by_panel(votes_of(judgments), self.protocol.aggregation.strict, self.protocol.weights)
        ruled = judged_pairs(rows, verdicts, judgments)
        out.write("candidate_pairs", in_buckets(ruled.kept), CANDIDATE_ROWS)
        out.write("quarantine", ruled.dropped)
        for verdict, count in verdicts.group_by("verdict").len().iter_rows():
            out.count(f"verdict.{verdict}", count)


@dataclass(frozen=True, slots=True)
class Represent:
    """Chooses the prompts to evaluate on, over all parts.

    Inputs: all `held_out` parts of `Compare`, `preferences`, and settled `pairs` and `unpaired`. Writes `evaluation`:
    nothing that is trained on, in pairs or alone, has one of its prompts.
    """

    config: Representatives
    name: ClassVar[str] = "represent"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task; only held-out rows are read whole."""
        columns = ["prompt_id", "split"]
        tables = ("pairs", "unpaired", "preferences")
        seen = [read_part(shard, columns) for name in tables for shard in task.inputs.get(name, ())]
        trained = pl.concat(seen).filter(pl.col("split") == "train").get_column("prompt_id")
        candidates = rows_of(task, "held_out")
        out.write("evaluation", representatives(candidates, self.config, trained))


def _places(task: Task) -> pl.DataFrame:
    return places(rows_of(task, "preferences"), rows_of(task, "conversations"))
