"""What the recipes `rationales`, `rubrics`, `orbit` and `judge_training` ask, beside the published way to do the same.

    python benchmarks/reasons_cost.py                # 200 conversations
    python benchmarks/reasons_cost.py --rows 1000

The logs are made here, and nearly every conversation gives a pair. Replies are sentences of the sample logs' replies,
drawn until there are 200 words; requests are those of the sample logs with two such sentences, and one in three states
a limit that a program can check. A scripted model on this machine answers every request: calls are those of a run in
which a model writes as many criteria and rationales as this one. A token is a word between blanks, and one more for
each message, as the scripted server counts; a tokenizer finds more. The scripted answers are shorter than a model's.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple  # Any: JSON values

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # where the scripted model is

from loopback import Loopback, serve
from scripted import answered
from tilth.catalog import open_catalog
from tilth.flows.conductor import Conductor
from tilth.flows.result import RunResult
from tilth.flows.run import run
from tilth.flows.settings import load
from tilth.transforms.judging.items import items, judge_requests
from tilth.transforms.judging.protocol import Judging
from tilth.transforms.rubrics.criteria import PROGRAM, sides_of

SAMPLES: Final = Path(__file__).resolve().parents[1] / "samples"
REPLY_WORDS: Final = 200
LIMITS: Final = (
    "Answer in at most 150 words.",
    "Answer in at least 180 words.",
    "Use at most 5 bullet points.",
    "Do not use the word 'please'.",
    "Answer in at most 12 sentences.",
    "Answer in exactly two paragraphs.",
)
MISSING: Final = (
    "the price",
    "the second step",
    "the date",
    "the reason",
    "the example",
    "the name of the part",
)
_SENTENCE: Final = re.compile(r"[A-Z][^.!?\n`*|#\[\]]{20,160}[.!?](?=\s|$)")
# A reply that declines is no rejected reply, so such a conversation gives no pair.
_DECLINES: Final = re.compile(
    r"^(?:I|We|If you|Please)\b|can't|cannot|won't|sorry|unfortunately|not able", re.IGNORECASE
)


# Logs


class Said(NamedTuple):
    """What users ask first in the sample logs, and sentences of what assistants reply."""

    requests: list[str]
    sentences: list[str]


@cache
def samples() -> Said:
    """The English samples that are JSONL; rows that are broken on purpose are passed over."""
    turns = [
        turn
        for file in ("support.openai.jsonl", "community.oasst.jsonl")
        for turn in _turns(SAMPLES / "logs" / file)
    ]
    asked = dict.fromkeys(text for role, text in turns if role == "first" and len(text.split()) > 5)
    replied = "\n".join(text for role, text in turns if role == "assistant")
    sentences = [one for one in dict.fromkeys(_SENTENCE.findall(replied)) if not _DECLINES.search(one)]
    return Said(list(asked), sentences)


def _turns(file: Path) -> Iterator[tuple[str, str]]:
    for line in file.read_bytes().splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # broken on purpose
            continue
        yield from _of_tree(row) if "message_id" in row else _of_messages(row["messages"])


def _of_tree(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if row.get("lang") == "en" and row.get("text"):
        first = row["parent_id"] is None
        yield ("first" if first else "assistant" if row["role"] == "assistant" else "user"), row["text"]


def _of_messages(messages: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    told = [one for one in messages if one["role"] != "system" and isinstance(one["content"], str)]
    for n, one in enumerate(told):
        yield ("first" if n == 0 else one["role"]), one["content"]


def write_logs(count: int, file: Path) -> Path:
    """So many conversations as OpenAI `messages`, one user each: a complaint about the first reply, thanks for the
    second. What a conversation says follows from its number alone."""
    with file.open("w") as out:
        out.writelines(json.dumps(_conversation(n)) + "\n" for n in range(count))
    return file


def _conversation(number: int) -> dict[str, Any]:
    draw = random.Random(f"conversation {number}")
    known = samples()
    asked = [draw.choice(known.requests), *draw.sample(known.sentences, 2)]
    asked += [draw.choice(LIMITS)] if number % 3 == 0 else []
    said = (
        " ".join(asked),
        f"{_reply(draw)} [q=2]",
        f"No, that's wrong. You left out {draw.choice(MISSING)}.",
        f"{_reply(draw)} [q=8]",
        "Perfect, that is exactly what I needed, thank you.",
    )
    turns = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]
    return {"id": f"c-{number}", "user": f"u-{number}", "model": "bench-1", "messages": turns}


def _reply(draw: random.Random) -> str:
    words = list[str]()
    while len(words) < REPLY_WORDS:
        words += draw.choice(samples().sentences).split()
    return " ".join(words)


# Runs


@dataclass(frozen=True)
class Cost:
    """Calls, and tokens as the scripted server counts them."""

    calls: float = 0
    prompt: float = 0
    answer: float = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.calls + other.calls, self.prompt + other.prompt, self.answer + other.answer)

    def __mul__(self, times: float) -> Cost:
        return Cost(self.calls * times, self.prompt * times, self.answer * times)

    @property
    def tokens(self) -> float:
        """Both ways."""
        return self.prompt + self.answer


@dataclass(frozen=True)
class Bench:
    """A workspace with an `observed` release, and the scripted server."""

    workspace: str
    server: Loopback

    def observe(self, file: Path) -> RunResult:
        """Makes the release."""
        return run(
            "observed", load(options={"sources": [str(file)], "workspace": self.workspace}), Conductor()
        )

    def run(self, recipe: str, **section: Any) -> Ran:
        """Runs a recipe over its pairs; the writer, the policy and the judge are three models."""
        options = {
            "dataset": "observed.pairs",
            "workspace": self.workspace,
            "keep_stages": True,
            "engine": {"model": "large", "base_urls": [self.server.url]},
            recipe: {"judging": {"judges": ["other"]}, **section},
        }
        return Ran(self, run(recipe, load(options=options), Conductor()))

    def table(self, name: str) -> pl.DataFrame:
        """The rows of a dataset, at the version that was committed last."""
        with open_catalog(self.workspace, create=False) as catalog:
            return catalog.frame(name).collect()


@dataclass(frozen=True)
class Ran:
    """A run, and what it asked."""

    bench: Bench
    result: RunResult

    @property
    def rows(self) -> Mapping[str, int]:
        """By table."""
        return {one.name.partition(".")[2]: one.rows for one in self.result.datasets}

    def table(self, name: str) -> pl.DataFrame:
        """The rows of one of its tables."""
        (one,) = (one for one in self.result.datasets if one.name.partition(".")[2] == name)
        return self.bench.table(f"{one.name}@{one.version}")

    def stage(self, place: str) -> pl.DataFrame:
        """What a stage of it wrote."""
        folder = Path(self.bench.workspace) / "runs" / self.result.run_id / "stages" / place
        return pl.concat([pl.read_parquet(part) for part in sorted(folder.glob("*.parquet"))])

    def cost(self, *purposes: str) -> Cost:
        """What was asked for purposes, the same as the scripted server counted; all of them where none is named."""
        used = self.result.usage["purposes"]
        named = [used[purpose] for purpose in purposes or used]
        costs = [Cost(one["calls"], one["prompt_tokens"], one["completion_tokens"]) for one in named]
        return sum(costs, Cost())


# Tables


def show(unit: str, lines: Mapping[str, Cost], beside: str, per: float) -> None:
    """A table of costs per 1,000 of a unit, and how many times those of the line `beside` they are."""
    print(f"\n| per 1,000 {unit} | calls | prompt tokens | answer tokens | calls, ratio | tokens, ratio |")
    print("|---|---|---|---|---|---|")
    one = lines[beside]
    for name, cost in lines.items():
        each = cost * per
        ratios = f"{cost.calls / one.calls:.2f} | {cost.tokens / one.tokens:.2f}"
        print(f"| {name} | {each.calls:,.0f} | {each.prompt:,.0f} | {each.answer:,.0f} | {ratios} |")


def rationales(bench: Bench, pairs: int) -> None:
    """General and specific reasons as published, one call each that nobody checks; ours; ours with all four kinds."""
    print("\n## Rationales")
    two = bench.run("rationales")
    four = bench.run("rationales", kinds=["general", "specific", "judgment", "option"])
    general, specific = two.cost("rationales-general"), two.cost("rationales-specific")
    lines = {
        "general": general,
        "specific": specific,
        "as published: both, unchecked": general + specific,
        "recover (is the label found from the words, both orders)": two.cost("recover-other"),
        "ours: both, checked": two.cost(),
        "judgment": four.cost("rationales-judgment"),
        "option": four.cost("rationales-option"),
        "recover, all four kinds": four.cost("recover-other"),
        "ours: all four kinds, checked": four.cost(),
    }
    show("pairs", lines, "as published: both, unchecked", 1000 / pairs)
    for name, made in (("two kinds", two), ("four kinds", four)):
        kept = made.table("rationales").filter(pl.col("method") != "rules").height
        print(f"\n{name}: {kept:,} rationales of a model kept, {made.rows['quarantine']:,} set aside.")


def rubrics(bench: Bench, pairs: int) -> None:
    """A rubric and one check of it as OpenRubrics does it; ours, criterion by criterion, with and without programs."""
    print("\n## Rubrics")
    made = bench.run("rubrics")
    contrast, grade = made.cost("criteria-contrast"), made.cost("grade-other")
    by_program = made.table("judgments").filter(judge=PROGRAM).height
    saved = grade * (by_program / grade.calls)
    ask = made.stage("criteria_requests-criteria-contrast/requests")
    said = made.stage("ask-criteria-contrast/completions")
    assert counted(ask, said) == contrast, "the server counts otherwise"
    check = one_check(made, bench.table("observed.pairs"))
    lines = {
        "contrast (a rubric for each pair)": contrast,
        "check (the whole rubric, one order)": check,
        "as OpenRubrics: contrast and check": contrast + check,
        "grade (a criterion, a reply)": grade,
        "ours: contrast and grade": made.cost(),
        "ours, were there no programs": made.cost() + saved,
    }
    show("pairs", lines, "as OpenRubrics: contrast and check", 1000 / pairs)
    share = by_program / (by_program + grade.calls)
    print(
        f"\nGrades by programs instead of a judge: {by_program:,} of {by_program + grade.calls:,.0f} ({share:.0%})."
    )
    show_criteria(made, pairs)


def one_check(made: Ran, pairs: pl.DataFrame) -> Cost:
    """What OpenRubrics (arXiv 2510.07743, section 4) asks next: which reply is better by this rubric, in one order.

    Put as our pairwise judge is asked, with the criteria as its checklist; answered by the same script in this process.
    """
    wishes = made.stage("read_criteria-read-contrast/criteria").sort("prompt_id", "id")
    lists = wishes.group_by("prompt_id", maintain_order=True).agg(checklist="description")
    _, sides = sides_of(pairs)
    known = pairs.join(sides.drop("prompt_id"), left_on="id", right_on="pair_id").join(lists, on="prompt_id")
    replies = [[chosen, rejected] for chosen, rejected in known.select("chosen", "rejected").iter_rows()]
    rows = known.with_columns(
        pl.Series("replies", replies), response_ids=pl.concat_list("chosen_id", "rejected_id")
    )
    asked = judge_requests(items(rows), Judging().pairwise())
    once = asked.asked.filter(pl.col("order").list.first() == 0)
    requests = asked.requests.join(once, on="id", how="semi")
    return counted(requests, answered(requests).completions)


def counted(requests: pl.DataFrame, completions: pl.DataFrame) -> Cost:
    """Requests and answers, counted as the scripted server counts."""
    content = requests.explode("messages").select(pl.col("messages").struct.field("content")).to_series()
    asked = sum(1 + len(text.split()) for text in content)
    return Cost(requests.height, asked, sum(len(text.split()) for text in completions["text"]))


def show_criteria(made: Ran, prompts: int) -> None:
    """How many criteria of each source were graded, by what."""
    found = made.stage("merge_criteria/criteria").group_by("source", "check").len().sort("source", "check")
    print("\n| criteria of source | checked by | per prompt |\n|---|---|---|")
    for source, check, count in found.iter_rows():
        print(f"| {source} | {check} | {count / prompts:.2f} |")
    kept = made.table("rubrics").select(pl.col("criteria").list.len().sum()).item()
    print(f"\nRubrics kept: {made.rows['rubrics']:,}, with {kept:,} of {found['len'].sum():,} criteria.")


def orbit(bench: Bench, pairs: int) -> None:
    """As published, replies of the policy are graded; ours grades the two of the pair too, to measure the rubric."""
    print("\n## Orbit")
    made = bench.run("orbit", seeds=str(SAMPLES / "rubrics" / "seeds.jsonl"), policy="small")
    written, rollouts = made.cost("orbit"), made.cost("rollouts")
    sampled = made.table("responses").filter(role="policy")
    of_policy = graded(made, sampled)
    of_pair = made.cost("grade-other") + of_policy * -1
    words = sum(len(reply[0]["content"].split()) for reply in sampled["completion"]) / sampled.height
    rollouts = Cost(rollouts.calls, rollouts.prompt, rollouts.calls * REPLY_WORDS)
    of_policy += Cost(prompt=of_policy.calls * (REPLY_WORDS - words))
    published = written + rollouts + of_policy
    lines = {
        "orbit (a rubric for each prompt)": written,
        "rollouts (8 replies of the policy)": rollouts,
        "grade, of the policy's replies": of_policy,
        "as ORBIT: rubric, replies, their grades": published,
        "grade, of the two replies of the pair": of_pair,
        "ours: all": published + of_pair,
    }
    show("prompts", lines, "as ORBIT: rubric, replies, their grades", 1000 / pairs)
    print(
        f"\nReplies of the scripted policy have {words:.0f} words; they are counted as if they had {REPLY_WORDS}."
    )
    show_criteria(made, pairs)


def graded(made: Ran, replies: pl.DataFrame) -> Cost:
    """What the grades of these replies cost, of all that a run asked for."""
    links = made.stage("grade_items/links").join(replies, left_on="response_id", right_on="id", how="semi")
    asked = made.stage("judge_requests/asked").join(links, on="item_id", how="semi")
    said = made.stage("ask-grade-other/completions").join(asked, on="id", how="semi")
    return Cost(said.height, sum(said["prompt_tokens"]), sum(said["completion_tokens"]))


def judge_training(bench: Bench, pairs: int) -> None:
    """Five judgments of each pair in one order, as is published; ours are of both."""
    print("\n## Judge training")
    both = bench.run("judge_training").cost()
    one = "five samples in one order"
    show("pairs", {one: both * 0.5, "ours: five samples in both orders": both}, one, 1000 / pairs)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200, help="conversations")
    count = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as workspace, serve(script="sensible") as server:
        bench = Bench(workspace, server)
        bench.observe(write_logs(count, Path(workspace) / "logs.jsonl"))
        pairs = bench.table("observed.pairs").height
        print(f"{count:,} conversations, {pairs:,} pairs")
        for part in (rationales, rubrics, orbit, judge_training):
            part(bench, pairs)


if __name__ == "__main__":
    main()
