"""Beam: where tasks of a stage run. The graph is the same on every runner: tasks in, manifests on disk out."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any  # Any: options that dask types too narrowly

import fsspec

from tilth.schemas import ConfigError, MissingExtra
from tilth.transforms.child import in_a_child
from tilth.transforms.stage import Execute, Headway, Progress, Stage, Task, lanes, notes, run_tasks, title

# By its full name: since Beam 2.68 `DirectRunner` first tries to download a Go binary.
_LOCAL = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
_DASK = "apache_beam.runners.dask.dask_runner.DaskRunner"
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Runner:
    """Which Beam runner, with how many workers, and Beam options passed through as they are.

    `name` is `local` (in this process), `processes` (local worker processes), `dask` (a local cluster, or the
    one that `--dask_client_address=…` names) or any name that Beam knows.
    """

    name: str = "local"
    workers: int = 2
    options: tuple[str, ...] = ()

    @contextlib.contextmanager
    def session(self, progress: Progress | None = None, *, apart: bool = False) -> Generator[Execute]:
        """What runs the stages of one run; a local cluster lives as long as the session.

        With `apart` they run in a child process, of which nothing is left when the session ends or this process dies;
        see `tilth.transforms.child`.
        """
        with in_a_child(self) if apart else self._here() as run:

            def execute(stage: Stage, tasks: Sequence[Task]) -> None:
                with _watched(progress, stage, tasks):
                    run(stage, tasks)

            yield execute

    @contextlib.contextmanager
    def _here(self) -> Generator[Execute]:
        with _quiet(), self._beam_options() as options:
            yield lambda stage, tasks: _run(stage, tasks, options)

    @contextlib.contextmanager
    def _beam_options(self) -> Generator[list[str]]:
        if self.name == "dask" and not any(o.startswith("--dask_client_address") for o in self.options):
            with _dask_cluster(self.workers) as address:
                yield [f"--runner={_DASK}", f"--dask_client_address={address}", *self.options]
        elif self.name == "processes":
            mode = ["--direct_running_mode=multi_processing", f"--direct_num_workers={self.workers}"]
            yield [f"--runner={_LOCAL}", *mode, *self.options]
        else:
            names = {"local": _LOCAL, "dask": _DASK}
            yield [f"--runner={names.get(self.name, self.name)}", *self.options]


def _run(stage: Stage, tasks: Sequence[Task], options: list[str]) -> None:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    name = stage.step.name
    try:
        pipeline = beam.Pipeline(options=PipelineOptions(options))
    except (ValueError, ImportError, AttributeError) as error:
        raise ConfigError(
            "Beam does not know this runner",
            found=options[0],
            wanted="local, processes, dask, or a Beam runner's name (FlinkRunner, DataflowRunner, …)",
            do="check --runner, and that the runner's package is installed",
        ) from error
    dealt = lanes(stage, tasks)
    with pipeline:
        made = pipeline | f"{name}: tasks" >> beam.Create(dealt)
        # One element has nowhere to be spread to; the shuffle would only delay it.
        spread = made if len(dealt) == 1 else made | f"{name}: spread" >> beam.Reshuffle()
        _ = spread | f"{name}: run" >> beam.Map(run_tasks, stage)


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Beam and Dask report their own doings at INFO and WARNING; a user of Tilth has no use for them."""
    loggers = [logging.getLogger(name) for name in ("", "apache_beam", "distributed")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _dask_cluster(workers: int) -> Generator[str]:
    try:
        from dask.distributed import Client, LocalCluster
    except ImportError as error:
        raise MissingExtra("the dask runner is not installed", do="pip install 'tilth[dask]'") from error
    quiet: dict[str, Any] = {"dashboard_address": None, "silence_logs": logging.CRITICAL}
    cluster: Any  # `with` on the class is typed for its asynchronous use
    with LocalCluster(n_workers=workers, threads_per_worker=1, **quiet) as cluster:
        yield str(cluster.scheduler_address)
        # Beam's runner opens one a pipeline and closes none.
        for client in list(Client._instances):  # pyright: ignore[reportPrivateUsage]
            client.close()


@contextlib.contextmanager
def _watched(progress: Progress | None, stage: Stage, tasks: Sequence[Task]) -> Generator[None]:
    """Tells `progress` how far the stage is while the pipeline blocks. It looks at files, so any runner will do."""
    if progress is None:
        yield
        return
    ended = threading.Event()
    look = _tell_rows if hasattr(stage.step, "run_lane") else _count_done
    watcher = threading.Thread(target=look, args=(progress, stage, tasks, ended), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _count_done(progress: Progress, stage: Stage, tasks: Sequence[Task], ended: threading.Event) -> None:
    fs, _ = fsspec.core.url_to_fs(stage.directory)
    waiting = {task.name: stage.manifest_uri(task) for task in tasks}
    while True:
        last = ended.wait(_POLL_S)
        waiting = {name: uri for name, uri in waiting.items() if not fs.exists(uri)}
        progress(Headway(title(stage.step), len(tasks) - len(waiting), len(tasks)))
        if last:
            return


def _tell_rows(progress: Progress, stage: Stage, tasks: Sequence[Task], ended: threading.Event) -> None:
    rows = sum(shard.rows for task in tasks for shards in task.inputs.values() for shard in shards)
    while True:
        last = ended.wait(_POLL_S)
        told = notes(stage, tasks)
        progress(Headway(title(stage.step), sum(note["rows"] for note in told), rows, told))
        if last:
            return
