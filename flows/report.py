"""`tilth report`: one HTML file that says what is known of a dataset."""

from __future__ import annotations

from typing import Any  # Any: JSON values

from tilth.catalog import open_catalog
from tilth.flows.report_facts import gather
from tilth.flows.report_page import page
from tilth.schemas import BadInput
from tilth.transforms.parts import write_bytes


def report(workspace: str, name: str, output: str | None, samples: int = 0) -> dict[str, Any]:
    """Writes the report of a dataset, `FAMILY.TABLE[@VERSION]`, as one HTML file that needs no network.

    `output` is any fsspec URI, named after the dataset here by default. `samples` rows are shown with their text; none
    by default, because logs are private. Raises `NotFound` for an unknown dataset, `BadInput` where `output` is no
    name of an HTML file.
    """
    if output is not None and not output.lower().endswith((".html", ".htm")):
        raise BadInput("the file of a report", found=output, wanted="a name that ends in .html")
    with open_catalog(workspace, create=False) as catalog:
        facts = gather(catalog, workspace, name, samples)
    version = facts.version
    target = output or f"{version.name}-{version.version}.html"
    written = page(facts).encode()
    write_bytes(written, target)
    told = {"dataset": version.name, "version": version.version, "rows": version.rows, "output": target}
    return {**told, "samples": len(facts.samples), "size_bytes": len(written)}
