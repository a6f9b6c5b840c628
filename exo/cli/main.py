"""The `exo` command: registers the nouns and turns errors into exit codes."""

import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from exo import __version__
from exo.cli import (
    bench,
    client,
    cluster,
    doctor,
    dump,
    events,
    image,
    instance,
    key,
    logs,
    model,
    node,
    run,
    start,
    status,
    stop,
    topology,
)
from exo.cli.output import out
from exo.errors import ExoError

# Plain help instead of Typer's panels: importing rich costs more than all the rest of `--help`,
# and plain text reads the same at every width.
app = typer.Typer(
    name="exo",
    help="Join the devices you own into one AI endpoint.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(start.start)
app.command()(stop.stop)
app.command()(status.status)
app.command()(run.run)
app.command()(image.image)
app.add_typer(instance.app)
app.add_typer(key.app)
app.add_typer(model.app)
app.add_typer(node.app)
app.command()(topology.topology)
app.add_typer(cluster.app)
app.command()(events.events)
app.command()(logs.logs)
app.command()(bench.bench)
app.command()(doctor.doctor)
app.command()(dump.dump)


def _print_version(wanted: bool) -> None:
    if wanted:
        out.text(f"exo {__version__}\n")
        raise typer.Exit


@app.callback()
def root(
    api: Annotated[
        str | None,
        typer.Option(
            envvar="EXO_API", metavar="URL", help="API to talk to, instead of this device's daemon."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    out.json, out.quiet = json, False
    client.use_api(api)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A model may write any character; a terminal that lacks it is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        code = _run(argv)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of a pipe left (`exo events | head`). What is still buffered goes nowhere, so
        # that the interpreter's own flush at exit does not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception:  # noqa: BLE001  the last line of defence: what comes here is a bug of exo
        traceback.print_exc()
        out.note("This is a bug in exo. Please report it with the lines above.")
        return 1
    return code


def _run(argv: Sequence[str] | None) -> int:
    try:
        app(args=argv, prog_name="exo")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except ExoError as error:
        out.error(error)
        return error.exit_code
    return 0
