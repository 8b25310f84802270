"""Sampling: requests from rows, seeds from what a row is, probabilities joined by id alone."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilth.schemas import BadInput, ConfigError
from tilth.transforms.inference.prompts import Prompt
from tilth.transforms.inference.requests import (
    COMPLETIONS,
    REQUESTS,
    Completion,
    Sampling,
    to_frame,
    to_requests,
)
from tilth.transforms.inference.sampling import (
    PROBABILITIES,
    choice_probabilities,
    probability_of,
    request_id,
    requests_frame,
    seed_for,
)

PROMPT = Prompt.of("judge", "1", user="Is it good? {{ text }}")
WARM = Sampling(temperature=0.7)
CHOICES = ("yes", "no", "tie")


def _rows(count: int = 3) -> pl.DataFrame:
    return pl.DataFrame(
        {"key": [f"row {at}" for at in range(count)], "text": [f"text {at}" for at in range(count)]}
    )


def _asked(rows: int = 3, samples: int = 1, sampling: Sampling = WARM) -> pl.DataFrame:
    return requests_frame(PROMPT, _rows(rows), "key", sampling, choices=CHOICES, samples=samples)


def _answered(
    ids: Sequence[str], said: Sequence[str], logprobs: Sequence[tuple[float, ...] | None] = ()
) -> pl.DataFrame:
    given = [*logprobs, *[None] * (len(ids) - len(logprobs))]
    return to_frame(ids, [Completion(t, "stop", 1, 1, lp) for t, lp in zip(said, given, strict=True)], "m")


def _by_id(frame: pl.DataFrame) -> dict[str, tuple[object, ...]]:
    return {row[0]: tuple(map(str, row[1:])) for row in frame.iter_rows()}


# Seeds and requests


def test_seeds_are_pinned() -> None:
    """Seeds are the same on every machine and in every version."""
    assert [seed_for(0, "a", 0), seed_for(0, "a", 1), seed_for(1, "a", 0), seed_for(0, "b", 0)] == [
        636155095,
        739548743,
        409606003,
        1140914292,
    ]


@given(st.integers(-(2**70), 2**70), st.text(), st.integers(0, 10**6))
def test_seeds_fit_in_31_bits(run: int, key: str, at: int) -> None:
    """A seed is in [0, 2^31), which every engine takes."""
    assert 0 <= seed_for(run, key, at) < 2**31


def test_one_request_per_row_and_sample() -> None:
    """The frame has the schema of requests, a request per row and sample, own seeds and the settings asked for."""
    sampling = Sampling(temperature=0.7, top_p=0.9, max_tokens=5, stop=("\n",))
    frame = requests_frame(PROMPT, _rows(), "key", sampling, choices=CHOICES, samples=4, want_logprobs=True)
    assert frame.schema == REQUESTS
    assert frame["sample_index"].to_list() == [0, 1, 2, 3] * 3
    assert frame["id"].to_list() == [request_id(f"row {at}", "judge", n) for at in range(3) for n in range(4)]
    assert frame["seed"].to_list() == [seed_for(0, f"row {at}", n) for at in range(3) for n in range(4)]
    first = to_requests(frame)[0]
    assert first.sampling == Sampling(0.7, 0.9, 5, ("\n",), seed_for(0, "row 0", 0))
    assert (first.choices, first.want_logprobs, first.schema) == (CHOICES, True, None)
    assert first.messages == PROMPT.render({"text": "text 0"})


@given(st.randoms(), st.sets(st.integers(0, 9), min_size=1))
def test_requests_do_not_depend_on_the_order_of_rows(order: random.Random, kept: set[int]) -> None:
    """Permuting or dropping rows leaves each other row's request equal: its id, its seed and its messages."""
    whole = {row["id"]: row for row in _asked(10, 2).iter_rows(named=True)}
    places = sorted(kept)
    order.shuffle(places)
    some = requests_frame(PROMPT, _rows(10)[places], "key", WARM, choices=CHOICES, samples=2)
    assert [row["id"] for row in some.iter_rows(named=True)][::2] == [
        request_id(f"row {at}", "judge") for at in places
    ]
    assert all(whole[row["id"]] == row for row in some.iter_rows(named=True))


def test_ids_differ_by_row_prompt_and_sample() -> None:
    """Another row, prompt or sample is another id."""
    assert (
        len({request_id(*one) for one in [("a", "p", 0), ("b", "p", 0), ("a", "q", 0), ("a", "p", 1)]}) == 4
    )


def test_another_run_seed_is_another_draw() -> None:
    """The run's seed is `run_seed`, else that of the sampling; ids stay."""
    one, two = (requests_frame(PROMPT, _rows(), "key", WARM, run_seed=seed) for seed in (1, 2))
    own = requests_frame(PROMPT, _rows(), "key", Sampling(temperature=0.7, seed=2))
    assert one["id"].equals(two["id"])
    assert not set(one["seed"]) & set(two["seed"])
    assert own.equals(two)


def test_greedy_requests_have_no_seed() -> None:
    """At temperature 0 a seed changes nothing, so rows that ask the same share one answer."""
    assert requests_frame(PROMPT, _rows(), "key")["seed"].null_count() == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"samples": 2, "sampling": Sampling()}, "equal"),
        ({"samples": 0}, "1 or more"),
        ({"schema": "{}", "choices": ["a"]}, "one of them"),
        ({"choices": []}, "one or more"),
        ({"choices": ["a", "a"]}, "none twice"),
        ({"want_logprobs": True}, "name the choices"),
        ({"key": "id"}, "key, text"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(options: dict[str, object], said: str) -> None:
    """Several samples at temperature 0, a schema beside choices and their like are errors before any call."""
    with pytest.raises(ConfigError, match=said):
        requests_frame(PROMPT, _rows(), **{"key": "key", "sampling": WARM, **options})  # pyright: ignore


@pytest.mark.parametrize("keys", [["a", "a"], ["a", None]])
def test_keys_name_one_row_each(keys: list[str | None]) -> None:
    """A key that is null or repeated is refused."""
    with pytest.raises(BadInput, match="1 "):
        requests_frame(PROMPT, pl.DataFrame({"key": keys, "text": ["x", "y"]}), "key")


def test_a_missing_column_is_named() -> None:
    """A name of the template without a column is an error with the columns there are."""
    with pytest.raises(ConfigError, match=r"found: text\n.*key, other"):
        requests_frame(PROMPT, pl.DataFrame({"key": ["a"], "other": ["SECRET"]}), "key")


def test_no_rows_are_no_requests() -> None:
    """An empty table of rows is an empty table of requests of the same schema."""
    assert requests_frame(PROMPT, _rows().clear(), "key").schema == REQUESTS


# Probabilities


def test_logprobs_are_normalised_over_the_choices() -> None:
    """With the engine's log-probabilities the choices' probabilities sum to one; a choice of -inf has none."""
    frame = _asked(2)
    given = [(math.log(0.2), math.log(0.1), math.log(0.1)), (-900.0, -math.inf, -900.0)]
    found = choice_probabilities(frame, _answered(frame["id"].to_list(), ["yes", "yes"], given))
    assert found.schema == PROBABILITIES
    assert found["probabilities"].to_list() == [
        pytest.approx([0.5, 0.25, 0.25]),
        pytest.approx([0.5, 0.0, 0.5]),
    ]
    assert found["method"].to_list() == ["logprobs"] * 2
    assert found["samples"].to_list() == [1, 1]


def test_samples_stand_in_for_logprobs() -> None:
    """Without log-probabilities it is the share of the row's samples; an answer that is no choice is not counted."""
    frame = _asked(2, samples=4)
    said = ["yes", "no", " yes\n", "yes", "tie", "maybe", "no", "no"]
    found = choice_probabilities(frame, _answered(frame["id"].to_list(), said))
    shares = found["probabilities"].to_list()
    assert shares[:4] == [[0.75, 0.25, 0.0]] * 4
    assert shares[4:] == [pytest.approx([0.0, 2 / 3, 1 / 3])] * 4
    assert set(found["method"]) == {"samples"}
    assert found["samples"].to_list() == [4, 4, 4, 4, 3, 3, 3, 3]


def test_one_sample_is_never_a_probability() -> None:
    """A single usable answer, by whatever way the others were lost, gives null and `none`."""
    alone = _asked(2)
    rest = _asked(1, samples=3)
    for frame, ids, said in [
        (alone, alone["id"], ["yes", "no"]),
        (rest, rest["id"], ["yes", "?", ""]),
        (rest, rest["id"][:1], ["yes"]),
        (rest.with_columns(seed=pl.lit(7, pl.Int64)), rest["id"], ["yes"] * 3),
        (rest.with_columns(temperature=pl.lit(0.0)), rest["id"], ["yes"] * 3),
    ]:
        found = choice_probabilities(frame, _answered(ids.to_list(), said))
        assert found["probabilities"].null_count() == found.height == len(said)
        assert set(found["method"]) == {"none"}
        assert set(found["samples"]) == {0}


@pytest.mark.parametrize("given", [(-math.inf,) * 3, (math.nan, -1.0, -1.0)])
def test_useless_logprobs_are_not_used(given: tuple[float, ...]) -> None:
    """Log-probabilities that cannot be normalised count as not given."""
    frame = _asked(1)
    found = choice_probabilities(frame, _answered(frame["id"].to_list(), ["yes"], [given]))
    assert found.row(0)[2:] == (None, "none", 0)


def test_an_unknown_logprob_is_not_zero() -> None:
    """A list with a null in it counts as not given."""
    frame = _asked(1)
    answers = _answered(frame["id"].to_list(), ["yes"]).with_columns(
        choice_logprobs=pl.Series([[-1.0, None, -2.0]], dtype=COMPLETIONS["choice_logprobs"])
    )
    assert choice_probabilities(frame, answers)["method"].to_list() == ["none"]


def test_logprobs_of_another_length_are_refused() -> None:
    """Log-probabilities that do not stand one per choice cannot be told apart, so they are an error."""
    frame = _asked(1)
    with pytest.raises(BadInput, match="another length"):
        choice_probabilities(frame, _answered(frame["id"].to_list(), ["yes"], [(-1.0, -2.0)]))


def test_requests_without_choices_are_passed_over() -> None:
    """Only requests with choices have probabilities."""
    frame = requests_frame(PROMPT, _rows(1), "key", WARM)
    assert choice_probabilities(frame, _answered(frame["id"].to_list(), ["hello"])).is_empty()


def test_foreign_ids_are_rows_of_their_own() -> None:
    """Requests that others made, with ids of their own, are never taken for samples of each other."""
    frame = _asked(2).with_columns(id=pl.Series(["x.0", "x.1"]))
    found = choice_probabilities(frame, _answered(["x.0", "x.1"], ["yes", "no"]))
    assert set(found["method"]) == {"none"}


SAID = st.lists(st.sampled_from([*CHOICES, "other"]), min_size=12, max_size=12)
GIVEN = st.lists(st.none() | st.tuples(*[st.floats(-30, 0)] * 3), min_size=12, max_size=12)


@pytest.mark.slow
@given(SAID, GIVEN, st.randoms(), st.sets(st.integers(0, 5)))
def test_probabilities_are_joined_by_id_alone(
    said: list[str], given: list[tuple[float, ...] | None], order: random.Random, dropped: set[int]
) -> None:
    """Permuted, duplicated and dropped completions leave every surviving row's probabilities equal; none is made up."""
    frame = _asked(6, samples=2)
    ids = frame["id"].to_list()
    answers = _answered(ids, said, given)
    whole = _by_id(choice_probabilities(frame, answers))
    places = [at for at in range(12) if at // 2 not in dropped]
    places += order.choices(places, k=3) if places else []
    order.shuffle(places)
    shuffled = frame[order.sample(range(12), 12)]
    some = choice_probabilities(shuffled, answers[places])
    assert _by_id(some) == {id_: whole[id_] for at, id_ in enumerate(ids) if at // 2 not in dropped}
    assert some["id"].to_list() == [id_ for id_ in shuffled["id"] if id_ in set(some["id"])]


def test_answers_to_unknown_requests_are_refused() -> None:
    """A completion whose id was not asked is an error, not a row."""
    with pytest.raises(BadInput, match="1 unknown"):
        choice_probabilities(_asked(1), _answered(["nobody"], ["yes"]))


def test_two_different_answers_to_one_request_are_refused() -> None:
    """Which of two answers counts must not depend on their order."""
    frame = _asked(1)
    with pytest.raises(BadInput, match="two different"):
        choice_probabilities(frame, _answered(frame["id"].to_list() * 2, ["yes", "no"]))


def test_the_probability_of_one_choice() -> None:
    """`probability_of` picks a choice by its name, keeps nulls and says the method."""
    frame = _asked(3)
    given = [(-1.0, -1.0, -math.inf), None, (-math.inf, 0.0, -math.inf)]
    found = probability_of(
        choice_probabilities(frame, _answered(frame["id"].to_list(), ["no"] * 3, given)), "no"
    )
    assert found["probability"].to_list() == [0.5, None, 1.0]
    assert found["method"].to_list() == ["logprobs", "none", "logprobs"]


def test_a_choice_that_was_not_asked_is_refused() -> None:
    """The probability of something that was no choice is an error, not zero."""
    frame = _asked(1)
    found = choice_probabilities(frame, _answered(frame["id"].to_list(), ["no"], [(-1.0, -1.0, -1.0)]))
    with pytest.raises(ConfigError, match="maybe"):
        probability_of(found, "maybe")
