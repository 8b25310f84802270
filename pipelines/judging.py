"""A panel judges items: what every judge is asked is rendered once, each judge answers on its own.

items -> judge_requests -> ask judge 1 -> judgments
                        -> ask judge 2 -> judgments
"""

from __future__ import annotations

from collections.abc import Mapping

from tilth.pipelines.means import Inputs, Means
from tilth.transforms.judging.protocol import Protocol
from tilth.transforms.judging.steps import JudgeRequests, ReadJudgments
from tilth.transforms.parts import Shard


def judge(
    items: Mapping[str, Inputs], protocol: Protocol, means: Means, name: str = "judge"
) -> dict[str, tuple[Shard, ...]]:
    """What a panel says of items: by part, the parts of table `judgments` of all judges.

    Args:
        items: by part, its shards of `ITEMS` under `items`; a part without any is passed over.
        protocol: how they are judged.
        means: how models are asked; a judge's name is its role.
        name: of this judging in its run, where there are several (rounds of a tournament).
    """
    parts = {part: inputs for part, inputs in items.items() if inputs.get("items")}
    rendered = means.run(JudgeRequests(protocol), parts)
    judged: dict[str, tuple[Shard, ...]] = dict.fromkeys(items, ())
    for member in protocol.judges:
        purpose = purpose_of(name, member.name)
        answers = means.answer(rendered, purpose, member.name)
        model = means.ask(purpose, member.name).identity
        reading = {part: {**inputs, **answers[part]} for part, inputs in parts.items()}
        read = means.run(ReadJudgments(protocol, member.name, model), reading)
        for part, made in read.items():
            judged[part] += tuple(made.outputs.get("judgments", ()))
    return judged


def purpose_of(name: str, judge: str) -> str:
    """What the asking of one judge is called.

    >>> purpose_of("judge", "large"), purpose_of("judge", "judge")
    ('judge-large', 'judge')
    """
    return name if judge == name else f"{name}-{judge}"
