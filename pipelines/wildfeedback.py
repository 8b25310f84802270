"""The recipe `wildfeedback`: preference pairs from what users said in their chats, and a held-out set to evaluate on.

sources -> ingest -> assign -> mine (rules) -> cascade -> [label] -> feedback
        -> [preferences]                                     what the user wants of the reply, never in the prompt
        -> [expert] [on_policy] [plain] -> moderation        candidate replies
        -> [judge 1] [judge 2] ...                           both orders, the preferences as the checklist
        -> pairs -> settle -> pairs, unpaired, rationales
        -> represent -> evaluation

In brackets: what a model is asked. Source: WildFeedback (arXiv 2408.15549), for which no code was released; where we
differ is in docs/how-to/wildfeedback.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final  # Any: planned reads

from tilth.pipelines.judging import judge, purpose_of
from tilth.pipelines.means import Inputs, Means
from tilth.pipelines.observed import Logged, Observation, Observed, read_logs, settle
from tilth.pipelines.planned import Planned
from tilth.transforms.feedback.cascade import Cascade
from tilth.transforms.feedback.labelling import Labelling, label_prompt
from tilth.transforms.feedback.summaries import Summaries, summary_prompt
from tilth.transforms.inference.prompts import Prompt, packaged_prompt
from tilth.transforms.judging.protocol import Judge, Judging, Protocol
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
from tilth.transforms.parts import Shard, read_part
from tilth.transforms.responses.candidates import Replying
from tilth.transforms.responses.comparisons import Compared
from tilth.transforms.responses.moderation import Moderation
from tilth.transforms.responses.places import mean_chars
from tilth.transforms.selection.representatives import Representatives
from tilth.transforms.stage import Manifest, outputs, parts, total
from tilth.transforms.steps import Pair

NAME: Final = "wildfeedback"
# What the rows of each table were made from; what is not a table of the release is a source or a model.
LINEAGE: Final[Mapping[str, tuple[str, ...]]] = {
    "conversations": ("sources",),
    "feedback": ("conversations", "model"),
    "pairs": ("conversations", "feedback", "preferences", "responses", "judgments"),
    "unpaired": ("conversations", "feedback"),
    "rationales": ("pairs", "feedback"),
    "preferences": ("conversations", "feedback", "model"),
    "responses": ("conversations", "preferences", "expert", "policy"),
    "judgments": ("responses", "preferences", "judges"),
    "evaluation": ("conversations", "preferences", "pairs", "unpaired"),
    "quarantine": ("sources", "conversations", "feedback", "preferences", "responses", "judgments"),
}
TABLES: Final = tuple(LINEAGE)
PASSING: Final = frozenset(
    {
        ("ingest", "conversations"),
        ("mine", "feedback"),
        ("logged_replies", "responses"),
        ("replies", "responses"),
    }
)


@dataclass(frozen=True, slots=True)
class WildFeedback:
    """The recipe's configuration; the fields are the keys of section `wildfeedback` in `tilth.yaml`.

    Args:
        seed: of samples.
        expert: the role that answers with the user's preferences in view; empty for no expert candidates.
        policy: the model that is to be trained: it answers guided and plainly; empty for no on-policy candidates.
        samples: replies per place of the policy; the expert gives one.
        classifier: a file that `tilth feedback train` wrote; empty for none.
        cascade: which turns are settled without a model.
        labelling: how turns are labelled.
        summaries: how preferences are read from complaints.
        replies: how replies are drawn.
        compared: which replies are compared.
        moderation: who looks for harm.
        judging: how replies are judged.
        evaluation: which prompts are held out to evaluate on.
        expected_complaints: for the forecast alone: the share of turns that criticise a reply (12 % of WildChat's, by
            DRIFT's count of WildFeedback's labels).
    """

    seed: int = 0
    expert: str = "model"
    policy: str = ""
    samples: int = 1
    classifier: str = ""
    cascade: Cascade = field(default_factory=Cascade)
    labelling: Labelling = field(default_factory=Labelling)
    summaries: Summaries = field(default_factory=Summaries)
    replies: Replying = field(default_factory=Replying)
    compared: Compared = field(default_factory=Compared)
    moderation: Moderation = field(default_factory=Moderation)
    judging: Judging = field(default_factory=Judging)
    evaluation: Representatives = field(default_factory=Representatives)
    expected_complaints: float = field(default=0.12, compare=False)


def writers(config: WildFeedback) -> list[str]:
    """The roles that write replies."""
    return [role for role in dict.fromkeys((config.expert, config.policy)) if role]


def judges(config: WildFeedback) -> list[str]:
    """The roles that judge them."""
    return [Judge.of(text).name for text in config.judging.judges]


def roles(config: WildFeedback) -> list[str]:
    """Whose answers the outcome rests on."""
    moderators = ["moderator"] if config.moderation.by == "model" else []
    return list(dict.fromkeys(["model", *writers(config), *judges(config), *moderators]))


def witnesses(config: WildFeedback) -> dict[str, str]:
    """What else the outcome rests on: digests of the prompts that are asked, and of the classifier."""
    prompts = [label_prompt(), summary_prompt(), _guidance(), config.judging.pairwise().prompt]
    moderated = [_moderation()] if config.moderation.by == "model" else []
    known = {f"prompt {one.id}@{one.version}": one.digest for one in (*prompts, *moderated)}
    return known | ({"classifier": _digest(config.classifier)} if config.classifier else {})


def _guidance() -> Prompt:
    return packaged_prompt("tilth.transforms.responses", "guided")


def _moderation() -> Prompt:
    return packaged_prompt("tilth.transforms.responses", "moderation")


def wildfeedback(
    reads: Sequence[Mapping[str, Any]],
    logs: Observed,
    config: WildFeedback,
    means: Means,
    max_quarantine_share: float = 1.0,
) -> Observation:
    """Runs the recipe over planned reads (`tilth.transforms.ingest.plan`).

    Raises `QuarantineOverflow` when more than `max_quarantine_share` of the source rows were set aside, and what
    asking a model raises; finished work is kept, and the same call goes on there.
    """
    logged = read_logs(reads, logs, means.conduct, max_quarantine_share)
    conversations = logged.by_part()
    stages: Stages = {}
    labels = _labels(stages, conversations, logs, config, means)
    places = _preferences(stages, conversations, labels, config, means)
    compared = _compared(stages, places, config, means)
    protocol = config.judging.pairwise(config.seed)
    judgments = judge({part: outputs(made, "items") for part, made in compared.items()}, protocol, means)
    stages["judged_pairs"] = means.run(
        JudgedPairs(protocol),
        {
            part: {**outputs(made, "comparisons"), "judgments": judgments[part]}
            for part, made in compared.items()
        },
    )
    signals = {part: {**inputs, **outputs(labels[part], "signals")} for part, inputs in conversations.items()}
    stages["pair"] = means.run(Pair(logs.pairs), signals)
    candidates = [*stages["pair"].values(), *stages["judged_pairs"].values()]
    settled = settle(candidates, logs, logged.conversations, means.conduct)
    evaluation = _evaluation(stages, settled, config, means)
    return _observation(logged, stages, settled, evaluation, judgments, protocol)


def planned(
    reads: Sequence[Mapping[str, Any]],
    logs: Observed,
    config: WildFeedback,
    means: Means,
    max_quarantine_share: float = 1.0,
) -> list[Planned]:
    """What the run would ask. Runs the steps without a model, which the run itself then finds done.

    What turns are labelled with is known exactly. How many replies are criticised is not: it is taken to be what the
    rules find, or `expected_complaints` of the turns, whichever is more.
    """
    logged = read_logs(reads, logs, means.conduct, max_quarantine_share)
    conversations = logged.by_part()
    settled = _settled(conversations, logs, config, means)
    labels = tuple(parts(list(settled.values()), "requests"))
    known = {part: {**inputs, **outputs(settled[part], "known")} for part, inputs in conversations.items()}
    found = parts(list(means.run(PreferenceRequests(config.summaries), known).values()), "targets")
    turns = total(list(settled.values()), "cascade.turns")
    places = max(sum(shard.rows for shard in found), round(config.expected_complaints * turns))
    chars = _mean_chars(conversations)
    return [Planned("label", "model", labels), *_planned_replies(config, places, chars)]


def _planned_replies(config: WildFeedback, places: int, chars: int) -> list[Planned]:
    preferences = Planned("preferences", "model", (), places, chars + 2000, config.summaries.answer_tokens)
    limit = config.replies.answer_tokens
    replies = [
        Planned(name, role, (), places * samples, chars + 1000, limit)
        for name, role, _, samples in _speakers(config)
    ]
    reply = 4 * limit // 2  # of half the longest, at four characters a token
    moderated = places * (1 + sum(samples for *_, samples in _speakers(config)))
    moderation = [Planned("moderate", "moderator", (), moderated, 2 * reply, config.moderation.answer_tokens)]
    compared = {"expert": 1, "on_policy": config.samples}
    items = places * sum(compared[name] for name, *_ in _speakers(config) if name in compared)
    judging = config.judging
    judges = [
        Planned(
            purpose_of("judge", Judge.of(text).name),
            Judge.of(text).name,
            (),
            items * 2 * judging.evidences,
            chars + 2 * reply + 2000,
            judging.answer_tokens,
        )
        for text in judging.judges
    ]
    return [preferences, *replies, *(moderation if config.moderation.by == "model" else []), *judges]


def _mean_chars(conversations: Mapping[str, Inputs]) -> int:
    """The text of a conversation on average, of the first part: enough for an estimate."""
    first = next((shard for inputs in conversations.values() for shard in inputs["conversations"]), None)
    return 0 if first is None else mean_chars(read_part(first, ["messages"]))


Stages = dict[str, dict[str, Manifest]]
"""What each stage made of each part, for the tables and counts of the run."""


def _settled(
    conversations: Mapping[str, Inputs], logs: Observed, config: WildFeedback, means: Means
) -> dict[str, Manifest]:
    step = SettleTurns(
        config.cascade, logs.feedback, config.labelling, config.classifier, _digest(config.classifier)
    )
    return means.run(step, conversations)


def _labels(
    stages: Stages, conversations: Mapping[str, Inputs], logs: Observed, config: WildFeedback, means: Means
) -> dict[str, Manifest]:
    """Feedback: settled without a model where that can be, else labelled."""
    stages["cascade"] = settled = _settled(conversations, logs, config, means)
    answers = means.answer(settled, "label", "model")
    known = {
        part: {**conversations[part], **outputs(made, "turns", "known"), **answers[part]}
        for part, made in settled.items()
    }
    stages["labels"] = means.run(ReadLabels(config.labelling), known)
    return stages["labels"]


def _digest(classifier: str) -> str:
    if not classifier:
        return ""
    from tilth.transforms.feedback.classifier import load_classifier  # loads scikit-learn

    return load_classifier(classifier).version


def _preferences(
    stages: Stages,
    conversations: Mapping[str, Inputs],
    labels: Mapping[str, Manifest],
    config: WildFeedback,
    means: Means,
) -> dict[str, Inputs]:
    """What users want of the replies that they criticised; parts without any are left out."""
    criticised = {
        part: {**inputs, **outputs(labels[part], "feedback")} for part, inputs in conversations.items()
    }
    stages["targets"] = asked = means.run(PreferenceRequests(config.summaries), criticised)
    answers = means.answer(asked, "preferences", "model")
    told = {part: {**outputs(made, "targets"), **answers[part]} for part, made in asked.items()}
    stages["preferences"] = wishes = means.run(ReadPreferences(), told)
    return {
        part: {**conversations[part], **outputs(made, "preferences")}
        for part, made in wishes.items()
        if made.outputs.get("preferences")
    }


def _compared(
    stages: Stages, places: Mapping[str, Inputs], config: WildFeedback, means: Means
) -> dict[str, Manifest]:
    """Replies of all roles beside what they are compared with."""
    replies: dict[str, tuple[Shard, ...]] = dict.fromkeys(places, ())
    for name, step in _replying(places, config, means):
        stages[f"replies.{name}"] = step
        for part, made in step.items():
            replies[part] += tuple(made.outputs.get("responses", ()))
    told = {part: {**inputs, "responses": replies[part]} for part, inputs in places.items()}
    if config.moderation.by == "model":
        asked = means.run(ModerationRequests(_moderation(), config.moderation), told)
        answers = means.answer(asked, "moderate", "moderator")
        told = {part: {**inputs, **answers[part]} for part, inputs in told.items()}
    step = Compare(config.compared, config.moderation, config.evaluation.splits)
    stages["compare"] = means.run(step, told)
    return stages["compare"]


def _replying(
    places: Mapping[str, Inputs], config: WildFeedback, means: Means
) -> Iterator[tuple[str, dict[str, Manifest]]]:
    """The replies of each role: logged, expert, and those of the policy with and without guidance."""
    guidance = _guidance()
    yield "logged", means.run(LoggedReplies(), places)
    for name, role, guided, samples in _speakers(config):
        step = ReplyRequests(name, guidance if guided else None, config.replies, samples, config.seed)
        asked = means.run(step, places)
        answers = means.answer(asked, name, role)
        told = {part: {**places[part], **answers[part]} for part in places}
        yield name, means.run(Replies(name, means.ask(name, role).identity, guided), told)


def _speakers(config: WildFeedback) -> list[tuple[str, str, bool, int]]:
    """Who is asked for replies: the part it plays, the role that answers, whether it is guided, how many samples."""
    wanted = [("expert", config.expert, True, 1)] if config.expert else []
    wanted += [("on_policy", config.policy, True, config.samples)] if config.policy else []
    candidates = {name for name, *_ in wanted}
    if "plain" in {against for name, against in config.compared.pairs() if name in candidates}:
        wanted.append(("plain", config.policy or config.expert, False, config.samples))
    return wanted


def _evaluation(
    stages: Stages, settled: Sequence[Manifest], config: WildFeedback, means: Means
) -> list[Manifest]:
    """The held-out set; nothing when no criticised reply is in a held-out split."""
    held_out = tuple(parts(list(stages["compare"].values()), "held_out"))
    if not held_out:
        return []
    inputs = {
        "held_out": held_out,
        "pairs": tuple(parts(settled, "pairs")),
        "unpaired": tuple(parts(settled, "unpaired")),
        "preferences": tuple(parts(list(stages["preferences"].values()), "preferences")),
    }
    return list(means.run(Represent(config.evaluation), {"000000": inputs}).values())


_HOMES: Final = {  # which stage makes a table final; others come from `settle`
    "feedback": "labels",
    "preferences": "preferences",
    "responses": "compare",
}


def _observation(
    logged: Logged,
    stages: Stages,
    settled: list[Manifest],
    evaluation: list[Manifest],
    judgments: Mapping[str, tuple[Shard, ...]],
    protocol: Protocol,
) -> Observation:
    made = {"ingest": logged.ingested, "mine": logged.mined}
    made |= {name: list(one.values()) for name, one in stages.items()}
    made |= {"settle": settled, "represent": evaluation}
    tables = {table: parts(made[home], table) for table, home in _HOMES.items()}
    tables |= {table: parts(settled, table) for table in ("pairs", "unpaired", "rationales")}
    tables["conversations"] = parts(logged.mined, "conversations")
    tables["evaluation"] = parts(evaluation, "evaluation")
    tables["judgments"] = [shard for part in sorted(judgments) for shard in judgments[part]]
    tables["quarantine"] = [shard for one in made.values() for shard in parts(one, "quarantine")]
    stored = json.dumps(asdict(protocol), sort_keys=True)
    return Observation({table: tables[table] for table in TABLES}, made, {"tilth.protocol": stored})
