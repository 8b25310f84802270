"""The steps around written rationales: parts in, parts out, every rationale accounted for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from loopback import Habits
from rationales.marked_pairs import HONEST, MARKS, PANEL, judged, pairs
from scripted import answered
from tilth.schemas import polars_schema
from tilth.schemas.contracts import CONTRACTS, measure
from tilth.schemas.labels import WRITTEN_KINDS
from tilth.transforms.parts import write_part
from tilth.transforms.rationales.recovering import recovery_protocol
from tilth.transforms.rationales.steps import (
    RationaleRequests,
    ReadRationales,
    RecoverItems,
    RuleRationales,
    SettleRationales,
)
from tilth.transforms.rationales.written import Writing, candidate_schema
from tilth.transforms.stage import Output, Task, rows_of, title


def ran(step: Any, folder: Path, **given: pl.DataFrame) -> Output:
    """What a step makes of frames, as parts in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = {
        name: (write_part(frame, str(folder / f"{name}.parquet")),)
        for name, frame in given.items()
        if frame.height
    }
    out = Output("one", {}, str(folder / "out"))
    step.run(Task("000000", shards), out)
    return out


def of(out: Output, table: str, schema: pl.Schema | None = None) -> pl.DataFrame:
    task = Task("000000", {name: tuple(shards) for name, shards in out.outputs.items()})
    return rows_of(task, table, schema)


@pytest.mark.slow
@pytest.mark.parametrize("habits", [HONEST, Habits(position_bias=0.3, tie_share=0.1, garble_share=0.3)])
def test_the_steps_account_for_every_rationale(tmp_path: Path, habits: Habits) -> None:
    """From pairs to final rationales: the contract holds, and what is no rationale stands in quarantine once."""
    rows, config = pairs(12, MARKS), Writing(samples=3, temperature=1.0)
    written, dropped = list[pl.DataFrame](), list[pl.DataFrame]()
    for kind in WRITTEN_KINDS:
        asked = ran(RationaleRequests(kind, config), tmp_path / f"ask-{kind}", pairs=rows)
        said = answered(of(asked, "requests"))
        read = ran(
            ReadRationales(kind, config),
            tmp_path / f"read-{kind}",
            pairs=rows,
            asked=of(asked, "asked"),
            completions=said.completions,
        )
        written.append(of(read, "candidates", candidate_schema()))
        dropped.append(of(read, "quarantine"))
    made = ran(RecoverItems(), tmp_path / "items", pairs=rows, candidates=pl.concat(written))
    said = judged(of(made, "items"), habits)
    step = SettleRationales(recovery_protocol(PANEL))
    settled = ran(
        step,
        tmp_path / "settle",
        pairs=rows,
        candidates=pl.concat(written),
        links=of(made, "links"),
        judgments=said,
    )
    final, lost = of(settled, "rationales"), of(settled, "quarantine")
    row = measure("rationales", final).counts
    assert {name: row[name] for name in CONTRACTS["rationales"].defects if row[name]} == {}
    assert final.height > 0
    assert final.select("pair_id", "kind", "side").n_unique() == final.height
    good = rows.filter(~pl.col("rejected").list.first().struct.field("content").str.contains("write="))
    assert set(final.get_column("pair_id")) <= set(good.get_column("id"))
    assert final.get_column("rank").null_count() == 0
    merged = settled.counts["rationales.merged"]
    rest = merged + lost.height + sum(one.height for one in dropped)
    assert final.height + rest == 12 * 3 * 5  # options give two
    assert merged > 0
    reasons = set(lost.get_column("reason"))
    assert reasons <= {"label_not_recovered", "judges_failed"}
    assert ("judges_failed" in reasons) == (habits.garble_share > 0)


def test_stages_of_kinds_have_names_of_their_own() -> None:
    """A stage is named by its kind, and its identity holds the prompt that it asks with."""
    steps = [step(kind) for step in (RationaleRequests, ReadRationales) for kind in WRITTEN_KINDS]
    assert len({title(step) for step in steps}) == 8
    assert len({step.prompt_digest for step in steps}) == 4


def test_rules_give_differences_and_complaints(tmp_path: Path) -> None:
    """Complaints of the part's pairs are handed on as they are; factors are measured and counted, pairs too."""
    rows = pairs(4)
    ids = rows.get_column("id").to_list()
    said = [
        {"id": f"{n}" * 32, "pair_id": name, "kind": kind, "text": "No!", "method": "rules", "split": "train"}
        for n, (name, kind) in enumerate(
            [(ids[0], "user_complaint"), (ids[1], "general"), ("f" * 32, "user_complaint")]
        )
    ]
    parent = pl.DataFrame(said, schema=polars_schema("rationales"))
    out = ran(RuleRationales("memory://pairs"), tmp_path, pairs=rows, complaints=parent)
    made = of(out, "rationales")
    assert made.filter(kind="user_complaint").equals(parent.head(1))
    assert set(made.filter(kind="factors").get_column("pair_id")) == set(ids)
    assert made.height == 5
    assert out.counts["rows_in@memory://pairs"] == 4
    assert sum(count for name, count in out.counts.items() if name.startswith("factor.words.")) == 4
