"""What rationales and rubrics cost in time where no model is asked, apart and within `tilth run observed`.

    python benchmarks/reasons_speed.py                 # 10,000 pairs; 100,000 conversations
    python benchmarks/reasons_speed.py --rows 20000

Pairs are those of `reasons_cost.py`: replies of 200 words, a request in three with a limit that a program can check, a
complaint each. The 100,000 conversations are those of `observed.py`, of which about one in fifty gives a pair.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any, Final  # Any: whatever is timed returns

from generate import generate
from observed import BENCH, Measured, observed, table_of
from reasons_cost import write_logs

from tilth.transforms.rationales.factors import factor_rationales
from tilth.transforms.rubrics.constraints import constraint_criteria
from tilth.transforms.rubrics.criteria import prompts_of, sides_of
from tilth.transforms.rubrics.observed import observed_rubrics
from tilth.transforms.rubrics.verifiers import grade_by_program

PAIRS: Final = 10_000
STAGES: Final = ("rule_rationales", "rubrics")


def seconds(work: Callable[[], Any]) -> float:
    """CPU time of all threads, the better of two."""
    times = list[float]()
    for _ in range(2):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def apart(name: str) -> None:
    """Prints what each rule takes for the pairs of a workspace."""
    pairs, rationales = table_of(name, "pairs"), table_of(name, "rationales")
    complaints = rationales.filter(kind="user_complaint")
    prompts, (replies, _) = prompts_of(pairs), sides_of(pairs)
    criteria = constraint_criteria(prompts)
    graded = grade_by_program(criteria, replies).height
    rules = {
        "factor rationales": lambda: factor_rationales(pairs),
        "constraints of requests": lambda: constraint_criteria(prompts),
        f"programs, {criteria.height:,} criteria, {graded:,} grades": lambda: grade_by_program(
            criteria, replies
        ),
        "observed rubrics (constraints and programs among them)": lambda: observed_rubrics(pairs, complaints),
    }
    print("| in one process | CPU seconds per 10,000 pairs | pairs per CPU second |\n|---|---|---|")
    for rule, work in rules.items():
        taken = seconds(work) * 10_000 / pairs.height
        print(f"| {rule} | {taken:.2f} | {10_000 / taken:,.0f} |")


def share(logs: str, taken: Measured) -> str:
    """A line about one run."""
    result = json.loads(taken.printed)
    rows = {one["name"].partition(".")[2]: one["rows"] for one in result["datasets"]}
    ours = [result["seconds"][stage] for stage in STAGES]
    without = taken.seconds - sum(ours)
    figures = " | ".join(f"{one:.1f}" for one in (taken.seconds, *ours, without))
    return f"| {logs} | {rows['pairs']:,} | {figures} | {taken.seconds / without:.2f} |"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000, help="conversations")
    rows = parser.parse_args().rows
    BENCH.mkdir(exist_ok=True)
    own = observed(write_logs(PAIRS, BENCH / "reasons.jsonl"), "reasons")
    logs = observed(generate(rows, BENCH / f"logs-{rows}.jsonl"), "reasons-logs")
    print("## Rationales and rubrics without a model\n")
    apart("reasons")
    print(
        "\n`tilth run observed`, wall seconds. Audit and commit of what both stages make stay in each column.\n"
    )
    print("| conversations | pairs | whole | rule rationales | rubrics | whole less both | ratio |")
    print("|---|---|---|---|---|---|---|")
    print(share(f"{PAIRS:,} of a pair each", own))
    print(share(f"{rows:,} of `generate.py`", logs))


if __name__ == "__main__":
    main()
