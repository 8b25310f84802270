"""Readers and normalisers: many log shapes become conversations; what cannot becomes quarantine, with its reason."""

from tilth.transforms.ingest.batches import Batch, read
from tilth.transforms.ingest.detection import Detection, detect
from tilth.transforms.ingest.inspection import Inspection, inspect
from tilth.transforms.ingest.leaving_out import leave_out
from tilth.transforms.ingest.planning import plan
from tilth.transforms.ingest.record import ReadConfig
from tilth.transforms.ingest.shapes import SHAPES
from tilth.transforms.ingest.sources import SourceFile, expand
from tilth.transforms.ingest.step import Ingest

__all__ = [
    "SHAPES",
    "Batch",
    "Detection",
    "Ingest",
    "Inspection",
    "ReadConfig",
    "SourceFile",
    "detect",
    "expand",
    "inspect",
    "leave_out",
    "plan",
    "read",
]
