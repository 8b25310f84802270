"""`tilth up`, `tilth schedule` and `tilth flow`: commands. Light: everything else is loaded when a command runs."""

from __future__ import annotations

from typing import Annotated, Any  # Any: JSON values

import typer

from tilth.flows.options import Config, Json, OfSources, Sets, print_json

schedule_app = typer.Typer(no_args_is_help=True, help="Say what runs by itself, and when.")
flow_app = typer.Typer(no_args_is_help=True, help="Run a schedule now; see and cancel runs.")

Name = Annotated[str, typer.Argument(help="A schedule, as `tilth schedule ls` names it.")]
RunId = Annotated[str, typer.Argument(help="A run, as `tilth flow ls` names it.")]
OnlySay = Annotated[bool, typer.Option("--dry-run", help="Only say what the file would hold.")]


def up(
    config: Config = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Where the server listens.")] = 4200,
) -> None:
    """Serve the schedules of tilth.yaml: a local Prefect server, its UI, and a runner. Ctrl-C stops all of it.

    The server of PREFECT_API_URL is used when it answers, else one is started here; its database lies in the workspace.
    Schedules may be added, changed, paused and removed meanwhile: the file is looked at every second.
    Relative paths in the file are meant from its folder. See docs/how-to/schedules.md.

        tilth schedule add observed --every 15m --source 'logs/*.jsonl'
        tilth up
    """
    from tilth.flows.up import up as serve

    serve(config, port, typer.echo)


@schedule_app.callback()
def schedules() -> None:
    """Say what runs by itself, and when. Schedules stand in tilth.yaml; `tilth up` follows the file."""


@schedule_app.command(cls=OfSources)
def add(
    recipe: Annotated[str, typer.Argument(help="What to run, as for `tilth run`.")],
    name: Annotated[str | None, typer.Option("--name", help="What to call it; the recipe's name.")] = None,
    cron: Annotated[str | None, typer.Option("--cron", help="When, as '0 3 * * *'.")] = None,
    every: Annotated[str | None, typer.Option("--every", help="How often, as 20s, 15m, 6h or 1d.")] = None,
    timezone: Annotated[
        str | None, typer.Option("--timezone", help="Of --cron, as Europe/Berlin; UTC when not given.")
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option("--source", "-s", help="As for `tilth run`; relative to the folder of the file."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--from", help="As for `tilth run`: a dataset, as observed.pairs.")
    ] = None,
    config: Config = None,
    sets: Sets = None,
    paused: Annotated[bool, typer.Option("--paused", help="Add it, and do not run it yet.")] = False,
    dry_run: OnlySay = False,
    as_json: Json = False,
) -> None:
    """Add a schedule to tilth.yaml. Its runs read only what is new, unless --set incremental=false says otherwise.

    The settings are loaded as a run will load them, so a mistake shows now and not at night. Secrets are refused: the
    server stores what schedules say. Give them by the environment of `tilth up`, or at the top of the file.

        tilth schedule add observed --cron '0 3 * * *' --timezone Europe/Berlin --source 'logs/*.jsonl'
        tilth schedule add rubrics --every 6h --from observed.pairs --name rubrics-of-observed
        tilth schedule add observed --every 15m -s 'logs/*.jsonl' --set max_quarantine_share=0.1 --dry-run
    """
    from tilth.flows.options import given_of
    from tilth.flows.schedule import add_schedule

    when = given_of(cron=cron, every=every, timezone=timezone, paused=paused or None)
    told = add_schedule(
        config, name or recipe, recipe, when, given_of(sources=source, dataset=dataset), sets or [], dry_run
    )
    _tell(told, as_json)


@schedule_app.command("ls")
def list_schedules(config: Config = None, as_json: Json = False) -> None:
    """List schedules with their next time, and how the last run ended where a server answers."""
    from tilth.flows.schedule import schedule_rows
    from tilth.flows.show import print_rows

    rows = schedule_rows(config)
    print_json(rows) if as_json else print_rows(rows, "no schedules yet: tilth schedule add makes one")


@schedule_app.command()
def pause(name: Name, config: Config = None, dry_run: OnlySay = False, as_json: Json = False) -> None:
    """Keep a schedule and let it not run; a run at work goes on.

        tilth schedule pause observed
    """  # fmt: skip
    from tilth.flows.schedule import set_paused

    _tell(set_paused(config, name, True, dry_run), as_json)


@schedule_app.command()
def resume(name: Name, config: Config = None, dry_run: OnlySay = False, as_json: Json = False) -> None:
    """Let a paused schedule run again.

        tilth schedule resume observed
    """  # fmt: skip
    from tilth.flows.schedule import set_paused

    _tell(set_paused(config, name, False, dry_run), as_json)


@schedule_app.command()
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: Config = None,
    dry_run: OnlySay = False,
    as_json: Json = False,
) -> None:
    """Take a schedule out of tilth.yaml, and print what stood there, to put back. What it made stays in the catalog.

    tilth schedule remove observed --yes
    """
    from tilth.flows.schedule import remove_schedule

    if not yes and not dry_run:
        typer.confirm(f"remove the schedule {name}?", abort=True, err=True)
    _tell(remove_schedule(config, name, dry_run), as_json)


@flow_app.callback()
def flows() -> None:
    """Run a schedule now; see and cancel runs. All through the server of `tilth up` or PREFECT_API_URL."""


@flow_app.command("run")
def run_now(
    name: Name,
    wait: Annotated[
        bool, typer.Option("--wait", help="Until it has ended; exits 1 unless it completed.")
    ] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Run a schedule now. It is skipped when a run of the same schedule is at work.

    tilth flow run observed --wait
    """
    from tilth.flows.schedule import run_schedule

    told = run_schedule(config, name, wait=wait)
    print_json(told) if as_json else typer.echo(f"{told['run']}: {told['state']}\n{told['url']}")
    if wait and told["state"] != "Completed":
        raise typer.Exit(1)


@flow_app.command("ls")
def list_runs(
    count: Annotated[int, typer.Option("-n", min=1, max=200, help="How many.")] = 10,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List the last runs of the schedules in tilth.yaml."""
    from tilth.flows.schedule import run_rows
    from tilth.flows.show import print_rows

    rows = run_rows(config, count)
    print_json(rows) if as_json else print_rows(rows, "no runs yet")


@flow_app.command()
def cancel(run: RunId, config: Config = None, as_json: Json = False) -> None:
    """Cancel a run. What it has finished so far is kept, and nothing of it is visible in the catalog.

    tilth flow cancel 0199c0de-0000-7000-8000-000000000000
    """
    from tilth.flows.schedule import cancel_run

    told = cancel_run(config, run)
    print_json(told) if as_json else typer.echo(f"{told['run']}: {told['state']}")


def _tell(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    typer.echo(told["said"], err=True)
    typer.echo(told["yaml"], nl=False)
