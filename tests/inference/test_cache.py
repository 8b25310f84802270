"""The cache of answers keeps every promise of its docstrings, on SQLite and on PostgreSQL."""

from __future__ import annotations

import pickle
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tilth.schemas import BadInput, ConfigError, NotFound, TilthError
from tilth.transforms.inference.cache import FLUSH_S, CompletionCache
from tilth.transforms.inference.requests import Completion
from tilth.transforms.inference.usage import Usage

pytestmark = pytest.mark.slow  # servers, processes and databases are started

ANSWER = Completion("yes", "stop", 11, 1)
SECRET = "said by nobody else 4711"
# A commit that begins in time may take its time on a busy machine.
MARGIN_S = 0.45
DAY_S = 86_400
_FRESH = (f"{number:032x}" for number in count())


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new, empty database, of each kind in turn."""
    if request.param == "sqlite":
        return _sqlite(tmp_path)
    return request.getfixturevalue("postgres").url()


def _sqlite(folder: Path) -> str:
    return f"sqlite:///{folder}/made/on/the/way/cache.sqlite"


def _file(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def _answer(text: str) -> Completion:
    return Completion(text, "stop", 11, 1)


def _keys(number: int) -> list[str]:
    return [next(_FRESH) for _ in range(number)]


def _execute(url: str, statement: str) -> int:
    """Changes the database behind the cache's back; returns how many rows."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        return connection.execute(sa.text(statement)).rowcount


def _age(url: str, seconds: float, where: str = "1 = 1") -> None:
    moved = f"update tilth_cache_answers set used_at = used_at - {int(seconds)} where {where}"
    assert _execute(url, moved)


def _child(code: str, *args: str) -> subprocess.Popen[str]:
    """A process that runs this code with a cache open at its first argument."""
    start = (
        "import sys, time, os, itertools\n"
        "from tilth.transforms.inference.cache import CompletionCache\n"
        "from tilth.transforms.inference.requests import Completion\n"
        "from tilth.transforms.inference.usage import Usage\n"
        "answer = Completion('yes', 'stop', 11, 1)\n"
        "cache = CompletionCache(sys.argv[1])\n"
    )
    return subprocess.Popen([sys.executable, "-c", start + code, *args], stdout=subprocess.PIPE, text=True)


def _killed(child: subprocess.Popen[str], after_s: float) -> tuple[list[list[str]], float]:
    """What a child had reported, word by word, when it was killed so long after its first report; and when that was."""
    assert child.stdout is not None
    lines = [child.stdout.readline()]
    until = time.monotonic() + after_s
    while time.monotonic() < until:
        lines.append(child.stdout.readline())
    killed_at = time.monotonic()
    child.kill()
    lines += child.stdout.readlines()
    child.wait()
    child.stdout.close()
    return [line.split() for line in lines if line.endswith("\n")], killed_at


@contextmanager
def _locked(url: str) -> Generator[None]:
    """Another process's transaction is writing, and does not end."""
    with closing(sqlite3.connect(_file(url), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def _wait_for(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not claim():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


def _printed(error: BaseException) -> str:
    return repr(error) + str(error) + "".join(traceback.format_exception(error))


# answers

# By chance alone, NUL and lone surrogates come too seldom.
ANY_TEXT = st.text(st.characters() | st.sampled_from("\0\ud800\udfff\ud83d\ude00'\\"))
LOGPROBS = st.none() | st.lists(st.floats(), max_size=4).map(tuple)
COUNTS = st.integers(0, 2**40)
COMPLETIONS = st.builds(Completion, ANY_TEXT, ANY_TEXT, COUNTS, COUNTS, LOGPROBS)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(completions=st.lists(COMPLETIONS, max_size=20))
def test_answers_come_back_as_they_were_put(url: str, completions: list[Completion]) -> None:
    """Any text, any log-probabilities: what is read equals what was put, before the commit and after it."""
    put = dict(zip(_keys(len(completions)), completions, strict=True))
    with CompletionCache(url) as cache:
        for key, completion in put.items():
            cache.put(key, "m@1", completion)
        assert repr(sorted(cache.get_many(list(put)).items())) == repr(sorted(put.items()))  # NaN is not NaN
    with CompletionCache(url) as cache:
        assert repr(sorted(cache.get_many(list(put)).items())) == repr(sorted(put.items()))


def test_the_first_answer_under_a_key_stays(url: str) -> None:
    """Later answers are ignored: while the first is queued, when it is committed, and from another object."""
    with CompletionCache(url) as cache, CompletionCache(url) as other:
        cache.put("k", "m@1", _answer("first"))
        cache.put("k", "m@1", _answer("second"))
        assert cache.get_many(["k"])["k"].text == "first"
        cache.flush()
        other.put("k", "m@1", _answer("third"))
        assert other.get_many(["k"])["k"].text == "first"
        other.flush()
        assert cache.get_many(["k"])["k"].text == other.get_many(["k"])["k"].text == "first"


def test_what_was_put_is_there_at_once(url: str) -> None:
    """No moment between put and commit at which an answer cannot be seen."""
    with CompletionCache(url) as cache:
        for key in _keys(2_000):
            cache.put(key, "m@1", ANSWER)
            assert cache.get_many([key, "other"]) == {key: ANSWER}


def test_many_keys_are_read_at_once(url: str) -> None:
    """20,000 keys, half of them there, some asked twice: more than a statement of SQLite takes parameters."""
    keys = _keys(20_000)
    with CompletionCache(url) as cache:
        for key in keys[::2]:
            cache.put(key, "m@1", ANSWER)
        cache.flush()
        assert set(cache.get_many([*keys, *keys[:100]])) == set(keys[::2])
        assert cache.get_many([]) == {}


def test_no_put_is_lost_between_threads(url: str) -> None:
    """Eight threads that put and charge at once: everything is there, every charge counts once."""
    keys = [_keys(1_000) for _ in range(8)]

    def work(mine: list[str]) -> None:
        for key in mine:
            cache.put(key, "m@1", ANSWER)
            cache.charge("run", Usage(calls=1, failures={"timed_out": 2}))

    with CompletionCache(url) as cache:
        threads = [threading.Thread(target=work, args=[mine]) for mine in keys]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert cache.spent("run") == Usage(calls=8_000, failures={"timed_out": 16_000})
    with CompletionCache(url) as cache:
        assert len(cache.get_many([key for mine in keys for key in mine])) == 8_000


def test_a_put_that_returned_is_kept_by_a_close_elsewhere(url: str) -> None:
    """One thread closes while others put: each put is either kept or refused."""
    kept: list[list[str]] = [[] for _ in range(4)]

    def work(mine: list[str]) -> None:
        with suppress(TilthError):
            for key in (f"{id(mine)}-{number}" for number in count()):
                cache.put(key, "m@1", ANSWER)
                mine.append(key)

    cache = CompletionCache(url)
    threads = [threading.Thread(target=work, args=[mine]) for mine in kept]
    for thread in threads:
        thread.start()
    _wait_for(lambda: all(len(mine) > 100 for mine in kept))
    cache.close()
    for thread in threads:
        thread.join()
    with CompletionCache(url) as again:
        assert again.stats().rows == sum(len(mine) for mine in kept)


def test_names_that_no_database_takes_are_refused(url: str) -> None:
    """A key or model with NUL or a lone surrogate is the caller's error, and the writer lives on."""
    with CompletionCache(url) as cache:
        for name in ("a\0b", "a\ud800b"):
            with pytest.raises(BadInput):
                cache.put(name, "m@1", ANSWER)
            with pytest.raises(BadInput):
                cache.put("k", name, ANSWER)
        cache.put("k", "modèle@1", ANSWER)
        cache.flush()


# durability


def test_a_killed_process_keeps_what_it_put(url: str) -> None:
    """After kill -9, every answer put longer ago than the flush window is there."""
    put = "for i in itertools.count():\n cache.put(f'{i}', 'm@1', answer)\n print(i, time.monotonic(), flush=True)\n"
    reports, killed_at = _killed(_child(put + " time.sleep(0.0005)", url), 1.0)
    due = [key for key, at in reports if float(at) < killed_at - FLUSH_S - MARGIN_S]
    assert due
    with CompletionCache(url) as cache:
        assert set(cache.get_many(due)) == set(due)


def test_an_answer_and_its_charge_are_one_commit(url: str) -> None:
    """Whenever the process is killed, as many answers are charged as are there."""
    code = (
        "for i in itertools.count():\n"
        " cache.put(f'{os.getpid()}-{i}', 'm@1', answer, charge=('run', Usage(calls=1)))\n"
        " print(i, time.sleep(0.0001), flush=True)"
    )
    for after_s in (0.5, 0.62, 0.77):
        reports, _ = _killed(_child(code, url), after_s)
        assert reports
        with CompletionCache(url) as cache:
            assert cache.stats().rows == cache.spent("run").calls > 0


def test_a_charge_is_never_there_before_its_answers(url: str) -> None:
    """A charge that was committed has the answers put before it with it."""
    code = (
        "for i in itertools.count():\n"
        " cache.put(f'{os.getpid()}-{i}', 'm@1', answer)\n"
        " cache.charge('run', Usage(calls=1))\n"
        " print(i, time.sleep(0.0001), flush=True)"
    )
    for after_s in (0.53, 0.71):
        _killed(_child(code, url), after_s)
        with CompletionCache(url) as cache:
            assert cache.stats().rows >= cache.spent("run").calls > 0


def test_processes_share_one_database(url: str) -> None:
    """Three processes open a new database at once and write overlapping keys in different orders: nothing is lost."""
    code = (
        "keys = [f'{i:05}' for i in range(6000)]\n"
        "for i, key in enumerate(keys[::int(sys.argv[2])]):\n"
        " cache.put(key, 'm@1', answer)\n"
        " cache.put(f'{sys.argv[2]}-{i}', 'm@1', answer, charge=(f'run', Usage(calls=1, failures={'timed_out': 1})))\n"
        "cache.close(); print('done')"
    )
    children = [_child(code, url, step) for step in ("1", "-1", "2")]
    assert [child.communicate(timeout=120)[0] for child in children] == ["done\n"] * 3
    with CompletionCache(url) as cache:
        assert cache.stats().rows == 6_000 + 15_000
        assert cache.spent("run") == Usage(calls=15_000, failures={"timed_out": 15_000})


def test_an_unclosed_cache_loses_nothing(url: str) -> None:
    """A process that ends without a close, by an error even, has committed what it put."""
    child = _child("cache.put('k', 'm@1', answer); print('put'); sys.exit(3)", url)
    assert child.communicate(timeout=60)[0] == "put\n"
    cache = CompletionCache(url)
    assert cache.get_many(["k"]) == {"k": ANSWER}
    cache.put("forgotten", "m@1", ANSWER)
    del cache
    with CompletionCache(url) as again:
        assert again.get_many(["forgotten"])


def test_usage_adds_up_over_sittings(url: str) -> None:
    """Every count of `Usage` comes back, summed per run; an unknown run has spent nothing."""
    one = Usage(1, 2, 3, 4, 5, 6, {"timed_out": 7, "server_error": 1}, 2**40, 9)
    with CompletionCache(url) as cache:
        cache.charge("a", one)
        one.rows = 1_000  # belongs to the caller again
    with CompletionCache(url) as cache:
        cache.charge("a", Usage(rows=1, failures={"timed_out": 1}))
        cache.charge("b", Usage())
        spent = cache.spent("a")
        assert spent == Usage(2, 2, 3, 4, 5, 6, {"timed_out": 8, "server_error": 1}, 2**40, 9)
        assert cache.spent("b") == cache.spent("c") == Usage()


# the writer


def test_put_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    """While another process holds the write lock, 10,000 puts return; later all of them are there."""
    url = _sqlite(tmp_path)
    with CompletionCache(url) as cache:
        keys = _keys(10_000)
        with _locked(url):
            started = time.monotonic()
            for key in keys:
                cache.put(key, "m@1", ANSWER)
            assert len(cache.get_many(keys)) == 10_000
            assert time.monotonic() - started < 5  # 30 s and an error if it waited for the lock
        cache.flush()
        assert cache.stats().rows == 10_000


def test_the_queue_is_bounded(tmp_path: Path) -> None:
    """When 50,000 answers wait, put waits too, and goes on when the database does."""
    url, keys, done = _sqlite(tmp_path), _keys(80_000), [0]

    def work() -> None:
        for key in keys:
            cache.put(key, "m@1", ANSWER)
            done[0] += 1

    with CompletionCache(url) as cache:
        thread = threading.Thread(target=work)
        with _locked(url):
            thread.start()
            _wait_for(lambda: done[0] >= 50_000)
            thread.join(0.5)
            assert done[0] < 70_000
        thread.join()
        assert cache.stats().rows == 80_000


def _break(url: str) -> None:
    _execute(url, "drop table tilth_cache_answers")


CALLS: dict[str, Callable[[CompletionCache], object]] = {
    "put": lambda cache: cache.put("next", "m@1", ANSWER),
    "charge": lambda cache: cache.charge("run", Usage(calls=1)),
    "flush": lambda cache: cache.flush(),
    "get_many": lambda cache: cache.get_many(["other"]),
    "spent": lambda cache: cache.spent("run"),
    "close": lambda cache: cache.close(),
}


@pytest.mark.parametrize("call", CALLS)
def test_what_the_writer_met_is_raised(url: str, call: str) -> None:
    """After a failed commit every call says so and what to do, without a word of the answers."""
    cache = CompletionCache(url)
    _break(url)
    cache.put("k", "m@1", _answer(SECRET))
    with pytest.raises(TilthError):
        cache.flush()
    with pytest.raises(TilthError) as caught:
        CALLS[call](cache)
    assert caught.value.do
    assert SECRET not in _printed(caught.value)
    if call != "close":
        with pytest.raises(TilthError, match="failed"):
            cache.close()
    cache.close()


def test_close_raises_what_the_last_commit_met(url: str) -> None:
    """An answer that only the close could write is not lost in silence; another error on its way out carries it."""

    def fail(error: Exception | None) -> None:
        with CompletionCache(url) as cache:
            _break(url)
            cache.put("k", "m@1", ANSWER)
            if error:
                raise error

    with pytest.raises(TilthError, match="failed"):
        fail(None)
    _execute(url, "drop table tilth_cache_version")
    with pytest.raises(KeyError) as caught:
        fail(KeyError("another"))
    assert "failed" in "".join(caught.value.__notes__)


def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    """A file that cannot grow ends the run with an error; what was committed before stays."""
    code = (
        "import resource\n"
        "from tilth.schemas import TilthError\n"
        "cache.put('first', 'm@1', answer); cache.flush()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n"
        "try:\n"
        " for i in range(100_000): cache.put(f'{i}', 'm@1', Completion('x' * 1000, 'stop', 1, 1))\n"
        " cache.flush()\n"
        "except TilthError as error: print(error); sys.stdout.flush(); os._exit(0)"
    )
    url = _sqlite(tmp_path)
    said = _child(code, url).communicate(timeout=120)[0]
    assert "the cache of answers failed" in said
    assert "do:" in said
    with CompletionCache(url) as cache:
        assert cache.get_many(["first"])


# opening and closing


def test_another_version_is_refused(url: str) -> None:
    """A database of another version is not touched, and the error says what to do."""
    CompletionCache(url).close()
    _execute(url, "update tilth_cache_version set version = 2")
    with pytest.raises(ConfigError, match="version 2") as caught:
        CompletionCache(url)
    assert caught.value.do


def test_nothing_is_made_when_asked_not_to(url: str) -> None:
    """With create=False a database without a cache is `NotFound`, and stays as it is."""
    with pytest.raises(NotFound):
        CompletionCache(url, create=False)
    if url.startswith("sqlite"):
        assert not _file(url).parent.exists()
    CompletionCache(url).close()
    CompletionCache(url, create=False).close()


def test_files_that_are_no_cache_are_refused(tmp_path: Path) -> None:
    """A file of another kind, a folder, and a path through a file are configuration errors."""
    (tmp_path / "notes.txt").write_text("not a database, and long enough to be seen as none " * 100)
    for place in ("notes.txt", "", "notes.txt/deeper/cache.sqlite"):
        with pytest.raises(ConfigError):
            CompletionCache(f"sqlite:///{tmp_path}/{place}")


PASSWORD = "s3cr3t"
WRONG_URLS = [
    f"postgresql://u:{PASSWORD}@127.0.0.1:1/db",
    f"postgresql+psycopg://127.0.0.1:1/db?user=u&password={PASSWORD}",
    f"postgresql://127.0.0.1:1/db?unknown_option={PASSWORD}",
    f"postgresql://u:p@{PASSWORD}@host/db",
    f"postgresql://u:p@h:{PASSWORD}@host/db",
    f"postgresql://u:p@h/{PASSWORD}@host/db",
    f"postgresql+asyncpg://u:{PASSWORD}@host/db",
    f"mysql://u:{PASSWORD}@host/db",
    f"no url {PASSWORD}",
    "sqlite://",
    "sqlite:///file:memdb?mode=memory&uri=true",
]


@pytest.mark.parametrize("wrong", WRONG_URLS, ids=range(len(WRONG_URLS)))
def test_no_error_holds_the_password(wrong: str) -> None:
    """A URL that cannot be used is a configuration error that shows no part of its password."""
    with pytest.raises(ConfigError) as caught:
        CompletionCache(wrong)
    error: BaseException | None = caught.value
    assert PASSWORD not in str(error) + repr(error)
    # The lines of this file are printed too, and hold it.
    assert PASSWORD not in "".join(traceback.format_exception_only(error))
    assert error is not None
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None


def test_a_missing_driver_names_the_extra() -> None:
    """Without psycopg the error says what to install."""
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from tilth.schemas import MissingExtra\n"
        "from tilth.transforms.inference.cache import CompletionCache\n"
        "try: CompletionCache('postgresql://u:secret@localhost/db')\n"
        "except MissingExtra as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'tilth[postgres]'" in done.stdout
    assert "secret" not in done.stdout


def test_a_closed_cache_says_so(url: str) -> None:
    """Closing twice is fine; using it afterwards is an error."""
    with CompletionCache(url) as cache:
        cache.put("k", "m@1", ANSWER)
    cache.close()
    with pytest.raises(TilthError, match="closed"):
        cache.put("k", "m@1", ANSWER)
    with pytest.raises(TilthError, match="closed"):
        cache.get_many(["k"])


def test_it_stays_in_its_process(url: str) -> None:
    """It is neither pickled nor used after a fork, where no thread would write."""
    with CompletionCache(url) as cache, pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(cache)
    code = (
        "import threading\n"
        "from tilth.schemas import TilthError\n"
        # The worst moment to fork: another thread has the lock, and the child never gets it.
        "held = threading.Event()\n"
        "hold = lambda: (cache._writer._lock.acquire(), held.set(), threading.Event().wait())\n"
        "threading.Thread(target=hold, daemon=True).start()\n"
        "held.wait()\n"
        "child = os.fork()\n"
        "if child: os.waitpid(child, 0); os._exit(0)\n"
        "try: cache.put('k', 'm@1', answer)\n"
        "except TilthError as error: print(error.what)\n"
        # Its ordinary end must not wait for a writer that it does not have.
    )
    assert "another process" in _child(code, url).communicate(timeout=60)[0]


# stats and prune


def test_stats_count_by_model(url: str) -> None:
    """Rows, bytes, tokens and times of each model, the largest first; an empty cache has none."""
    with CompletionCache(url) as cache:
        assert (cache.stats().rows, cache.stats().bytes, cache.stats().identities) == (0, 0, ())
        before = int(time.time())
        for key in _keys(3):
            cache.put(key, "small@1", ANSWER)
        cache.put("k", "large@1", Completion("x" * 5_000, "stop", 100, 50))
        stats = cache.stats()
        large, small = stats.identities
        assert (stats.rows, stats.bytes) == (4, large.bytes + small.bytes)
        assert (large.identity, large.rows, large.prompt_tokens, large.completion_tokens) == (
            "large@1",
            1,
            100,
            50,
        )
        assert (small.identity, small.rows, small.prompt_tokens, small.completion_tokens) == (
            "small@1",
            3,
            33,
            3,
        )
        assert 5_000 < large.bytes < 5_400
        assert stats.disk_bytes > 0
        assert before <= small.created_at <= small.used_at <= time.time()


def test_a_use_is_noted_once_a_day(url: str) -> None:
    """Reading an answer renews its time of last use when that is over a day ago, and writes nothing else."""
    with CompletionCache(url) as cache:
        cache.put("k", "m@1", ANSWER)
        fresh = cache.stats().identities[0].used_at
        _age(url, 3_600)
        cache.get_many(["k"])
        assert cache.stats().identities[0].used_at == fresh - 3_600
        _age(url, 3 * DAY_S)
        cache.get_many(["k"])
        assert cache.stats().identities[0].used_at >= fresh


def test_prune_by_age_of_use(url: str) -> None:
    """What was not used for so long goes; a dry run tells the same and removes nothing."""
    with CompletionCache(url) as cache:
        for key in ("old", "read", "new"):
            cache.put(key, "m@1", ANSWER)
        cache.charge("run", Usage(calls=3))
        cache.flush()
        _age(url, 40 * DAY_S, "key <> 'new'")
        cache.get_many(["read"])
        foretold = cache.prune(older_than_s=30 * DAY_S, dry_run=True)
        assert cache.stats().rows == 3
        assert cache.prune(older_than_s=30 * DAY_S) == foretold
        assert foretold.rows == 1
        assert set(cache.get_many(["old", "read", "new"])) == {"read", "new"}
        assert cache.spent("run") == Usage(calls=3)
        assert cache.prune(older_than_s=30 * DAY_S).rows == 0


def test_prune_by_model(url: str) -> None:
    """All answers of the named models go, what is queued included, and no other."""
    with CompletionCache(url) as cache:
        for model in ("a@1", "b@1", "c@1"):
            cache.put(model, model, ANSWER)
        assert cache.prune(identity="a@1").rows == 1
        assert cache.prune(identity=["b@1", "unknown"]).rows == 1
        assert set(cache.get_many(["a@1", "b@1", "c@1"])) == {"c@1"}


@pytest.mark.parametrize("kept", [0, 1, 7, 10])
def test_prune_by_size_takes_the_least_recently_used(url: str, kept: int) -> None:
    """What was used last stays, as much of it as fits, and it is the same in a dry run."""
    names = [f"{number:02}" for number in range(10)]
    with CompletionCache(url) as cache:
        for name in names:
            cache.put(name, "m@1", ANSWER)
        cache.flush()
        for name in names:
            _age(url, 100 * int(name) // 2, f"key = '{name}'")
        each = cache.stats().bytes // 10
        foretold = cache.prune(max_bytes=kept * each + each // 2, dry_run=True)
        assert cache.prune(max_bytes=kept * each + each // 2) == foretold
        assert (foretold.rows, foretold.bytes) == (10 - kept, each * (10 - kept))
        assert sorted(cache.get_many(names)) == names[:kept]


def test_prune_by_size_among_answers_of_one_second(url: str) -> None:
    """Answers used at the same time are removed only as far as needed."""
    with CompletionCache(url) as cache:
        for key in _keys(10):
            cache.put(key, "m@1", ANSWER)
        cache.flush()
        _execute(url, "update tilth_cache_answers set used_at = 1700000000")
        each = cache.stats().bytes // 10
        assert cache.prune(max_bytes=4 * each, dry_run=True).rows == 6
        assert cache.prune(max_bytes=4 * each).rows == 6
        assert cache.stats().rows == 4


def test_criteria_of_prune_add_up(url: str) -> None:
    """Age and size narrow within a model: others keep theirs, however old."""
    with CompletionCache(url) as cache:
        for name in ("a1", "a2", "a3", "b1"):
            cache.put(name, name[0], ANSWER)
        cache.flush()
        _age(url, 40 * DAY_S, "key in ('a1', 'b1')")
        _age(url, 1 * DAY_S, "key = 'a2'")
        each = cache.stats().bytes // 4
        assert cache.prune(older_than_s=30 * DAY_S, identity="a", max_bytes=each).rows == 2
        assert sorted(cache.get_many(["a1", "a2", "a3", "b1"])) == ["a3", "b1"]


def test_prune_needs_a_criterion(url: str) -> None:
    """Nothing asked, nothing removed."""
    with CompletionCache(url) as cache, pytest.raises(ConfigError):
        cache.prune()


def test_prune_while_another_writes(url: str) -> None:
    """A prune of many batches and the answers of another object do not disturb each other."""
    with CompletionCache(url) as cache, CompletionCache(url) as other:
        for key in _keys(7_000):
            cache.put(key, "old", ANSWER)
        cache.flush()
        keys = _keys(7_000)

        def work() -> None:
            for key in keys:
                other.put(key, "new", ANSWER)

        thread = threading.Thread(target=work)
        thread.start()
        assert cache.prune(identity="old").rows == 7_000
        thread.join()
        other.flush()
        assert [one.identity for one in cache.stats().identities] == ["new"]
        assert cache.stats().rows == 7_000


def test_pruned_answers_leave_the_file(tmp_path: Path) -> None:
    """SQLite's file gets shorter, and no byte of a removed answer is left in it or beside it."""
    url = _sqlite(tmp_path)
    with CompletionCache(url) as cache:
        for key in _keys(2_000):
            cache.put(key, "gone", _answer(SECRET * 50))
        cache.put("short", "gone", _answer(SECRET))
        cache.put("stays", "m@1", ANSWER)
        before = cache.stats().disk_bytes
        cache.prune(identity="gone")
        assert cache.stats().disk_bytes < before / 10
        assert _file(url).stat().st_size < before / 10
        assert cache.get_many(["stays"])
        held = b"".join(file.read_bytes() for file in _file(url).parent.iterdir())
        assert SECRET.encode() not in held
