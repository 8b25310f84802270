"""A program: publishes three pairs to `org/garden` of the Hub at an address, to be killed on the way."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from hub.under_faults import use


def main(url: str) -> None:
    """Prints what became of it."""
    with tempfile.TemporaryDirectory() as name:
        use(url, Path(name), "lfs")
        from hub.bundles import bundle
        from tilth.catalog.publishing import Hub

        sys.stdout.write(Hub("org/garden", False, "0.1.0").publish(bundle(Path(name))).status)


if __name__ == "__main__":
    main(sys.argv[1])
