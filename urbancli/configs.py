"""Settings of methods and encoders: frozen dataclasses, overridden by `key=value`, kept as JSON."""

import dataclasses
import math
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from urbancli.errors import UrbanError, UsageError, unknown


def check_range(name: str, value: Any, wanted: str, holds: bool) -> None:
    """Refuse a value that lies outside its range.

    Args:
        name: of the field, as in `--set`.
        value: what it is.
        wanted: the range in words.
        holds: whether the value lies in it.

    Raises:
        UsageError: it does not.
    """
    if not holds:
        raise UsageError(f"{name}={value} does not fit: {name} is {wanted}")


def overridden(base: Any, overrides: Sequence[str]) -> Any:
    """Return a dataclass with some fields replaced.

    Args:
        base: the dataclass.
        overrides: e.g. `["epochs=10", "capsule_sigmas=1,16"]`, parsed by the fields' types.

    Raises:
        UsageError: an unknown key (with near misses), a value of another type, not finite, or out
            of the range that the dataclass checks.
    """
    kinds = typing.get_type_hints(type(base))
    fields = [field.name for field in dataclasses.fields(base) if field.init]
    changes = {}
    for override in overrides:
        override = " ".join(override.split())
        key, equals, text = (part.strip() for part in override.partition("="))
        if not equals:
            raise UsageError(
                f"'{override}' is not key=value: write e.g. {fields[0] if fields else 'key'}=…"
            )
        if key not in fields:
            raise unknown("parameter", key, fields)
        try:
            changes[key] = _parse(text, kinds[key])
        except (ValueError, TypeError) as err:
            raise UsageError(
                f"{key}={text} does not fit: {key} is {_kind_text(kinds[key])}"
            ) from err
    config = dataclasses.replace(base, **changes)
    for name in fields:
        value = getattr(config, name)
        for number in value if isinstance(value, tuple) else (value,):
            finite = not isinstance(number, float) or math.isfinite(number)
            check_range(name, value, "finite", finite)
    return config


def restored(
    config_class: Any, saved: Mapping[str, Any], whose: str, *, grown: bool = False
) -> Any:
    """Return a dataclass whose fields were written as JSON, where tuples became lists.

    Args:
        config_class: the dataclass.
        saved: its fields.
        whose: what it is of, for the error.
        grown: whether fields may have been added since, which then have their defaults: where a
            default gives what there was before the field.

    Raises:
        UrbanError: it has other fields by now.
    """
    values = {k: tuple(value) if isinstance(value, list) else value for k, value in saved.items()}
    fields = dataclasses.fields(config_class)
    if grown:
        values = {**dataclasses.asdict(config_class()), **values}
    if set(values) != {field.name for field in fields}:
        raise UrbanError(f"{whose} has other settings by now: give `urban train` again")
    kinds = typing.get_type_hints(config_class)
    try:
        given = {field.name: values[field.name] for field in fields if field.init}
        # An empty tuple has no text.
        read = {k: v if v == () else _parse(_as_text(v), kinds[k]) for k, v in given.items()}
        return config_class(**read)
    except (ValueError, TypeError, UsageError) as err:
        raise UrbanError(f"{whose} has settings that do not fit: give `urban train` again") from err


def _as_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _parse(text: str, kind: Any) -> Any:
    """Return a text as a value of a field's type; ValueError where it is none."""
    if typing.get_origin(kind) is tuple:
        return tuple(_parse(part.strip(), typing.get_args(kind)[0]) for part in text.split(","))
    if typing.get_origin(kind) is typing.Literal:
        if text not in typing.get_args(kind):
            raise ValueError(text)
        return text
    if kind is bool:
        if text.lower() not in {"true", "false"}:
            raise ValueError(text)
        return text.lower() == "true"
    value = kind(text)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(text)
    return value


def _kind_text(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        return f"a comma-separated list of {typing.get_args(kind)[0].__name__}"
    if typing.get_origin(kind) is typing.Literal:
        return f"one of {', '.join(typing.get_args(kind))}"
    return "a finite number" if kind is float else f"of type {getattr(kind, '__name__', kind)}"
