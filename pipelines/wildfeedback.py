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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tilth.transforms.feedback.cascade import Cascade
from tilth.transforms.feedback.windows import Window
from tilth.transforms.judging.protocol import Judge, Judging
from tilth.transforms.responses.candidates import Replying
from tilth.transforms.responses.comparisons import Compared
from tilth.transforms.responses.moderation import Moderation
from tilth.transforms.selection.representatives import Representatives

if TYPE_CHECKING:
    from tilth.pipelines.means import Means
    from tilth.pipelines.observed import Observation, Observed

NAME: Final = "wildfeedback"
TABLES: Final = (
    "conversations",
    "feedback",
    "pairs",
    "unpaired",
    "rationales",
    "preferences",
    "responses",
    "judgments",
    "evaluation",
    "quarantine",
)
PASSING: Final = frozenset({("ingest", "conversations"), ("mine", "feedback"), ("replies", "responses")})


@dataclass(frozen=True, slots=True)
class WildFeedback:
    """The recipe's configuration; the fields are the keys of section `wildfeedback` in `tilth.yaml`.

    Args:
        seed: of samples and of the orders in which lists are shown.
        expert: the role that answers with the user's preferences in view; empty for no expert candidates.
        policy: the model that is to be trained: it answers guided and plainly; empty for no on-policy candidates.
        samples: replies per place and role of the policy; the expert gives one.
        cascade: which turns are settled without a model.
        window: how much of a conversation one call is shown.
        replies: how replies are drawn.
        compared: which replies are compared.
        moderation: who looks for harm.
        judging: how replies are judged.
        evaluation: which prompts are held out to evaluate on.
    """

    seed: int = 0
    expert: str = "model"
    policy: str = ""
    samples: int = 1
    cascade: Cascade = field(default_factory=Cascade)
    window: Window = field(default_factory=Window)
    replies: Replying = field(default_factory=Replying)
    compared: Compared = field(default_factory=Compared)
    moderation: Moderation = field(default_factory=Moderation)
    judging: Judging = field(default_factory=Judging)
    evaluation: Representatives = field(default_factory=Representatives)


def roles(config: WildFeedback) -> list[str]:
    """Whose answers the outcome rests on."""
    asked = ["model", config.expert, config.policy, *(Judge.of(text).name for text in config.judging.judges)]
    moderated = ["moderator"] if config.moderation.by == "model" else []
    return list(dict.fromkeys(role for role in (*asked, *moderated) if role))


def wildfeedback(
    reads: Sequence[Mapping[str, Any]],
    logs: Observed,
    config: WildFeedback,
    means: Means,
    max_quarantine_share: float = 1.0,
) -> Observation:
    """Runs the recipe over planned reads."""
    raise NotImplementedError
