"""The scripted model writes rationales that are right, or wrong as it is told to; a judge reads nothing but claims."""

from __future__ import annotations

from typing import Any

import orjson
import polars as pl
import pytest

from loopback import Habits, Question, sensible_answer
from loopback.sensible_rationales import INVENTED, claimed, piece
from tilth.schemas import polars_schema
from tilth.transforms.inference.requests import to_requests
from tilth.transforms.judging.items import judge_requests
from tilth.transforms.judging.protocol import Judging
from tilth.transforms.rationales.recovering import recovery_items, recovery_protocol
from tilth.transforms.rationales.written import Writing, candidate_schema, rationale_requests

HONEST = Habits()
GOOD = "Sow peas five centimetres deep in March. [q=8]"
BAD = "Peas grow on the roof of a house. [q=2]"


def pair(chosen: str, rejected: str) -> pl.DataFrame:
    row = {
        "id": "a" * 32,
        "prompt_id": "b" * 32,
        "prompt": [{"role": "user", "content": "How deep do I sow my peas in the garden?"}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "conversation_id": "c" * 32,
        "split": "train",
    }
    return pl.DataFrame([row], schema=polars_schema("pairs"))


def said(
    kind: str, chosen: str = GOOD, rejected: str = BAD, seed: int = 0
) -> tuple[dict[str, Any], list[int]]:
    """What the model answers, and the order that it was shown."""
    questions = rationale_requests(pair(chosen, rejected), kind, Writing(seed=seed))
    (request,) = to_requests(questions.requests)
    answer = sensible_answer(Question(request.messages, schema=orjson.loads(request.schema or "")))
    assert answer is not None
    return orjson.loads(answer), questions.asked.get_column("order").item().to_list()


def verdicts(remark: str, habits: Habits = HONEST) -> list[str]:
    """What the judge says of a remark in both orders, of the chosen reply first."""
    pairs, protocol = pair(GOOD, BAD), recovery_protocol(Judging())
    row = {"id": "d" * 32, "pair_id": "a" * 32, "text": remark, "conversation_id": "c" * 32, "split": "train"}
    items = recovery_items(pl.DataFrame([row], schema_overrides=candidate_schema()), pairs).items
    asked = [
        Question(request.messages, schema=orjson.loads(request.schema or ""))
        for request in to_requests(judge_requests(items, protocol).requests)
    ]
    return [orjson.loads(sensible_answer(one, habits) or "")["verdict"] for one in asked]


def test_a_piece_stands_in_its_text_alone() -> None:
    """It is a few words around one that the other text does not have; of a text that adds nothing there is none."""
    assert piece(GOOD, BAD) == "Sow peas five centimetres deep in March."
    assert piece("a b", "a b c") is None
    assert piece("", "a") is None


@pytest.mark.parametrize("seed", range(4))
def test_reasons_praise_the_better_reply_in_both_orders(seed: int) -> None:
    """General and specific reasons are the same whichever reply is shown first; evidence names the reply as shown."""
    general, _ = said("general", seed=seed)
    assert claimed(general["reason"], [GOOD, BAD]) == 0
    specific, order = said("specific", seed=seed)
    assert claimed(specific["reason"], [GOOD, BAD]) == 0
    shown = [(GOOD, BAD)[side] for side in order]
    assert [one["quote"] in shown[one["reply"] - 1] for one in specific["evidence"]] == [True, True]


def test_a_judge_of_one_reply_finds_fault_unless_it_is_good() -> None:
    """It quotes the end of a marked reply; from mark 8 on it is satisfied."""
    answer, _ = said("judgment")
    assert not answer["satisfied"]
    assert answer["evidence"] == ["roof of a house. [q=2]"]
    assert claimed(answer["reason"], [GOOD, BAD]) == 0
    assert said("judgment", rejected=GOOD)[0] == {"evidence": [], "satisfied": True, "reason": ""}


@pytest.mark.parametrize("seed", range(4))
def test_options_are_told_apart_by_their_marks(seed: int) -> None:
    """The better reply is supported by the premise, the other contradicted; replies without marks are guessed at."""
    answer, order = said("option", seed=seed)
    best = order.index(0) + 1
    assert answer["best"] == str(best)
    assert (answer[f"supports_{best}"], answer[f"contradicts_{3 - best}"]) == ([1], [1])
    assert answer["premises"] == ["peas in the garden?"]
    unmarked = [said("option", "Yes, deep.", "No, high.", seed=one) for one in range(8)]
    assert len({order[int(answer["best"]) - 1] for answer, order in unmarked}) == 1


@pytest.mark.parametrize("kind", ["general", "specific", "judgment", "option"])
def test_mistakes_are_made_where_a_reply_asks_for_them(kind: str) -> None:
    """A leak, an invented quote, the other side, a copy and nothing at all, by the mark of a reply."""
    field = "analysis_1" if kind == "option" else "reason"

    def mistaken(name: str) -> dict[str, Any]:
        return said(kind, rejected=f"{BAD} [write={name}]")[0]

    assert "first answer" in mistaken("position")[field]
    assert INVENTED in str(mistaken("invent"))
    assert mistaken("copy")[field] in (GOOD, f"{BAD} [write=copy]")
    assert mistaken("empty")[field] == ""
    if kind == "option":
        answer, order = said(kind, rejected=f"{BAD} [write=swap]")
        assert order[int(answer["best"]) - 1] == 1
    else:
        assert claimed(mistaken("swap")["reason"], [GOOD, f"{BAD} [write=swap]"]) == 1


def test_a_judge_of_a_remark_goes_by_its_claims() -> None:
    """Whichever reply stands first; it errs by place and by ties as its habits say; what fits neither is a tie."""
    remark = 'The better reply says "five centimetres", which answers what was asked.'
    assert verdicts(remark) == ["1", "2"]
    assert verdicts(remark.replace("answers what was asked", "misses the point")) == ["2", "1"]
    assert verdicts("The better reply is better.") == ["tie", "tie"]
    assert verdicts(remark, Habits(position_bias=1.0)) == ["1", "1"]
    assert verdicts(remark, Habits(tie_share=1.0)) == ["tie", "tie"]
