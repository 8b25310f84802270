"""`python -m loopback ['{"slots": 64, …}'] [--port N] [--log FILE] [--until-eof]`: serves until it is ended."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import resource
import sys

import orjson

from loopback.behaviour import Behaviour
from loopback.server import Server


async def run(options: argparse.Namespace) -> None:
    """Serves, after printing the port as a line of JSON."""
    loop = asyncio.get_running_loop()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server = Server(Behaviour().changed(orjson.loads(options.behaviour)), options.log)
    listening = await loop.create_server(server.connection, "127.0.0.1", options.port, backlog=4096)
    print(orjson.dumps({"port": listening.sockets[0].getsockname()[1]}).decode(), flush=True)  # noqa: T201
    if options.until_eof:
        loop.add_reader(0, lambda: os.read(0, 1) or os._exit(0))
    gc.collect()
    gc.freeze()
    await listening.serve_forever()


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="loopback", description=__doc__)
    parser.add_argument("behaviour", nargs="?", default="{}", help="settings of Behaviour as JSON")
    parser.add_argument("--port", type=int, default=0, help="0 for any free one")
    parser.add_argument("--log", help="append a line per received and per finished request")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input ends")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
