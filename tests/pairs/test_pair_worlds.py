"""Label integrity: random logs with a planted truth, as they are, permuted, halved, doubled, swapped."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tilth.schemas import polars_schema
from tilth.transforms.pairs import (
    PairPolicy,
    Settled,
    bucket,
    recovery_pairs,
    settle,
    sibling_pairs,
    unpaired_labels,
)
from tilth.transforms.parts import write_part
from tilth.transforms.rationales import user_complaints

pytestmark = pytest.mark.slow

POLICY = PairPolicy()
FINAL = ("pairs", "unpaired", "rationales")
worlds = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@dataclass(frozen=True)
class World:
    """Rows for the builders: what was logged and what was said about it."""

    conversations: tuple[dict[str, Any], ...]
    signals: tuple[dict[str, Any], ...]


# In every world a reply reads "answer <quality> …": how good it truly is, 0 to 3, stands in its text.
def quality(messages: list[dict[str, str]]) -> int:
    return int(re.split(r"\s+", messages[0]["content"].strip())[1])


def reply(rng: random.Random, worth: int) -> str:
    return rng.choice(["answer {}", "Answer {}", "answer  {} ", "answer {} in other words"]).format(worth)


def verdict(rng: random.Random, worth: int, honest: bool) -> str:
    kinds = ["nothing", "complaint", "praise", "refusal", "weak complaint", "weak praise"]
    fitting = {
        True: ["nothing", "praise", "weak praise"],
        False: ["nothing", "complaint", "refusal", "weak complaint"],
    }
    return rng.choice(fitting[worth >= 2] if honest else kinds)


def signal(conversation: str, at: int, kind: str, **fields: Any) -> dict[str, Any]:
    polarity = "positive" if kind.endswith("praise") else "negative"
    evidence = (
        [{"label": "negative_feedback", "text": "bad", "start": 0, "end": 3}]
        if polarity == "negative"
        else []
    )
    weak = {"strength": 0.4} if kind.startswith("weak") else {}
    return {
        "conversation_id": conversation,
        "message_index": at,
        "polarity": polarity,
        "on_refusal": kind == "refusal",
        "evidence": evidence,
        **weak,
        **fields,
    }


def chat(rng: random.Random, name: str, honest: bool) -> World:
    """One request, replied to until the user is done; every reply may be judged in the next turn."""
    say: list[str] = [f"request {rng.randrange(3)}"]
    signals: list[dict[str, Any]] = []
    for _ in range(rng.randint(1, 4)):
        worth = rng.randrange(4)
        kind = verdict(rng, worth, honest)
        say += [reply(rng, worth), {"complaint": "bad", "praise": "thanks"}.get(kind, "so?")]
        state = rng.choice(["feedback", "feedback", "feedback", "new_request"])
        if kind != "nothing":
            signals.append(signal(name, len(say) - 1, kind, dialogue_state=state))
    row = {"id": name, "say": say, "split": rng.choice(["train", "train", "test"])}
    return World((row,), tuple(signals))


def tree(rng: random.Random, name: str, honest: bool, reaction: Any) -> World:
    """Sibling replies with ranks, scores or thumbs, each with one or two endings that share its turns."""
    worths = [rng.randrange(4) for _ in range(rng.randint(1, 4))]
    seen = worths if honest else [rng.randrange(4) for _ in worths]
    measure, prompt = rng.choice(["rank", "score", "thumbs"]), f"request {rng.randrange(3)}"
    rows: list[dict[str, Any]] = []
    signals: list[dict[str, Any]] = []
    for at, (worth, shown) in enumerate(zip(worths, seen, strict=True)):
        text = reply(rng, worth)
        reactions = [] if rng.random() < 0.1 else [_reaction(reaction, measure, shown, seen)]
        for ending in range(rng.randint(1, 2)):
            path = f"{name}.{at}.{ending}"
            kind = verdict(rng, worth, honest)
            own = {"record_id": name, "owned_from": 2 if ending else min(at, 1), "record_rows": int(not rows)}
            say = [prompt, text, "bad" if kind == "complaint" else f"so {ending}?", reply(rng, worth)]
            rows.append({"id": path, "say": say, "reactions": reactions, **own})
            if kind != "nothing":
                signals.append(signal(path, 2, kind, owned=True))
    return World(tuple(rows), tuple(signals))


def _reaction(reaction: Any, measure: str, shown: int, seen: list[int]) -> dict[str, Any]:
    if measure == "thumbs":
        return reaction(1, "thumbs_up" if shown >= 2 else "thumbs_down", 2.0)
    value = sorted(set(seen), reverse=True).index(shown) if measure == "rank" else shown
    return reaction(1, measure, float(value))


def world_of(seed: int, size: int, honest: bool, reaction: Any) -> World:
    rng = random.Random(seed)
    parts = [
        chat(rng, f"c{number}", honest) if rng.random() < 0.5 else tree(rng, f"t{number}", honest, reaction)
        for number in range(size)
    ]
    return World(tuple(r for p in parts for r in p.conversations), tuple(s for p in parts for s in p.signals))


def mined(
    world: World, build: Any, policy: PairPolicy = POLICY, buckets: int = 1, seed: int = 7
) -> list[Settled]:
    """What the pairing stages make of a world, by bucket."""
    conversations, signals = build.logged(*world.conversations), build.signals(*world.signals)
    pairs = pl.concat(
        [recovery_pairs(conversations, signals, policy).kept, sibling_pairs(conversations, policy).kept]
    )
    unpaired = unpaired_labels(conversations, signals, policy).kept
    rationales = user_complaints(pairs, signals, conversations)
    return [
        settle(
            (own := pairs.filter(bucket(pairs, buckets) == number)),
            unpaired.filter(bucket(unpaired, buckets) == number),
            rationales.join(own, left_on="pair_id", right_on="id", how="semi"),
            seed,
        )
        for number in range(buckets)
    ]


def altered(world: World, how: str, rng: random.Random) -> World:
    rows, signals = list(world.conversations), list(world.signals)
    if how == "permuted":
        rng.shuffle(rows)
        rng.shuffle(signals)
    if how == "dropped rows":
        rows = [row for row in rows if rng.random() < 0.6]
        signals = [row for row in signals if rng.random() < 0.6]
    if how == "doubled rows":
        rows, signals = [*rows, *rng.sample(rows, len(rows) // 2)], [*signals, *signals]
    if how == "swapped siblings":  # names say nothing: the first path may become the last
        names = sorted({row["id"] for row in rows})
        other = dict(zip(names, rng.sample(names, len(names)), strict=True))
        rows = [{**row, "id": other[row["id"]]} for row in rows]
        signals = [{**row, "conversation_id": other[row["conversation_id"]]} for row in signals]
    if how == "equal scores":
        rows = [{**row, "reactions": [{**r, "value": 1.0} for r in row.get("reactions", ())]} for row in rows]
    return replace(world, conversations=tuple(rows), signals=tuple(signals))


ALTERATIONS = ["as logged", "permuted", "dropped rows", "doubled rows", "swapped siblings", "equal scores"]
draws = st.tuples(st.integers(0, 2**32), st.integers(1, 30))


def preferences(settled: Settled) -> Iterator[tuple[Any, Any, Any]]:
    for row in settled.pairs.iter_rows(named=True):
        yield row["prompt_id"], row["chosen"][0]["content"], row["rejected"][0]["content"]


@pytest.mark.parametrize("how", ALTERATIONS)
@worlds
@given(draws)
def test_no_surviving_label_is_wrong_where_users_are_honest(
    build: Any, how: str, drawn: tuple[int, int]
) -> None:
    """Where signals follow true quality, every pair and label does too, whatever happens to the rows."""
    world = altered(world_of(*drawn, True, build.reaction), how, random.Random(drawn[0]))
    (settled,) = mined(world, build)
    for row in settled.pairs.iter_rows(named=True):
        assert quality(row["chosen"]) > quality(row["rejected"])
    for row in settled.unpaired.iter_rows(named=True):
        assert row["label"] == (quality(row["completion"]) >= 2)


@pytest.mark.parametrize("how", ALTERATIONS)
@worlds
@given(draws)
def test_survivors_never_contradict_each_other_where_users_disagree(
    build: Any, how: str, drawn: tuple[int, int]
) -> None:
    """Where signals are random, no surviving rows prefer opposite replies or label one reply both ways."""
    world = altered(world_of(*drawn, False, build.reaction), how, random.Random(drawn[0]))
    (settled,) = mined(world, build)
    preferred = {
        (p, " ".join(a.lower().split()), " ".join(b.lower().split())) for p, a, b in preferences(settled)
    }
    assert not {(p, b, a) for p, a, b in preferred} & preferred
    labels: dict[tuple[str, str], set[bool]] = {}
    for row in settled.unpaired.iter_rows(named=True):
        text = " ".join(row["completion"][0]["content"].lower().split())
        labels.setdefault((row["prompt_id"], text), set()).add(row["label"])
    assert all(len(both) == 1 for both in labels.values())


@worlds
@given(draws, st.sampled_from(["all", "best_worst", "adjacent"]))
def test_every_row_that_ships_is_well_formed(build: Any, drawn: tuple[int, int], compared: Any) -> None:
    """Sides differ, margins are positive, prompts end with the user, ids are unique and splits agree."""
    world = world_of(*drawn, False, build.reaction)
    (settled,) = mined(world, build, PairPolicy(rank_pairs=compared))
    for row in settled.pairs.iter_rows(named=True):
        assert " ".join(row["chosen"][0]["content"].lower().split()) != " ".join(
            row["rejected"][0]["content"].lower().split()
        )
        assert row["margin"] > 0
        assert row["margin"] == row["chosen_score"] - row["rejected_score"]
        assert row["prompt"][-1]["role"] == "user"
    assert all(row["prompt"][-1]["role"] == "user" for row in settled.unpaired.iter_rows(named=True))
    assert all(frame.get_column("id").is_unique().all() for frame in settled[:3])
    both = pl.concat([frame.select("prompt_id", "split") for frame in (settled.pairs, settled.unpaired)])
    assert both.unique().get_column("prompt_id").is_unique().all()
    splits = settled.rationales.join(settled.pairs, left_on="pair_id", right_on="id")
    assert splits.height == settled.rationales.height
    assert (splits.get_column("split") == splits.get_column("split_right")).all()


@pytest.mark.parametrize("how", ["as logged", "permuted"])
@worlds
@given(draws)
def test_equal_input_and_seed_give_equal_bytes(
    build: Any, how: str, tmp_path_factory: pytest.TempPathFactory, drawn: tuple[int, int]
) -> None:
    """The same rows, in whatever order, with the same seed give byte-identical parts."""
    folder: Path = tmp_path_factory.mktemp("parts")
    world = world_of(*drawn, False, build.reaction)
    (one,) = mined(world, build)
    (two,) = mined(altered(world, how, random.Random(drawn[0])), build)
    for table, left, right in zip(FINAL, one, two, strict=False):
        parts = [write_part(frame, f"{folder}/{name}", table) for name, frame in (("l", left), ("r", right))]
        assert parts[0].digest == parts[1].digest
        assert left.schema == polars_schema(table)


@worlds
@given(draws)
def test_doubled_rows_change_nothing(build: Any, drawn: tuple[int, int]) -> None:
    """A conversation or a signal that is read twice is one observation: the tables stay as they were."""
    world = world_of(*drawn, False, build.reaction)
    doubled = altered(world, "doubled rows", random.Random(drawn[0]))
    (one,), (two,) = mined(world, build), mined(doubled, build)
    assert all(left.equals(right) for left, right in zip(one, two, strict=True))


@worlds
@given(draws, st.integers(2, 5))
def test_buckets_hold_what_one_bucket_holds(build: Any, drawn: tuple[int, int], buckets: int) -> None:
    """Settling in several buckets decides exactly as settling all at once."""
    world = world_of(*drawn, False, build.reaction)
    (whole,) = mined(world, build)
    split = mined(world, build, buckets=buckets)
    for at, table in enumerate(FINAL):
        united = pl.concat([settled[at] for settled in split]).sort("id")
        assert united.equals(whole[at].sort("id")), table


@worlds
@given(draws)
def test_candidates_that_come_in_ship_or_are_dropped(build: Any, drawn: tuple[int, int]) -> None:
    """Settling loses nothing: rows in are rows out and rows dropped, each with a reason and a key."""
    world = world_of(*drawn, False, build.reaction)
    conversations, signals = build.logged(*world.conversations), build.signals(*world.signals)
    ruled = [recovery_pairs(conversations, signals, POLICY), sibling_pairs(conversations, POLICY)]
    pairs = pl.concat([r.kept for r in ruled])
    unpaired = unpaired_labels(conversations, signals, POLICY)
    rationales = user_complaints(pairs, signals, conversations)
    settled = settle(pairs, unpaired.kept, rationales, 0)
    assert pairs.height + unpaired.kept.height + rationales.height == sum(frame.height for frame in settled)
    dropped = pl.concat([settled.dropped, unpaired.dropped, *(r.dropped for r in ruled)])
    assert dropped.columns == [name for name in polars_schema("quarantine").names() if name != "id"]
    assert dropped.select(pl.col("reason", "key", "stage", "detail").is_null().any()).row(0) == (False,) * 4
    assert set(dropped.get_column("source_rows")) <= {0}


def test_the_worlds_hold_all_that_is_claimed_of_them(build: Any) -> None:
    """Over many worlds every origin and both labels ship, and every reason for dropping occurs."""
    settled = [mined(world_of(seed, 14, seed % 2 == 0, build.reaction), build)[0] for seed in range(40)]
    pairs, unpaired = pl.concat([s.pairs for s in settled]), pl.concat([s.unpaired for s in settled])
    assert set(pairs.get_column("origin")) == {"human_rank", "reaction", "observed_recovery"}
    assert set(unpaired.get_column("label")) == {True, False}
    reasons = set(pl.concat([s.dropped for s in settled]).get_column("reason"))
    assert reasons == {"contradictory", "duplicate", "split_leak"}
    assert pl.concat([s.rationales for s in settled]).height > 20
