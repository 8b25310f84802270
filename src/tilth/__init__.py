"""Tilth turns conversation logs into alignment datasets that can be trusted.

`tilth.open_catalog(workspace)` opens what runs have made.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilth.catalog import open_catalog

__all__ = ["__version__", "open_catalog"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:  # what it opens is loaded when it is asked for: `import tilth` stays light
    if name == "open_catalog":
        from tilth.catalog import open_catalog

        return open_catalog
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
