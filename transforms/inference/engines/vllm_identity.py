"""What the answers of a vLLM engine are known by. Loads no vLLM and reaches for no network."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Final

import orjson
import xxhash

from tilth.schemas import ConfigError
from tilth.transforms.inference.engines import EngineConfig

# Arguments that make an engine faster, bigger or quieter and do not change what it is asked to say. Numbers may differ
# in the last digits between them, as they do between two runs. All other arguments are part of the identity.
PERFORMANCE: Final = frozenset(
    {
        "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "data_parallel_size_local",
        "enable_expert_parallel", "distributed_executor_backend", "disable_custom_all_reduce", "device_ids",
        "numa_bind", "numa_bind_nodes", "numa_bind_cpus", "max_parallel_loading_workers",
        "gpu_memory_utilization", "kv_cache_memory_bytes", "num_gpu_blocks_override", "block_size",
        "cpu_offload_gb", "offload_backend", "kv_offloading_size", "kv_offloading_backend",
        "max_num_seqs", "max_num_batched_tokens", "max_num_scheduled_tokens", "max_num_active_seqs",
        "max_num_queued_reqs", "max_num_queued_tokens", "long_prefill_token_threshold",
        "enable_prefix_caching", "prefix_caching_hash_algo", "enable_chunked_prefill", "scheduling_policy",
        "async_scheduling", "stream_interval", "renderer_num_workers",
        "enforce_eager", "compilation_config", "cudagraph_capture_sizes", "max_cudagraph_capture_size",
        "optimization_level", "performance_mode", "safetensors_load_strategy",
        "safetensors_prefetch_num_threads", "download_dir", "use_tqdm_on_load", "max_logprobs",
        "disable_log_stats", "enable_log_requests", "aggregate_engine_logging", "shutdown_timeout",
        "otlp_traces_endpoint", "kv_cache_metrics", "enable_mfu_metrics", "hf_token",
    }
)  # fmt: skip
_SAYS_NOTHING: Final = (".md", ".png", ".jpg", ".jpeg", ".svg", ".pdf", ".lock")
_WEIGHTS: Final = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_CHUNK_BYTES: Final = 8 << 20


def identify(config: EngineConfig) -> str:
    """Model, revision and every argument that changes answers, as one line.

    A local folder is known by a digest of its files, contents included, wherever it lies; a model of a hub by its name
    and revision, which is the commit in the local cache when none is given. Raises `ConfigError` when there is none.
    """
    said = {name: _by_content(value) for name, value in config.args.items() if name not in PERFORMANCE}
    changes = orjson.dumps(said, option=orjson.OPT_SORT_KEYS, default=str).decode() if said else ""
    return f"vllm:{_model(config)} {changes}".rstrip()


def pinned_revision(config: EngineConfig) -> str:
    """The revision to load: the one given, else the commit in the local cache; empty for a local model."""
    if Path(config.model).exists():
        return ""
    return config.revision or _cached_commit(config.model)


def _model(config: EngineConfig) -> str:
    path = Path(config.model)
    if not path.exists():
        return f"{config.model}@{pinned_revision(config)}"
    return f"{_architecture(path)}@{digest(path)}"


def _architecture(path: Path) -> str:
    """A name for people. It follows from the contents, so that a copy of a model elsewhere has the same."""
    try:
        config = orjson.loads((path / "config.json").read_bytes())
        return str(config["architectures"][0])
    except (OSError, ValueError, LookupError, TypeError):
        return "model"


def _by_content(value: object) -> object:
    """The value, with each path to a model or a tokenizer replaced by what is there."""
    if isinstance(value, Mapping):
        return {str(name): _by_content(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_by_content(part) for part in value]
    if isinstance(value, (str, Path)) and Path(value).is_absolute() and Path(value).exists():
        return digest(Path(value))
    return value


def digest(path: Path) -> str:
    """128 bits in hex of all files that an engine may read: names, sizes and contents.

    xxh3 takes about 7 GiB/s per core, so that the disk sets the pace. A file that was hashed in this process is not
    read again while its size and its time of change are the same.
    """
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if _counts(file, path))
    with ThreadPoolExecutor(4) as pool:
        hashes = list(pool.map(_hash, files))
    names = ["" if path.is_file() else file.relative_to(path).as_posix() for file in files]
    sizes = [file.stat().st_size for file in files]
    return xxhash.xxh3_128_hexdigest(orjson.dumps(list(zip(names, sizes, hashes, strict=True))))


def _counts(file: Path, root: Path) -> bool:
    """True for all files at the top, and for code and templates below; weights below are of other formats."""
    inside = file.relative_to(root)
    if any(part.startswith(".") or part == "__pycache__" for part in inside.parts) or not file.is_file():
        return False
    if file.suffix.lower() in _SAYS_NOTHING or file.name.upper().startswith("LICENSE"):
        return False
    return len(inside.parts) == 1 or file.suffix not in _WEIGHTS


def _hash(file: Path) -> str:
    stat = file.stat()
    return _hash_as_of(str(file.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@lru_cache(maxsize=4096)
def _hash_as_of(path: str, size: int, written: int, changed: int) -> str:
    del size, written, changed  # only there for the memory to forget by
    state = xxhash.xxh3_128()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            state.update(chunk)
    return state.hexdigest()


def _cached_commit(model: str) -> str:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = repo_folder_name(repo_id=model, repo_type="model")
    try:
        return (Path(constants.HF_HUB_CACHE) / folder / "refs" / "main").read_text().strip()
    except OSError:
        raise ConfigError(
            f"which revision of {model}",
            found="no folder of that name, no revision, and nothing in the local cache of the hub",
            wanted="a folder, or a name and a revision: answers are known by it",
            do=f"run `hf download {model}`, or set engine.revision (--revision) to a tag or commit",
        ) from None
