"""Everything a user can mend: one class per exit code, one line per message, the remedy in it.

Any other exception is a bug of ours and keeps its traceback.
"""

import difflib
from collections.abc import Iterable

FEW_CHOICES = 4
"""Up to so many valid names are all listed; of more, the near misses."""


class UrbanError(Exception):
    """What went wrong, where, and what to do about it, in one line. Exit code 1."""

    exit_code = 1


class UsageError(UrbanError):
    """The command line itself is wrong: unknown name, malformed option. Exit code 2."""

    exit_code = 2


class ServiceError(UrbanError):
    """A service refused or cannot be reached. Exit code 4.

    Attributes:
        status: of its last answer over HTTP, where that was an error; else 0.
    """

    exit_code = 4
    status = 0


class ReproductionError(UrbanError):
    """A result was made again and is not what its lock says. Exit code 5."""

    exit_code = 5


def unknown(kind: str, name: str, choices: Iterable[str]) -> UsageError:
    """Return the error for a name that is not among its choices, with the near misses.

    Args:
        kind: what the name names, e.g. `"city"`.
        name: what the user typed.
        choices: every valid name.
    """
    known = sorted(choices)
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
    listed = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    if not near:
        return UsageError(f"unknown {kind} '{name}': choose from {listed or 'nothing yet'}")
    few = f" ({listed})" if len(known) <= FEW_CHOICES else ""
    return UsageError(f"unknown {kind} '{name}': did you mean {' or '.join(near)}?{few}")
