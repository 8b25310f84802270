"""What a row is: Arrow schemas, ids, row contracts, expectation specs, errors. Imports nothing heavy."""

if __name__ != "tilth.schemas":
    raise ImportError(f"import this package as 'tilth.schemas', not as {__name__!r}")

from tilth.schemas.errors import (
    BadInput,
    ChecksFailed,
    ConfigError,
    MissingExtra,
    NotFound,
    QuarantineOverflow,
    Reason,
    TilthError,
)
from tilth.schemas.ids import content_ids, fingerprint
from tilth.schemas.tables import MESSAGES, PARQUET, PL_MESSAGES, TABLES, conform, empty, polars_schema

__all__ = [
    "MESSAGES",
    "PARQUET",
    "PL_MESSAGES",
    "TABLES",
    "BadInput",
    "ChecksFailed",
    "ConfigError",
    "MissingExtra",
    "NotFound",
    "QuarantineOverflow",
    "Reason",
    "TilthError",
    "conform",
    "content_ids",
    "empty",
    "fingerprint",
    "polars_schema",
]
