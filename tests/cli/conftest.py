"""`urban` called in this process as a user would call it."""

import json
import signal
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.conftest import Town
from urbancli.cli import main

__all__ = ["Done", "Town", "Urban"]


class Done(NamedTuple):
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Return stdout as JSON."""
        return json.loads(self.out)


Urban = Callable[..., Done]


@pytest.fixture
def urban(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Urban:
    """Call `urban` with arguments."""

    def call(*arguments: object) -> Done:
        monkeypatch.setattr("sys.argv", ["urban", *map(str, arguments)])
        capfd.readouterr()
        handler = signal.getsignal(signal.SIGINT)
        with pytest.raises(SystemExit) as ended:
            main()
        signal.signal(signal.SIGINT, handler)
        out, err = capfd.readouterr()
        return Done(int(ended.value.code or 0), out, err)

    return call
