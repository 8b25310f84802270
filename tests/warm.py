"""`tilth` for tests that start it often: a process that has made its imports, two to six seconds, forks a command.

The command runs in a process of its own, with the directory, the environment and the standard files of who called it.
Only signals to the caller do not reach it: tests that kill start `python -m tilth.flows.cli`.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import NoReturn

_CALL = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
    door.connect({door!r})
    call = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(door, [call], [0, 1, 2])
    said = door.recv(16)
    door.recv(1)  # until it is gone
os._exit(int(said) if said else 137)
"""
_LONGEST = 1 << 17  # bytes of a call: arguments and environment
_HEAVY = (
    "tilth.flows.cli",
    "tilth.flows.run",
    "tilth.flows.query_output",
    "tilth.catalog.iceberg",
    "apache_beam",
    "duckdb",
    "great_expectations",
    "openai",
    "pandas",
)


@functools.cache
def warm_tilth() -> Path:
    """A `tilth` that starts at once, until this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))  # short: the name of a socket may have a hundred letters
    serving = subprocess.Popen(
        [sys.executable, __file__, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert serving.stdin
    assert serving.stdout
    atexit.register(serving.communicate)  # closes its standard input, and waits
    assert serving.stdout.readline() == "ready\n", "the process that forks did not come up"
    return folder / "tilth"


def main() -> None:
    """Serves until standard input ends."""
    folder = Path(sys.argv[1])
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind(str(folder / "door"))
        door.listen(8)
        shim = folder / "tilth"
        shim.write_text(_CALL.format(python=sys.executable, door=str(folder / "door")))
        shim.chmod(0o755)
        for name in _HEAVY:
            importlib.import_module(name)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them here
        while call := _next(door):
            if os.fork() == 0:
                door.close()
                _run(call)
            call.close()
    shutil.rmtree(folder)


def _next(door: socket.socket) -> socket.socket | None:
    """The next call; none when standard input has ended."""
    ready, _, _ = select.select([door, sys.stdin], [], [])
    return None if sys.stdin in ready else door.accept()[0]


def _run(call: socket.socket) -> NoReturn:
    """Becomes the command that is asked for."""
    data, files, _, _ = socket.recv_fds(call, _LONGEST, 3)
    words, folder, environment = json.loads(data)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["tilth", *words]
    from tilth.flows.cli import main as tilth

    code = 1
    try:
        tilth()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    # What the interpreter does at its end, but for taking all modules apart, which takes longer than most commands.
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    call.send(str(code).encode())
    os._exit(code)


if __name__ == "__main__":
    main()
