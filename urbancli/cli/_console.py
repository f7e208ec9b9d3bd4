"""What every command shares: the workspace option, progress on stderr, JSON on stdout."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from urbancli.errors import UsageError

if TYPE_CHECKING:
    from urbancli.workspace import Workspace

WITH_GAPS = 3
"""Exit code where what was asked is finished but for gaps, which are told."""


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


def wanted_cities(
    workspace: "Workspace", given: Sequence[str] | None, pinned: Sequence[str], doing: str
) -> list[str]:
    """Return the keys of the cities that options name, else `urban.toml`, else all fetched ones.

    Args:
        workspace: with the cities.
        given: of `--city`.
        pinned: of `urban.toml`.
        doing: what is done with them, for the person who named none.

    Raises:
        UsageError: none is named and none fetched.
    """
    if given:
        return list(dict.fromkeys(map(city_key, given)))
    if pinned:
        say(f"{doing} the cities of urban.toml: {', '.join(pinned)}")
        return list(dict.fromkeys(pinned))
    if cities := workspace.cities():
        say(f"{doing} every fetched city: {', '.join(cities)}")
        return cities
    raise UsageError("no city is fetched yet: run `urban fetch --city NAME` first")


def say(message: str) -> None:
    """Print one line for the person at the terminal, on stderr."""
    print(message, file=sys.stderr, flush=True)


def print_json(content: Any) -> None:
    """Print a result for machines, on stdout."""
    print(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, default=str))


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function (what, done, total): a bar in a terminal, a line every 10 s elsewhere.

    What was done before the first call counts for neither rate nor time left.
    """
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TextColumn("{task.fields[pace]}"))  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, Any] = {}
        paces: dict[str, _Pace] = {}

        def update(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total, pace="")
                paces[what] = _Pace(done)
            pace = paces[what].told(done, total)
            progress.update(tasks[what], completed=done, total=total, pace=pace)

        yield update


class _Pace:
    """How fast something goes, from its first call on."""

    def __init__(self, done: int) -> None:
        self._first, self._started = done, time.monotonic()

    def told(self, done: int, total: int) -> str:
        """Return rate and time left; nothing before there is a rate."""
        seconds = time.monotonic() - self._started
        rate = (done - self._first) / seconds if seconds > 0 else 0.0
        if rate <= 0 or done >= total:
            return ""
        left = round((total - done) / rate)
        per = f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min"
        hours, minutes = divmod(left // 60, 60)
        clock = f"{hours} h {minutes} min" if hours else f"{left // 60} min {left % 60} s"
        return f"{per}, {clock if left >= 60 else f'{left} s'} left"


def _lines() -> Callable[[str, int, int], None]:
    last = time.monotonic()
    paces: dict[str, _Pace] = {}

    def update(what: str, done: int, total: int) -> None:
        nonlocal last
        pace = paces.setdefault(what, _Pace(done))
        if done < total and time.monotonic() - last < 10:
            return
        last = time.monotonic()
        told = pace.told(done, total)
        say(f"{what}: {done}/{total}" + (f" ({told})" if told else ""))

    return update
