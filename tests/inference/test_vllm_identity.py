"""What answers of vLLM are known by: the contents of a model and the arguments that change answers, nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any  # Any: arguments of vLLM

import orjson
import pytest

from tilth.schemas import ConfigError
from tilth.transforms.inference.engines import EngineConfig, identify
from tilth.transforms.inference.engines.vllm_identity import PERFORMANCE, pinned_revision


def identity(model: Path | str, revision: str = "", args: Mapping[str, Any] | None = None) -> str:
    return identify(EngineConfig(kind="vllm", model=str(model), revision=revision, args=args or {}))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "judge"
    folder.mkdir()
    (folder / "config.json").write_bytes(orjson.dumps({"architectures": ["LlamaForCausalLM"]}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "model.safetensors").write_bytes(b"weights" * 1000)
    return folder


def test_copy_elsewhere_is_the_same_model(model: Path, tmp_path: Path) -> None:
    """A copy under another name, with a README of its own, has the same identity, which names the architecture."""
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(model, copy, copy_function=shutil.copyfile)
    (copy / "README.md").write_text("A copy.")
    (copy / ".cache").mkdir()
    (copy / ".cache" / "lock").write_text("")
    assert identity(copy) == identity(model)
    assert identity(model).startswith("vllm:LlamaForCausalLM@")


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"]
)
def test_any_change_is_another_model(model: Path, name: str) -> None:
    """A retrained model in the same folder, a changed template or tokenizer: each is known by another name."""
    before = identity(model)
    data = bytearray((model / name).read_bytes())
    data[-1] ^= 1  # of equal size
    (model / name).write_bytes(data)
    assert identity(model) != before


def test_a_file_more_or_moved_is_another_model(model: Path) -> None:
    """Adding a file or giving one another name changes the identity."""
    seen = {identity(model)}
    (model / "generation_config.json").write_text("{}")
    seen.add(identity(model))
    (model / "model.safetensors").rename(model / "model-00001.safetensors")
    seen.add(identity(model))
    assert len(seen) == 3


def test_arguments_that_change_answers_are_part_of_it(model: Path) -> None:
    """Other arguments, other identity; their order does not matter."""
    sets: list[dict[str, Any]] = [
        {},
        {"dtype": "bfloat16"},
        {"dtype": "float16"},
        {"max_model_len": 100},
        {"sampling_params": {"top_k": 5}},
        {"chat_template_kwargs": {"enable_thinking": False}},
    ]
    assert len({identity(model, args=args) for args in sets}) == len(sets)
    one, other = {"dtype": "auto", "seed": 1}, {"seed": 1, "dtype": "auto"}
    assert identity(model, args=one) == identity(model, args=other)


def test_arguments_of_speed_are_not(model: Path) -> None:
    """The same model on more GPUs, in bigger batches or with another cache gives answers of the same name."""
    args = dict.fromkeys(PERFORMANCE, 2)
    assert identity(model, args=args) == identity(model)
    assert {"tensor_parallel_size", "gpu_memory_utilization", "max_num_seqs"} <= PERFORMANCE


def test_paths_in_arguments_are_known_by_content(model: Path, tmp_path: Path) -> None:
    """A tokenizer elsewhere counts by what it is: moved it is the same, changed it is another."""
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / "tokenizer.json").write_text("{}")
    assert identity(model, args={"tokenizer": str(one)}) == identity(model, args={"tokenizer": str(other)})
    before = identity(model, args={"speculative_config": {"model": str(one)}})
    (one / "tokenizer.json").write_text("[]")
    assert identity(model, args={"speculative_config": {"model": str(one)}}) != before


def test_hub_model_is_known_by_its_revision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A revision that is given, else the commit in the local cache, which is then the one that is loaded."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert identity("org/judge", "v1") == "vllm:org/judge@v1"
    refs = tmp_path / "models--org--judge" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("0123abcd\n")
    assert identity("org/judge") == "vllm:org/judge@0123abcd"
    assert pinned_revision(EngineConfig(kind="vllm", model="org/judge")) == "0123abcd"


def test_unknown_revision_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A model that lies nowhere and has no revision is refused: its answers could not be told apart."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="hf download org/judge"):
        identity("org/judge")


def test_identify_loads_no_vllm(model: Path) -> None:
    """Naming a model costs the import of neither vLLM nor torch."""
    code = (
        "import sys; from tilth.transforms.inference.engines import EngineConfig, identify;"
        "identify(EngineConfig(kind='vllm', model=sys.argv[1]));"
        "print([m for m in ('vllm', 'torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(model)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
