"""From any row up to the turn of the user, and down to all that was made of it, whatever release it stands in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import polars as pl
import pytest

from tilth.catalog import Catalog, Release, open_catalog
from tilth.catalog.lineage import Lineage, Node, lineage
from tilth.schemas import BadInput, NotFound
from tilth.transforms.parts import write_part

DAY = date(2026, 11, 21)
CONVERSATION, COMPLAINT, THANKS, PAIR = "c" * 32, "f" * 32, "e" * 32, "1" * 32
RATIONALES = ["4" * 31 + str(n) for n in range(7)]
JUDGMENT, RESPONSE = "d" * 32, "b" * 32
SAID = ("how deep do I sow peas?", "on the roof", "no, not on the roof", "five centimetres", "thanks")
OWN = {"conversation_id": CONVERSATION, "method": "rules", "split": "train"}
LABELS = [
    {**OWN, "id": "2" * 32, "label": True, "feedback_ids": [THANKS]},
    {**OWN, "id": "3" * 32, "label": False, "feedback_ids": [COMPLAINT]},
]
LOGGED: dict[str, list[dict[str, Any]]] = {
    "conversations": [
        {
            "id": CONVERSATION,
            "source": "log",
            "record_id": "r",
            "messages": [
                {"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(SAID)
            ],
        }
    ],
    "feedback": [
        {
            **OWN,
            "id": COMPLAINT,
            "message_index": 2,
            "target_index": 1,
            "polarity": "negative",
            "labels": ["factual_error"],
            "evidence": [{"label": "factual_error", "text": SAID[2][4:], "start": 4, "end": 19}],
        },
        {**OWN, "id": THANKS, "message_index": 4, "target_index": 3, "polarity": "positive"},
    ],
    "pairs": [{**OWN, "id": PAIR, "origin": "observed_recovery", "feedback_ids": [COMPLAINT]}],
    "unpaired": LABELS[:1],
}
JUDGED: dict[str, list[dict[str, Any]]] = {
    "responses": [{**OWN, "id": RESPONSE, "role": "side", "model": "small"}],
    "judgments": [{**OWN, "id": JUDGMENT, "judge": "strict", "text": SAID[3], "response_ids": [RESPONSE]}],
    "rationales": [
        {**OWN, "id": one, "pair_id": PAIR, "text": SAID[3], "judgment_ids": [JUDGMENT]} for one in RATIONALES
    ],
}


def publish(catalog: Catalog, family: str, run: str, rows: Mapping[str, Any], **properties: str) -> None:
    files = {
        table: [write_part(pl.DataFrame(some), f"{catalog.staging(family, table, run)}/0.parquet", table).uri]
        for table, some in rows.items()
    }
    catalog.publish(
        Release(family, run, files, {f"tilth.{key}": one for key, one in properties.items()}, date=DAY)
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """Two releases from logs, the older with a label more, and one made from the newer's pairs. Nothing changes it."""
    with open_catalog(str(tmp_path_factory.mktemp("lineage"))) as catalog:
        publish(catalog, "observed", "r1", {**LOGGED, "unpaired": LABELS})
        publish(catalog, "observed", "r2", LOGGED)
        publish(catalog, "reasons", "r3", JUDGED, parents=json.dumps(["observed.pairs@2026.11.21.2"]))
        yield catalog


def steps(node: Node) -> set[tuple[str, str, str]]:
    """Every step of a tree: the row before, the column, the row after, ids by their first character."""
    here = {(node.id[0], one.via, one.id[0]) for one in node.next}
    return here.union(*(steps(one) for one in node.next))


def test_a_pair_leads_to_what_the_user_said(made: Catalog) -> None:
    """Up: the signal with its labels and offsets, then the conversation with its place in the log; never in words."""
    found = lineage(made, PAIR)
    assert steps(found.made_from) == {("1", "feedback_ids", "f"), ("f", "conversation_id", "c")}
    (signal,) = found.made_from.next
    assert signal.facts["labels"] == ["factual_error"]
    assert signal.facts["evidence"] == [{"label": "factual_error", "start": 4, "end": 19}]
    assert signal.facts["message_index"] == 2
    (talk,) = signal.next
    assert (talk.dataset, talk.facts["source"], talk.facts["record_id"]) == (
        "observed.conversations@2026.11.21.2",
        "log",
        "r",
    )
    told = json.dumps(found.to_dict())
    assert not [text for text in SAID if text in told]


def test_the_turn_is_told_when_asked_for(made: Catalog) -> None:
    """With `text`, a signal has the user's turn, whole."""
    (signal,) = lineage(made, PAIR, text=True).made_from.next
    assert signal.text == "no, not on the roof"


def test_lineage_goes_on_across_releases(made: Catalog) -> None:
    """A rationale of a later release leads to its judgments there, and to pair and turn in the release behind it."""
    found = lineage(made, RATIONALES[0])
    assert steps(found.made_from) == {
        ("4", "pair_id", "1"),
        ("4", "judgment_ids", "d"),
        ("d", "response_ids", "b"),
        ("b", "conversation_id", "c"),
        ("1", "feedback_ids", "f"),
        ("f", "conversation_id", "c"),
    }
    assert {node.dataset for node in found.made_from.walk()} == {
        "reasons.rationales@2026.11.21.1",
        "reasons.judgments@2026.11.21.1",
        "reasons.responses@2026.11.21.1",
        "observed.pairs@2026.11.21.2",
        "observed.feedback@2026.11.21.2",
        "observed.conversations@2026.11.21.2",
    }
    assert not found.made_into.next


def test_what_was_made_of_a_row_is_found_in_later_releases(made: Catalog) -> None:
    """Down: from the complaint to pair, labels and rationales, of all releases; what is too much is counted."""
    found = lineage(made, COMPLAINT, fan_out=3)
    (pair,) = [node for node in found.made_into.next if node.id == PAIR]
    assert (len(pair.next), pair.more) == (3, {"rationales.pair_id": 4})
    assert lineage(made, RESPONSE).made_into.next[0].id == JUDGMENT


def test_a_row_may_be_looked_for_in_an_old_version(made: Catalog) -> None:
    """A row that only an earlier version has is found there; `within` names one version, whose release is told."""
    assert lineage(made, "3" * 32).made_from.dataset == "observed.unpaired@2026.11.21.1"
    assert lineage(made, PAIR).made_from.dataset == "observed.pairs@2026.11.21.2"
    old = lineage(made, PAIR, "observed.pairs@2026.11.21.1")
    assert {node.dataset.partition("@")[2] for node in old.made_from.walk() if node.dataset} == {
        "2026.11.21.1"
    }
    with pytest.raises(NotFound):
        lineage(made, "3" * 32, "observed.unpaired")


def test_the_beginning_of_an_id_is_enough_when_no_other_has_it(made: Catalog) -> None:
    """Eight characters do; several matches are listed, an unknown id and one too short are errors."""
    assert lineage(made, PAIR[:8]).made_from.id == PAIR
    with pytest.raises(BadInput, match=r"reasons\.rationales") as caught:
        lineage(made, RATIONALES[0][:8])
    assert RATIONALES[1] in str(caught.value.found)
    with pytest.raises(NotFound, match="77777777"):
        lineage(made, "7" * 8)
    for wrong in ("1" * 7, "1" * 33, "on the roof", ""):
        with pytest.raises(BadInput, match="8 to 32"):
            lineage(made, wrong)


def test_a_lineage_is_json(made: Catalog) -> None:
    """Both trees begin with the row that was asked for."""
    found: Lineage = lineage(made, CONVERSATION)
    told = json.loads(json.dumps(found.to_dict()))
    assert told["made_from"]["id"] == told["made_into"]["id"] == CONVERSATION
    assert {one["table"] for one in told["made_into"]["next"]} >= {"feedback"}
    assert THANKS in {one["id"] for one in told["made_into"]["next"]}
