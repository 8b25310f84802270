"""What a user sees who asks for vLLM where it cannot run."""

from __future__ import annotations

import importlib.util

import pytest

from tilth.schemas import MissingExtra
from tilth.transforms.inference.engines import EngineConfig, connect, vllm
from tilth.transforms.inference.failures import EngineFailed


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
@pytest.mark.parametrize("devices", [(), ("0", "1")])
def test_missing_extra_says_what_to_install(devices: tuple[str, ...]) -> None:
    """Without vLLM, asking for it names the extra, the device it needs, and the way without it."""
    with pytest.raises(MissingExtra) as caught:
        connect(EngineConfig(kind="vllm", model="some/model", devices=devices))
    said = str(caught.value)
    for part in ("pip install 'tilth[vllm]'", "GPU", "--engine openai --base-url"):
        assert part in said


def test_no_device_says_what_was_found_and_wanted() -> None:
    """vLLM on a machine without a device that it supports fails with what it found and the way out."""
    with pytest.raises(EngineFailed) as caught:
        vllm._check_device("", "unspecified")
    assert "unspecified" in str(caught.value.found)
    assert "GPU" in str(caught.value.wanted)
    assert "--engine openai --base-url" in str(caught.value.do)


def test_a_device_is_enough() -> None:
    """Any device that vLLM names is taken."""
    vllm._check_device("cpu", "cpu")
