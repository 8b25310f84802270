"""B8: label integrity. 2,000 comparisons with known winners, and judges that prefer a place, tie and answer no JSON.

    python benchmarks/label_integrity.py               # a part of `make bench`, about a minute

Ours is every part from items to rows of `pairs`, with all rows permuted on the way; the judge is scripted and errs by
place, ties and garbled answers alone. Beside it, on the same answers, judges that see one order, as scripts around
distilabel and open-instruct do: once as their code reads answers (an answer that cannot be read scores -1 for both; the
best score is chosen, the worst rejected, the first of equal ones twice), once with ties and failures left out. Then
FairEval's rule, which decides by mean scores over both orders.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # where the scripted judge is

from loopback import Habits
from scripted.planted import Outcome, Planted, drawn_marks, judged, pairwise, planted
from tilth.schemas.contracts import measure
from tilth.transforms.judging.aggregate import by_judge
from tilth.transforms.judging.bias import position
from tilth.transforms.judging.protocol import Aggregation
from tilth.transforms.judging.votes import votes_of

ITEMS = 2000
HABITS = Habits(position_bias=0.3, tie_share=0.05, garble_share=0.05)


@dataclass(frozen=True, slots=True)
class Line:
    """What one way of judging made of the comparisons."""

    name: str
    calls: int
    right: int
    wrong: int
    equal: int

    def cells(self, possible: int, released: Line) -> tuple[str, ...]:
        """The row of the table; the ratio is of shares of labels that are wrong or equal."""
        ratio = self.share / released.share
        kept = f"{self.right:,} of {possible:,} ({self.right / possible:.0%})"
        return (
            self.name,
            f"{self.calls:,}",
            kept,
            f"{self.wrong:,}",
            f"{self.equal:,}",
            f"{self.share:.2%}",
            f"{ratio:.2f}",
        )

    @property
    def share(self) -> float:
        """Labels that are wrong or prefer a reply to itself, of all labels."""
        bad = self.wrong + self.equal
        return bad / max(1, bad + self.right)


def ours(name: str, world: Planted, outcome: Outcome) -> Line:
    """Rows of `pairs`, compared with what was planted."""
    kept = outcome.ruled.kept
    better = world.comparisons.join(world.gold.filter(pl.col("gold") == "win"), on="item_id")
    right = kept.join(better, on="conversation_id", how="semi").height
    equal = measure("pairs", kept).counts["near_equal"]
    return Line(name, outcome.judgments.height, right, kept.height - right - equal, equal)


def one_order(name: str, world: Planted, outcome: Outcome, *, drop: bool) -> Line:
    """The same answers in the order in which the side that is meant to be better stands first."""
    (said,) = outcome.answers.values()
    shown = outcome.asked.filter(pl.col("order").list.first() == 0)
    texts = dict(said.completions.select("id", "text").iter_rows())
    gold = dict(world.gold.select("item_id", "gold").iter_rows())
    found = {"win": 0, "loss": 0, "equal": 0}
    right = 0
    for id_, item in shown.select("id", "item_id").iter_rows():
        chosen = _chosen(texts.get(id_))
        if chosen != "equal" or not drop:
            found[chosen] += 1
            right += chosen == gold[item]
    wrong = found["win"] + found["loss"] - right
    return Line(name, shown.height, right, wrong, 0 if drop else found["equal"])


def _chosen(text: str | None) -> str:
    answer: Mapping[str, int] = {"score_1": -1, "score_2": -1} if text is None else orjson.loads(text)
    one, other = answer["score_1"], answer["score_2"]
    return "equal" if one == other else "win" if one > other else "loss"


def recovered(world: Planted, outcome: Outcome) -> str:
    """The bias p as the report sees it: first-shown replies have p + (1 - p) / 2 of the decided votes."""
    decided = world.gold.filter(pl.col("gold") != "tie")
    votes = votes_of(outcome.judgments).join(decided, on="item_id", how="semi")
    found = position(votes, by_judge(votes, Aggregation()), world.gold)
    first = found.first_preferred
    low, value, high = (2 * (one or 0.0) - 1 for one in (first.low, first.value, first.high))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def table(head: tuple[str, ...], lines: list[tuple[str, ...]]) -> None:
    """Prints a Markdown table."""
    print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for line in lines:
        print(f"| {' | '.join(line)} |")


def main() -> None:
    """All of it."""
    began = time.monotonic()
    world = planted(drawn_marks(ITEMS, 2))
    counts = dict(world.gold.group_by("gold").len().iter_rows())
    prompts = world.comparisons.get_column("prompt_id").n_unique()
    print(
        f"### B8: label integrity, {ITEMS:,} comparisons of {prompts:,} prompts\n\nplanted: {counts}; {HABITS}"
    )
    alone = judged(world.comparisons, HABITS, pairwise(), shuffle=11)
    released = one_order("one order, as released code reads it", world, alone, drop=False)
    mean = pairwise(aggregation=Aggregation("mean"))
    lines = [
        released,
        one_order("one order, ties and failures left out", world, alone, drop=True),
        ours("Tilth: both orders must agree", world, alone),
        ours(
            "Tilth: a panel of three", world, judged(world.comparisons, HABITS, pairwise("a", "b", "c"), 13)
        ),
        ours(
            "Tilth: three samples an order",
            world,
            judged(world.comparisons, HABITS, pairwise(evidences=3, temperature=1.0), 17),
        ),
        ours("rule `mean` (FairEval)", world, judged(world.comparisons, HABITS, mean, 11)),
    ]
    either, meant = counts["win"] + counts["loss"], counts["win"]
    head = ("judge", "calls", "right labels", "wrong", "equal sides", "bad share", "ratio")
    table(head, [line.cells(either if "one order" in line.name else meant, released) for line in lines])
    print(
        "\nRight labels are counted of all comparisons with a winner where either side may become chosen (one order),"
    )
    print(
        "of those that the side meant to be better wins elsewhere: a comparison that it loses is set aside, not turned."
    )
    biases = [
        (bias, judged(world.comparisons, replace(HABITS, position_bias=bias), pairwise(), 7))
        for bias in (0.0, 0.1, 0.6, 0.9)
    ]
    found = [(0.3, alone), *biases]
    rows = [
        (f"{bias:.1f}", recovered(world, one), *_counts(world, one))
        for bias, one in sorted(found, key=lambda pair: pair[0])
    ]
    table(("planted position bias", "recovered, 95 % interval", "pairs", "wrong", "equal sides"), rows)
    print(f"\n{time.monotonic() - began:.0f} s")


def _counts(world: Planted, outcome: Outcome) -> tuple[str, ...]:
    line = ours("", world, outcome)
    return f"{outcome.ruled.kept.height:,}", f"{line.wrong:,}", f"{line.equal:,}"


if __name__ == "__main__":
    main()
