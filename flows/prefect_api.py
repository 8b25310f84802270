"""The few calls of Prefect's REST API that commands make. Light: Prefect itself takes seconds to import."""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Final  # Any: JSON values

from tilth.schemas import NotFound, TilthError

FLOW: Final = "tilth-run"  # what `recipe_flow` is called
_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_LOCAL: Final = ("http://127.0.0.1:", "http://localhost:", "http://[::1]:")


@dataclass(frozen=True, slots=True)
class Api:
    """A Prefect API, as `http://127.0.0.1:4200/api`; with the key or the password that the environment holds."""

    url: str
    timeout_s: float = 5.0

    def healthy(self) -> bool:
        """Whether a Prefect server answers there."""
        try:
            return self.get("health") is True
        except TilthError:
            return False

    def get(self, path: str) -> Any:
        """What a path holds. Raises `NotFound`, or `TilthError` when the server cannot be reached or refuses."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Any) -> Any:
        """The reply to a body. Raises as `get`."""
        return self._ask("POST", path, body)

    def runs(self, deployment_ids: list[str], limit: int) -> list[dict[str, Any]]:
        """The runs of deployments that have begun, the latest first."""
        wanted = {
            "deployments": {"id": {"any_": deployment_ids}},
            "flow_runs": {"start_time": {"is_null_": False}},
            "sort": "START_TIME_DESC",
            "limit": limit,
        }
        return self.post("flow_runs/filter", wanted) if deployment_ids else []

    def deployment(self, name: str) -> dict[str, Any]:
        """The deployment of a schedule. Raises as `get`."""
        return self.get(f"deployments/name/{FLOW}/{name}")

    def page_of(self, run_id: str) -> str:
        """Where the UI shows a run."""
        return f"{self.url.removesuffix('/api')}/runs/flow-run/{run_id}"

    def _ask(self, method: str, path: str, body: Any) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **_authority()}
        request = urllib.request.Request(f"{self.url.rstrip('/')}/{path}", data, headers, method=method)
        # A proxy of the environment leads out, and never to this machine.
        send = _DIRECT.open if self.url.startswith(_LOCAL) else urllib.request.urlopen
        try:
            with send(request, timeout=self.timeout_s) as reply:
                text = reply.read()
                return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            error.close()
            kind = NotFound if error.code == 404 else TilthError
            raise kind("the Prefect server refused", found=f"{error.code} for {method} {path}") from None
        except (OSError, ValueError) as error:
            found = f"{self.url}: {type(error).__name__}"
            raise TilthError("no Prefect server answers", found=found, do="start one with tilth up") from None


def _authority() -> dict[str, str]:
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    if pair := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {}
