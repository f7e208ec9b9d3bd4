"""The controls that always stand beside the methods: what must be beaten to have learnt something.

constant · coordinates · counts of POIs and tags · pooled tags · concatenation of all frozen
features · its principal components, as many as a method's embedding is wide · each method untrained
(`contestants.untrained`). Those that learn from places without a label (components, vocabularies)
see all of the city's, as a transductive run does.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.bench.contestants import (
    Contestant,
    Features,
    Values,
    encoders_text,
    on_places,
    to_units,
)
from urbancli.bench.preparation import Material
from urbancli.bench.probes.base import standardise
from urbancli.encoding import (
    Choice,
    Encoders,
    choose,
    encode_cached,
    fit_encoders,
    load_named,
    reach_of,
)
from urbancli.grid import Places
from urbancli.layers import CityLayers
from urbancli.runs import Run
from urbancli.spoiling import WHOLE, Spoiling, spoil_blocks
from urbancli.tokens import Tokens

WAVELENGTHS_KM = np.geomspace(0.3, 50.0, 12)
"""Of the coordinates control; log-spaced from the side of a tile to the width of a city."""

DIRECTIONS = np.pi * np.arange(4) / 4
"""Of its waves, radians from east: one axis alone could not follow a diagonal."""

COUNTED = {"entities": "tagcounts", "pois": "pois"}
"""What the control `counts` counts, and with which encoder."""

POOLED_TAGS = {"entities": "tagcounts,words=hashed"}
"""Of the control `tags`: signed hashes of tags, summed over a tile, an embedding of raw tags that
needs no model. With sentence vectors of tags: train with `--encoder entities=tags`, whose
concatenation then stands beside the run."""

CONSTANT, COORDINATES, CONCATENATION, COMPONENTS = (
    "constant", "coordinates", "concatenation", "concatenation-pca",
)  # fmt: skip

APPENDED = "+ coordinates"
"""In the settings of a contestant whose features have coordinates beside them."""

NAMES = (CONSTANT, COORDINATES, "counts", "tags", CONCATENATION, COMPONENTS)


def controls(city: CityLayers, places: Places, runs: Sequence[Run]) -> list[Contestant]:
    """Return the controls of a city; those of frozen features for all encoders that runs read.

    Args:
        city: a fetched city.
        places: its tiles.
        runs: of this city.
    """
    found = [constant(), coordinates(places)]
    found += _frozen("counts", city, places, _named(city, COUNTED), "")
    found += _frozen("tags", city, places, _named(city, POOLED_TAGS), "")
    for text, choice in _choices(city, runs).items():
        whole = _frozen(CONCATENATION, city, places, choice, text)
        widths = {int(run.facts["width"]) for run in runs if encoders_text(run) == text}
        found += whole
        found += [_components(one, width) for one in whole for width in sorted(widths)]
    return found


def constant() -> Contestant:
    """Return the control without features: the training mean, or the commonest class."""
    return Contestant(CONSTANT, on_places(CONSTANT, lambda spoiling: []), identity=[CONSTANT])


def coordinates(places: Places) -> Contestant:
    """Return the control that knows only where a place is."""
    features = [(position_features(places), np.ones(len(places), dtype=bool))]
    values = on_places(COORDINATES, lambda spoiling: features)
    return Contestant(COORDINATES, values, ("coords",), identity=[COORDINATES, 1])


def position_features(places: Places) -> npt.NDArray[np.float64]:
    """Return x, y and Fourier features in metres, (N, 2 + 2·12·4).

    x and y are relative to the mean, in kilometres. The waves: sine and cosine of 2π (x cos φ +
    y sin φ) / λ for 12 wavelengths λ log-spaced from 0.3 to 50 km and 4 directions φ.
    """
    x, y = (places.x - places.x.mean()) / 1000.0, (places.y - places.y.mean()) / 1000.0
    along = x[:, None] * np.cos(DIRECTIONS) + y[:, None] * np.sin(DIRECTIONS)
    phase = (2 * np.pi * along[:, :, None] / WAVELENGTHS_KM).reshape(len(x), -1)
    return np.column_stack([x, y, np.sin(phase), np.cos(phase)])


def with_coordinates(contestant: Contestant, places: Places) -> Contestant:
    """Return a contestant with easting and northing beside its features, as some papers have it.

    Its rows are its own: `settings` says so.
    """
    spots = np.column_stack([places.x, places.y])
    spots = (spots - spots.mean(axis=0)) / 1000.0
    where = (spots, np.ones(len(places), dtype=bool))

    def values(material: Material, spoiling: Spoiling) -> Values:
        own = contestant.on_units(material, spoiling)
        return np.column_stack([own, to_units(material, where, contestant.method)])

    return replace(
        contestant,
        on_units=values,
        blocks=None,
        settings=_joined(contestant.settings, APPENDED),
        beside=_joined(contestant.beside, APPENDED),
        modalities=tuple(dict.fromkeys([*contestant.modalities, "coords"])),
        identity=[APPENDED, contestant.identity],
    )


def _joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))


# --- frozen features -------------------------------------------------------------------------


def _named(city: CityLayers, encoders: Mapping[str, str]) -> Choice:
    have = city.modalities()
    return {name: (load_named(text),) for name, text in encoders.items() if name in have}


def _choices(city: CityLayers, runs: Sequence[Run]) -> dict[str, Choice]:
    """Return the default encoders, and all others that runs read through, by their text."""
    usual = choose((), city.views())
    choices = {"": usual}
    for run in (run for run in runs if not run.mismatch(city)):
        choices.setdefault(encoders_text(run), {**usual, **run.encoders})
    read = [name for name in city.modalities() if name != "coords"]
    return {
        text: {name: choice[name] for name in read if name in choice}
        for text, choice in choices.items()
    }


def encode_frozen(
    city: CityLayers, places: Places, choice: Mapping[str, Encoders]
) -> dict[str, Tokens]:
    """Return the tokens of each modality, from encoders fitted on all of the city's places."""
    return {
        name: encode_cached(
            city, name, places, encoders, *fit_encoders(city, name, places, encoders)
        )
        for name, encoders in choice.items()
    }


def _frozen(
    method: str, city: CityLayers, places: Places, choice: Choice, encoders: str
) -> list[Contestant]:
    """Return the control of pooled frozen features side by side; none where there are none.

    Coordinates are not among them. The probe standardises each column. The tokens are those that
    a transductive run sees; beside an inductive run, whose encoders were fitted without the
    held-out places, this favours the control.
    """
    if not choice:
        return []
    tokens = functools.cache(lambda: encode_frozen(city, places, choice))

    @functools.cache
    def whole(name: str) -> Features:
        part = tokens()[name]
        return part.pooled(), part.present

    def blocks(material: Material, spoiling: Spoiling) -> Mapping[str, Values]:
        given = {name: whole(name) for name in choice}
        spoilt = spoil_blocks(city, places, given, spoiling, choice)
        return {name: to_units(material, part, method) for name, part in spoilt.items()}

    def values(material: Material, spoiling: Spoiling) -> Values:
        return np.concatenate(list(blocks(material, spoiling).values()), axis=1)

    layers = {name: city.checksum(name) for name in choice}
    facts = {name: [one.facts(name) for one in chosen] for name, chosen in choice.items()}
    return [
        Contestant(
            method,
            values,
            tuple(choice),
            pretraining="transductive",
            settings=encoders,
            encoders=encoders,
            reach_m=max(reach_of(chosen, name) for name, chosen in choice.items()),
            identity=[method, layers, facts],
            blocks=blocks,
        )
    ]


def _components(whole: Contestant, width: int) -> Contestant:
    """Return the principal components of a concatenation, standardised, the `width` largest.

    They are those of the units of a label, whole; a spoilt unit is projected on the same ones, its
    missing values at their means. They are given in random directions of their space: a probe
    brings every column to one size, which would make the least component as large as the first.
    """

    def values(material: Material, spoiling: Spoiling) -> Values:
        full = whole.on_units(material, WHOLE)
        spoilt = full if spoiling == WHOLE else whole.on_units(material, spoiling)
        known, own = standardise(full, spoilt)
        mean, axes = _axes(known, width)
        turned = axes @ _rotation(axes.shape[1])
        return np.asarray((own - mean) @ turned, dtype=np.float32)

    return replace(
        whole,
        method=COMPONENTS,
        on_units=values,
        settings=_joined(whole.settings, f"{width} wide"),
        identity=[COMPONENTS, 2, width, whole.identity],
        blocks=None,
    )


def _rotation(size: int) -> npt.NDArray[np.float64]:
    """Return a random orthogonal matrix (size, size), always the same one."""
    return np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))[0]


def _axes(x: npt.NDArray[np.float64], width: int) -> tuple[Any, npt.NDArray[np.float64]]:
    """Return mean and the axes (D, ≤ width) of largest variance of (N, D)."""
    from scipy.linalg import eigh

    mean = x.mean(axis=0)
    centred = x - mean
    small = centred.T @ centred if x.shape[1] <= len(x) else centred @ centred.T
    kept = min(width, len(small), len(x) - 1)
    last = len(small) - 1
    values, vectors = eigh(small, subset_by_index=[last - kept + 1, last])
    if x.shape[1] > len(x):
        vectors = centred.T @ vectors / np.sqrt(np.maximum(values, 1e-12))
    return mean, vectors


def transferred(
    here: CityLayers, places: Places, there: CityLayers, others: Places
) -> list[tuple[Contestant, Contestant]]:
    """Return the concatenation of the frozen features that two cities share, in both of them.

    The default encoders, fitted on the first city, encode the second too.

    Args:
        here: where it is learnt.
        places: of it.
        there: what is asked about.
        others: places of that.
    """
    usual = choose((), here.views())
    both = [name for name in here.modalities() if name in there.modalities() and name != "coords"]
    choice = {name: usual[name] for name in both if name in usual}
    if not choice:
        return []
    states = {name: fit_encoders(here, name, places, one) for name, one in choice.items()}

    def contestant(city: CityLayers, of: Places) -> Contestant:
        def features(spoiling: Spoiling) -> list[Features]:
            parts = [
                encode_cached(city, name, of, one, *states[name]) for name, one in choice.items()
            ]
            return [(part.pooled(), part.present) for part in parts]

        return Contestant(
            CONCATENATION,
            on_places(CONCATENATION, features),
            tuple(choice),
            pretraining="other-city",
            identity=["transferred", here.key, [states[name][1] for name in choice]],
        )

    return [(contestant(here, places), contestant(there, others))]
