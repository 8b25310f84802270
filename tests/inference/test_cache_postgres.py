"""The cache of answers on a PostgreSQL server that goes away, comes back, and cuts connections."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

import pytest
import sqlalchemy as sa

from tilth.schemas import ConfigError, TilthError
from tilth.transforms.inference.cache import CompletionCache
from tilth.transforms.inference.requests import Completion
from tilth.transforms.inference.usage import Usage

pytestmark = pytest.mark.postgres

ANSWER = Completion("yes", "stop", 11, 1)


class Server(Protocol):
    """What these tests need of the fixture."""

    port: int
    password: str

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def url(self, port: int | None = None) -> str: ...


class CommitEater:
    """Stands before a server; when armed, the next commit gets through and its confirmation does not."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.armed = threading.Event()
        self.eaten = 0
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server_port))
            self._sockets += [client, server]
            for pair in ((client, server), (server, client)):
                thread = threading.Thread(target=self._carry, args=pair)
                self._threads.append(thread)
                thread.start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                if self.armed.is_set() and b"C\x00\x00\x00\x0bCOMMIT\x00" in data:
                    self.armed.clear()
                    self.eaten += 1
                    break
                sink.sendall(data)
        except OSError:
            pass
        _end(source)
        _end(sink)

    def close(self) -> None:
        _end(self._listener)
        self._listener.close()
        for each in self._sockets:
            _end(each)
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()


def _end(one: socket.socket) -> None:
    with suppress(OSError):  # the other side was first
        one.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def eater(postgres: Server) -> Iterator[CommitEater]:
    one = CommitEater(postgres.port)
    yield one
    one.close()


def _cut_connections(url: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    others = (
        "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname = "
    )
    with engine.connect() as connection:
        connection.execute(sa.text(others + "current_database()"))


def test_a_plain_url_takes_the_same_driver(postgres: Server) -> None:
    """`postgresql://` needs no other driver than `postgresql+psycopg://`."""
    url = postgres.url()
    with CompletionCache(url.replace("+psycopg", "")) as cache:
        cache.put("k", "m@1", ANSWER)
    with CompletionCache(url) as cache:
        assert cache.get_many(["k"]) == {"k": ANSWER}


def test_cut_connections_are_made_again(postgres: Server) -> None:
    """Connections that the server cuts lose no answer and charge nothing twice; reads go on too."""
    url = postgres.url()
    with CompletionCache(url) as cache:
        for sitting in range(3):
            for i in range(500):
                cache.put(f"{sitting}-{i}", "m@1", ANSWER, charge=("run", Usage(calls=1)))
            _cut_connections(url)
        assert len(cache.get_many([f"1-{i}" for i in range(500)])) == 500
        _cut_connections(url)
        assert cache.stats().rows == cache.spent("run").calls == 1_500


def test_a_commit_without_confirmation_counts_once(postgres: Server, eater: CommitEater) -> None:
    """A connection lost between the server's commit and its word of it neither loses a charge nor doubles it."""
    with CompletionCache(postgres.url(eater.port)) as cache:
        for turn in range(1, 4):
            eater.armed.set()
            cache.put(f"{turn}", "m@1", ANSWER, charge=("run", Usage(calls=1)))
            cache.flush()
            assert eater.eaten == turn
            assert cache.spent("run").calls == cache.stats().rows == turn


def test_a_server_that_is_gone_is_reported(postgres: Server) -> None:
    """Stopped under the cache, the server is missed after some attempts: the caller is told, the password is not."""
    url = postgres.url()
    cache = CompletionCache(url)
    cache.put("kept", "m@1", ANSWER)
    cache.flush()
    postgres.stop()
    try:
        cache.put("lost", "m@1", ANSWER)
        with pytest.raises(TilthError, match="refused") as caught:
            cache.flush()
        with pytest.raises(TilthError):
            cache.put("next", "m@1", ANSWER)
        with pytest.raises(TilthError):
            cache.close()
        with pytest.raises(ConfigError, match="refused") as at_open:
            CompletionCache(url)
    finally:
        postgres.start()
    for error in (caught.value, at_open.value):
        assert postgres.password not in str(error) + repr(error)
        assert error.__cause__ is None
    assert caught.value.do
    with CompletionCache(url) as again:
        assert set(again.get_many(["kept", "lost", "next"])) == {"kept"}


def test_a_server_that_comes_back_in_time_is_waited_for(postgres: Server) -> None:
    """A restart of the server within the attempts costs nothing."""
    with CompletionCache(postgres.url()) as cache:
        cache.put("before", "m@1", ANSWER)
        cache.flush()
        postgres.stop()
        starting = threading.Thread(target=postgres.start)
        starting.start()
        try:
            cache.put("after", "m@1", ANSWER)
            cache.flush()
        finally:
            starting.join()
        assert set(cache.get_many(["before", "after"])) == {"before", "after"}


@pytest.mark.parametrize("wrong", ["password", "database", "user"])
def test_a_refusal_says_why_without_the_password(postgres: Server, wrong: str) -> None:
    """A wrong password, database or user is a configuration error that says which, and shows no secret."""
    url = sa.make_url(postgres.url())
    spoilt = {
        "password": url.set(password="wr0ng"),
        "database": url.set(database="nowhere"),
        "user": url.set(username="nobody"),
    }[wrong]
    with pytest.raises(ConfigError, match=r"refused|no such database") as caught:
        CompletionCache(spoilt.render_as_string(hide_password=False))
    told = str(caught.value) + repr(caught.value)
    assert str(url.password) not in told
    assert "wr0ng" not in told
    assert caught.value.__suppress_context__


def test_its_name_holds_no_secret(postgres: Server) -> None:
    """Neither repr nor str of an open cache shows user or password."""
    with CompletionCache(postgres.url()) as cache:
        shown = repr(cache) + str(cache) + repr(vars(cache))
    assert postgres.password not in shown
    assert postgres.password.replace("%40", "@") not in shown
    assert "127.0.0.1" in shown
