"""A judge who sees only a rationale: what it is shown, and that nothing but its clear verdict makes a label."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopback import Habits
from rationales.marked_pairs import HONEST, PANEL, judged, pairs
from scripted import answered
from tilth.schemas import polars_schema
from tilth.schemas.labels import WRITTEN_KINDS
from tilth.transforms.inference.prompts import packaged_prompt
from tilth.transforms.judging.items import judge_requests
from tilth.transforms.judging.protocol import Judging
from tilth.transforms.rationales.recovering import (
    LINKS,
    Recovering,
    recovered,
    recovery_items,
    recovery_protocol,
)
from tilth.transforms.rationales.written import (
    Writing,
    candidate_schema,
    rationale_requests,
    rationales_of,
)
from tilth.transforms.rubrics.criteria import replies_of_sides, sides_of

SHARES = st.sampled_from([0.0, 0.3, 0.7, 1.0])
HABITS = st.builds(Habits, SHARES, SHARES, SHARES, st.integers(0, 3))


def candidates(rows: pl.DataFrame, *kinds: str, config: Writing = Writing()) -> pl.DataFrame:  # noqa: B008
    """What a sensible model writes about pairs, as far as it passes the checks."""
    made = list[pl.DataFrame]()
    for kind in kinds or WRITTEN_KINDS:
        questions = rationale_requests(rows, kind, config)
        said = answered(questions.requests)
        made.append(rationales_of(rows, questions.asked, said.completions, said.failed, kind, config).kept)
    return pl.concat(made)


def labelled(written: pl.DataFrame, rows: pl.DataFrame, habits: Habits = HONEST) -> dict[str, bool | None]:
    """By rationale, whether it recovers the label."""
    asked = recovery_items(written, rows)
    found = recovered(written, asked.links, judged(asked.items, habits), recovery_protocol(PANEL))
    return dict(found.select("id", "recovers_label").iter_rows())


def swapped(written: pl.DataFrame, rows: pl.DataFrame) -> set[str]:
    """The rationales that argue for the rejected reply."""
    rejected = pl.col("rejected").list.first().struct.field("content")
    wrong = rows.filter(rejected.str.contains("write=swap", literal=True)).get_column("id")
    return set(written.filter(pl.col("pair_id").is_in(wrong.implode())).get_column("id"))


# What the judge is shown


def test_the_judge_sees_the_replies_and_the_remark_alone() -> None:
    """The request that the replies answer is no part of what it is asked; the rationale stands last."""
    rows = pairs(1)
    written = candidates(rows, "general")
    asked = judge_requests(recovery_items(written, rows).items, recovery_protocol(PANEL))
    texts = ["\n".join(m["content"] for m in said) for said in asked.requests.get_column("messages")]
    assert len(texts) == 2
    for text in texts:
        assert "How do I plant" not in text
        assert written.get_column("text").item() in text
        assert "[q=9]" in text
        assert "[q=2]" in text
    assert asked.asked.get_column("order").to_list() == [[0, 1], [1, 0]]


def test_the_panel_is_that_of_the_settings_with_its_own_prompt() -> None:
    """Judges, scale and rule are taken over; a template of pairwise judging is not, nor looked for."""
    own = Judging(judges=("a", "b=3"), low=0, high=4, rule="mean", prompt_file="nowhere.md")
    protocol = recovery_protocol(own, seed=5)
    assert (protocol.weights, protocol.low, protocol.high, protocol.seed) == ({"a": 1, "b": 3}, 0, 4, 5)
    assert protocol.prompt == packaged_prompt("tilth.transforms.rationales", "recover")
    assert not {"conversation"} & protocol.prompt.names


def test_rationales_with_the_same_words_are_judged_once() -> None:
    """Samples that say the same of one pair share an item; their replies are those of the table `responses`."""
    rows = pairs(3)
    written = candidates(rows, "general", config=Writing(samples=3, temperature=1.0))
    made = recovery_items(written, rows)
    assert (written.height, made.items.height, made.links.height) == (9, 3, 9)
    assert made.links.schema == LINKS
    assert set(made.links.get_column("id")) == set(written.get_column("id"))
    known = replies_of_sides(sides_of(rows)[0]).get_column("id")
    assert set(made.items.get_column("response_ids").explode()) <= set(known)
    for replies in made.items.get_column("replies"):
        assert ["[q=9]" in reply[0]["content"] for reply in replies] == [True, False]


# What becomes of its verdicts


def test_an_honest_panel_recovers_what_argues_for_the_chosen_reply() -> None:
    """Of all kinds; what argues for the rejected reply does not recover the label."""
    rows = pairs(12, ("", "[write=swap]"))
    written = candidates(rows)
    wrong = swapped(written, rows)
    found = labelled(written, rows)
    assert set(written.get_column("kind")) == set(WRITTEN_KINDS)
    assert len(wrong) == 18
    assert {id_ for id_, yes in found.items() if not yes} == wrong


def test_a_judge_biased_to_the_first_place_recovers_nothing() -> None:
    """Its verdicts turn with the order, so they are inconsistent: no label comes back, and none is turned round."""
    rows = pairs(8)
    assert set(labelled(candidates(rows), rows, Habits(position_bias=1.0)).values()) == {False}
    assert set(labelled(candidates(rows), rows, Habits(tie_share=1.0)).values()) == {False}


def test_failed_judges_say_nothing() -> None:
    """Where the panel fails, and where none was asked, there is no verdict; the failed judgments are named."""
    rows = pairs(4)
    written = candidates(rows, "specific")
    assert set(labelled(written, rows, Habits(garble_share=1.0)).values()) == {None}
    asked = recovery_items(written, rows)
    protocol = recovery_protocol(PANEL)
    none = recovered(written, asked.links, judged(asked.items).clear(), protocol)
    assert none.get_column("recovers_label").null_count() == written.height
    said = judged(asked.items, Habits(garble_share=1.0))
    found = recovered(written, asked.links, said, protocol)
    assert found.get_column("judgment_ids").list.len().to_list() == [4] * written.height


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(HABITS, st.randoms(use_true_random=False))
def test_no_judge_turns_a_label_and_no_order_of_rows_decides(habits: Habits, chance: Any) -> None:
    """Whatever bias, ties and failures: what argues for the other reply never recovers; permuted rows say the same."""
    rows = pairs(4, ("", "[write=swap]"))
    written = candidates(rows, "general", "judgment")
    found = labelled(written, rows, habits)
    assert not swapped(written, rows) & {id_ for id_, yes in found.items() if yes}

    def mixed(frame: pl.DataFrame) -> pl.DataFrame:
        return frame[chance.sample(range(frame.height), frame.height)]

    asked = Recovering(*(mixed(one) for one in recovery_items(mixed(written), mixed(rows))))
    said = mixed(judged(asked.items, habits))
    again = recovered(mixed(written), asked.links, said, recovery_protocol(PANEL))
    assert dict(again.select("id", "recovers_label").iter_rows()) == found


def test_judgments_of_other_items_are_passed_over() -> None:
    """Judgments are joined by item: those of another pair's rationales change nothing, and are not named."""
    rows = pairs(2)
    written = candidates(rows, "general")
    made = recovery_items(written, rows)
    said = judged(made.items)
    one = written.head(1)
    (mine,) = made.links.join(one, on="id", how="semi").get_column("item_id")
    stranger = pl.when(pl.col("item_id") == mine).then("judge").otherwise(pl.lit("of another panel"))
    said = said.with_columns(judge=stranger)
    found = recovered(one, made.links.join(one, on="id", how="semi"), said, recovery_protocol(PANEL))
    assert found.get_column("recovers_label").to_list() == [True]
    assert found.get_column("judgment_ids").list.len().to_list() == [4]


def test_a_mean_of_scores_is_no_verdict_here() -> None:
    """Under the rule `mean` a rationale must still win in both orders."""
    rows = pairs(6)
    written = candidates(rows, "general")
    asked = recovery_items(written, rows)
    judging = Judging(rule="mean")
    said = judged(asked.items, Habits(tie_share=0.5), judging)
    first = said.group_by("item_id").agg(both=(pl.col("verdict") == "win").all())
    wanted = dict(asked.links.join(first, on="item_id").select("id", "both").iter_rows())
    found = recovered(written, asked.links, said, recovery_protocol(judging))
    assert dict(found.select("id", "recovers_label").iter_rows()) == wanted
    assert set(wanted.values()) == {True, False}


def test_nothing_to_judge_gives_nothing() -> None:
    """No candidates, no items, no links, no rows."""
    none = pl.DataFrame(schema=candidate_schema())
    made = recovery_items(none, pairs(1))
    assert (made.items.height, made.links.height) == (0, 0)
    judgments = pl.DataFrame(schema=polars_schema("judgments"))
    assert recovered(none, made.links, judgments, recovery_protocol(PANEL)).is_empty()
