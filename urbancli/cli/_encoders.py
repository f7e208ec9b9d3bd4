"""Which encoders a command reads through: by its options, else by the workspace's `urban.toml`."""

import tomllib
from typing import TYPE_CHECKING, Any

from urbancli.errors import UrbanError, unknown

if TYPE_CHECKING:
    from urbancli.workspace import Workspace

FILE = "urban.toml"

TABLES = ("encoders",)
"""What `urban.toml` may hold."""


def encoder_options(workspace: "Workspace", given: list[str]) -> tuple[str, ...]:
    """Return `MODALITY=ENCODER…` of the options, and of `urban.toml` for what none names.

    In the file a modality or group names an encoder, or a list of them:

        [encoders]
        satellite = ["rcf", "spectral"]

    Raises:
        UrbanError: the file is broken, or holds what is not known.
    """
    from urbancli.layers import expand_modalities

    named = {m for one in given for m in expand_modalities([one.partition("=")[0].strip()])}
    options = list(given)
    for where, encoders in _table(workspace, "encoders").items():
        every = encoders if isinstance(encoders, list) else [encoders]
        if not all(isinstance(one, str) for one in every):
            raise UrbanError(f"{FILE}: encoders.{where} is no name and no list of names: mend it")
        if not named & set(expand_modalities([where])):
            options += [f"{where}={one}" for one in every]
    return tuple(options)


def _table(workspace: "Workspace", name: str) -> dict[str, Any]:
    path = workspace.root / FILE
    if not path.is_file():
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise UrbanError(f"{path} cannot be read: {err}: mend it") from err
    for table, entries in content.items():
        if table not in TABLES or not isinstance(entries, dict):
            raise unknown(f"table of {FILE}", table, TABLES)
    found: dict[str, Any] = content.get(name, {})
    return found
