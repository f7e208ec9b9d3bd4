"""A town made once, and `urban` called in this process as a user would call it."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import local_fetch
from urbancli.cli import main


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


class Town(NamedTuple):
    """Inputs and workspace of a town."""

    inputs: Path
    workspace: Path
    fetch: list[str]
    train: list[str]


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory, demo_inputs: Path) -> Town:
    """A town of the demo city's files, fetched and trained once; tests must not change it."""
    folder = tmp_path_factory.mktemp("town")
    fetch = local_fetch(demo_inputs)
    train = ["train", "--method", "urbanfusion", "--set", "epochs=10"]
    with pytest.MonkeyPatch.context() as patch:
        for arguments in (fetch, train):
            patch.setattr("sys.argv", ["urban", "-w", str(folder / "workspace"), *arguments])
            with pytest.raises(SystemExit) as ended:
                main()
            assert not ended.value.code, arguments
    return Town(demo_inputs, folder / "workspace", fetch, train)
