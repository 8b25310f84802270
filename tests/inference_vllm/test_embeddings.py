"""Retrieval with a real sentence-transformers model: tiny, of random weights, from a folder, without a network."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import tiny_llama
from tilth.schemas import ConfigError
from tilth.transforms.rubrics.complaints import COMPLAINTS
from tilth.transforms.rubrics.criteria import PROMPTS
from tilth.transforms.rubrics.distilled import Distilled, complaint_criteria
from tilth.transforms.rubrics.retrieval import NEAREST, Retrieval, identity, nearest, vectors

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),
]

TEXTS = ["hello world", "this is a small corpus", "the label is satisfied", "score 1", "hello small world"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that means the last layer of a tiny Llama."""
    folder = tmp_path_factory.mktemp("embedder")
    package: Any = importlib.import_module("sentence_transformers")
    modules: Any = importlib.import_module("sentence_transformers.sentence_transformer.modules")
    words = modules.Transformer(str(tiny_llama.build(folder / "llama")))
    pooling = modules.Pooling(words.get_embedding_dimension(), "mean")
    package.SentenceTransformer(modules=[words, pooling]).save_pretrained(str(folder / "model"))
    return folder / "model"


def embedding(model: Path, **changes: Any) -> Retrieval:
    return Retrieval("embeddings", str(model), **changes)


def test_a_text_is_nearest_to_itself(model: Path) -> None:
    """Each text finds itself first, at a cosine of 1, and the rank goes down with the similarity."""
    found = nearest(TEXTS, TEXTS, 3, embedding(model))
    assert found.schema == NEAREST
    first = found.filter(rank=1)
    assert first["query"].to_list() == first["document"].to_list() == list(range(len(TEXTS)))
    assert first["similarity"].to_list() == pytest.approx([1.0] * len(TEXTS), abs=1e-5)
    assert found.select(pl.col("similarity").diff().over("query").drop_nulls() <= 0).to_series().all()


def test_vectors_have_unit_length(model: Path) -> None:
    """Cosines are products of rows."""
    rows = vectors(TEXTS, embedding(model))
    assert (rows**2).sum(axis=1).tolist() == pytest.approx([1.0] * len(TEXTS), abs=1e-5)


def test_the_order_of_documents_decides_nothing(model: Path) -> None:
    """Documents in reverse are the same texts with the same similarities."""
    documents = pl.DataFrame({"text": TEXTS}).with_row_index("document")
    turned = pl.DataFrame({"text": TEXTS[::-1]}).with_row_index("document")
    found = [
        nearest(["small label"], texts["text"].to_list(), 3, embedding(model)).join(texts, on="document")
        for texts in (documents, turned)
    ]
    columns = ["rank", "text", "similarity"]
    assert found[0].select(columns).sort("rank").equals(found[1].select(columns).sort("rank"))


def test_the_identity_is_of_contents(model: Path, tmp_path: Path) -> None:
    """A copy elsewhere is the same model; one changed byte in any folder of it makes another."""
    copied = shutil.copytree(model, tmp_path / "copy")
    known = identity(embedding(model))
    assert known.startswith("sentence-transformers ")
    assert identity(embedding(copied)) == known
    (pooling,) = copied.glob("1_*/config.json")
    pooling.write_text(pooling.read_text() + " ")
    assert identity(embedding(copied)) != known


def test_a_changed_model_is_loaded_anew(model: Path, tmp_path: Path) -> None:
    """What was loaded is not used for a folder whose files have changed."""
    copied = shutil.copytree(model, tmp_path / "copy")
    before = vectors(TEXTS, embedding(copied))
    other = tiny_llama.build(tmp_path / "other", seed=1)
    shutil.copy(other / "model.safetensors", next(copied.rglob("model.safetensors")))
    assert abs(vectors(TEXTS, embedding(copied)) - before).max() > 0.01


def test_no_model_is_looked_for_elsewhere(tmp_path: Path) -> None:
    """A name that is no folder is refused: nothing is downloaded."""
    for name in ("sentence-transformers/all-MiniLM-L6-v2", str(tmp_path / "nowhere")):
        with pytest.raises(ConfigError, match="folder"):
            nearest(["a"], ["b"], 1, Retrieval("embeddings", name))


def test_complaints_are_grouped_by_the_model(model: Path) -> None:
    """Distilling works on dense vectors as on sparse ones."""
    said = ["Too long by far.", "Too long, by far!", "score the label"]
    prompt = [{"role": "user", "content": "hello world"}]
    rows = [
        {"feedback_id": f"{n:032x}", "conversation_id": f"c{n}", "prompt_id": "p", "prompt": prompt,
         "text": text, "strength": 0.9, "labels": ["style"], "user_key": f"u{n}", "split": "train"}
        for n, text in enumerate(said)
    ]  # fmt: skip
    prompts = pl.DataFrame([{"prompt_id": "p", "prompt": prompt, "split": "train"}], schema=PROMPTS)
    made = complaint_criteria(
        prompts, pl.DataFrame(rows, schema=COMPLAINTS), Distilled(same_complaint=0.999), embedding(model)
    )
    assert sorted(len(ids) for ids in made["feedback_ids"]) == [1, 2]
