"""Every check of a whole table fails on a planted fault, alone, and passes without it.

That each flag of a row is raised by a bad row stands in tests/schemas/test_contracts.py; here stand the shares, the
means, the comparisons of rows, and what is read in texts.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest

from tilth.schemas import TABLES, polars_schema
from tilth.schemas.across import ACROSS, COMPARED
from tilth.schemas.contracts import CONTRACTS, measure
from tilth.schemas.expectations import Expectation, load_suite

Row = dict[str, Any]
Fault = Callable[[int, Row], Row]
ROWS = 40


def _proofs() -> ModuleType:
    path = Path(__file__).parents[1] / "schemas" / "test_contracts.py"
    spec = spec_from_file_location("good_rows", path)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GOOD: dict[str, Row] = _proofs().GOOD
ENGLISH = "You water the peas in the garden for two weeks and then you pick them, says row {}."
LONGER = "When you have the peas, you can cook them with a bit of butter and what is in the house: {}."
GERMAN = "Wie kann ich das auf dem Tisch sehen und nicht mehr? Das ist die Frage der Zeile {}."
SHORT = "Peas."
REFUSAL = "I'm sorry, but I can't help with that: {}."


def says(text: str, role: str = "assistant") -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def base(table: str) -> list[Row]:
    """Rows without a fault: other ids, prompts and English texts, two origins, a share held out."""
    made = [{**dict.fromkeys(polars_schema(table)), **GOOD[table], "id": f"{n:032x}"} for n in range(ROWS)]
    for n, row in enumerate(made):
        asked = says(f"What is the way to plant number {n} and what do I do with the rest of it?", "user")
        reply, other = ENGLISH.format(n), LONGER.format(n)
        texts: Row = {
            "messages": [*asked, *says(reply)],
            "prompt": asked,
            "chosen": says(reply if n % 2 else other),
            "rejected": says(other if n % 2 else reply),
            "completion": says(reply),
            "prompt_id": f"{n:032x}",
            "item_id": f"{n // 2:032x}",
            "split": "test" if n % 8 == 0 else row.get("split") or "train",
            "user_key": f"user {n}",
            "record_id": f"record {n}",
            "model": "m@1",
            "models": {"chosen": "m@1", "rejected": "m@2"},
            "origin": "human_rank" if n % 3 else "observed_recovery",
            "label": n % 2 == 0,
            "polarity": row.get("polarity"),
        }
        row.update({name: value for name, value in texts.items() if name in row})
    return {"judgments": _judged, "evaluation": _held_out, "unpaired": _trained, "rationales": _reasoned}.get(
        table, _same
    )(made)


def _same(rows: list[Row]) -> list[Row]:
    return rows


def _judged(rows: list[Row]) -> list[Row]:
    """Two judgments of each item, in both orders, that agree."""
    return [
        {**row, "order": [n % 2, 1 - n % 2], "split": "train"}
        | {"judge": "strict" if n < ROWS / 2 else "kind"}
        for n, row in enumerate(rows)
    ]


def _held_out(rows: list[Row]) -> list[Row]:
    return [{**row, "split": "test"} for row in rows]


def _trained(rows: list[Row]) -> list[Row]:
    return [{**row, "split": "test" if n % 8 == 0 else "train"} for n, row in enumerate(rows)]


def _reasoned(rows: list[Row]) -> list[Row]:
    quoted = "not on the roof"
    said = f"No, {quoted}, that is not what you do with it in the garden"
    return [{**row, "text": said, "evidence": [{"side": "rejected", "quote": quoted}]} for row in rows]


def everywhere(**change: Any) -> Fault:
    return first(ROWS, **change)


def first(count: int, **change: Any) -> Fault:
    return lambda n, row: {**row, **change} if n < count else row


def worded(column: str, text: str, count: int = ROWS) -> Fault:
    return lambda n, row: {**row, column: says(text.format(n))} if n < count else row


def asked(text: str, count: int) -> Fault:
    return lambda n, row: {**row, "prompt": says(text.format(n), "user")} if n < count else row


def addressed(column: str) -> Fault:
    mail = "You can write to anna.berg@posteo.de about it and to the others too"
    return lambda n, row: (
        {**row, column: [{"role": m["role"], "content": mail} for m in row[column]]} if n == 0 else row
    )


def turned(n: int, row: Row) -> Row:
    """The first shown reply wins, whichever it is."""
    won = row["order"][0] == 0
    return {**row, "verdict": "win" if won else "loss", "scores": [8.0, 3.0] if won else [3.0, 8.0]}


FAILED = {"verdict": "failed", "scores": None, "text": None, "reason": "malformed_output"}
TIE = {"verdict": "tie", "scores": [5.0, 5.0]}
MAIL = "anna.berg@posteo.de"
PLACES = {"first_shown_preferred_share", "order_agreement_share", "order_agreement_lowest"}
CASES: list[tuple[str, str, str, Fault, set[str]]] = [
    # table, metric, severity, fault, what must fail with it
    ("conversations", "held_out_share", "warning", everywhere(split="test"), set()),
    ("conversations", "model_unknown_share", "info", everywhere(model=None), set()),
    ("conversations", "user_known_share", "info", everywhere(user_key=None), set()),
    ("conversations", "users_in_two_splits", "critical", first(9, user_key="one"), set()),
    ("conversations", "records_in_two_splits", "critical", first(9, record_id="one"), set()),
    ("conversations", "duplicate_ids", "critical", first(2, id="a" * 32), set()),
    (
        "conversations",
        "language_other_share",
        "warning",
        lambda n, r: {**r, "messages": [*says(GERMAN.format(n), "user"), *says("Ja.")]} if n < 6 else r,
        set(),
    ),
    (
        "conversations",
        "language_unknown_share",
        "info",
        lambda n, r: {**r, "messages": [*says("Peas?", "user"), *says("Yes.")]} if n < 30 else r,
        set(),
    ),
    ("conversations", "pii", "warning", addressed("messages"), set()),
    ("feedback", "positive_share", "info", everywhere(), set()),
    ("feedback", "pii", "warning", first(1, evidence=[{"text": MAIL, "start": 0, "end": len(MAIL)}]), set()),
    ("pairs", "near_equal_share", "warning", lambda n, r: {**r, "rejected": says(r["chosen"][0]["content"].upper())}
     if n < 1 else r, set()),
    ("pairs", "alike_share", "warning", lambda n, r: {**r, "chosen": says(LONGER.format(n) * 3),
     "rejected": says(LONGER.format(n) * 3 + "!")} if n < 3 else r, set()),
    ("pairs", "held_out_share", "warning", everywhere(split="test"), set()),
    ("pairs", "chosen_longer_share", "warning", lambda n, r: {**r, "chosen": says(LONGER.format(n)),
     "rejected": says(ENGLISH.format(n))}, set()),
    ("pairs", "twice_as_long_share", "warning", lambda n, r: {**r, "rejected": says(SHORT * 6)} if n < 30 else
     {**r, "chosen": says(ENGLISH.format(n)), "rejected": says(LONGER.format(n))}, set()),
    ("pairs", "half_as_long_share", "warning", lambda n, r: {**r, "chosen": says("The peas are in the house."),
     "rejected": says(LONGER.format(n))} if n < 30 else
     {**r, "rejected": says(ENGLISH.format(n)), "chosen": says(LONGER.format(n))}, set()),
    ("pairs", "log_length_ratio_mean", "info", lambda n, r: {**r, "chosen": says(LONGER.format(n) * 99)}
     if n < 20 else {**r, "chosen": says(ENGLISH.format(n)), "rejected": says(LONGER.format(n))}, set()),
    ("pairs", "length_ratio_max", "info", lambda n, r: {**r, "chosen": says(LONGER.format(n) * 99),
     "rejected": says(SHORT)} if n < 1 else r, set()),
    ("pairs", "origin_largest_share", "info", everywhere(origin="human_rank"), set()),
    ("pairs", "chosen_refuses_share", "warning", lambda n, r: {**r, "chosen": says(REFUSAL.format(n) * 2)}
     if n % 4 == 0 else r, set()),
    ("pairs", "language_other_share", "warning", worded("chosen", GERMAN, 6), set()),
    ("pairs", "language_unknown_share", "info", lambda n, r: {**r, "chosen": says("xyzzy " * 13),
     "rejected": says("plugh " * 14 * (1 + n % 2))} if n < 24 else r, set()),
    ("pairs", "model_unknown_share", "info", everywhere(models=None), set()),
    ("pairs", "pii", "warning", addressed("prompt"), set()),
    ("pairs", "prompts_in_two_splits", "critical", first(2, prompt_id="b" * 32), set()),
    ("pairs", "folded_prompts_in_two_splits", "warning", lambda n, r: {**r, "prompt": says(
        "How deep, then?" if n else "HOW  deep then!", "user")} if n < 2 else r, set()),
    ("unpaired", "labelled_true_share", "warning", everywhere(label=True), set()),
    ("unpaired", "held_out_share", "warning", everywhere(split="test"), set()),
    ("unpaired", "prompts_side_by_side", "warning", lambda n, r: {**r, "prompt_id": "b" * 32} if n in (1, 2) else r,
     set()),
    ("unpaired", "prompts_in_two_splits", "critical", lambda n, r: {**r, "prompt_id": "b" * 32} if n in (0, 2)
     else r, set()),
    ("unpaired", "folded_prompts_in_two_splits", "warning", lambda n, r: {**r, "prompt": says(
        "How deep, then?" if n else "HOW  deep then!", "user")} if n < 2 else r, set()),
    ("unpaired", "refuses_share", "warning", worded("completion", REFUSAL, 9), set()),
    ("unpaired", "language_other_share", "warning", worded("completion", GERMAN, 6), set()),
    ("unpaired", "language_unknown_share", "info", worded("completion", SHORT, 30), set()),
    ("unpaired", "model_unknown_share", "info", everywhere(model=None), set()),
    ("unpaired", "pii", "warning", addressed("completion"), set()),
    ("rationales", "language_other_share", "warning", lambda n, r: {**r, "text": GERMAN.format(n), "evidence":
     [{"side": "rejected", "quote": "Tisch"}]} if n < 6 else r, set()),
    ("rationales", "language_unknown_share", "info", lambda n, r: {**r, "text": "xyzzy", "evidence":
     [{"side": "rejected", "quote": "xyzzy"}]} if n < 30 else r, set()),
    ("rationales", "pii", "warning", lambda n, r: {**r, "text": f"{r['text']} {MAIL}"} if n < 1 else r, set()),
    ("rubrics", "duplicate_prompts", "critical", first(2, prompt_id="b" * 32), set()),
    ("rubrics", "language_other_share", "warning", asked(GERMAN, 6), set()),
    ("rubrics", "language_unknown_share", "info", asked(SHORT, 30), set()),
    ("rubrics", "pii", "warning", addressed("prompt"), set()),
    ("preferences", "pii", "warning", first(1, preferences=[MAIL]), set()),
    ("responses", "refuses_share", "warning", worded("completion", REFUSAL, 9), set()),
    ("responses", "language_other_share", "warning", worded("completion", GERMAN, 6), set()),
    ("responses", "language_unknown_share", "info", worded("completion", SHORT, 30), set()),
    ("responses", "pii", "warning", addressed("completion"), set()),
    ("judgments", "failed_share", "warning", first(8, **FAILED), set()),
    ("judgments", "tie_share", "warning", first(30, **TIE), set()),
    ("judgments", "first_shown_preferred_share", "warning", turned, PLACES),
    ("judgments", "order_agreement_share", "warning", turned, PLACES),
    ("judgments", "pii", "warning", first(1, text=MAIL), set()),
    ("ratings", "refuses_share", "warning", worded("completion", REFUSAL, 9), set()),
    ("ratings", "language_other_share", "warning", worded("completion", GERMAN, 6), set()),
    ("ratings", "language_unknown_share", "info", worded("completion", SHORT, 30), set()),
    ("ratings", "model_unknown_share", "info", everywhere(model=None), set()),
    ("ratings", "pii", "warning", addressed("completion"), set()),
    ("evaluation", "duplicate_prompts", "critical", first(2, prompt_id="b" * 32), set()),
    ("evaluation", "language_other_share", "warning", asked(GERMAN, 6), set()),
    ("evaluation", "language_unknown_share", "info", asked(SHORT, 30), set()),
    ("evaluation", "pii", "warning", addressed("prompt"), set()),
]  # fmt: skip


def failures(table: str, rows: list[Row]) -> dict[str, str]:
    """The metrics whose expectation fails, with its severity; what needs other tables is not looked at."""
    frame = pl.DataFrame(rows, schema=polars_schema(table))
    metrics = measure(table, frame).row()
    for check in ACROSS[table]:
        if not check.needs and not hasattr(check, "target"):
            metrics[check.metric] = check.count(table, {table: frame.lazy()})
    claims = load_suite(table).expectations
    return {claim.metric: claim.severity for claim in claims if not _holds(claim, metrics.get(claim.metric))}


def _holds(claim: Expectation, observed: float | None) -> bool:
    low, high = claim.kwargs.get("min_value", observed), claim.kwargs.get("max_value", observed)
    assert isinstance(low, int | float | None)
    assert isinstance(high, int | float | None)
    return observed is None or low is None or high is None or low <= observed <= high


BEFORE = {"feedback": {"positive_share"}}  # the good signal is praise, and so are all


@pytest.mark.parametrize("table", TABLES)
def test_rows_without_a_fault_pass(table: str) -> None:
    """No check fails on good rows, so that what fails below is the fault."""
    found = set(failures(table, base(table))) - BEFORE.get(table, set())
    assert found <= ({"duplicate_prompts"} if table == "quarantine" else set())


@pytest.mark.parametrize(("table", "metric", "severity", "fault", "others"), CASES)
def test_a_planted_fault_fails_its_check(
    table: str, metric: str, severity: str, fault: Fault, others: set[str]
) -> None:
    """The check of the fault fails, as grave as it is, and no other does."""
    found = failures(table, [fault(n, row) for n, row in enumerate(base(table))])
    assert found.get(metric) == severity
    companions = {"alike_share"} if metric == "near_equal_share" else set[str]()
    assert set(found) - {metric} - others - companions - BEFORE.get(table, set()) == set()


@pytest.mark.parametrize("table", TABLES)
def test_no_check_is_without_a_planted_fault(table: str) -> None:
    """Every expectation is proven here, by a bad row of the contracts, or by a test of comparisons over tables."""
    rows = {"rows", "chars_max", "second_shown_preferred_share", "on_refusal_share", "order_agreement_lowest"}
    over_tables = {check.metric for check in ACROSS[table] if check.needs or hasattr(check, "target")}
    everywhere_else = {*CONTRACTS[table].defects, *over_tables, *COMPARED, *rows, "duplicate_ids"}
    planted = {metric for name, metric, *_ in CASES if name == table}
    claimed = {claim.metric for claim in load_suite(table).expectations}
    assert claimed - planted - everywhere_else == set()


@pytest.mark.parametrize(("items", "found"), [(20, {"order_agreement_lowest"}), (19, set[str]())])
def test_one_judge_of_a_panel_is_found_out(items: int, found: set[str]) -> None:
    """A judge who contradicts himself shows though the panel agrees as a whole, once he is heard on twenty items."""
    rows = [row for _ in range(4) for row in base("judgments")]
    for n, row in enumerate(rows):
        row |= {
            "id": f"{n:032x}",
            "item_id": f"{n // 2:032x}",
            "judge": "kind" if n < 2 * items else "strict",
        }
    made = [turned(n, row) if n < 2 * items else row for n, row in enumerate(rows)]
    assert set(failures("judgments", made)) == found
