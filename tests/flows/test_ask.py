"""`tilth ask` as a user meets it: a process, a server, a table in, a table out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from loopback import Loopback, expected_answer, serve
from tilth.flows.cli import main
from tilth.flows.progress import Bars, telling
from tilth.transforms.stage import Headway

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ask")]
KEY = "sk-do-not-show-4711"
TEXT = "do-not-tell"
SCHEMA = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": 1, "maximum": 5}, "why": {"type": "string"}},
    "required": ["score", "why"],
}


@pytest.fixture(scope="module")
def running() -> Iterator[Loopback]:
    with serve(api_key=KEY) as server:
        yield server


@pytest.fixture
def server(running: Loopback) -> Loopback:
    running.control(
        poison="",
        error_share=0.0,
        error_status=500,
        latency_s=0.0,
        slots=0,
        malformed_tries=0,
        max_model_len=0,
    )
    running.reset()
    return running


def start(folder: Path, words: list[str], **environment: str) -> subprocess.Popen[str]:
    """A command in `folder`, in a process group of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TILTH_", "PREFECT_"))}
    command = [sys.executable, "-m", "tilth.flows.cli", *words]
    env = {**kept, "COLUMNS": "100", "OPENAI_API_KEY": KEY, **environment}
    return subprocess.Popen(
        command,
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> Any:
        """What it printed as JSON."""
        assert self.code == 0, self.err
        return json.loads(self.out)


def end(process: subprocess.Popen[str]) -> Done:
    """Waits for a command."""
    out, err = process.communicate(timeout=120)
    return Done(process.returncode, out, err)


def tilth(folder: Path, *words: str, **environment: str) -> Done:
    """The same program in this process, which spares the import of Beam."""
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["tilth", *words])
        for name, value in {"COLUMNS": "100", "OPENAI_API_KEY": KEY, **environment}.items():
            patch.setenv(name, value)
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
    return Done(ended.value.code if isinstance(ended.value.code, int) else 0, out.getvalue(), err.getvalue())


def words(server: Loopback, *more: str, prompt: str = "Judge {{ text }}") -> list[str]:
    """The command line that all tests begin with."""
    asked = ["ask", "-i", "rows.parquet", "-o", "out.parquet", "-p", prompt]
    return [*asked, "-m", "loopback", "--base-url", server.url, *more, "--json"]


def ask(folder: Path, server: Loopback, *more: str, **options: str) -> Done:
    """Runs `tilth ask` to its end."""
    return tilth(folder, *words(server, *more, **options))


def table(folder: Path, count: int = 30, name: str = "rows.parquet") -> pl.DataFrame:
    """A table with unlike rows."""
    texts = [f"{TEXT} number {n}." for n in range(count)]
    frame = pl.DataFrame({"n": range(count), "text": texts})
    frame.write_parquet(folder / name)
    return frame


def calls(server: Loopback) -> int:
    return int(server.stats()["received"])


def test_a_table_in_a_table_out(tmp_path: Path, server: Loopback) -> None:
    """The output is the input, row for row, with each row's own answer; the result counts what was used."""
    rows = table(tmp_path)
    result = ask(tmp_path, server).result
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out.select(rows.columns).equals(rows)
    added = ["completion", "finish_reason", "prompt_tokens", "completion_tokens", "model"]
    assert out.columns == [*rows.columns, *added]
    assert out["completion"].n_unique() == 30
    assert (result["status"], result["rows_in"], result["rows_out"], result["quarantine"]) == (
        "written",
        30,
        30,
        None,
    )
    used = result["usage"]
    assert (used["sitting"]["calls"], used["run"]["calls"], calls(server)) == (30, 30, 30)
    assert used["sitting"]["prompt_tokens"] == out["prompt_tokens"].sum()
    assert used["run"]["completion_tokens"] == out["completion_tokens"].sum()
    assert used["sitting"]["cost"] is None
    assert used["sitting"]["tokens_per_s"] > 0
    assert set(result["seconds"]) == {"read", "render", "ask", "write"}


def test_the_same_command_again_asks_nothing(tmp_path: Path, server: Loopback) -> None:
    """Unchanged is said; a lost output is written again from the cache; how hard to push makes no other run."""
    table(tmp_path)
    first = ask(tmp_path, server).result
    before = (tmp_path / "out.parquet").read_bytes()
    again = ask(tmp_path, server, "--set", "worker.window.size=3", "--max-calls", "99").result
    assert (again["status"], again["run_id"], again["seconds"]) == ("unchanged", first["run_id"], {})
    assert again["usage"]["run"] == first["usage"]["run"]
    (tmp_path / "out.parquet").unlink()
    assert ask(tmp_path, server).result["usage"]["sitting"]["hits"] == 30
    assert (tmp_path / "out.parquet").read_bytes() == before
    assert calls(server) == 30


def test_one_row_edited_is_one_call(tmp_path: Path, server: Loopback) -> None:
    """An edit of a row or a move of rows asks only what is new, and the output is fresh."""
    rows = table(tmp_path)
    first = ask(tmp_path, server).result
    edited = rows.with_columns(text=pl.when(pl.col("n") == 7).then(pl.lit("new")).otherwise("text")).reverse()
    edited.write_parquet(tmp_path / "rows.parquet")
    result = ask(tmp_path, server).result
    assert result["run_id"] != first["run_id"]
    assert (result["usage"]["sitting"]["calls"], result["usage"]["sitting"]["hits"]) == (1, 29)
    assert pl.read_parquet(tmp_path / "out.parquet")["text"].to_list() == edited["text"].to_list()
    assert calls(server) == 31


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path, server: Loopback) -> None:
    """After kill -9 no finished row is asked again, and the output equals that of an undisturbed run."""
    rows = table(tmp_path, 200)
    server.control(latency_s=0.05, slots=4)
    process = start(tmp_path, words(server, "--set", "worker.window.size=4"))
    deadline = time.monotonic() + 60
    while server.stats()["finished"] < 60:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    end(process)
    server.control(latency_s=0.0, slots=0)
    result = ask(tmp_path, server).result
    assert (
        calls(server) <= 220
    )  # 4 were in flight; a flush window of 50 ms is 4 more, on a busy machine a few
    assert result["rows_out"] == 200
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out.select(rows.columns).equals(rows)
    assert out["completion"].n_unique() == 200


def test_answers_by_a_schema(tmp_path: Path, server: Loopback) -> None:
    """Each answer fits the schema and is there as text and as a struct; what did not fit was asked again."""
    table(tmp_path, 10)
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    server.control(malformed_tries=1)
    result = ask(tmp_path, server, "--schema", "schema.json").result
    assert result["usage"]["sitting"]["reasked"] == 10
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert [json.loads(text) for text in out["completion"]] == out["answer"].to_list()
    assert out["answer"].struct.field("score").is_between(1, 5).all()


def test_choices_samples_and_probabilities(tmp_path: Path, server: Loopback) -> None:
    """Each sample is a row; probabilities of the choices have sum 1 and say where they are from."""
    rows = table(tmp_path, 10)
    more = ["--choices", "yes, no", "--samples", "3", "--temperature", "1", "--probabilities", "--seed", "5"]
    result = ask(tmp_path, server, *more).result
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert (result["samples"], result["rows_out"]) == (3, 30)
    assert out.select("n", "sample_index").rows() == [(n, k) for n in rows["n"] for k in range(3)]
    assert set(out["completion"]) == {"yes", "no"}
    chances = out["choice_probabilities"].struct.unnest()
    assert chances.columns == ["yes", "no"]
    assert ((chances["yes"] + chances["no"] - 1).abs() < 1e-9).all()
    assert set(out["probabilities_from"]) == {"logprobs"}
    assert calls(server) == 30


def test_equal_rows_are_asked_once(tmp_path: Path, server: Loopback) -> None:
    """Rows that ask the same share one call, in the forecast and in the run, and each keeps its place."""
    texts = ["a", "b", "a", "a"]
    pl.DataFrame({"n": range(4), "text": texts}).write_parquet(tmp_path / "rows.parquet")
    seen = ask(tmp_path, server, "--dry-run").result
    used = ask(tmp_path, server).result["usage"]["sitting"]
    assert (seen["calls"], seen["shared"]) == (used["calls"], used["shared"]) == (2, 2)
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out["n"].to_list() == [0, 1, 2, 3]
    assert out["completion"][0] == out["completion"][2] != out["completion"][1]


def test_a_cap_stops_cleanly_and_a_higher_one_goes_on(tmp_path: Path, server: Loopback) -> None:
    """Exit code 75; the calls of all sittings together are exactly those of one run without a cap."""
    table(tmp_path)
    stopped = ask(tmp_path, server, "--max-calls", "10")
    assert (stopped.code, calls(server)) == (75, 10)
    assert json.loads(stopped.out)["error"] == "CapReached"
    assert "raise --max-calls" in stopped.err
    assert not (tmp_path / "out.parquet").exists()
    assert ask(tmp_path, server, "--max-calls", "10").code == 75
    assert calls(server) == 10
    result = ask(tmp_path, server, "--max-calls", "40").result
    assert (result["usage"]["sitting"]["calls"], result["usage"]["run"]["calls"]) == (20, 30)
    assert calls(server) == 30


@pytest.mark.parametrize("cap", [["--max-tokens", "500"], ["--max-cost", "0.0005"]])
def test_tokens_and_cost_are_capped_too(tmp_path: Path, server: Loopback, cap: list[str]) -> None:
    """Both are counted over all sittings, by the settings' prices."""
    table(tmp_path)
    prices = ["--set", "prices.prompt=1", "--set", "prices.completion=1", "--set", "worker.window.size=2"]
    assert ask(tmp_path, server, *prices, *cap).code == 75
    assert 0 < calls(server) < 30
    assert ask(tmp_path, server, *prices).result["usage"]["run"]["cost"] > 0.0005
    assert calls(server) == 30


def test_the_forecast_is_what_the_run_then_uses(tmp_path: Path, server: Loopback) -> None:
    """A dry run asks nothing, and its calls and hits are those of the run; after a sitting it knows rate and length."""
    rows = table(tmp_path)
    seen = ask(tmp_path, server, "--dry-run").result
    assert (calls(server), (tmp_path / "out.parquet").exists()) == (0, False)
    assert (seen["status"], seen["rows_in"], seen["requests"], seen["calls"], seen["hits"]) == (
        "forecast",
        30,
        30,
        30,
        0,
    )
    assert (seen["cost_most"], seen["tokens_per_s"], seen["exact"]) == (None, None, False)
    used = ask(tmp_path, server).result
    assert used["run_id"] == seen["run_id"]
    assert (used["usage"]["sitting"]["calls"], used["usage"]["sitting"]["hits"]) == (30, 0)
    assert used["usage"]["sitting"]["completion_tokens"] <= seen["completion_tokens_most"]
    more = pl.concat([rows, rows.with_columns(text=pl.col("text") + " more")])
    more.write_parquet(tmp_path / "rows.parquet")
    priced = ["--set", "prices.completion=1000000", "--max-calls", "20"]
    again = ask(tmp_path, server, "--dry-run", *priced).result
    assert (again["calls"], again["hits"], again["stops_at"]) == (30, 30, "--max-calls")
    assert again["completion_tokens_expected"] == 30 * 12
    assert again["cost_expected"] == 360
    assert again["seconds_expected"] > 0
    after = ask(tmp_path, server).result["usage"]["sitting"]
    assert (after["calls"], after["hits"], after["completion_tokens"]) == (30, 30, 360)


def test_the_forecast_of_a_stopped_run_is_what_is_left(tmp_path: Path, server: Loopback) -> None:
    """Rows that were answered before the stop are hits."""
    table(tmp_path)
    assert ask(tmp_path, server, "--max-calls", "10").code == 75
    left = ask(tmp_path, server, "--dry-run").result
    assert (left["calls"], left["hits"]) == (20, 10)


def test_a_poison_row_is_one_row_and_can_be_asked_again(tmp_path: Path, server: Loopback) -> None:
    """It stands in the quarantine with its reason; --retry-failed asks for it alone, and the quarantine goes."""
    rows = table(tmp_path)
    server.control(poison="number 7.")
    result = ask(tmp_path, server).result
    assert (result["rows_out"], result["rows_quarantined"], result["quarantined"]) == (
        29,
        1,
        {"request_refused": 1},
    )
    aside = pl.read_parquet(tmp_path / result["quarantine"])
    assert aside["n"].to_list() == [7]
    assert aside["quarantine_reason"].to_list() == ["request_refused"]
    assert ask(tmp_path, server).result["status"] == "unchanged"
    asked = calls(server)
    server.control(poison="")
    result = ask(tmp_path, server, "--retry-failed").result
    assert (result["status"], result["rows_out"], calls(server)) == ("written", 30, asked + 1)
    assert not (tmp_path / "out.quarantine.parquet").exists()
    assert pl.read_parquet(tmp_path / "out.parquet")["n"].to_list() == rows["n"].to_list()
    assert ask(tmp_path, server, "--retry-failed").result["status"] == "unchanged"


def test_too_many_rows_without_an_answer_fail_the_run(tmp_path: Path, server: Loopback) -> None:
    """Nothing is written above the share that is allowed; what was answered is kept."""
    table(tmp_path)
    server.control(poison="number 1")
    failed = ask(tmp_path, server)
    assert failed.code == 1
    assert json.loads(failed.out)["error"] == "QuarantineOverflow"
    assert "request_refused: 11" in failed.err
    assert not (tmp_path / "out.parquet").exists()
    asked = calls(server)
    result = ask(tmp_path, server, "--set", "max_quarantine_share=0.5").result
    assert (result["rows_out"], result["rows_quarantined"], calls(server)) == (19, 11, asked)
    assert result["usage"]["sitting"]["calls"] == 0


def test_a_run_that_failed_asks_again_only_what_failed(tmp_path: Path, server: Loopback) -> None:
    """After too many rows were set aside, --retry-failed asks for them alone."""
    table(tmp_path)
    server.control(poison="number 1")
    assert ask(tmp_path, server).code == 1
    asked = calls(server)
    server.control(poison="")
    seen = ask(tmp_path, server, "--retry-failed", "--dry-run").result
    result = ask(tmp_path, server, "--retry-failed").result
    assert (result["rows_out"], result["quarantine"], calls(server)) == (30, None, asked + 11)
    assert (seen["calls"], seen["hits"]) == (11, 19)


def test_a_server_that_fails_everything_stops_the_run_early(tmp_path: Path, server: Loopback) -> None:
    """The cause is named, and not every row is tried."""
    table(tmp_path, 500)
    server.control(error_share=1.0, error_status=422)
    failed = ask(tmp_path, server)
    assert failed.code == 1
    assert "422" in failed.err
    assert calls(server) < 400


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_other_forms_and_a_key_column(tmp_path: Path, server: Loopback, name: str) -> None:
    """JSONL and CSV in, JSONL out; the output stands beside the input when none is named."""
    rows = pl.DataFrame({"id": ["x", "y"], "text": ["one", "two"]})
    rows.write_csv(tmp_path / name) if name.endswith("csv") else rows.write_ndjson(tmp_path / name)
    base = [
        "ask",
        "-i",
        name,
        "-p",
        "{{ text }}",
        "-m",
        "loopback",
        "--base-url",
        server.url,
        "--key",
        "id",
        "--json",
    ]
    assert tilth(tmp_path, *base).result["output"] == "rows.answers.parquet"
    assert tilth(tmp_path, *base, "-o", "out.jsonl").result["rows_out"] == 2
    out = pl.read_ndjson(tmp_path / "out.jsonl")
    assert out.equals(
        pl.read_parquet(tmp_path / "rows.answers.parquet").with_columns(pl.col(pl.Int32).cast(pl.Int64))
    )
    assert out["id"].to_list() == ["x", "y"]


def test_a_prompt_file_with_sections(tmp_path: Path, server: Loopback) -> None:
    """A template file of a step and a bare template both do; the values are delimited, so a row cannot give orders."""
    table(tmp_path, 1)
    sections = (
        "---\nid: judge\nversion: 1\n---\n=== system ===\nBe brief.\n\n=== user ===\nJudge {{ text }}\n"
    )
    (tmp_path / "sections.txt").write_text(sections)
    (tmp_path / "bare.txt").write_text("Judge {{ text }}")
    base = ["ask", "-i", "rows.parquet", "-m", "loopback", "--base-url", server.url, "--json"]
    runs = [
        tilth(tmp_path, *base, "--prompt-file", name).result["run_id"]
        for name in ("sections.txt", "bare.txt")
    ]
    assert len(set(runs)) == 2
    assert calls(server) == 2


@pytest.mark.parametrize(
    ("more", "code", "told"),
    [
        (["-p", "Judge {{ txt }}"], 2, "one of n, text"),
        (["-p", "Judge {{ text"], 2, "line 1"),
        (["--key", "uid"], 2, "one of n, text"),
        (["-i", "nowhere.parquet"], 1, "nowhere.parquet"),
        (["-i", "rows.xlsx"], 2, ".parquet, .jsonl"),
        (["-i", "taken.parquet"], 2, "completion"),
        (["-i", "none.parquet"], 1, "no rows"),
        (["-o", "rows.parquet"], 2, "replace the input"),
        (["-o", "out.csv"], 2, ".parquet, .jsonl"),
        (["--schema", "broken.json"], 2, "JSON"),
        (["--schema", "nowhere.json"], 1, "nowhere.json"),
        (["--schema", "schema.json", "--choices", "a,b"], 2, "one of them"),
        (["--samples", "2"], 2, "temperature"),
        (["--probabilities"], 2, "choices"),
        (["--prompt-file", "schema.json"], 2, "--prompt or --prompt-file"),
        (["--engine", "vlm"], 2, "vllm or openai"),
        (["--set", "engine.modl=x"], 2, "engine.model"),
    ],
)
def test_mistakes_are_told_before_anything_is_asked(
    tmp_path: Path, server: Loopback, more: list[str], code: int, told: str
) -> None:
    """Each gets a message that names the thing, its exit code, no traceback, and makes no call."""
    rows = table(tmp_path, 3)
    rows.with_columns(completion=pl.lit("")).write_parquet(tmp_path / "taken.parquet")
    rows.clear().write_parquet(tmp_path / "none.parquet")
    (tmp_path / "broken.json").write_text('{"type": "objet"}')
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    done = ask(tmp_path, server, *more)
    assert done.code == code, done.err
    assert told in done.err
    assert "Traceback" not in done.err
    assert json.loads(done.out)["message"]
    assert calls(server) == 0


def test_a_missing_key_and_a_wrong_one_are_told_without_showing_one(tmp_path: Path, server: Loopback) -> None:
    """The variable is named; a refused key stops the run at once."""
    table(tmp_path, 5)
    refused = tilth(tmp_path, *words(server), OPENAI_API_KEY="sk-wrong-0815")
    assert refused.code == 1
    assert "key" in refused.err.lower()
    assert "sk-wrong-0815" not in refused.out + refused.err
    missing = ask(tmp_path, server, "--set", "engine.api_key_env=NO_SUCH_VARIABLE")
    assert missing.code != 0


def test_neither_key_nor_text_leaks(tmp_path: Path, server: Loopback) -> None:
    """The key is in no file; text of rows is in tables and the cache of answers alone, never in what is printed."""
    table(tmp_path)
    server.control(poison="number 7.")
    printed = ""
    for more in (["--dry-run"], ["--max-calls", "5"], [], ["--retry-failed"], ["--key", "text"]):
        done = ask(tmp_path, server, *more, "--set", "keep_stages=true")
        shown = start(tmp_path, [word for word in words(server, *more) if word != "--json"])
        told = end(shown)
        printed += done.out + done.err + told.out + told.err
    files = [path for path in (tmp_path / "tilth-workspace").rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    others = [path for path in files if path.suffix not in {".parquet"} and "answers.sqlite" not in path.name]
    assert not [path for path in others if TEXT.encode() in path.read_bytes()]
    assert KEY not in printed
    assert TEXT not in printed


def test_what_people_see(tmp_path: Path, server: Loopback) -> None:
    """Tables in words, no bar where nobody looks; a forecast says what it does not know."""
    table(tmp_path)
    base = [word for word in words(server) if word != "--json"]
    seen = tilth(tmp_path, *base, "--dry-run")
    assert "no prices set" in seen.out
    assert "not measured yet" in seen.out
    assert "an estimate" in seen.out
    done = tilth(tmp_path, *base)
    assert "30 answered, 0 set aside" in done.out
    assert "tokens/s" in done.out
    assert done.err == ""
    assert "nothing to do" in tilth(tmp_path, *base).out


def test_the_cache_can_be_looked_at_and_pruned(tmp_path: Path, server: Loopback) -> None:
    """stats and prune work on the cache that runs use; what is gone is asked again."""
    table(tmp_path)
    ask(tmp_path, server).result  # noqa: B018  (asserts)
    assert tilth(tmp_path, "cache", "stats", "--json").result["answers"] == 30
    prune = ["cache", "prune", "--model", "loopback", "--json"]
    assert tilth(tmp_path, *prune, "--dry-run").result["answers"] == 30
    assert tilth(tmp_path, *prune).result["removed"] is True
    assert tilth(tmp_path, "cache", "stats", "--json").result["answers"] == 0
    assert "--older-than" in tilth(tmp_path, "cache", "prune").err


def test_a_dry_run_of_observed_reads_and_asks_nothing(tmp_path: Path) -> None:
    """It names sources with shape and size, says that no model is asked, and leaves no trace."""
    log = Path(__file__).resolve().parents[2] / "samples" / "logs" / "support.openai.jsonl"
    seen = tilth(tmp_path, "run", "observed", "-s", str(log), "--dry-run", "--json").result
    assert seen["sources"] == [{"source": str(log), "shape": "openai", "bytes": log.stat().st_size}]
    assert (seen["calls"], seen["model"]) == (0, None)
    assert list(tmp_path.iterdir()) == []


def test_the_answers_are_the_servers_own(tmp_path: Path, server: Loopback) -> None:
    """What stands beside a row is what the server answers to that row's very messages."""
    from tilth.transforms.inference.prompts import Prompt

    rows = table(tmp_path, 5)
    ask(tmp_path, server).result  # noqa: B018  (asserts)
    prompt = Prompt.of("ask", "1", user="Judge {{ text }}")
    wanted = [expected_answer(prompt.render(row)) for row in rows.iter_rows(named=True)]
    assert pl.read_parquet(tmp_path / "out.parquet")["completion"].to_list() == wanted


NOTE: dict[str, Any] = {
    "rows": 50,
    "hits": 10,
    "prompt_tokens": 900,
    "completion_tokens": 100,
    "seconds": 4.0,
    "in_flight": 8,
    "cost": 1.5,
}


def test_progress_tells_rows_time_left_speed_and_cost() -> None:
    """The bar of a stage that asks counts rows; beside it stands what the lanes say of themselves."""
    told = telling(Headway("ask", 100, 180, (NOTE, NOTE)))
    assert told == "0:00:04 left, 500 tokens/s, 16 in flight, cost 3.00"
    assert "cost" not in telling(Headway("ask", 50, 50, ({**NOTE, "cost": 0.0},)))
    assert telling(Headway("render", 1, 2)) == ""


@pytest.mark.parametrize("person", [True, False])
def test_a_bar_is_for_people_only(person: bool) -> None:
    """Where nobody looks, nothing is drawn."""
    drawn = StringIO()
    with Bars(enabled=True, console=Console(file=drawn, force_terminal=person, width=120)) as bars:
        bars.update(Headway("ask", 100, 180, (NOTE, NOTE)))
    assert ("100/180" in drawn.getvalue()) == ("500 tokens/s" in drawn.getvalue()) == person
    assert bool(drawn.getvalue()) == person
