"""A real PostgreSQL server for the tests that ask for one."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

# Bytes that a URL has to escape, so that every test also proves that they are.
_PASSWORD = "p%40ss-" + secrets.token_hex(8)


@dataclass
class Cluster:
    """A PostgreSQL server on a loopback port, with a password, in a folder of its own."""

    binaries: Path
    folder: Path
    port: int
    password: str = _PASSWORD
    user: str | None = None  # that runs the server: it refuses to run as root
    _names: Iterator[int] = field(default_factory=count)

    def make(self) -> None:
        """Makes the data folder. Nothing is synced to disk: a killed client loses nothing by that."""
        file = self.folder / "password"
        file.write_text(self.password.replace("%40", "@"))
        if self.user:
            shutil.chown(self.folder, self.user)
            shutil.chown(file, self.user)
        secret = f"--pwfile={file}"
        self._call("initdb", "--auth=scram-sha-256", secret, "-U", "tilth", "-E", "UTF8", "--no-sync")

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c fsync=off -k {self.folder}"
        self._call("pg_ctl", "start", "-w", "-l", str(self.folder / "log"), "-o", options)

    def stop(self) -> None:
        """Stops the server under whoever is connected."""
        self._call("pg_ctl", "stop", "-w", "-m", "immediate")

    def url(self, port: int | None = None) -> str:
        """The URL of a new, empty schema, at another port if asked; a database would take much longer to make."""
        name = f"cache_{next(self._names)}"
        environment = {"PGPASSWORD": self.password.replace("%40", "@")}
        where = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "tilth", "-d", "postgres")
        self._call("psql", *where, "-c", f"create schema {name}", env=environment)
        place = f"127.0.0.1:{port or self.port}/postgres?options=-csearch_path%3D{name}"
        return f"postgresql+psycopg://tilth:{self.password}@{place}"

    def _call(self, program: str, *args: str, env: dict[str, str] | None = None) -> None:
        done = subprocess.run(
            [self.binaries / program, *args],
            env={"PATH": os.environ["PATH"], "PGDATA": str(self.folder / "data"), **(env or {})},
            cwd=self.folder,
            user=self.user,
            # pg_ctl's server keeps what it inherits: a pipe would never end.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE if program in ("initdb", "psql") else subprocess.DEVNULL,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{program}: {done.stderr or (self.folder / 'log').read_text()}"


def _binaries() -> Path:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    on_path = shutil.which("initdb")
    found = [folder for folder in folders if (folder / "initdb").exists()]
    if not found and on_path is None:
        pytest.fail("these tests need a PostgreSQL server: apt-get install postgresql", pytrace=False)
    return found[-1] if found else Path(str(on_path)).resolve().parent


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A running PostgreSQL server; fails, and does not skip, where the binaries are missing."""
    binaries = _binaries()
    # Not pytest's folder, which only its owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="tilth-postgres-"))
    cluster = Cluster(binaries, folder, _free_port(), user="postgres" if os.geteuid() == 0 else None)
    try:
        cluster.make()
        cluster.start()
        yield cluster
        cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
