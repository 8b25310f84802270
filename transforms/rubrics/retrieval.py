"""Which of many texts are nearest to a text: by TF-IDF, or by an embedding model of your own."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal  # Any: scipy and sentence-transformers are typed in part

import polars as pl
import xxhash

from tilth.schemas import ConfigError, MissingExtra

NEAREST: Final = pl.Schema(
    {"query": pl.UInt32, "document": pl.UInt32, "similarity": pl.Float64, "rank": pl.UInt32}
)
"""Places of a query and of a document in their lists, their cosine, and the rank of the document from 1."""
CELLS: Final = 4_000_000  # similarities at a time
_DECIMALS: Final = 6  # of a similarity; beyond them sums of floats differ between processors
_BATCH: Final = 32  # texts that a model sees at once
_CHUNK_BYTES: Final = 8 << 20
_State = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Retrieval:
    """How near texts are to each other; the fields are the keys of a section `retrieval` in `tilth.yaml`.

    Args:
        method: `tfidf` needs nothing; `embeddings` needs the extra of that name and a model.
        model: the folder of a sentence-transformers model. Nothing is ever downloaded.
        min_similarity: what is less like the query (cosine, 0 to 1) is not found.
    """

    method: Literal["tfidf", "embeddings"] = "tfidf"
    model: str = ""
    min_similarity: float = 0.0

    def __post_init__(self) -> None:
        if self.method not in ("tfidf", "embeddings"):
            raise ConfigError("how to retrieve", found=self.method, wanted="tfidf or embeddings")
        if not 0 <= self.min_similarity <= 1:
            raise ConfigError("min_similarity", found=self.min_similarity, wanted="0 to 1")
        if (self.method == "embeddings") != bool(self.model):
            wanted = "the folder of a sentence-transformers model with method embeddings, else none"
            raise ConfigError("model to retrieve with", found=self.model or "none", wanted=wanted)


def identity(config: Retrieval) -> str:
    """What similarities depend on, for the properties of a version: the method with its version, the model's contents.

    Raises as `vectors` does.
    """
    if config.method == "tfidf":
        return f"tfidf@scikit-learn {_version('scikit-learn')}"
    _demand_extra()
    digest = _digest(config.model, _state(_folder(config)))
    return f"sentence-transformers {_version('sentence-transformers')}:{digest}"


def nearest(
    queries: Sequence[str], documents: Sequence[str], k: int, config: Retrieval | None = None
) -> pl.DataFrame:
    """The `k` documents most like each query, rows of `NEAREST` by query and rank. Raises as `vectors` does.

    Similarities are cosines, rounded to 6 decimals; of documents equally like a query, the one whose text sorts first
    is the nearer, and of equal texts the first in the list: which texts are found does not hang on the order of
    documents, nor on the other queries. What is not above 0, or below `min_similarity`, is not found.

    Memory beside the documents' vectors (TF-IDF: up to 35 KB for 2,000 characters; a model: 4 bytes per dimension): 4
    million similarities at a time, under 100 MB.
    """
    config = Retrieval() if config is None else config
    if not queries or not documents or k < 1:
        return pl.DataFrame(schema=NEAREST)
    texts = sorted(set(documents))
    among, place = placed_among(texts, config)
    rows = max(1, CELLS // len(texts))
    blocks = (queries[start : start + rows] for start in range(0, len(queries), rows))
    found = [
        _best(place(block), among, k, config.min_similarity, number * rows)
        for number, block in enumerate(blocks)
    ]
    return _spread(pl.concat(found), texts, documents, k)


def vectors(texts: Sequence[str], config: Retrieval) -> Any:
    """A row of unit length for each text, sparse or dense; their products are cosines.

    The order of texts decides nothing. A text without a word is a row of zeros where TF-IDF makes it.

    Raises `MissingExtra` without sentence-transformers where embeddings are asked for, `ConfigError` where the model is
    no folder.
    """
    unique = sorted(set(texts))
    places = {text: place for place, text in enumerate(unique)}
    return placed_among(unique, config)[0][[places[text] for text in texts]]


def likeness(rows: Any, columns: Any) -> Any:
    """The cosines of rows of `vectors` with others, as a dense array rounded to 6 decimals."""
    import numpy as np

    product = rows @ columns.T
    dense = product.toarray() if hasattr(product, "toarray") else product
    return np.round(np.asarray(dense, np.float64), _DECIMALS)


def placed_among(texts: list[str], config: Retrieval) -> tuple[Any, Callable[[Sequence[str]], Any]]:
    """The vectors of sorted, different texts, and how other texts are placed among them."""
    if config.method == "tfidf":
        from tilth.transforms.selection.tfidf import space

        return space(texts)
    _demand_extra()
    folder = _folder(config)
    encode = _encoder(str(folder), _state(folder))
    return encode(texts), encode


def _best(queries: Any, among: Any, k: int, floor: float, offset: int) -> pl.DataFrame:
    """The `k` nearest texts (`place`) of each query of a block, ties by place."""
    import numpy as np

    alike = likeness(queries, among)
    last = max(0, alike.shape[1] - k)
    kth = np.partition(alike, last, axis=1)[:, last]
    rows, places = np.nonzero((alike >= np.maximum(kth, floor)[:, None]) & (alike > 0))
    found = pl.DataFrame({"query": rows + offset, "place": places, "similarity": alike[rows, places]})
    ordered = found.sort("query", "similarity", "place", descending=[False, True, False])
    return ordered.group_by("query", maintain_order=True).head(k)


def _spread(found: pl.DataFrame, texts: list[str], documents: Sequence[str], k: int) -> pl.DataFrame:
    """Texts as the documents that have them."""
    places = pl.DataFrame({"text": texts}).with_row_index("place")
    holders = pl.DataFrame({"text": list(documents)}).with_row_index("document").join(places, on="text")
    rows = found.cast({"place": pl.UInt32}).join(holders.drop("text"), on="place")
    ordered = rows.sort("query", "similarity", "place", "document", descending=[False, True, False, False])
    ranked = ordered.with_columns(rank=pl.int_range(1, pl.len() + 1).over("query"))
    return ranked.filter(pl.col("rank") <= k).select(
        pl.col(name).cast(kind) for name, kind in NEAREST.items()
    )


def _demand_extra() -> None:
    if importlib.util.find_spec("sentence_transformers") is None:
        do = "pip install 'tilth[embeddings]', or retrieve with method tfidf"
        raise MissingExtra("sentence-transformers is not installed", do=do)


def _folder(config: Retrieval) -> Path:
    folder = Path(config.model)
    if not folder.is_dir():
        do = "save one with SentenceTransformer.save_pretrained, or retrieve with method tfidf"
        raise ConfigError(
            "model to retrieve with",
            found=config.model,
            wanted="the folder of a sentence-transformers model",
            do=do,
        )
    return folder


@lru_cache(maxsize=1)
def _encoder(folder: str, state: _State) -> Callable[[Sequence[str]], Any]:
    """A model that stays loaded while its files stay as they are."""
    del state
    # By name: an extra, which is not installed where types are checked.
    model: Any = importlib.import_module("sentence_transformers").SentenceTransformer(
        folder, local_files_only=True
    )

    def encode(texts: Sequence[str]) -> Any:
        from sklearn.preprocessing import normalize

        rows = model.encode(list(texts), batch_size=_BATCH, show_progress_bar=False)
        # A model of 16 bits would normalise in 16 bits, and be off by 0.003.
        return normalize(rows.astype("float32"))

    return encode


def _state(folder: Path) -> _State:
    """The files of a model with their sizes and times of change, hidden ones left out."""
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
    stats = [(file.relative_to(folder).as_posix(), file.stat()) for file in files]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


@lru_cache(maxsize=8)
def _digest(folder: str, state: _State) -> str:
    """128 bits in hex of the model's files: names, sizes and contents. Sub-folders hold weights too (`2_Dense`)."""
    hashed = xxhash.xxh3_128()
    for name, size, _ in state:
        hashed.update(f"{name}\0{size}\0".encode())
        with (Path(folder) / name).open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                hashed.update(chunk)
    return hashed.hexdigest()


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)
