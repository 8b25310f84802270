"""The tables of the cache of answers, and what is said to them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, TypeVar  # Any: rows and arguments of drivers

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, SQLAlchemyError

from tilth.schemas import ConfigError, MissingExtra, NotFound, TilthError
from tilth.transforms.inference.requests import Completion
from tilth.transforms.inference.usage import Usage

VERSION: Final = 1  # of the tables; a database of another version is refused
DAY_S: Final = 86_400  # the time of last use is written at most this often for one answer

_GROUP_ROWS = 2_000
_GROUP_CHARS = 8_000_000
_QUEUE_ROWS = 50_000
_QUEUE_CHARS = 256_000_000
_READ_KEYS = 5_000
_PRUNE_ROWS = 2_000
_BUSY_S = 30
_CONNECT_S = 10
_PAUSES_S = (0.1, 0.5, 2.0)  # before a commit that met a passing error is tried again
_ROW_BYTES = 64  # what SQLite adds to a row and its place in the index, about

_DRIVERS = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_WANTED = "sqlite:////folder/cache.sqlite or postgresql+psycopg://user@host/database"
# Beginnings of SQLSTATE that a moment may cure: lost connection, deadlock, too many connections, server restarting.
_PASSING_STATES = ("08", "40", "53300", "57P01", "57P02", "57P03")
_SQLITE_BUSY, _SQLITE_LOCKED = 5, 6
# Messages of drivers may hold a password; these parts of them may be told.
_CAUSES = {
    "refused": "connection refused",
    "authentication failed": "user or password refused",
    "no password": "no password given",
    "does not exist": "no such database or user",
    "resolve": "unknown host",
    "not known": "unknown host",
    "timeout": "no answer in time",
    "closed the connection": "connection lost",
}

T = TypeVar("T")


_METADATA = sa.MetaData()
_VERSIONS = sa.Table("tilth_cache_version", _METADATA, sa.Column("version", sa.Integer, primary_key=True))
# Text is bytes: PostgreSQL refuses NUL in text, and no database takes lone surrogates. It comes last: SQLite then
# reads the other columns without the pages that a long text spills to.
_ANSWERS = sa.Table(
    "tilth_cache_answers",
    _METADATA,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("identity", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("used_at", sa.BigInteger, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("finish_reason", sa.LargeBinary, nullable=False),
    sa.Column("choice_logprobs", sa.Text),
    sa.Column("text", sa.LargeBinary, nullable=False),
)
# One row per count, so that a new count of `Usage` needs no new column.
_ACCOUNTS = sa.Table(
    "tilth_cache_accounts",
    _METADATA,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("item", sa.Text, primary_key=True),
    sa.Column("amount", sa.BigInteger, nullable=False),
)
_FAILURE = "failures."
_READ = (
    _ANSWERS.c.key,
    _ANSWERS.c.used_at,
    _ANSWERS.c.text,
    _ANSWERS.c.finish_reason,
    _ANSWERS.c.prompt_tokens,
    _ANSWERS.c.completion_tokens,
    _ANSWERS.c.choice_logprobs,
)


@dataclass(frozen=True, slots=True)
class IdentityStats:
    """What the cache holds of one model. Times are unix seconds; the last use is known to the day."""

    identity: str
    rows: int
    bytes: int
    prompt_tokens: int
    completion_tokens: int
    created_at: int  # of the oldest answer
    used_at: int  # of the answer used last


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What the cache holds. `bytes` counts answers and their keys; `disk_bytes` is what the database takes."""

    rows: int
    bytes: int
    disk_bytes: int
    identities: tuple[IdentityStats, ...]


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed, or what a dry run would remove."""

    rows: int
    bytes: int


@dataclass(slots=True)
class Group:
    """What is committed together."""

    answers: dict[str, tuple[str, Completion]] = field(default_factory=dict)
    charges: dict[str, Usage] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    chars: int = 0
    began: float = math.inf  # when the first of it came, on the monotonic clock

    def __bool__(self) -> bool:
        return self.began != math.inf

    @property
    def rows(self) -> int:
        """How many rows it writes."""
        return len(self.answers) + len(self.used)

    @property
    def large(self) -> bool:
        """It is worth a commit of its own."""
        return self.rows >= _GROUP_ROWS or self.chars >= _GROUP_CHARS

    @property
    def full(self) -> bool:
        """It takes no more."""
        return self.rows >= _QUEUE_ROWS or self.chars >= _QUEUE_CHARS


class Store:
    """The tables, and what is said to them. Every error that leaves it is a `TilthError` without a secret."""

    def __init__(self, url_text: str, create: bool) -> None:
        url = _parse(url_text)
        self.shown = _shown(url)
        self._is_sqlite = url.get_backend_name() == "sqlite"
        self._insert = sqlite.insert if self._is_sqlite else postgresql.insert
        if self._is_sqlite:
            self._make_folder(Path(url.database or ""), create)
        self._engine = _engine(url)
        try:
            self._open(create)
        except BaseException:
            self.dispose()
            raise

    def dispose(self) -> None:
        """Lets go of the connections."""
        self._engine.dispose()

    def _make_folder(self, path: Path, create: bool) -> None:
        if not create and not path.exists():
            raise self._not_found()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            do = "name a folder that can be written to"
            raise ConfigError(
                f"no folder for the cache of answers: {path.parent}", found=error.strerror, do=do
            ) from None

    def _not_found(self) -> NotFound:
        return NotFound(f"no cache of answers at {self.shown}", do="run something that asks a model first")

    def _open(self, create: bool) -> None:
        version = self._do(self._version, opening=True)
        if version is None and not create:
            raise self._not_found()
        if version is None:
            version = self._do(self._create, opening=True)
        if version != VERSION:
            raise ConfigError(
                f"the cache of answers at {self.shown} was made by another version of Tilth",
                found=f"version {version}",
                wanted=f"version {VERSION}",
                do="name another database for this version, or remove this one to begin anew",
            )

    def _version(self, connection: Connection) -> int | None:
        if not sa.inspect(connection).has_table(_VERSIONS.name):
            return None
        return connection.scalar(sa.select(sa.func.max(_VERSIONS.c.version)))

    def _create(self, connection: Connection) -> int | None:
        # One at a time: two processes that open a new database at once would both make its tables.
        if self._is_sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(0x7469_6C74_68)))
        if (version := self._version(connection)) is not None:
            return version
        _METADATA.create_all(connection)
        connection.execute(_VERSIONS.insert().values(version=VERSION))
        return VERSION

    def _do(self, work: Callable[[Connection], T], opening: bool = False) -> T:
        """Does the work in one transaction, again after a passing error."""
        for pause in (*_PAUSES_S, None):
            try:
                with self._engine.connect() as connection:
                    result = work(connection)
                    connection.commit()
                    return result
            except SQLAlchemyError as error:
                failure = _failure(error, self.shown, opening)
                if pause is None or not _passes(error, opening):
                    raise failure from None
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _among(self, keys: Sequence[str]) -> sa.ColumnElement[bool]:
        """The key is one of these: one parameter, whatever their number."""
        key = _ANSWERS.c.key
        if self._is_sqlite:
            return key.in_(sa.select(sa.func.json_each(json.dumps(keys)).table_valued("value").c.value))
        return key == sa.any_(sa.literal(list(keys), postgresql.ARRAY(sa.Text)))

    def read(self, keys: Sequence[str]) -> Iterator[tuple[str, Completion, int]]:
        """Key, answer and time of last use of those that are there."""
        for start in range(0, len(keys), _READ_KEYS):
            statement = sa.select(*_READ).where(self._among(keys[start : start + _READ_KEYS]))
            rows = self._do(lambda connection, s=statement: connection.execute(s).all())
            yield from ((key, _completion(*answer), used_at) for key, used_at, *answer in rows)

    def spent(self, run: str) -> Usage:
        """The account of a run."""
        query = sa.select(_ACCOUNTS.c.item, _ACCOUNTS.c.amount).where(_ACCOUNTS.c.run == run)
        amounts = {row.item: row.amount for row in self._do(lambda c: c.execute(query).all())}
        counts = {one.name: amounts[one.name] for one in fields(Usage) if one.name in amounts}
        failures = {
            item.removeprefix(_FAILURE): n for item, n in amounts.items() if item.startswith(_FAILURE)
        }
        return Usage(**counts, failures=failures)

    def write(self, group: Group) -> None:
        """Commits a group, whole or not at all, and only once."""
        unsure: list[str] = []
        self._do(lambda connection: self._write(connection, group, unsure))

    def _write(self, connection: Connection, group: Group, unsure: list[str]) -> None:
        # Sorted, so that two processes that write the same rows do not wait for each other.
        now = int(time.time())
        if group.used:
            update = _ANSWERS.update().where(_ANSWERS.c.key == sa.bindparam("one")).values(used_at=now)
            connection.execute(update, [{"one": key} for key in sorted(group.used)])
        if group.answers:
            rows = [_row(key, *group.answers[key], now) for key in sorted(group.answers)]
            connection.execute(self._insert(_ANSWERS).on_conflict_do_nothing(), rows)
        if group.charges:
            self._charge(connection, group.charges)
            self._commit_once(connection, unsure)

    def _charge(self, connection: Connection, charges: dict[str, Usage]) -> None:
        statement = self._insert(_ACCOUNTS)
        keys, added = [_ACCOUNTS.c.run, _ACCOUNTS.c.item], _ACCOUNTS.c.amount + statement.excluded.amount
        rows = sorted((run, item, n) for run, usage in charges.items() for item, n in _amounts(usage))
        if rows:
            upsert = statement.on_conflict_do_update(index_elements=keys, set_={"amount": added})
            connection.execute(upsert, [{"run": r, "item": i, "amount": n} for r, i, n in rows])

    def _commit_once(self, connection: Connection, unsure: list[str]) -> None:
        """Takes the charges back when an earlier attempt got through and only its confirmation was lost.

        The rows of the accounts are locked by now, so that the earlier attempt has ended one way or the other.
        """
        if self._is_sqlite:
            return
        status = sa.text("select pg_xact_status(cast(:id as xid8))")
        if any(connection.scalar(status, {"id": one}) == "committed" for one in unsure):
            connection.rollback()
            return
        unsure.append(connection.scalar(sa.text("select cast(pg_current_xact_id() as text)")) or "0")

    def stats(self) -> CacheStats:
        """What is there, by model; the largest first."""
        c = _ANSWERS.c
        summed = [_total(c.size_bytes), _total(c.prompt_tokens), _total(c.completion_tokens)]
        query = sa.select(
            c.identity, sa.func.count(), *summed, sa.func.min(c.created_at), sa.func.max(c.used_at)
        )
        rows = self._do(lambda connection: connection.execute(query.group_by(c.identity)).all())
        each = sorted((IdentityStats(*row) for row in rows), key=lambda one: (-one.bytes, one.identity))
        disk = self._do(self._disk_bytes)
        return CacheStats(sum(one.rows for one in each), sum(one.bytes for one in each), disk, tuple(each))

    def _disk_bytes(self, connection: Connection) -> int:
        if not self._is_sqlite:
            sizes = [sa.func.pg_total_relation_size(name) for name in _METADATA.tables]
            return connection.scalar(sa.select(sum(sizes[1:], sizes[0]))) or 0
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        return pages * connection.exec_driver_sql("PRAGMA page_size").scalar_one()

    def prune(
        self,
        older_than_s: float | None,
        named: Collection[str] | None,
        max_bytes: int | None,
        dry_run: bool,
    ) -> Pruned:
        """Removes what `CompletionCache.prune` says."""
        scope = sa.true() if named is None else _ANSWERS.c.identity.in_(list(named))
        doomed = _doomed(older_than_s, named, max_bytes)
        if max_bytes is not None:
            doomed = sa.or_(doomed, self._do(lambda connection: _beyond(connection, scope, max_bytes)))
        chosen = sa.and_(scope, doomed)
        if dry_run:
            query = sa.select(sa.func.count(), _total(_ANSWERS.c.size_bytes)).where(chosen)
            return Pruned(*self._do(lambda connection: connection.execute(query).one()))
        removed = [size for batch in self._delete(chosen) for size in batch]
        if self._is_sqlite and removed:
            self._give_back()
        return Pruned(len(removed), sum(removed))

    def _delete(self, chosen: sa.ColumnElement[bool]) -> Iterator[list[int]]:
        """Removes what is chosen, some thousand at a time so that others can write in between; yields their sizes."""
        key, last = _ANSWERS.c.key, ""
        while True:
            query = sa.select(key).where(chosen, key > last).order_by(key).limit(_PRUNE_ROWS)
            keys = self._do(lambda connection, q=query: list(connection.scalars(q)))
            if not keys:
                return
            # Asked again, because one of them may have been used in between.
            statement = _ANSWERS.delete().where(self._among(keys), chosen).returning(_ANSWERS.c.size_bytes)
            yield self._do(lambda connection, s=statement: list(connection.scalars(s)))
            last = keys[-1]

    def _give_back(self) -> None:
        """Shortens the file by its free pages, some at a time: VACUUM would lock it whole and need it twice."""
        while self._do(_vacuum_some):
            pass
        self._do(lambda connection: connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").all())


def _row(key: str, identity: str, answer: Completion, now: int) -> dict[str, object]:
    logprobs = None if answer.choice_logprobs is None else json.dumps(answer.choice_logprobs)
    text, finish_reason = _bytes(answer.text), _bytes(answer.finish_reason)
    told = len(text) + len(finish_reason) + len(logprobs or "")
    return {
        "key": key,
        "identity": identity,
        "size_bytes": told + 2 * len(key) + len(identity) + _ROW_BYTES,
        "created_at": now,
        "used_at": now,
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "finish_reason": finish_reason,
        "choice_logprobs": logprobs,
        "text": text,
    }


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _amounts(usage: Usage) -> Iterator[tuple[str, int]]:
    counts = {one.name: getattr(usage, one.name) for one in fields(usage) if one.name != "failures"}
    counts |= {_FAILURE + reason: count for reason, count in usage.failures.items()}
    return ((item, count) for item, count in counts.items() if count)


def _total(column: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    return sa.cast(sa.func.coalesce(sa.func.sum(column), 0), sa.BigInteger)  # PostgreSQL sums to numeric


def _doomed(
    older_than_s: float | None, named: Collection[str] | None, max_bytes: int | None
) -> sa.ColumnElement[bool]:
    if older_than_s is not None:
        return _ANSWERS.c.used_at < int(time.time() - older_than_s)
    return sa.true() if named is not None and max_bytes is None else sa.false()


def _beyond(connection: Connection, scope: sa.ColumnElement[bool], max_bytes: int) -> sa.ColumnElement[bool]:
    """Which answers of the scope do not fit: those used before the oldest one that still does."""
    c = _ANSWERS.c
    held = sa.func.sum(c.size_bytes).over(order_by=[c.used_at.desc(), c.key.desc()]).label("held")
    each = sa.select(c.used_at, c.key, held).where(scope).subquery()
    fits = sa.select(each.c.used_at, each.c.key).where(each.c.held <= max_bytes)
    oldest = connection.execute(fits.order_by(each.c.used_at, each.c.key).limit(1)).first()
    if oldest is None:
        return sa.true()
    same_time = sa.and_(c.used_at == oldest.used_at, c.key < oldest.key)
    return sa.or_(c.used_at < oldest.used_at, same_time)


def _vacuum_some(connection: Connection) -> bool:
    before = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
    # `execute` takes one step of this statement, which frees one page.
    connection.connection.cursor().executescript(f"PRAGMA incremental_vacuum({_PRUNE_ROWS})")
    return 0 < connection.exec_driver_sql("PRAGMA freelist_count").scalar_one() < before


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError("the URL of the cache of answers cannot be read", wanted=_WANTED) from None
    kind = parsed.drivername.partition("+")[0]
    if kind not in _DRIVERS:
        raise ConfigError("the cache of answers has no such database", found=kind, wanted=_WANTED)
    if "+" not in parsed.drivername:
        parsed = parsed.set(drivername=_DRIVERS[kind])
    if parsed.drivername not in _DRIVERS.values():
        wanted = " or ".join(sorted(set(_DRIVERS.values())))
        raise ConfigError("the cache of answers has no such driver", found=parsed.drivername, wanted=wanted)
    _require_place(parsed)
    return parsed


def _require_place(url: URL) -> None:
    if url.get_backend_name() == "sqlite":
        if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
            raise ConfigError("the cache of answers needs a file", wanted=_WANTED)
    elif "@" in f"{url.host}{url.database}":
        # A password with an @ ends early, and its rest would be shown as host.
        do = "write @ as %40, : as %3A and / as %2F in the password"
        raise ConfigError("the URL of the cache of answers holds more than one @", wanted=_WANTED, do=do)


def _shown(url: URL) -> str:
    """The place without user, password and options, which may hold a password too."""
    place = URL.create(url.get_backend_name(), host=url.host, port=url.port, database=url.database)
    return place.render_as_string(hide_password=True)


def _engine(url: URL) -> sa.Engine:
    try:
        if url.get_backend_name() != "sqlite":
            waits = {
                "connect_timeout": _CONNECT_S,
                "tcp_user_timeout": _BUSY_S * 1000,
                "keepalives_idle": _BUSY_S,
            }
            given = {name: value for name, value in waits.items() if name not in url.query}
            return sa.create_engine(url, hide_parameters=True, connect_args=given)
        engine = sa.create_engine(url, hide_parameters=True, connect_args={"timeout": _BUSY_S})
    except ImportError:
        do = "pip install 'tilth[postgres]'"
        raise MissingExtra("the driver of PostgreSQL is not installed", do=do) from None
    except (SQLAlchemyError, TypeError, ValueError):
        raise ConfigError(
            "the URL of the cache of answers cannot be used", found=_shown(url), wanted=_WANTED
        ) from None
    event.listen(engine, "connect", _prepare)
    return engine


def _prepare(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    # Only before the file has its first page, which WAL writes, can auto_vacuum be set; later it waits for writers.
    if cursor.execute("PRAGMA page_count").fetchone() == (0,):
        cursor.execute("PRAGMA auto_vacuum=INCREMENTAL")
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "secure_delete=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _passes(error: SQLAlchemyError, opening: bool) -> bool:
    """A moment may cure it."""
    if not isinstance(error, DBAPIError):
        return False
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in (_SQLITE_BUSY, _SQLITE_LOCKED)
    state = getattr(error.orig, "sqlstate", None)
    if state is None:  # the connection, not the server, says no
        return not opening and isinstance(error, OperationalError)
    return state.startswith(_PASSING_STATES)


def _failure(error: SQLAlchemyError, shown: str, opening: bool) -> TilthError:
    if opening:
        do = "check its URL, and that it can be reached and written to"
        return ConfigError(f"the cache of answers cannot be opened at {shown}", found=_cause(error), do=do)
    do = "see to the database (space, rights, connection), then run the same command again: what is in it is kept"
    return TilthError(f"the cache of answers failed at {shown}", found=_cause(error), do=do)


def _cause(error: SQLAlchemyError) -> str:
    """A code and words of our own."""
    orig = getattr(error, "orig", None) or error
    said = str(orig).lower()
    known = next((cause for part, cause in _CAUSES.items() if part in said), "")
    code = getattr(orig, "sqlite_errorname", None) or getattr(orig, "sqlstate", None) or ""
    return " ".join(part for part in (type(orig).__name__, code, known) if part)


def _completion(
    text: bytes, finish_reason: bytes, prompt_tokens: int, completion_tokens: int, logprobs: str | None
) -> Completion:
    listed = None if logprobs is None else tuple(json.loads(logprobs))
    return Completion(_text(text), _text(finish_reason), prompt_tokens, completion_tokens, listed)
