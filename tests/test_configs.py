"""Settings: overridden by text, kept as JSON, and taken back."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import pytest

from urbancli.configs import overridden, restored
from urbancli.errors import UrbanError, UsageError


@dataclass(frozen=True)
class Config:
    """Settings of every kind there is."""

    count: int = 3
    rate: float = 0.5
    deep: bool = False
    kind: Literal["a", "b"] = "a"
    sides: tuple[float, ...] = (1.0, 2.0)
    fixed: int = dataclasses.field(default=7, init=False)


def test_what_is_written_is_taken_back() -> None:
    config = overridden(Config(), ["count=4", "rate=1e-3", "deep=TRUE", "kind=b", "sides=3, 4.5"])
    assert config == Config(4, 0.001, True, "b", (3.0, 4.5))
    said = {
        k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(config).items()
    }
    assert restored(Config, said, "it") == config


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("count", "is not key=value: write e.g. count="),
        ("cuont=3", "did you mean count"),
        ("count=3.5", "count is of type int"),
        ("rate=nan", "rate is a finite number"),
        ("rate=inf", "rate is a finite number"),
        ("deep=1", "deep is of type bool"),
        ("kind=c", "kind is one of a, b"),
        ("sides=1,x", "sides is a comma-separated list of float"),
        ("sides=1,nan", "sides is a comma-separated list of float"),
        ("fixed=8", "unknown parameter 'fixed'"),
    ],
)
def test_what_does_not_fit_is_refused(text: str, remedy: str) -> None:
    with pytest.raises(UsageError) as err:
        overridden(Config(), [text])
    assert remedy in str(err.value)


def test_a_setting_that_was_added_since_has_its_default_only_where_allowed() -> None:
    said = {
        name: value for name, value in dataclasses.asdict(Config(count=9)).items() if name != "kind"
    }
    assert restored(Config, said, "it", grown=True) == Config(count=9)
    with pytest.raises(UrbanError, match="it has other settings by now"):
        restored(Config, said, "it")
    with pytest.raises(UrbanError, match="other settings"):
        restored(Config, {**said, "gone": 1}, "it", grown=True)
