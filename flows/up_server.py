"""The process that is the local Prefect server of `tilth up`: the API, its services and the UI, on one port."""

from __future__ import annotations

import sys

from tilth.flows.up import die_with_parent

_CLOSING_S = 2  # what open connections are given when it stops


def main() -> None:
    """Serves until it is stopped, or until the process that started it is gone."""
    die_with_parent()
    import uvicorn
    from prefect.server.api.server import create_app

    uvicorn.run(
        app=create_app(final=True),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="warning",
        timeout_graceful_shutdown=_CLOSING_S,
    )


if __name__ == "__main__":
    main()
