"""Encoding: which encoders serve a modality, their fitting, and the cache of what they made.

The fingerprint of a cache names everything that its values depend on: the layer's bytes, the
places, the encoder's code version, settings and weights, and the fitted state.

Several encoders of one modality are one modality still: it goes missing as a whole. Their vectors
are concatenated; where any gives a bag of tokens, the tokens of each stand in columns of its own.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli import plugins
from urbancli.configs import overridden, restored
from urbancli.encoders._basemap_style import VERSION as MAP_VERSION
from urbancli.encoders.base import Encoder, State
from urbancli.errors import UsageError
from urbancli.grid import Places
from urbancli.layers import CityLayers, expand_modalities
from urbancli.token_files import write_tokens
from urbancli.tokens import Tokens
from urbancli.workspace import SCHEMA_VERSION, atomic_path, fingerprint

DEFAULTS = {
    "coords": "coords",
    "sentinel2": "rcf",
    "naip": "rcf",
    "sentinel1": "rcf",
    "entities": "entities",
    "pois": "pois",
    "buildings": "entities",
    "aoi": "entities",
}
"""The encoder of a modality where none is chosen; none needs a download. Of other modalities
nothing is read unless an encoder is chosen."""

VIEW_VERSIONS = {"basemap": MAP_VERSION}
"""Of what encoders are given of a layer, where that is not the layer itself."""

WHOLE_TILE = np.array([0, 0, 1, 0, 1, 1, 0, 1], np.float32)
"""Corners of a tile, in its own sides, counter-clockwise from the south-west."""


@dataclass(frozen=True)
class Chosen:
    """An encoder and its name, the file's."""

    name: str
    encoder: Encoder

    @property
    def title(self) -> str:
        """Its name and the settings that are not its defaults, as `--encoder` takes them."""
        usual = type(self.encoder)().config()
        changed = {k: v for k, v in self.encoder.config().items() if v != usual[k]}
        model = changed.pop("model", "")
        return ",".join(
            [self.name + (f":{model}" if model else "")]
            + [f"{key}={_text(value)}" for key, value in changed.items()]
        )

    def facts(self, modality: str) -> dict[str, Any]:
        """Return what a run says of it, JSON-able; `encoder_of` takes it back."""
        return {
            "name": self.name,
            "version": self.encoder.version,
            "config": self.encoder.config(),
            "weights": self.encoder.weights(),
            "window_m": self.encoder.reach_m(modality),
            "view": VIEW_VERSIONS.get(modality, 0),
        }


Encoders = tuple[Chosen, ...]
"""The encoders of one modality."""

Choice = Mapping[str, Encoders]
"""The encoders of each modality that is read."""


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def choose(options: Iterable[str] = (), views: Collection[str] = ()) -> Choice:
    """Return the encoders of every modality that has any.

    Args:
        options: `MODALITY=ENCODER[:MODEL][,KEY=VALUE…]`, e.g. `satellite=clip,tokens=mean`; of a
            group of modalities those count that the encoder can encode. What is named for a
            modality replaces its default; several named for one are used together.
        views: modalities of a city that show what another one holds too (`CityLayers.views`): they
            have no default.

    Raises:
        UsageError: an option is not of that form, or names what there is not.
    """
    named: dict[str, list[Chosen]] = {}
    for option in options:
        where, equals, what = option.partition("=")
        if not equals or not what.strip():
            raise UsageError(
                f"'{option}' is not MODALITY=ENCODER, e.g. satellite=rcf or satellite=clip:FOLDER"
            )
        chosen = load_named(what.strip())
        group = expand_modalities([where.strip()])
        fitting = [name for name in group if name in chosen.encoder.modalities]
        if not fitting:
            raise UsageError(
                f"encoder {chosen.name} cannot encode {where.strip()}: it encodes "
                f"{', '.join(chosen.encoder.modalities)} (`urban list encoders`)"
            )
        for modality in fitting:
            if chosen in named.setdefault(modality, []):
                raise UsageError(f"{chosen.title} is given twice for {modality}: give it once")
            named[modality].append(chosen)
    usual = {
        modality: [load_encoder(name)]
        for modality, name in DEFAULTS.items()
        if modality not in views
    }
    return {modality: tuple(encoders) for modality, encoders in {**usual, **named}.items()}


def load_named(text: str) -> Chosen:
    """Return the encoder of `NAME[:MODEL][,KEY=VALUE…]`; a part without `=` goes on a list."""
    head, *rest = text.split(",")
    name, _, model = head.partition(":")
    overrides: list[str] = [f"model={model}"] if model else []
    for part in rest:
        if "=" in part or not overrides:
            overrides.append(part)
        else:
            overrides[-1] += f",{part}"
    return load_encoder(name.strip(), overrides)


def load_encoder(name: str, overrides: Sequence[str] = ()) -> Chosen:
    """Return an encoder by its name, with `key=value` on its settings.

    Raises:
        UsageError: there is none of that name, or a setting that does not fit.
    """
    encoder: Encoder = overridden(plugins.load("encoders", name).Encoder(), overrides)
    return Chosen(name, encoder)


def encoder_of(facts: Mapping[str, Any]) -> Chosen:
    """Return the encoder that `Chosen.facts` told of.

    Raises:
        UrbanError: there is none of that name and those settings any more.
    """
    whose = f"encoder {facts['name']}"
    module = plugins.load("encoders", facts["name"])
    return Chosen(facts["name"], restored(module.Encoder, facts["config"], whose, grown=True))


def described() -> list[dict[str, Any]]:
    """Return what each encoder of the package encodes and needs, with its default settings."""
    found = []
    for name in plugins.names("encoders"):
        encoder = load_encoder(name).encoder
        found.append({
            "encoder": name,
            "modalities": list(encoder.modalities),
            "default_of": [modality for modality, usual in DEFAULTS.items() if usual == name],
            "needs": encoder.needs,
            "weights": encoder.config().get("model", ""),
            "licence": encoder.licence,
            "window_m": {m: encoder.reach_m(m) for m in encoder.modalities},
            "width": {m: encoder.width(m) for m in encoder.modalities},
            "settings": encoder.config(),
        })  # fmt: skip
    return found


def unusual(encoders: Choice, views: Collection[str] = ()) -> dict[str, str]:
    """Return the encoders of the modalities that are not read through their default.

    Args:
        encoders: of a city.
        views: as of `choose`.
    """
    usual = choose((), views)
    return {
        modality: " + ".join(chosen.title for chosen in chosen_ones)
        for modality, chosen_ones in encoders.items()
        if chosen_ones != usual.get(modality)
    }


def reach_of(encoders: Encoders, modality: str) -> float:
    """Return the side of the largest square that encoders read of a modality, metres."""
    return max(chosen.encoder.reach_m(modality) for chosen in encoders)


# --- fitting and encoding --------------------------------------------------------------------


def fit_encoders(
    city: CityLayers, modality: str, places: Places, encoders: Encoders, seed: int = 0
) -> tuple[State, str]:
    """Fit the encoders of a modality on places; return their state and its fingerprint.

    The state is kept beside the tokens: the same layer, places and seed are fitted once.
    """
    fitted = [_fit(city, modality, places, chosen, seed) for chosen in encoders]
    if len(fitted) == 1:
        return fitted[0]
    state = {
        f"{number}/{key}": value
        for number, (part, _) in enumerate(fitted)
        for key, value in part.items()
    }
    return state, "+".join(mark for _, mark in fitted)


def _fit(
    city: CityLayers, modality: str, places: Places, chosen: Chosen, seed: int
) -> tuple[State, str]:
    encoder = chosen.encoder
    about: list[Any] = [chosen.name, encoder.version, encoder.config()]
    if weights := encoder.weights():
        # What is in the files counts, and not what their folder is called.
        about = [chosen.name, encoder.version, {**encoder.config(), "model": weights}]
    about += [VIEW_VERSIONS[modality]] if modality in VIEW_VERSIONS else []
    key = fingerprint([about, seed, city.checksum(modality), _where(places)])
    path = city.workspace.token_dir(city.key, modality, f"fit-{key}") / "state.safetensors"
    state = _load_state(path)
    if state is None:
        state = encoder.fit(city, modality, places, seed)
        if state:
            _save_state(path, state)
    content = {key: [value.dtype.str, value.shape, _digest(value)] for key, value in state.items()}
    return state, fingerprint([*about, content])


def encode_cached(
    city: CityLayers,
    modality: str,
    places: Places,
    encoders: Encoders,
    state: State,
    state_fingerprint: str,
) -> Tokens:
    """Return the tokens of places, from the cache of the city where it holds them.

    They are encoded block by block: a call that was killed goes on from the finished ones.
    `tokens.json` is written last.

    Args:
        city: whose layer is read.
        modality: what is encoded.
        places: of this city.
        encoders: of the modality.
        state: what `fit_encoders` returned for them.
        state_fingerprint: likewise.
    """

    least = min(chosen.encoder.block_places for chosen in encoders)

    def made(mark: str, encode: Callable[[int, int], Tokens], block_places: int) -> Tokens:
        key = fingerprint([city.checksum(modality), *_where(places), mark])
        folder = city.workspace.token_dir(city.key, modality, key)
        facts = {"modality": modality, "state": mark}
        return write_tokens(folder, facts, len(places), encode, block_places)

    marks = state_fingerprint.split("+")
    parts = []
    for number, (chosen, mark) in enumerate(zip(encoders, marks, strict=True)):

        def encode(start: int, stop: int, number: int = number, chosen: Chosen = chosen) -> Tokens:
            part = places.take(np.arange(start, stop))
            own = state if len(encoders) == 1 else _state_of(state, number)
            tokens = chosen.encoder.encode(city, modality, part, own)
            _check(tokens, part, f"{chosen.name} on {modality}")
            return tokens

        parts.append(made(mark, encode, chosen.encoder.block_places))
    if len(parts) == 1:
        return parts[0]
    return made(
        state_fingerprint,
        lambda start, stop: joined([part.take(np.arange(start, stop)) for part in parts]),
        least,
    )


def joined(parts: Sequence[Tokens]) -> Tokens:
    """Return the tokens of several encoders as those of one; present where all of them are.

    Args:
        parts: of the same N places.
    """
    present = np.logical_and.reduce([part.present for part in parts])
    dtype = np.result_type(*(part.values for part in parts))
    if not any(part.bag for part in parts):
        rows = [part.values[present[part.present]].astype(dtype) for part in parts]
        offsets = np.concatenate([[0], np.cumsum(present)]).astype(np.int64)
        nowhere = np.zeros((len(rows[0]), 0), np.float32)
        return Tokens(np.concatenate(rows, axis=1), offsets, nowhere, present, bag=False)
    counts = [np.where(present, np.diff(part.offsets), 0) for part in parts]
    offsets = np.concatenate([[0], np.cumsum(np.sum(counts, axis=0))]).astype(np.int64)
    ends = np.cumsum([part.values.shape[1] for part in parts])
    values = np.zeros((offsets[-1], ends[-1]), dtype)
    positions = np.tile(WHOLE_TILE, (len(values), 1))
    first = offsets[:-1].copy()
    for part, count, end in zip(parts, counts, ends, strict=True):
        index = np.flatnonzero(present)
        own, _ = part.rows(index)
        into = np.repeat(first[index] - np.cumsum(count[index]) + count[index], count[index])
        into += np.arange(len(own))
        values[into, end - part.values.shape[1] : end] = part.values[own]
        if part.positions.shape[1]:
            positions[into] = part.positions[own]
        first += count
    return Tokens(values, offsets, positions, present, bag=True)


def _state_of(state: State, number: int) -> State:
    """Return the state of one of several encoders."""
    start = f"{number}/"
    return {k.removeprefix(start): value for k, value in state.items() if k.startswith(start)}


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


def _digest(array: npt.NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _check(tokens: Tokens, places: Places, who: str) -> None:
    """Refuse tokens that break their own contract: a bug of the encoder, never of the user."""
    counts, total = np.diff(tokens.offsets), len(tokens.values)
    if not len(tokens) == len(counts) == len(places):
        raise ValueError(f"encoder {who} returned tokens of another number of places")
    if tokens.offsets[0] != 0 or tokens.offsets[-1] != total or len(tokens.positions) != total:
        raise ValueError(f"encoder {who} returned offsets that miss its tokens")
    if (counts[~tokens.present] != 0).any() or (counts < 0).any():
        raise ValueError(f"encoder {who} returned tokens of absent places")
    if not tokens.bag and (counts[tokens.present] != 1).any():
        raise ValueError(f"encoder {who} returned not one token per present place")
    if not (np.isfinite(tokens.values).all() and np.isfinite(tokens.positions).all()):
        raise ValueError(f"encoder {who} returned values that are not finite")
