"""The contestants of a benchmark: whoever gives features for units; after that all are alike."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.bench.external import External, NoOverlap, unit_values
from urbancli.bench.preparation import Material
from urbancli.embeddings import aggregate
from urbancli.errors import UrbanError
from urbancli.grid import Places
from urbancli.labels.files import load_label
from urbancli.layers import CityLayers, expand_modalities
from urbancli.runs import Run, assert_invariant
from urbancli.spoiling import Spoiling
from urbancli.workspace import sha256

Features = tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]
"""Values (N, D) on places, and where they are present (N,)."""

Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Contestant:
    """What is scored: a run, a control, or a file of embeddings.

    Attributes:
        method: name of the method or control.
        on_units: (material, spoiling) → features of its units, (U, D) float32, NaN where a unit
            has none. Of a concatenation the columns of a modality that is gone are NaN.
        modalities: what it reads.
        run: name of the run it belongs to.
        preset: the run's.
        pretraining: `transductive` (saw all places, never a label), `inductive`, `other-city`, or
            `none` where nothing was learnt before the probe.
        seed: of the training; None where there is none.
        parameters: trained ones.
        flops: floating point operations to embed one place; None where not known.
        seconds: of training.
        peak_mb: of training.
        hold_out: `{sha256, label, fold}` of an inductive run: the only fold it may be scored on.
        settings: what else tells its training from others of its preset, in words.
        mismatch: how the city's data differ from those it was trained on; empty where they do not.
        encoders: which encoders it reads through, where not all are the default.
        reach_m: side of the largest square that they read, metres.
        identity: JSON-able, all that its features depend on beside city, units and spoiling.
        blocks: (material, spoiling) → modality → features of units; only of plain frozen features.
        beside: settings of the concatenation that it is compared with.
        overrides: what its Config was set to, `key=value` in their order.
        rest: `settings` without them.
        reach: material → (why it says nothing of its units, or nothing; what a reader must know of
            how far it reaches, or nothing).
    """

    method: str
    on_units: Callable[[Material, Spoiling], Values]
    modalities: tuple[str, ...] = ()
    run: str = ""
    preset: str = ""
    pretraining: str = "none"
    seed: int | None = None
    parameters: int = 0
    flops: int | None = None
    seconds: float | None = None
    peak_mb: float | None = None
    hold_out: dict[str, Any] | None = None
    settings: str = ""
    mismatch: str = ""
    encoders: str = ""
    reach_m: float = 0.0
    identity: Any = None
    blocks: Callable[[Material, Spoiling], Mapping[str, Values]] | None = None
    beside: str = ""
    overrides: tuple[str, ...] = ()
    rest: str = ""
    reach: Callable[[Material], tuple[str, str]] = lambda material: ("", "")

    @property
    def trained(self) -> bool:
        """Whether it is a run as it was trained."""
        return bool(self.run) and self.method != UNTRAINED

    def why_not(self, spoiling: Spoiling, available: Sequence[str]) -> str:
        """Return why the modalities that are gone cannot be dropped here; empty where they can.

        Args:
            spoiling: with some gone.
            available: modalities the city has.
        """
        gone, named = spoiling.gone, spoiling.label
        if not set(gone) & set(available):
            return f"the city has no {named}"
        if not set(gone) & set(self.modalities):
            return f"does not read {named}"
        return f"reads nothing but {named}" if set(self.modalities) <= set(gone) else ""

    def left(self, gone: Sequence[str]) -> tuple[str, ...]:
        """Return the modalities it reads that are not gone."""
        return tuple(name for name in self.modalities if name not in gone)


UNTRAINED = "untrained"


def on_places(
    name: str, features: Callable[[Spoiling], Sequence[Features]]
) -> Callable[[Material, Spoiling], Values]:
    """Return `Contestant.on_units` of features on the city's tiles: weighted means over units.

    Args:
        name: of the contestant, for errors.
        features: spoiling → blocks of features on places; none for a constant.
    """

    def values(material: Material, spoiling: Spoiling) -> Values:
        blocks = [np.zeros((len(material.values), 0), dtype=np.float32)]
        blocks += [to_units(material, part, name) for part in features(spoiling)]
        return np.concatenate(blocks, axis=1)

    return values


def to_units(material: Material, features: Features, name: str) -> Values:
    """Return the features of units, (U, D) float32, NaN where a unit has no present place.

    Raises:
        UrbanError: a feature of a present place is not finite.
    """
    values, present = features
    if not np.isfinite(values[present]).all():
        raise UrbanError(
            f"the embeddings of {name} are not finite: the training diverged, train again with a "
            "lower learning rate"
        )
    return aggregate(material.alignment, values, present)[0]


def dropped(names: Sequence[str]) -> Spoiling:
    """Return the spoiling in which modalities or groups are gone."""
    return Spoiling(gone=tuple(expand_modalities(names)))


# --- runs ------------------------------------------------------------------------------------


def trained(run: Run, city: CityLayers, places: Places) -> Contestant:
    """Return a run as a contestant; that it does not read what is dropped is made sure of."""

    @functools.cache
    def embed(spoiling: Spoiling) -> list[Features]:
        assert_invariant(run, city, places, spoiling)
        return [run.embed(city, places, spoiling)]

    files = [sha256(run.folder / name) for name in ("run.json", "model.safetensors")]
    return Contestant(
        run.method,
        on_places(run.name, embed),
        tuple(run.modalities),
        run.name,
        run.preset,
        run.pretraining if run.city == city.key else "other-city",
        run.seed,
        run.parameters,
        run.flops,
        run.seconds,
        run.peak_mb,
        run.hold_out,
        settings_of(run),
        run.mismatch(city),
        encoders_text(run),
        run.reach_m,
        ["run", *files],
        beside=encoders_text(run),
        overrides=tuple(run.facts["overrides"]),
        rest=settings_of(run, with_overrides=False),
    )


def untrained(run: Run, city: CityLayers, places: Places) -> Contestant:
    """Return the same method and Config with random weights, scored where the run is scored."""
    twin = trained(run, city, places)

    @functools.cache
    def embed(spoiling: Spoiling) -> list[Features]:
        assert_invariant(run, city, places, spoiling, untrained=True)
        return [run.embed_untrained(city, places, spoiling)]

    return replace(
        twin,
        method=UNTRAINED,
        on_units=on_places(run.name, embed),
        # Of which method, or twins of several could not be told apart.
        settings=", ".join(filter(None, [f"of {run.method}", twin.settings])),
        seconds=None,
        peak_mb=None,
        identity=[UNTRAINED, twin.identity],
    )


# --- files -----------------------------------------------------------------------------------

FILE = "external"
"""`pretraining` of embeddings that came in a file: nobody told us what they saw."""


def from_file(external: External, city: CityLayers) -> Contestant:
    """Return anybody's embeddings as a contestant; a label that they say nothing of is n/a."""

    last: dict[int, tuple[Material, Values, str, str]] = {}

    def found(material: Material) -> tuple[Material, Values, str, str]:
        """Remember the last label's: it is asked for by every paper of the label."""
        if id(material) not in last:
            label = load_label(city.workspace, city.key, material.name)
            why, told = "", ""
            try:
                values, coverage = unit_values(external, material.units, label)
                told = coverage.text
            except NoOverlap as err:
                values, why = (
                    np.full((len(material.values), external.d), np.nan, np.float32),
                    str(err),
                )
            last.clear()
            last[id(material)] = (material, values, why, told)
        return last[id(material)]

    def on_units(material: Material, spoiling: Spoiling) -> Values:
        return found(material)[1]

    def reach(material: Material) -> tuple[str, str]:
        return found(material)[2:]

    return Contestant(
        external.name,
        on_units,
        pretraining=FILE,
        settings=f"{external.d} wide",
        identity=external.identity,
        reach=reach,
    )


def encoders_text(run: Run) -> str:
    """Return the encoders of a run that are not the default of their modality, in words."""
    return ", ".join(f"{name}={title}" for name, title in run.facts["encoders"].items())


def settings_of(run: Run, *, with_overrides: bool = True) -> str:
    """Return what tells a run from others of its method and preset, beside seed and hold-out."""
    facts = run.facts
    overrides = facts["overrides"] if with_overrides else []
    without = [f"without {name}" for name in facts["without"]]
    precision = [facts["precision"]] if facts["precision"] != "float32" else []
    encoders = [text] if (text := encoders_text(run)) else []
    missing = [f"{share:.0%} missing in training"] if (share := facts.get("missing")) else []
    chunk = [f"in chunks of {size:,}"] if (size := facts.get("chunk")) else []
    return ", ".join([*overrides, *without, *precision, *encoders, *missing, *chunk])


def title(row: Mapping[str, Any]) -> str:
    """Return a row's contestant with what tells it from others: preset, settings, seed, fold."""
    if not row["run"]:
        kind = "file" if row["pretraining"] == FILE else "control"
        return f"{row['method']} ({', '.join([kind, *filter(None, [row['settings']])])})"
    held = ["inductive" + (f" {folds}" if (folds := row.get("folds")) else "")]
    parts = [
        row["preset"],
        *([row["settings"]] if row["settings"] else []),
        *([f"seed {row['seed']}"] if row["seed"] else []),
        *(held if row["pretraining"] == "inductive" else []),
    ]
    return f"{row['method']} ({', '.join(parts)})"
