"""The contract of a frozen encoder, and the cache of what it made.

An encoder is fitted once on places (whitening, say; many need nothing) and then encodes any place,
also of another city, with that state. The fingerprint of a cache names everything that its values
depend on: the layer's bytes, the places, the encoder's code version and Config, the fitted state.
"""

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from urbancli import plugins
from urbancli.errors import UsageError
from urbancli.grid import Places
from urbancli.layers import CityLayers
from urbancli.tokens import Tokens, write_tokens
from urbancli.workspace import SCHEMA_VERSION, atomic_path, fingerprint

State = Mapping[str, npt.NDArray[Any]]
"""What `fit` learnt, as named arrays; may be empty."""


class Encoder(ABC):
    """From the layer windows of places to tokens.

    Attributes:
        modalities: what it can encode; the first encoder by name that claims a modality is its
            default.
        version: raised whenever the same input would give other values.
        window_m: side of the square around a place's centre that it reads, metres; 0 for encoders
            that read no neighbourhood.
        dtype: of the token values.
    """

    modalities: ClassVar[tuple[str, ...]]
    version: ClassVar[int]
    window_m: float

    def fit(self, city: CityLayers, modality: str, places: Places, seed: int) -> State:
        """Return what the encoder must learn from places before it can encode; default nothing."""
        return {}

    @abstractmethod
    def encode(self, city: CityLayers, modality: str, places: Places, state: State) -> Tokens:
        """Return the tokens of places, in their order."""

    def config(self) -> dict[str, Any]:
        """Return the parameters that change the values."""
        return dataclasses.asdict(self) if dataclasses.is_dataclass(self) else {}


def load_encoder(modality: str, name: str | None = None) -> tuple[str, Encoder]:
    """Return (name, encoder) for a modality: the named one, or the modality's default.

    Raises:
        UsageError: no encoder of that name, or none for the modality.
    """
    for candidate in [name] if name else plugins.names("encoders"):
        encoder: Encoder = plugins.load("encoders", candidate).Encoder()
        if modality in encoder.modalities:
            return candidate, encoder
    raise UsageError(
        f"no encoder for modality '{modality}'" + (f" called '{name}'" if name else "")
    )


def encoder_facts(modality: str) -> dict[str, Any]:
    """Return name, version and Config of a modality's default encoder, JSON-able."""
    name, encoder = load_encoder(modality)
    return {"name": name, "version": encoder.version, "config": encoder.config()}


def can_encode(modality: str) -> bool:
    """Return whether some encoder claims the modality."""
    return any(
        modality in plugins.load("encoders", name).Encoder.modalities
        for name in plugins.names("encoders")
    )


def window_of(modality: str) -> float:
    """Return how far the default encoder of a modality looks: the side of its window, metres."""
    return load_encoder(modality)[1].window_m


def fit_encoder(
    city: CityLayers, modality: str, places: Places, seed: int = 0
) -> tuple[State, str]:
    """Fit the default encoder on places; return its state and the fingerprint of the state.

    The state is kept beside the tokens: the same layer, places and seed are fitted once.
    """
    name, encoder = load_encoder(modality)
    about = [name, encoder.version, encoder.config()]
    key = fingerprint([about, seed, city.checksum(modality), _where(places)])
    path = city.workspace.token_dir(city.key, modality, f"fit-{key}") / "state.safetensors"
    state = _load_state(path)
    if state is None:
        state = encoder.fit(city, modality, places, seed)
        if state:
            _save_state(path, state)
    content = {key: [value.dtype.str, value.shape, _digest(value)] for key, value in state.items()}
    return state, fingerprint([*about, content])


def _where(places: Places) -> list[Any]:
    """Return what tells places from others for a cache.

    A point's id is the user's and says nothing of where it lies: the centres belong to it.
    """
    centres = _digest(np.column_stack([places.x, places.y]))
    grid = places.grid
    return [[places.kind, grid.epsg, grid.tile_m, *places.place_id.tolist()], centres]


def _save_state(path: Path, state: State) -> None:
    from safetensors.numpy import save_file

    arrays = {key: np.ascontiguousarray(value) for key, value in state.items()}
    with atomic_path(path) as temporary:
        save_file(arrays, temporary, {"schema_version": str(SCHEMA_VERSION)})


def _load_state(path: Path) -> State | None:
    """Return a saved state, None where there is none that this version can read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("schema_version") != str(SCHEMA_VERSION):
                return None
            return {key: file.get_tensor(key) for key in sorted(file.keys())}
    except (OSError, SafetensorError):
        return None


def encode_cached(
    city: CityLayers, modality: str, places: Places, state: State, state_fingerprint: str
) -> Tokens:
    """Return the tokens of places, from the cache of the city where it holds them.

    They are encoded block by block: a call that was killed goes on from the finished ones.
    `tokens.json` is written last.

    Args:
        city: whose layer is read.
        modality: what is encoded.
        places: of this city.
        state: what `fit_encoder` returned.
        state_fingerprint: likewise.
    """
    key = fingerprint([city.checksum(modality), *_where(places), state_fingerprint])
    folder = city.workspace.token_dir(city.key, modality, key)
    encoder = load_encoder(modality)[1]

    def encode(start: int, stop: int) -> Tokens:
        part = places.take(np.arange(start, stop))
        tokens = encoder.encode(city, modality, part, state)
        _check(tokens, part, modality)
        return tokens

    return write_tokens(
        folder, {"modality": modality, "state": state_fingerprint}, len(places), encode
    )


def _digest(array: npt.NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _check(tokens: Tokens, places: Places, modality: str) -> None:
    """Refuse tokens that break their own contract: a bug of the encoder, never of the user."""
    counts, total = np.diff(tokens.offsets), len(tokens.values)
    if not len(tokens) == len(counts) == len(places):
        raise ValueError(f"the encoder of {modality} returned tokens of another number of places")
    if tokens.offsets[0] != 0 or tokens.offsets[-1] != total or len(tokens.positions) != total:
        raise ValueError(f"the encoder of {modality} returned offsets that miss its tokens")
    if (counts[~tokens.present] != 0).any() or (counts < 0).any():
        raise ValueError(f"the encoder of {modality} returned tokens of absent places")
    if not tokens.bag and (counts[tokens.present] != 1).any():
        raise ValueError(f"the encoder of {modality} returned not one token per present place")
    if not (np.isfinite(tokens.values).all() and np.isfinite(tokens.positions).all()):
        raise ValueError(f"the encoder of {modality} returned values that are not finite")
