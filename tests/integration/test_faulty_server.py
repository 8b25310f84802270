"""The whole stage against a server that fails in every way at once: each row has its own answer, or its reason."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from loopback import Loopback, expected_answer, serve
from tilth.transforms.inference.ask import Ask
from tilth.transforms.inference.calling import Patience
from tilth.transforms.inference.engines import EngineConfig, identify
from tilth.transforms.inference.window import WindowConfig
from tilth.transforms.inference.worker import Account, WorkerConfig
from tilth.transforms.parts import Shard, read_part, write_part
from tilth.transforms.shell import Runner
from tilth.transforms.stage import Manifest, Stage, numbered, parts, run_stage, total

pytestmark = pytest.mark.slow  # servers, processes and databases are started

SCHEMA = (
    '{"type":"object","properties":{"ok":{"type":"boolean"},"n":{"type":"integer"}},"required":["ok","n"]}'
)
QUICK = Patience(request_timeout_s=0.5, attempts=12, backoff_s=0.01, max_backoff_s=0.05)
FAULTS: dict[str, Mapping[str, Any]] = {
    "http 500": {"error_share": 0.3},
    "429": {"throttle_share": 0.3, "retry_after_s": 0.02},
    "429 without a header": {"throttle_share": 0.3, "retry_after_s": None},
    "no answer": {"never_share": 0.05, "faulty_attempts": 1},
    "cut before the first byte": {"cut_before_share": 0.2},
    "cut within the body": {"cut_within_share": 0.2},
    "bodies that are no answer": {"not_json_share": 0.15, "no_choices_share": 0.15, "empty_share": 0.05},
    "malformed at first": {"malformed_tries": 1},
    "a poisoned row": {"poison": "thing 77 "},
    "everything": {
        "error_share": 0.1, "throttle_share": 0.1, "cut_before_share": 0.05, "cut_within_share": 0.05,
        "not_json_share": 0.05, "retry_after_s": 0.02, "malformed_tries": 1, "poison": "thing 77 ",
    },
}  # fmt: skip


def _requests(count: int) -> pl.DataFrame:
    """Rows in an order of their own; every third prompt occurs twice; two in three want JSON."""
    numbers = [n * 7 % count for n in range(count)] + list(range(0, count, 3))
    frame = pl.DataFrame(
        {
            "id": [f"row {place}" for place in range(len(numbers))],
            "messages": [[{"role": "user", "content": f"Judge thing {n} now"}] for n in numbers],
            "schema": [SCHEMA if n % 3 else None for n in numbers],
            "seed": numbers,
        }
    )
    return frame.with_columns(temperature=pl.lit(1.0))


def _ask(server: Loopback, frame: pl.DataFrame, place: Path) -> list[Manifest]:
    shards = [write_part(part, f"{place}/in/{n}.parquet") for n, part in enumerate(frame.iter_slices(60))]
    engine = EngineConfig("openai", "loopback", base_urls=(server.url,))
    worker = WorkerConfig(WindowConfig(size=32), QUICK)
    step = Ask(identify(engine), engine, f"sqlite:///{place}/answers.sqlite", Account("run"), worker)
    tasks = numbered([{}] * len(shards), [{"requests": (shard,)} for shard in shards])
    with Runner().session() as execute:
        return run_stage(Stage(step, f"{place}/stages/ask"), tasks, execute)


def _read(shards: list[Shard]) -> pl.DataFrame:
    return pl.concat([read_part(shard) for shard in shards]) if shards else pl.DataFrame()


@pytest.mark.parametrize("faults", FAULTS)
def test_every_row_has_its_own_answer_or_its_reason(faults: str, tmp_path: Path) -> None:
    """B7: whatever the server does to calls, rows that come through bear the answer to their own words."""
    frame = _requests(180)
    with serve(latency_s=0.002, sigma=1.0, **FAULTS[faults]) as server:
        manifests = _ask(server, frame, tmp_path)
    answers = _read(parts(manifests, "completions"))
    aside = _read(parts(manifests, "quarantine"))
    texts = dict(zip(answers.get_column("id"), answers.get_column("text"), strict=True))
    poisoned = [
        row["id"] for row in frame.iter_rows(named=True) if "thing 77 " in row["messages"][0]["content"]
    ]
    poisoned = poisoned if "poison" in FAULTS[faults] else []
    assert sorted(aside.get_column("key").str.strip_prefix("requests#id=") if aside.height else []) == sorted(
        poisoned
    )
    assert set(aside.get_column("reason") if aside.height else []) <= {"request_refused"}
    for row in frame.filter(~pl.col("id").is_in(poisoned)).iter_rows(named=True):
        # Asked again, it is another prompt with another seed: any answer that fits will do then.
        if row["schema"] is None or "malformed_tries" not in FAULTS[faults]:
            assert texts[row["id"]] == expected_answer(row["messages"], row["seed"], schema=row["schema"])
    assert len(texts) + len(poisoned) == frame.height
    assert total(manifests, "requests") == frame.height


def test_answers_do_not_depend_on_what_went_wrong(tmp_path: Path) -> None:
    """The parts of a run through faults are, byte for byte, those of a run without."""
    digests: list[list[str]] = []
    rough: dict[str, Any] = {"error_share": 0.3, "cut_within_share": 0.1}
    for name, faults in (("calm", dict[str, Any]()), ("rough", rough)):
        with serve(latency_s=0.002, sigma=1.0, **faults) as server:
            made = parts(_ask(server, _requests(120), tmp_path / name), "completions")
        digests.append([shard.digest for shard in made])
    assert digests[0] == digests[1]
