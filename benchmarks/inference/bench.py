"""B1 to B7: the worker against a loopback server, beside a raw asyncio client, in one run on one machine.

    python benchmarks/inference/bench.py               # all of them, about four minutes; a part of `make bench`
    python benchmarks/inference/bench.py B1 B3         # some

Ours is the whole stage through Beam: engine start, cache and journal on, validated, written as Parquet. Raw is a bare
aiohttp client that writes nothing down. The server is one process on the same machine and shares its cores with both.
"""

from __future__ import annotations

import heapq
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
from workload import HERE, ask, raw, rows

from loopback import Behaviour, Loopback, request_hash, serve  # isort: skip  (workload makes it importable)
from tilth.schemas import Reason
from tilth.transforms.inference.calling import Patience
from tilth.transforms.inference.window import WindowConfig

SCHEMA = (
    '{"type":"object","properties":{"ok":{"type":"boolean"}},"required":["ok"],"additionalProperties":false}'
)


def table(title: str, head: tuple[str, ...], lines: list[tuple[object, ...]]) -> None:
    """Prints a Markdown table."""
    print(f"\n### {title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for line in lines:
        print(f"| {' | '.join(str(cell) for cell in line)} |")


def b1(place: Path) -> None:
    """1,000 rows of 200 ms, 256 in flight."""
    frame = rows(1000)
    with serve(latency_s=0.2) as server:
        bare = 1000 / raw(server, frame, 256)
        fixed = 1000 / ask(server, frame, place / "fixed", WindowConfig(size=256)).seconds
        free = 1000 / ask(server, frame, place / "free").seconds
    lines = [
        ("raw asyncio client, 256 in flight", f"{bare:.0f}", "1.00"),
        ("Tilth, 256 in flight", f"{fixed:.0f}", f"{fixed / bare:.2f}"),
        ("Tilth, window left to itself (starts at 64)", f"{free:.0f}", f"{free / bare:.2f}"),
    ]
    table("B1: 1,000 rows, 200 ms each (aim: 900 rows/s)", ("client", "rows/s", "ratio"), lines)


def _ideal(behaviour: Behaviour, frame: pl.DataFrame, slots: int) -> float:
    """Seconds of the best that any client can do in this order: a free slot takes the next row at once."""
    free = [0.0] * slots
    for messages in frame.get_column("messages").to_list():
        heapq.heappush(free, heapq.heappop(free) + behaviour.latency(request_hash(messages, None), 1))
    return max(free)


def b2(place: Path) -> None:
    """64 slots with a lognormal tail, 1,500 rows in three shards."""
    frame = rows(1500)
    settings = {"latency_s": 0.3, "sigma": 1.0, "slots": 64}
    ideal = 1500 / _ideal(Behaviour().changed(settings), frame, 64)
    lines = [("ideal", f"{ideal:.1f}", "100 %")]
    with serve(**settings) as server:
        for name, work in _clients(server, frame, place):
            server.reset()
            rate = 1500 / work()
            lines.append((name, f"{rate:.1f}", f"{rate / ideal:.1%}"))
    table(
        "B2: 64 slots, lognormal tail, 1,500 rows in 3 shards (aim: 98 %)",
        ("client", "rows/s", "share"),
        lines,
    )


def _clients(server: Loopback, frame: pl.DataFrame, place: Path) -> list[tuple[str, Callable[[], float]]]:
    return [
        ("raw asyncio client, 64 in flight", lambda: raw(server, frame, 64)),
        ("raw asyncio client, 128 in flight", lambda: raw(server, frame, 128)),
        ("Tilth, window left to itself", lambda: ask(server, frame, place / "free").seconds),
        ("Tilth, 128 in flight", lambda: ask(server, frame, place / "128", WindowConfig(size=128)).seconds),
    ]


def b3(place: Path) -> None:
    """Zero latency, 5,000 rows, cache and journal on."""
    frame = rows(5000)
    lines = []
    with serve() as server:
        bare = 5000 / raw(server, frame, 256)
        lines.append(("raw asyncio client, nothing written", f"{bare:.0f}", "1.00"))
        ours = 5000 / ask(server, frame, place / "one", WindowConfig(size=256)).seconds
        lines.append(("Tilth, durable", f"{ours:.0f}", f"{ours / bare:.2f}"))
        again = 5000 / ask(server, frame, place / "one", name="again").seconds
        lines.append(("Tilth, all from the cache", f"{again:.0f}", f"{again / bare:.2f}"))
    table("B3: zero latency, 5,000 rows (aim: 1,500 rows/s durable)", ("client", "rows/s", "ratio"), lines)


def b4(place: Path) -> None:
    """`kill -9` at about half of 1,000 calls, run again; ten times."""
    lines = []
    for turn in range(10):
        folder = place / str(turn)
        with serve(latency_s=0.1, slots=64) as server:
            command = [sys.executable, str(HERE / "killed.py"), server.url, str(folder), "1000", "64"]
            process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
            while server.stats()["finished"] < 400 + 20 * turn:
                time.sleep(0.005)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            printed = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
            wasted = server.stats()["received"] - 1000
        lines.append((turn + 1, 64, wasted, printed.strip()))
    head = ("kill", "window", "calls made twice", "rows answered in the end")
    table(
        "B4: kill -9 at half of 1,000 calls, run again (aim: the window, and one flush window)", head, lines
    )


def b5(place: Path) -> None:
    """One row of 1,000 edited."""
    with serve() as server:
        ask(server, rows(1000), place)
        server.reset()
        done = ask(server, rows(1000, edited=500), place, run="second")
        calls = server.stats()["received"]
    table(
        "B5: one row of 1,000 edited, run again (aim: exactly 1 call, fresh output)",
        ("calls", "cache hits", "rows answered"),
        [(calls, done.usage.hits, done.answered)],
    )


def b6(place: Path) -> None:
    """Only the parser changes; only the prompt of step two changes."""
    with serve() as server:
        for name, prompt in (("one", "Judge this reply"), ("two", "Say why")):
            ask(server, rows(1000, prompt=prompt), place, name=name)
        server.reset()
        for name, prompt in (("one", "Judge this reply"), ("two", "Say why")):
            ask(server, rows(1000, prompt=prompt), place, name=name, run="parser")
        parser = server.stats()["received"]
        one = ask(server, rows(1000), place, name="one", run="prompt").usage.calls
        two = ask(server, rows(1000, prompt="Give reasons"), place, name="two", run="prompt").usage.calls
    table(
        "B6: what a change costs, two steps of 1,000 rows (aim: 0; step two alone)",
        ("change", "calls of step one", "calls of step two"),
        [("the parser (both steps run anew)", *(2 * (parser,))), ("the prompt of step two", one, two)],
    )


FAULTS: dict[str, dict[str, object]] = {
    "none": {},
    "5 % HTTP 500": {"error_share": 0.05},
    "30 % HTTP 500": {"error_share": 0.3},
    "bursts of 429": {"burst_every_s": 2.0, "burst_s": 0.3, "retry_after_s": 0.3},
    "2 % never answer": {"never_share": 0.02, "faulty_attempts": 1},
    "one poison row (400)": {"poison": "reply 777:"},
    "malformed JSON, first try of each row": {"malformed_tries": 1},
}


def b7(place: Path) -> None:
    """3,000 rows with faults: every other row is answered."""
    lines = []
    patience = Patience(backoff_s=0.1, request_timeout_s=3.0)
    frame = rows(3000).with_columns(schema=pl.lit(SCHEMA))
    for number, (name, faults) in enumerate(FAULTS.items()):
        with serve(latency_s=0.2, slots=64, **faults) as server:
            done = ask(server, frame, place / str(number), WindowConfig(size=128), patience)
            stats = server.stats()
        ideal = stats["busy_s"] / 64
        lost = ", ".join(done.quarantine.get_column("reason")) if done.answered < 3000 else "none"
        assert set(done.quarantine.get_column("reason").to_list() if done.answered < 3000 else []) <= set(
            Reason
        )
        lines.append(
            (
                name,
                done.answered,
                lost,
                stats["received"],
                f"{done.seconds:.2f}",
                f"{done.seconds / ideal:.2f}",
            )
        )
    # A call that never answers is given up after 3 s: where there are some, the last of them ends the run.
    head = ("faults", "answered", "set aside", "calls", "seconds", "of the slots' own time")
    table(
        "B7: 3,000 rows, 64 slots of 200 ms, faults (aim: every other row, time within 10 % of ideal)",
        head,
        lines,
    )


BENCHES = {"B1": b1, "B2": b2, "B3": b3, "B4": b4, "B5": b5, "B6": b6, "B7": b7}


def warm_up() -> None:
    """Loads Beam and the clients, which a process does once."""
    with serve() as server, tempfile.TemporaryDirectory() as folder:
        ask(server, rows(10), Path(folder))
        raw(server, rows(10), 10)


if __name__ == "__main__":
    warm_up()
    for chosen in sys.argv[1:] or BENCHES:
        with tempfile.TemporaryDirectory() as folder:
            BENCHES[chosen](Path(folder))
