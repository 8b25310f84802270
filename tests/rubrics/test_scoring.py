"""Scores by rubrics: published figures to the digit, and what may never change a score."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import BadInput, ConfigError
from tilth.transforms.rubrics.criteria import GRADES, criteria_rows
from tilth.transforms.rubrics.rollup import LEAVES, TREE, rolled_up
from tilth.transforms.rubrics.scoring import (
    EXAMPLE_TAGS,
    RULES,
    Rule,
    by_tag,
    ceiling,
    from_rar,
    implicit,
    meta_evaluation,
    overall,
    panel,
    rlcf,
    scores,
    tag_scores,
    to_rar,
)

HEALTHBENCH: Final = [(7.0, True), (5.0, False), (10.0, True), (-6.0, True)]
Marks = Sequence[tuple[float, bool | None]]


def ruled(weights: Sequence[float], prompt: str = "p", tags: Sequence[Sequence[str]] = ()) -> pl.DataFrame:
    """Criteria of one prompt with these weights, in an order that their ids do not have."""
    rows = {
        "prompt_id": [prompt] * len(weights),
        "description": [f"criterion {at}" for at in range(len(weights))],
        "weight": list(weights),
        "tags": list(tags) or [[] for _ in weights],
    }
    kinds = {"weight": pl.Float64, "description": pl.String, "prompt_id": pl.String}
    return criteria_rows(pl.DataFrame(rows, schema_overrides={**kinds, "tags": pl.List(pl.String)}))


def graded(
    criteria: pl.DataFrame, met: Sequence[bool | None], response: str = "r", judge: str = "j"
) -> pl.DataFrame:
    """What one judge says of one reply."""
    said = pl.Series(met, dtype=pl.Boolean)
    rows = criteria.select("prompt_id", criterion_id="id", response_id=pl.lit(response), judge=pl.lit(judge))
    return rows.with_columns(met=said).select(GRADES.names())


def score(marks: Marks, rule: Rule = "healthbench", *, partial: bool = False) -> float | None:
    criteria = ruled([weight for weight, _ in marks])
    return scores(criteria, graded(criteria, [met for _, met in marks]), rule, partial=partial)[
        "score"
    ].item()


def test_healthbench_to_the_digit() -> None:
    """HealthBench's own example: points 7, 5, 10, -6 with all but the second met are 11 of 22."""
    assert score(HEALTHBENCH) == 0.5


def test_every_rule_by_hand() -> None:
    """The same example by the other rules: 7 + 10 of 28 gained (the mistake is made), 11 of 28, and 11 points."""
    assert score(HEALTHBENCH, "weighted") == 17 / 28
    assert score(HEALTHBENCH, "normalised") == 11 / 28
    assert score(HEALTHBENCH, "orbit") == 11.0
    assert score([(7, True), (-6, False)], "weighted") == 1.0


def test_a_score_may_be_below_zero_and_is_not_clipped() -> None:
    """A reply that only makes the mistake loses; clipping it would be a bias upwards."""
    assert score([(2, False), (-6, True)]) == -3.0


def test_one_criterion_of_weight_one_is_a_verifiable_reward() -> None:
    """Rubrics as Rewards reduces to a reward of 1 or 0, whatever the rule."""
    for rule in ("healthbench", "weighted", "normalised", "orbit"):
        assert (score([(1, True)], rule), score([(1, False)], rule)) == (1.0, 0.0)


def test_what_has_no_score_says_why() -> None:
    """Only mistakes, a criterion that nobody could tell, and a reply to a prompt without criteria have none."""
    criteria = pl.concat([ruled([-1.0], "only"), ruled([1.0, 2.0], "part")])
    grades = pl.concat(
        [
            graded(ruled([-1.0], "only"), [True]),
            graded(ruled([1.0, 2.0], "part"), [True, None]),
            graded(ruled([1.0], "none"), [True]),
        ]
    )
    found = scores(criteria, grades).rows()
    assert found == [
        ("none", "r", None, 0, 0, "no_criterion"),
        ("only", "r", None, 1, 0, "no_criterion"),
        ("part", "r", None, 1, 1, "judges_failed"),
    ]
    assert scores(criteria, grades, partial=True).rows()[-1] == ("part", "r", 1.0, 1, 1, None)


def test_a_criterion_without_a_row_is_ungraded_and_not_unmet() -> None:
    """A verdict that is missing makes the score null; with `partial` the rest decides; nothing told is no score."""
    criteria = ruled([1.0, 3.0])
    one = graded(criteria, [True, True]).head(1)
    assert scores(criteria, one)["score"].item() is None
    assert scores(criteria, one, partial=True)["score"].item() == 1.0
    nothing = scores(criteria, graded(criteria, [None, None]), "orbit", partial=True)
    assert nothing.select("score", "reason").row(0) == (None, "judges_failed")


def test_unknown_rules_are_refused() -> None:
    """The error names the rules that there are."""
    with pytest.raises(ConfigError, match="healthbench, weighted, normalised, orbit"):
        score(HEALTHBENCH, "likert")  # pyright: ignore[reportArgumentType]


def test_judges_vote_and_programs_decide_alone() -> None:
    """Most judges decide; a tie is null, and so is a judge who contradicts himself; a program needs nobody."""
    criteria = ruled([1.0, 1.0, 1.0])
    votes = [
        graded(criteria, [True, True, False], judge="a"),
        graded(criteria, [True, False, False], judge="b"),
        graded(criteria, [False, None, False], judge="c"),
        graded(criteria.tail(1), [True], judge="program"),
        graded(criteria.head(1), [True], judge="b"),  # said twice, counts once
    ]
    found = panel(pl.concat(votes))
    told = dict(found.select("criterion_id", "met").iter_rows())
    assert [told[one] for one in criteria["id"]] == [True, None, True]
    assert panel(found).equals(found)
    torn = pl.concat([graded(criteria, [True] * 3), graded(criteria, [False] * 3)])
    assert panel(torn)["met"].to_list() == [None] * 3
    assert panel(pl.concat([torn, torn.head(3)]))["met"].to_list() == [None] * 3


marks = st.lists(
    st.tuples(st.integers(-10, 10).filter(bool).map(float), st.sampled_from([True, False, None])),
    min_size=1,
    max_size=8,
)


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(marks, st.sampled_from(RULES), st.booleans(), st.randoms(use_true_random=False))
def test_order_and_duplicates_never_change_a_score(
    given_marks: Marks, rule: Rule, partial: bool, draw: Random
) -> None:
    """Rows in any order and rows that are there twice give the same scores, bit by bit."""
    criteria = ruled([weight for weight, _ in given_marks])
    grades = graded(criteria, [met for _, met in given_marks])
    expected = scores(criteria, grades, rule, partial=partial)
    twice = [pl.concat([rows, rows.head(3)]) for rows in (criteria, grades)]
    order = [sorted(range(rows.height), key=lambda _: draw.random()) for rows in twice]
    mixed = [rows[places] for rows, places in zip(twice, order, strict=True)]
    assert scores(mixed[0], mixed[1], rule, partial=partial).equals(expected)


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(marks, st.sampled_from(RULES), st.floats(0.01, 100))
def test_weights_scale_out(given_marks: Marks, rule: Rule, factor: float) -> None:
    """All weights times c > 0 give the same score; ORBIT's sum alone grows by c."""
    plain = score(given_marks, rule, partial=True)
    scaled = score([(weight * factor, met) for weight, met in given_marks], rule, partial=True)
    if plain is None:
        assert scaled is None
    else:
        assert scaled == pytest.approx(plain * (factor if rule == "orbit" else 1), abs=1e-9)


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(marks)
def test_scores_of_parts_are_scores_of_the_whole(given_marks: Marks) -> None:
    """Prompts and replies do not touch each other: scored alone or together, they have the same score."""
    weights = [weight for weight, _ in given_marks]
    one, other = ruled(weights, "one"), ruled(list(reversed(weights)), "other")
    said = [met for _, met in given_marks]
    parts = [
        (one, pl.concat([graded(one, said, "r"), graded(one, said[::-1], "s")])),
        (other, graded(other, said)),
    ]
    apart = pl.concat([scores(criteria, grades) for criteria, grades in parts])
    whole = scores(pl.concat([one, other]), pl.concat([grades for _, grades in parts]))
    assert whole.equals(apart)


# Conventions


def test_pitfalls_turn_into_virtues_and_back() -> None:
    """A mistake of -k is the virtue of avoiding it, +k; the way back gives the same criteria, ids included."""
    texts = ["Names a dose.", "Recommends aspirin.", "Makes this mistake: guessing", "Fails in this: sources"]
    ours = criteria_rows(
        pl.DataFrame(
            {
                "prompt_id": ["p"] * 4,
                "description": texts,
                "weight": [1.0, -0.8, -0.5, -0.2],
                "check": ["judge"] * 4,
            }
        )
    )
    rar = to_rar(ours)
    assert rar["weight"].to_list() == [1.0, 0.8, 0.5, 0.2]
    assert rar["description"].to_list() == [
        "Names a dose.",
        "Avoids this mistake: Recommends aspirin.",
        "Avoids guessing",
        "sources",
    ]
    assert rar["tags"].to_list() == [[], ["pitfall"], ["pitfall"], ["pitfall"]]
    assert from_rar(rar).equals(ours)
    assert to_rar(from_rar(rar)).equals(rar)


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(marks)
def test_the_weighted_rule_is_rars_explicit_reward(given_marks: Marks) -> None:
    """Signed criteria by `weighted` score as `to_rar` makes them, with grades turned round, by sum(w c) / sum(w)."""
    criteria = ruled([weight for weight, _ in given_marks])
    turned = [None if met is None else met is (weight > 0) for weight, met in given_marks]
    rar = to_rar(criteria)
    assert (rar["weight"] > 0).all()
    explicit = scores(rar, graded(rar, turned), "healthbench", partial=True)["score"].item()
    assert score(given_marks, "weighted", partial=True) == pytest.approx(explicit)


def test_implicit_ratings() -> None:
    """1 to 10 become 0 to 1; what lies outside is refused, never clipped."""
    assert implicit(5.5) == 0.5
    assert implicit(3, low=1, high=5) == 0.5
    with pytest.raises(BadInput, match="1 to 10"):
        implicit(11)


def test_rlcf_leaves_confused_judges_out() -> None:
    """Points below 0 mean that a judge could not tell: they take no part in the mean, nor do nulls."""
    assert rlcf([100, 0], [75, 25]) == 0.75
    assert rlcf([80, None, -1], [50, 25, 25]) == pytest.approx(0.8)
    assert rlcf([-1], [100]) is None


# Tags and the whole


def test_tags_by_hand() -> None:
    """A rubric's tag has the formula over its items and needs a positive one; an example's has the reply's score."""
    criteria = ruled([7, 5, 10, -6], tags=[["axis:a"], ["axis:a", "x"], [], ["x", "axis:only_mistakes"]])
    grades = graded(criteria, [True, False, True, True])
    example_tags = pl.DataFrame(
        {"prompt_id": ["p", "p", "q"], "tag": ["theme", "theme", "x"]}, schema=EXAMPLE_TAGS
    )
    found = tag_scores(criteria, grades, example_tags)
    assert found.select("of", "tag", "score").rows() == [
        ("example", "theme", 0.5),
        ("rubric", "axis:a", 7 / 12),
        ("rubric", "x", -6 / 5),
    ]
    totals = by_tag(found)
    assert list(totals) == [("example", "theme"), ("rubric", "axis:a"), ("rubric", "x")]
    assert (totals["rubric", "x"].mean, totals["rubric", "x"].n) == (0.0, 1)


def test_only_the_mean_is_clipped() -> None:
    """-3 and 0.5 have the mean 0 after clipping; 2 and 0 have 1; a null takes no part and is counted."""
    assert overall(pl.DataFrame({"score": [-3.0, 0.5]})).mean == 0.0
    assert overall(pl.DataFrame({"score": [2.0, 0.0]})).mean == 1.0
    assert overall(pl.DataFrame({"score": [2.0, 0.0]}), clip=False).mean == 1.0
    assert overall(pl.DataFrame({"score": [-3.0, 0.5]}), clip=False).mean == -1.25
    some = overall(pl.DataFrame({"score": [0.4, None, 0.8]}))
    assert (some.mean, some.n, some.unscored) == (pytest.approx(0.6), 2, 1)
    assert overall(pl.DataFrame({"score": [None]}, schema={"score": pl.Float64})).mean is None


def test_the_bootstrap_error_is_seeded_and_near_theory() -> None:
    """Its figure is that of the standard error, the same for a seed in any order of rows, another for another seed."""
    values = [float(at % 2) for at in range(400)]
    found = overall(pl.DataFrame({"score": values}), seed=1)
    assert found.bootstrap_std == pytest.approx(0.5 / 400**0.5, rel=0.1)
    assert overall(pl.DataFrame({"score": sorted(values)}), seed=1) == found
    assert overall(pl.DataFrame({"score": values}), seed=2).bootstrap_std != found.bootstrap_std


# Graders against physicians


def test_meta_evaluation_to_the_digit() -> None:
    """HealthBench's own example: 2/4, 1/2, 2/3, 1/3 with n of 4, 2, 3, 3."""
    found = meta_evaluation([True, False, True], [[True, True, False], [True, False], [False]])
    met, not_met = found.met, found.not_met
    assert (met.precision, met.precision_n, met.recall, met.recall_n) == (2 / 4, 4, 2 / 3, 3)
    assert (not_met.precision, not_met.precision_n, not_met.recall, not_met.recall_n) == (1 / 2, 2, 1 / 3, 3)
    assert (met.f1, not_met.f1) == (pytest.approx(4 / 7), pytest.approx(2 / 5))
    assert found.balanced_f1 == pytest.approx((4 / 7 + 2 / 5) / 2)


def test_f1_where_nothing_is_right_and_where_nothing_is_said() -> None:
    """Both precision and recall 0 give 0; where either is unknown, so is F1 and the balance."""
    wrong = meta_evaluation([True, False], [[False], [True]])
    assert (wrong.met.f1, wrong.balanced_f1) == (0.0, 0.0)
    silent = meta_evaluation([True], [[True]])
    assert (silent.met.f1, silent.not_met.f1, silent.balanced_f1) == (1.0, None, None)


def test_physicians_against_each_other() -> None:
    """Each label is held against the others of its item; an item with one label gives no pair."""
    assert ceiling([[True, True], [False, False], [True]]).balanced_f1 == 1.0
    torn = ceiling([[True, False], [True, True]])
    assert (torn.pairs, torn.met.precision) == (4, 2 / 3)


# Trees

TREE_ROWS: Final = [
    ("root", None, 1.0),
    ("safety", "root", 3.0),
    ("style", "root", 1.0),
    ("names the risk", "safety", 2.0),
    ("says whom to call", "safety", 2.0),
    ("gives a dose", "safety", -1.0),
    ("short", "style", 1.0),
    ("polite", "style", 1.0),
]


def leaves(**values: float | None) -> pl.DataFrame:
    names = {name.replace("_", " "): value for name, value in values.items()}
    return pl.DataFrame([("r", name, value) for name, value in names.items()], schema=LEAVES, orient="row")


def test_a_tree_with_a_mistake_by_hand() -> None:
    """safety = (2 - 1) / 4 = 1/4, style = 1/2, root = (3 * 1/4 + 1/2) / 4 = 5/16."""
    tree = pl.DataFrame(TREE_ROWS, schema=TREE, orient="row")
    found = rolled_up(tree, leaves(names_the_risk=1, says_whom_to_call=0, gives_a_dose=1, short=1, polite=0))
    told = {node: value for _, node, value, _, _ in found.iter_rows()}
    assert (told["safety"], told["style"], told["root"]) == (0.25, 0.5, 0.3125)
    mixed = rolled_up(
        tree.reverse(), leaves(polite=0, short=1, gives_a_dose=1, says_whom_to_call=0, names_the_risk=1)
    )
    assert mixed.equals(found)


def test_nothing_graded_is_left_out_and_reported() -> None:
    """A branch without a graded leaf has no score and no part in its parent's; its leaves are counted."""
    tree = pl.DataFrame(TREE_ROWS, schema=TREE, orient="row")
    found = rolled_up(tree, leaves(short=1, polite=None, gives_a_dose=1))
    told = {node: rest for _, node, *rest in found.iter_rows()}
    assert told["safety"] == [None, 1, 2]  # the mistake alone: no positive weight was graded
    assert told["style"] == [1.0, 1, 1]
    assert told["root"] == [1.0, 2, 3]


def test_a_flat_tree_is_healthbenchs_rule() -> None:
    """The criteria of a prompt under one root give its score."""
    rows = [("root", None, 1.0), *((f"c{at}", "root", weight) for at, (weight, _) in enumerate(HEALTHBENCH))]
    values = [("r", f"c{at}", float(met)) for at, (_, met) in enumerate(HEALTHBENCH)]
    found = rolled_up(
        pl.DataFrame(rows, schema=TREE, orient="row"), pl.DataFrame(values, schema=LEAVES, orient="row")
    )
    assert found.filter(pl.col("node") == "root")["score"].item() == 0.5


def test_biggen_is_the_mean_of_the_means_of_capabilities() -> None:
    """Capabilities count alike however many instances they have; all scores of 5 print 5 everywhere."""
    tree = [("all", None, 1.0), ("planning", "all", 1.0), ("safety", "all", 1.0)]
    tree += [(f"p{at}", "planning", 1.0) for at in range(3)] + [("s0", "safety", 1.0)]
    for values, expected in (([5, 4, 3, 2], {"all": 3.0, "planning": 4.0}), ([5] * 4, {"all": 5.0})):
        rows = [
            ("m", node, float(value)) for node, value in zip(["p0", "p1", "p2", "s0"], values, strict=True)
        ]
        found = rolled_up(
            pl.DataFrame(tree, schema=TREE, orient="row"), pl.DataFrame(rows, schema=LEAVES, orient="row")
        )
        told = dict(found.select("node", "score").iter_rows())
        assert {node: told[node] for node in expected} == expected


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([("a", "b", 1.0), ("b", "a", 1.0), ("r", None, 1.0)], "2 nodes in a circle"),
        ([("a", "lost", 1.0)], "1 nodes whose parent is no node"),
        ([("a", None, 1.0), ("b", "a", 0.0)], "weights that are 0"),
        ([("r", None, 1.0), ("a", "r", 1.0), ("a", "r", 2.0)], "several parents or weights"),
    ],
)
def test_what_is_no_tree_is_refused(rows: list[tuple[str, str | None, float]], found: str) -> None:
    """Circles, lost parents, weights of 0 and contradictions are named, never guessed away."""
    with pytest.raises(BadInput, match=found):
        rolled_up(pl.DataFrame(rows, schema=TREE, orient="row"), leaves(a=1))


@pytest.mark.parametrize("values", [{"root": 1}, {"safety": 1.0}])
def test_values_belong_to_leaves(values: dict[str, float]) -> None:
    """A score of an inner node is what its children say."""
    with pytest.raises(BadInput, match="no leaf"):
        rolled_up(pl.DataFrame(TREE_ROWS, schema=TREE, orient="row"), leaves(**values))
