"""What every command shares: the workspace option, progress on stderr, JSON on stdout."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from urbancli.errors import UsageError

if TYPE_CHECKING:
    from urbancli.workspace import Workspace


def workspace_of(context: typer.Context) -> "Workspace":
    """Return the workspace of the global option `--workspace`."""
    from urbancli.workspace import Workspace

    return Workspace(Path(context.obj))


def city_key(name: str) -> str:
    """Return the key of a city as a person may spell it.

    Raises:
        UsageError: nothing of it can be a name.
    """
    from urbancli.city import slug

    if key := slug(name):
        return key
    raise UsageError(f"'{name}' names no city: use letters or digits")


def say(message: str) -> None:
    """Print one line for the person at the terminal, on stderr."""
    print(message, file=sys.stderr, flush=True)


def print_json(content: Any) -> None:
    """Print a result for machines, on stdout."""
    print(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, default=str))


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function (what, done, total): a bar in a terminal, a line every 10 s elsewhere."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, Any] = {}

        def update(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)

        yield update


def _lines() -> Callable[[str, int, int], None]:
    last = time.monotonic()

    def update(what: str, done: int, total: int) -> None:
        nonlocal last
        if done < total and time.monotonic() - last < 10:
            return
        last = time.monotonic()
        say(f"{what}: {done}/{total}")

    return update
