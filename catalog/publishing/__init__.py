"""Publishing: a version, as it is and once, to the Hugging Face Hub or to any fsspec file system."""

from tilth.catalog.publishing.folder import Folder
from tilth.catalog.publishing.hub import Hub
from tilth.catalog.publishing.plan import Choice, Plan, plan
from tilth.catalog.publishing.record import Published, publications, remember
from tilth.catalog.publishing.shards import Bundle, write

__all__ = [
    "Bundle",
    "Choice",
    "Folder",
    "Hub",
    "Plan",
    "Published",
    "plan",
    "publications",
    "remember",
    "write",
]
