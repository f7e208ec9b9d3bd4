"""The command line: one file = one command; each parses, calls, and prints.

Results go to stdout, progress and messages to stderr. Nothing heavy is imported before a command
needs it, so that `urban --help` is instant. The folder is the registry here too: a file's function
of its own name is the command.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from urbancli import __version__, plugins
from urbancli.errors import UrbanError

INTERRUPTED = 130


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"urban {__version__}")
        raise typer.Exit


def _application() -> typer.Typer:
    app = typer.Typer(
        name="urban",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def root(
        context: typer.Context,
        workspace: Annotated[
            Path, typer.Option("--workspace", "-w", help="Folder of data/, runs/ and results/.")
        ] = Path("."),
        version: Annotated[
            bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
        ] = False,
    ) -> None:
        """Geo-tile datasets, urban representations, and an honest benchmark of them."""
        context.obj = workspace

    for name in plugins.names("cli"):
        module = plugins.load("cli", name)
        app.command(name)(module.command)
    return app


def _interrupt(*_: object) -> None:
    """Leave at once, from whatever library code is running: every file is whole at any moment."""
    show_cursor = "\x1b[?25h\n" if sys.stderr.isatty() else ""
    text = f"{show_cursor}interrupted: what was finished stays; run it again to go on\n"
    os.write(2, text.encode())
    os._exit(INTERRUPTED)


def main() -> None:
    """Run `urban`; a mendable error is one line on stderr and its exit code."""
    signal.signal(signal.SIGINT, _interrupt)
    # Threads that spin while they wait cost a tenth less alone, and three times more beside other
    # work (measured: training on two cores). Read by OpenMP when torch loads it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app = _application()
    try:
        code = app(standalone_mode=False)
    except UrbanError as err:
        print(f"error: {err}", file=sys.stderr)
        code = err.exit_code
    except BrokenPipeError:  # `urban … | head`: the reader has what it wanted
        os._exit(0)
    except typer.Exit as err:
        code = err.exit_code
    except Exception as err:
        # Usage errors of typer (and of click below it) know how to say what is wrong.
        if not hasattr(err, "format_message"):
            raise
        if message := err.format_message():
            print(f"error: {message} (see `urban --help`)", file=sys.stderr)
        code = getattr(err, "exit_code", 2)
    sys.exit(code if isinstance(code, int) else 0)
