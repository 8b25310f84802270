"""What the recipe `wildfeedback` asks per 1,000 conversations, and what the cascade of rules saves of it.

    python benchmarks/wildfeedback_cost.py                       # the sample logs
    python benchmarks/wildfeedback_cost.py --source 'logs/*.jsonl'

Every request is made and answered, by a scripted model on this machine: calls are those of a real run over these logs,
as far as a real model finds the same feedback in them. Prompt tokens are estimated at four characters each. How long
the answers of a real model are is not known here; how long they may be is printed by `tilth run --dry-run`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # where the scripted model is

from loopback import serve
from tilth.flows.conductor import Conductor
from tilth.flows.run import run
from tilth.flows.settings import load

SAMPLES: Final = Path(__file__).resolve().parents[1] / "samples" / "logs" / "*.jsonl"
# Where the requests of each purpose are written.
PURPOSES: Final = {
    "label": "cascade/requests",
    "preferences": "preference_requests/requests",
    "replies (expert, policy guided and plain)": "reply_requests/requests",
    "judge (both orders)": "judge_requests/requests",
}


def asked(sources: list[str], mode: str) -> tuple[dict[str, Any], dict[str, Counter[str]]]:
    """The result of a run, and by purpose its requests and characters."""
    with tempfile.TemporaryDirectory() as workspace, serve(script="sensible") as server:
        options = {
            "sources": sources,
            "workspace": workspace,
            "keep_stages": True,
            "engine": {"model": "large", "base_urls": [server.url]},
            "wildfeedback": {
                "policy": "small",
                "judging": {"judges": ["other"]},
                "cascade": {"mode": mode},
            },
        }
        result = run("wildfeedback", load(options=options), Conductor()).to_dict()
        stages = Path(workspace) / "runs" / result["run_id"] / "stages"
        return result, {name: counted(stages / place) for name, place in PURPOSES.items()}


def counted(folder: Path) -> Counter[str]:
    """Requests and their characters."""
    content = pl.element().struct.field("content").str.len_chars()
    frames = [pl.read_parquet(part) for part in sorted(folder.glob("*.parquet"))]
    if not frames:
        return Counter()
    requests = pl.concat(frames)
    chars = requests.select(pl.col("messages").list.eval(content).list.sum().sum()).item()
    return Counter(calls=requests.height, chars=chars)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", action="append", help="logs; default: samples/logs/*.jsonl")
    sources = parser.parse_args().source or [str(SAMPLES)]
    result, purposes = asked(sources, "cascade")
    rows = {one["name"].partition(".")[2]: one["rows"] for one in result["datasets"]}
    per = 1000 / rows["conversations"]
    print(
        f"{rows['conversations']:,} conversations; feedback {rows['feedback']:,}, pairs {rows['pairs']:,}\n"
    )
    print("| per 1,000 conversations | calls | prompt tokens |")
    print("|---|---|---|")
    for name, one in [*purposes.items(), ("all", sum(purposes.values(), Counter[str]()))]:
        print(f"| {name} | {one['calls'] * per:,.0f} | {one['chars'] / 4 * per:,.0f} |")
    every = asked(sources, "all")[1]["label"]
    cascade, label = result["notes"]["cascade"], purposes["label"]
    settled = cascade["turns"] - cascade.get("asked", 0)
    share = settled / cascade["turns"] if cascade["turns"] else 0.0
    print("\n| calls for labels, per 1,000 conversations | calls | prompt tokens | ratio of calls |")
    print("|---|---|---|---|")
    for name, one in (
        ("the model is asked about every turn", every),
        ("rules settle what they are sure of", label),
    ):
        ratio = one["calls"] / every["calls"] if every["calls"] else 0.0
        print(f"| {name} | {one['calls'] * per:,.0f} | {one['chars'] / 4 * per:,.0f} | {ratio:.2f} |")
    print(f"\nturns: {cascade['turns']:,}, settled without a model: {settled:,} ({share:.0%})")


if __name__ == "__main__":
    main()
