"""Opening a workspace's catalog: where its database and its files are."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tilth.catalog.parts import plain, read_json, write_whole
from tilth.catalog.store import Catalog
from tilth.schemas import BadInput, ConfigError, NotFound

if TYPE_CHECKING:
    from tilth.catalog.iceberg import FamilyCatalog

_PLACES: Final = "catalog/places.json"  # where the database and the files are, of a workspace that says so
_PASSWORD: Final = re.compile(r"//[^/@:]*:[^/@]+@")


def open_catalog(
    workspace: str, *, create: bool = True, database: str | None = None, warehouse: str | None = None
) -> Catalog:
    """Opens the catalog of a workspace: `<workspace>/catalog/catalog.db` (SQLite) and
    `<workspace>/catalog/warehouse`, unless `place_catalog` has said otherwise.

    Args:
        workspace: a directory; with `database` and `warehouse` given it is not looked at.
        create: make a catalog where there is none.
        database: an SQLAlchemy URL of another database, e.g. PostgreSQL where several hosts commit.
        warehouse: where tables are kept, any fsspec URI.

    Raises `NotFound` when there is no catalog and `create` is false, `ConfigError` for a workspace on an
    object store without a `database`.
    """
    root = plain(workspace)
    if database is None:
        places = _places(root)
        database = places.get("database") or _sqlite(root, create)
        warehouse = warehouse or places.get("warehouse")
    home = plain(warehouse or f"{root}/catalog/warehouse")
    options = {"uri": database, "warehouse": home}
    if "://" in home:
        options["py-io-impl"] = "pyiceberg.io.fsspec.FsspecFileIO"
    return Catalog(_connected(options), home)


def place_catalog(workspace: str, database: str, warehouse: str | None = None) -> dict[str, str]:
    """Says where the catalog of a new workspace is to be, in the workspace itself: every opener finds it there.

    Args:
        workspace: a folder or an fsspec URI.
        database: an SQLAlchemy URL without a password, which PostgreSQL's client takes from `PGPASSWORD` or `.pgpass`.
        warehouse: where tables are kept, any fsspec URI; below the workspace when not given.

    Raises `ConfigError` for a password, and `BadInput` when the workspace has a catalog elsewhere, whose versions
    would be out of sight.
    """
    root = plain(workspace)
    if _PASSWORD.search(database):
        do = "leave it out of the URL, and set PGPASSWORD or ~/.pgpass where Tilth runs"
        raise ConfigError("the URL of the catalog's database holds a password", do=do)
    asked = {"database": database, **({"warehouse": plain(warehouse)} if warehouse else {})}
    known = _places(root)
    if known == asked:
        return asked
    if known or ("://" not in root and (Path(root) / "catalog" / "catalog.db").exists()):
        found = known.get("database", "catalog.db in the workspace")
        raise BadInput(
            f"workspace {root} has a catalog", found=found, wanted=database, do="take a new workspace"
        )
    write_whole(json.dumps(asked, indent=2).encode(), f"{root}/{_PLACES}")
    return asked


def _places(root: str) -> dict[str, str]:
    return read_json(f"{root}/{_PLACES}") or {}


def _sqlite(root: str, create: bool) -> str:
    if "://" in root:
        do = "say where it is with `tilth catalog init`, or keep the workspace on a local disk"
        raise ConfigError(
            "the catalog's database", found=f"workspace {root}", wanted="a local directory", do=do
        )
    path = Path(root) / "catalog" / "catalog.db"
    if not path.exists() and not create:
        raise NotFound(
            f"no catalog in {root}", do="make one with `tilth demo` or `tilth run`, or name its --workspace"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{path}?timeout=60"


def _connected(options: dict[str, str]) -> FamilyCatalog:
    from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

    from tilth.catalog.iceberg import FamilyCatalog

    try:
        return FamilyCatalog("tilth", **options)
    except (OperationalError, ProgrammingError, IntegrityError):
        # Another process made the tables between our look and our attempt; each database says so in its own way.
        time.sleep(0.1)
        return FamilyCatalog("tilth", **options)
