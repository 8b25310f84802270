"""The process that is the local Prefect server of `tilth up`: the API, its services and the UI, on one port."""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from typing import Any  # Any: SQLAlchemy's descriptors, values of rows

from tilth.flows.up import die_with_parent

_CLOSING_S = 2  # what open connections are given when it stops


def main() -> None:
    """Serves until it is stopped, or until the process that started it is gone."""
    die_with_parent()
    import uvicorn
    from prefect.server.api.server import create_app

    _let_bulk_inserts_pass()
    uvicorn.run(
        app=create_app(final=True),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="warning",
        timeout_graceful_shutdown=_CLOSING_S,
    )


def _let_bulk_inserts_pass() -> None:
    """Lets Prefect 3.7 schedule runs with SQLAlchemy 2.1.

    Its scheduler inserts runs in bulk with the hybrid attribute `state` among their values. SQLAlchemy 2.0 passes over
    it; 2.1 raises unless the attribute says what to do, and no run would ever be scheduled.
    """
    from prefect.server.database import orm_models

    for model in (orm_models.FlowRun, orm_models.TaskRun):
        state: Any = model.__mapper__.all_orm_descriptors["state"]
        if getattr(state, "bulk_dml_setter", state) is None:
            state.bulk_dml_setter = _pass_over


def _pass_over(_model: type, _values: MutableMapping[str, Any], _state: object) -> None:
    """The scheduler stores states by itself, after the runs."""


if __name__ == "__main__":
    main()
