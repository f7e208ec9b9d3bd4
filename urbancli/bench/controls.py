"""The contestants of a benchmark: runs, and the controls that always stand beside them.

A contestant gives feature blocks on places; everything after that is the same for all.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.embeddings import Alignment, aggregate
from urbancli.encoding import Choice, choose, encode_cached, fit_encoders, reach_of
from urbancli.errors import UrbanError
from urbancli.grid import Places
from urbancli.layers import CityLayers, expand_modalities
from urbancli.runs import Run

Features = tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]
"""Values (N, D) on places, and where they are present (N,)."""

WAVELENGTHS_KM = np.geomspace(0.3, 50.0, 12)
"""Of the coordinates control; log-spaced from the side of a tile to the width of a city."""

DIRECTIONS = np.pi * np.arange(4) / 4
"""Of its waves, radians from east: one axis alone could not follow a diagonal."""


@dataclass(frozen=True)
class Contestant:
    """What is scored: a run or a control.

    Attributes:
        method: name of the method or control.
        features: dropped modalities → blocks of features; none for a constant.
        modalities: what it reads.
        run: name of the run it belongs to.
        preset: the run's.
        pretraining: `transductive` (saw all places, never a label), `inductive`, or `none` where
            nothing was learnt before the probe.
        seed: of the training; None where there is none.
        parameters: trained ones.
        seconds: of training.
        peak_mb: of training.
        hold_out: `{sha256, label, fold}` of an inductive run: the only fold it may be scored on.
        settings: what else tells its training from others of its preset, in words.
        mismatch: how the city's data differ from those it was trained on; empty where they do not.
        encoders: which encoders it reads through, where not all are the default.
        reach_m: side of the largest square that they read, metres.
    """

    method: str
    features: Callable[[tuple[str, ...]], Sequence[Features]]
    modalities: tuple[str, ...] = ()
    run: str = ""
    preset: str = ""
    pretraining: str = "none"
    seed: int | None = None
    parameters: int = 0
    seconds: float | None = None
    peak_mb: float | None = None
    hold_out: dict[str, Any] | None = None
    settings: str = ""
    mismatch: str = ""
    encoders: str = ""
    reach_m: float = 0.0

    def why_not(self, drop: str, available: Sequence[str]) -> str:
        """Return why a modality or group cannot be dropped here; empty where it can.

        Args:
            drop: what `--drop` named.
            available: modalities the city has.
        """
        gone = set(expand_modalities([drop]))
        if not gone & set(available):
            return f"the city has no {drop}"
        if not self.modalities:
            return ""
        if not gone & set(self.modalities):
            return f"does not read {drop}"
        return f"reads nothing but {drop}" if set(self.modalities) <= gone else ""


def unit_features(
    contestant: Contestant, alignment: Alignment, drop: tuple[str, ...]
) -> npt.NDArray[np.float32]:
    """Return the features of units, (U, D) float32, NaN where a block has no present place.

    Raises:
        UrbanError: a feature of a present place is not finite.
    """
    units = alignment.weights.shape[0]
    blocks = [np.zeros((units, 0), dtype=np.float32)]
    for values, present in contestant.features(drop):
        if not np.isfinite(values[present]).all():
            raise UrbanError(
                f"the embeddings of {contestant.run or contestant.method} are not finite: the "
                "training diverged, train again with a lower learning rate"
            )
        blocks.append(aggregate(alignment, values, present)[0])
    return np.concatenate(blocks, axis=1)


# --- controls --------------------------------------------------------------------------------


def constant() -> Contestant:
    """Return the control without features: the training mean, or the commonest class."""
    return Contestant("constant", lambda drop: [])


def coordinates(places: Places) -> Contestant:
    """Return the control that knows only where a place is."""
    features = [(position_features(places), np.ones(len(places), dtype=bool))]
    return Contestant("coordinates", lambda drop: features, ("coords",))


def position_features(places: Places) -> npt.NDArray[np.float64]:
    """Return x, y and Fourier features in metres, (N, 2 + 2·12·4).

    x and y are relative to the mean, in kilometres. The waves: sine and cosine of 2π (x cos φ +
    y sin φ) / λ for 12 wavelengths λ log-spaced from 0.3 to 50 km and 4 directions φ.
    """
    x, y = (places.x - places.x.mean()) / 1000.0, (places.y - places.y.mean()) / 1000.0
    along = x[:, None] * np.cos(DIRECTIONS) + y[:, None] * np.sin(DIRECTIONS)
    phase = (2 * np.pi * along[:, :, None] / WAVELENGTHS_KM).reshape(len(x), -1)
    return np.column_stack([x, y, np.sin(phase), np.cos(phase)])


def concatenations(city: CityLayers, places: Places, runs: Sequence[Run]) -> list[Contestant]:
    """Return the control of all pooled frozen features side by side: of the default encoders, and
    once more for all other encoders that runs read through."""
    choices = {"": choose((), city.views())}
    for run in (run for run in runs if not run.mismatch(city)):
        choices.setdefault(encoders_text(run), {**choices[""], **run.encoders})
    found = [_concatenation(city, places, choice, text) for text, choice in choices.items()]
    return [one for one in found if one is not None]


def _concatenation(
    city: CityLayers, places: Places, choice: Choice, encoders: str
) -> Contestant | None:
    """Return the control of all pooled frozen features side by side; None where there are none.

    Coordinates are not among them. The probe standardises each column. The tokens are those that
    a transductive run sees; beside an inductive run, whose encoders were fitted without the
    held-out places, this favours the control.
    """
    tokens, reach_m = {}, 0.0
    for modality in city.modalities():
        if modality != "coords" and modality in choice:
            state = fit_encoders(city, modality, places, choice[modality])
            tokens[modality] = encode_cached(city, modality, places, choice[modality], *state)
            reach_m = max(reach_m, reach_of(choice[modality], modality))

    def features(drop: tuple[str, ...]) -> list[Features]:
        kept = {name: part for name, part in tokens.items() if name not in drop}
        return [(part.pooled(), part.present) for part in kept.values()]

    if not tokens:
        return None
    return Contestant(
        "concatenation",
        features,
        tuple(tokens),
        pretraining="transductive",
        settings=encoders,
        encoders=encoders,
        reach_m=reach_m,
    )


def encoders_text(run: Run) -> str:
    """Return the encoders of a run that are not the default of their modality, in words."""
    return ", ".join(f"{name}={title}" for name, title in run.facts["encoders"].items())


# --- runs ------------------------------------------------------------------------------------


def trained(run: Run, city: CityLayers, places: Places) -> Contestant:
    """Return a run as a contestant."""
    return Contestant(
        run.method,
        functools.cache(lambda drop: [run.embed(city, places, drop)]),
        tuple(run.modalities),
        run.name,
        run.preset,
        run.pretraining,
        run.seed,
        run.parameters,
        run.seconds,
        run.peak_mb,
        run.hold_out,
        settings_of(run),
        run.mismatch(city),
        encoders_text(run),
        run.reach_m,
    )


def settings_of(run: Run) -> str:
    """Return what tells a run from others of its method and preset, beside seed and hold-out."""
    facts = run.facts
    without = [f"without {name}" for name in facts["without"]]
    precision = [facts["precision"]] if facts["precision"] != "float32" else []
    encoders = [text] if (text := encoders_text(run)) else []
    return ", ".join([*facts["overrides"], *without, *precision, *encoders])


def title(row: Mapping[str, Any]) -> str:
    """Return a row's contestant with what tells it from others: preset, settings, seed, fold."""
    if not row["run"]:
        return f"{row['method']} ({', '.join(['control', *filter(None, [row['settings']])])})"
    held = ["inductive" + (f" {row['folds']}" if row["folds"] else "")]
    parts = [
        row["preset"],
        *([row["settings"]] if row["settings"] else []),
        *([f"seed {row['seed']}"] if row["seed"] else []),
        *(held if row["pretraining"] == "inductive" else []),
    ]
    return f"{row['method']} ({', '.join(parts)})"


def untrained(run: Run, city: CityLayers, places: Places) -> Contestant:
    """Return the same method and Config with random weights, scored where the run is scored."""
    return replace(
        trained(run, city, places),
        method="untrained",
        features=functools.cache(lambda drop: [run.embed_untrained(city, places, drop)]),
        seconds=None,
        peak_mb=None,
    )
