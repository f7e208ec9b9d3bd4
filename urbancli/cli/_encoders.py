"""Which encoders a command reads through: by its options, else by the workspace's `urban.toml`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from urbancli.errors import UrbanError, UsageError

if TYPE_CHECKING:
    from urbancli.project import Project
    from urbancli.workspace import Workspace


def encoder_options(workspace: "Workspace", given: list[str]) -> tuple[str, ...]:
    """Return what `encoders_of` does, of the workspace's `urban.toml`."""
    from urbancli.project import read_project

    return encoders_of(read_project(workspace), given)


def encoders_of(project: "Project", given: Sequence[str] = ()) -> tuple[str, ...]:
    """Return `MODALITY=ENCODER…` of the options, and of `urban.toml` for what none names.

    In the file a modality or group names an encoder, or a list of them; folders of weights lie
    beside it, or are given whole:

        [encoders]
        satellite = ["rcf", "spectral"]

    Raises:
        UrbanError: the file is broken, or holds what is not known.
    """
    from urbancli.encoding import choose, load_named
    from urbancli.layers import expand_modalities
    from urbancli.project import FILE

    named = {m for one in given for m in expand_modalities([one.partition("=")[0].strip()])}
    options = list(given)
    for where, encoders in project.encoders.items():
        every = encoders if isinstance(encoders, list) else [encoders]
        if not every or not all(isinstance(one, str) for one in every):
            raise UrbanError(f"{FILE}: encoders.{where} is no name and no list of names: mend it")
        try:
            group = expand_modalities([where])
            if named.isdisjoint(group):
                choose(own := [f"{where}={_located(project, one)}" for one in every])
                options += own
                continue
            # What options name of a group is theirs, the rest is the file's.
            for one in every:
                chosen = load_named(_located(project, one))
                fitting = set(chosen.encoder.modalities) - named
                options += [f"{name}={chosen.title}" for name in group if name in fitting]
        except UsageError as err:
            raise UsageError(f"{FILE}, encoders.{where}: {err}") from err
    return tuple(options)


def _located(project: "Project", encoder: str) -> str:
    """Return an encoder whose folder of weights, where it is one, is found from anywhere."""
    head, comma, rest = encoder.partition(",")
    name, colon, model = head.partition(":")
    folder = project.path.parent / model
    return f"{name}:{folder}{comma}{rest}" if colon and folder.is_dir() else encoder
