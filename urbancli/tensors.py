"""Tensors and facts in one safetensors file: the form of models, encoders and checkpoints."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from urbancli.errors import UrbanError
from urbancli.workspace import SCHEMA_VERSION, atomic_path


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and JSON-able facts as one safetensors file, whole or not at all."""
    # One key of metadata: safetensors writes several in an order that changes from run to run.
    header = json.dumps({"schema_version": SCHEMA_VERSION, **facts}, sort_keys=True)
    copies = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(copies, metadata={"urban": header}))


def read_tensors(path: Path, device: str = "cpu") -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the facts and the tensors of a file of `write_tensors`.

    Raises:
        UrbanError: it is missing, broken or not ours.
    """
    try:
        with safe_open(path, framework="pt", device=device) as file:
            facts = json.loads((file.metadata() or {})["urban"])
            return facts, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict, has no other way
    except (OSError, KeyError, ValueError, SafetensorError) as err:
        raise UrbanError(f"cannot read {path}: delete it and run `urban train` again") from err
