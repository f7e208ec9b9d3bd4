"""Spoiling: what is done to a city's modalities before they are embedded, to see what it costs.

A modality can be gone, go missing at random, be noisy, or be of another date. Chance is drawn per
place and modality from the place's id: every method that reads the same modalities of a city meets
the same holes and the same noise, whatever the order and number of places, and a higher rate only
adds holes to those of a lower one.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from urbancli.configs import check_range
from urbancli.encoding import Choice, encode_cached, fit_encoders
from urbancli.errors import UrbanError, UsageError, unknown
from urbancli.grid import Places
from urbancli.layers import (
    MODALITIES,
    MODALITY_GROUPS,
    CityLayers,
    expand_modalities,
    open_city,
)
from urbancli.tokens import Tokens, single_tokens

VERSION = 1
"""Raised whenever the same spoiling draws other holes or other noise."""

BLOCK_TOKENS = 4096
"""Tokens whose deviations are summed at a time."""

Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[Any]


@dataclass(frozen=True)
class Spoiling:
    """What happens to the modalities before they are embedded; by default nothing.

    Groups of modalities are spelt out and put in the order of `MODALITIES`, so that equal
    spoilings are equal.

    Attributes:
        gone: modalities that are wholly missing.
        rate: share of the pairs of place and modality that go missing at random, 0 to below 1; a
            place that would lose all that is read of it keeps one of them, chosen at random.
        noise: deviation of Gaussian noise on frozen features, in the deviations of each feature
            over the places; masks stay as they are.
        noisy: the modalities that the noise is put on; none named: all but `coords`.
        stale: (modality, key of a fetched city of the same tiles whose layer stands for it): the
            same ground at another date.
        seed: of what is random; not part of `label`.
    """

    gone: tuple[str, ...] = ()
    rate: float = 0.0
    noise: float = 0.0
    noisy: tuple[str, ...] = ()
    stale: tuple[tuple[str, str], ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("drop-rate", self.rate, "at least 0 and below 1", 0 <= self.rate < 1)
        check_range("noise", self.noise, "at least 0 and finite", 0 <= self.noise < math.inf)
        check_range("seed", self.seed, "at least 0", self.seed >= 0)
        for name in ("gone", "noisy"):
            object.__setattr__(self, name, _ordered(expand_modalities(getattr(self, name))))
        if self.noisy and not self.noise:
            raise UsageError(f"noise on {', '.join(self.noisy)} of no deviation: set noise above 0")
        for modality, _ in self.stale:
            if modality not in MODALITIES:
                raise unknown("modality", modality, MODALITIES)
            if modality == "coords":
                raise UsageError("coords are the same at every date: name a layer as stale")
            if modality in self.gone:
                raise UsageError(f"{modality} cannot be gone and stale at once: name it once")
        if len(dict(self.stale)) < len(self.stale):
            raise UsageError("a modality is stale twice: name one city for each")
        named = dict(self.stale)
        object.__setattr__(self, "stale", tuple((m, named[m]) for m in _ordered(named)))

    @property
    def label(self) -> str:
        """What is done, in the words of the column `drop`; empty for nothing.

        E.g. `satellite`, `sentinel2+naip`, `rate=0.3`, `noise=1`, `noise:coords=1`,
        `stale:sentinel2=delhi-2019`; several of these with commas between.
        """
        on = f":{_joined(self.noisy)}" if self.noisy else ""
        parts = [
            _joined(self.gone),
            f"rate={self.rate:g}" if self.rate else "",
            f"noise{on}={self.noise:g}" if self.noise else "",
            *(f"stale:{modality}={key}" for modality, key in self.stale),
        ]
        return ",".join(filter(None, parts))

    @property
    def gaps(self) -> bool:
        """Whether anything goes missing."""
        return bool(self.gone or self.rate)

    def noised(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return those of some modalities that noise is put on."""
        wanted = self.noisy or tuple(name for name in MODALITIES if name != "coords")
        left = [name for name in names if name in wanted and name not in self.gone]
        return tuple(left) if self.noise else ()


def _ordered(names: "list[str] | dict[str, str]") -> tuple[str, ...]:
    return tuple(name for name in MODALITIES if name in names)


def _joined(names: tuple[str, ...]) -> str:
    """Return names of modalities with `+`, groups that are whole by their own name."""
    parts: list[str] = []
    for name in names:
        group = next((g for g, every in MODALITY_GROUPS.items() if name in every), name)
        whole = set(MODALITY_GROUPS.get(group, ())) <= set(names)
        parts.append(group if whole else name)
    return "+".join(dict.fromkeys(parts))


WHOLE = Spoiling()
"""Nothing is done."""


# --- what is random --------------------------------------------------------------------------


class Holes(NamedTuple):
    """What goes missing at random.

    Attributes:
        gone: modality → (N,) where it goes.
        spared: places that would have lost everything and keep one modality.
    """

    gone: dict[str, Mask]
    spared: int


def holes(place_ids: Iterable[str], present: Mapping[str, Mask], spoiling: Spoiling) -> Holes:
    """Return where modalities go missing at random.

    A pair goes where its own draw, uniform on [0, 1), lies below the rate. Of a place that would
    lose all it has, the modality with the largest draw stays.

    Args:
        place_ids: of N places.
        present: modality → (N,) whether a place has it: of the modalities that are read and not
            wholly gone.
        spoiling: its rate and seed.
    """
    if not spoiling.rate or not present:
        return Holes({}, 0)
    ids = list(place_ids)
    draws = np.stack([[_draw(spoiling.seed, m, place) for place in ids] for m in present])
    has = np.stack([np.asarray(mask) for mask in present.values()])
    gone = has & (draws < spoiling.rate)
    lost = has.any(axis=0) & (gone == has).all(axis=0)
    kept = np.where(has, draws, -1.0).argmax(axis=0)
    gone[kept[lost], np.flatnonzero(lost)] = False
    return Holes(dict(zip(present, gone, strict=True)), int(lost.sum()))


def thinned(
    tokens: Mapping[str, Tokens], place_ids: Iterable[str], spoiling: Spoiling
) -> Mapping[str, Tokens]:
    """Return tokens without those that go missing at random; coordinates, always known, stay.

    Args:
        tokens: modality → tokens of N places.
        place_ids: theirs.
        spoiling: its rate and seed.
    """
    present = {name: part.present for name, part in tokens.items() if name != "coords"}
    gone, _ = holes(place_ids, present, spoiling)
    return {**tokens, **{name: tokens[name].without(mask) for name, mask in gone.items()}}


def _draw(seed: int, modality: str, place_id: str) -> float:
    """Return a number uniform on [0, 1) that is this place's and modality's own."""
    text = f"hole/{seed}/{modality}/{place_id}".encode()
    whole = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
    return (whole >> 11) / (1 << 53)


def deviations(tokens: Tokens) -> npt.NDArray[np.float32]:
    """Return the standard deviation (d,) of each feature over all tokens of all places.

    Raises:
        UrbanError: there are fewer than two to take it of.
    """
    total, width = tokens.values.shape
    if total < 2:
        raise UrbanError("noise is in the deviations over places: give at least two that have data")
    parts = range(0, total, BLOCK_TOKENS)

    def mean(of: Any) -> Values:
        sums = np.zeros(width)
        for start in parts:
            sums += of(tokens.values[start : start + BLOCK_TOKENS].astype(np.float64)).sum(axis=0)
        return np.asarray(sums / total)

    centre = mean(lambda values: values)
    variance = mean(lambda values: (values - centre) ** 2)
    return np.asarray(np.sqrt(variance), dtype=np.float32)


def noise(
    place_ids: Iterable[str],
    modality: str,
    counts: npt.NDArray[np.int64],
    deviation: npt.NDArray[np.float32],
    spoiling: Spoiling,
) -> npt.NDArray[np.float32]:
    """Return the noise on the tokens of places, (ΣT, d), the same wherever a place stands.

    Args:
        place_ids: of N places.
        modality: whose tokens.
        counts: (N,) tokens of each place.
        deviation: (d,) from `deviations`.
        spoiling: its noise and seed.
    """
    out = np.empty((int(counts.sum()), len(deviation)), np.float32)
    start = 0
    for place, count in zip(place_ids, counts.tolist(), strict=True):
        if count:
            text = f"noise/{spoiling.seed}/{modality}/{place}".encode()
            key = int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "big")
            draws = np.random.Generator(np.random.Philox(key=key))
            draws.standard_normal(out=out[start : start + count], dtype=np.float32)
            start += count
    out *= np.float32(spoiling.noise) * deviation
    return out


# --- another date ----------------------------------------------------------------------------


def city_at(city: CityLayers, places: Places, modality: str, key: str) -> CityLayers:
    """Return the city whose layer stands for a modality of places, at another date.

    Raises:
        UsageError: it is not fetched.
        UrbanError: it has another grid, not all of the places, or no such layer.
    """
    other = open_city(city.workspace, key)
    if other.grid != city.grid:
        raise UrbanError(
            f"'{key}' has other tiles than '{city.key}' ({other.grid} and {city.grid}): fetch it "
            "with the same area and --tile-m"
        )
    lacking = int((city.holds(places) & ~other.holds(places)).sum())
    if lacking:
        raise UrbanError(
            f"'{key}' lacks {lacking:,} of {len(places):,} places of '{city.key}': fetch it with "
            "the same --bbox or --aoi"
        )
    if modality not in other.modalities():
        raise UrbanError(f"'{key}' has no {modality}: run `urban fetch --city {key}` with it")
    return other


# --- plain frozen features -------------------------------------------------------------------


def spoil_blocks(
    city: CityLayers,
    places: Places,
    blocks: Mapping[str, tuple[Values, Mask]],
    spoiling: Spoiling,
    choice: Choice,
) -> dict[str, tuple[Values, Mask]]:
    """Return frozen features as a run that reads the same modalities would meet them.

    Args:
        city: whose features.
        places: N of its places.
        blocks: modality → pooled features (N, D) and where they are present (N,).
        spoiling: what is done.
        choice: the encoders that the features are of, for those of another date.

    Returns:
        All blocks with all their columns, NaN where a feature is missing and there not present.
    """
    taken = dict(blocks)
    for modality, key in spoiling.stale:
        if modality in blocks:
            other = city_at(city, places, modality, key)
            encoders = choice[modality]
            fitted = fit_encoders(city, modality, places, encoders)
            part = encode_cached(other, modality, places, encoders, *fitted)
            taken[modality] = part.pooled(), part.present
    ids = places.place_id.tolist()
    left = {name: part[1] for name, part in taken.items() if name not in spoiling.gone}
    at_random = holes(ids, left, spoiling).gone
    found = {}
    for name, (values, present) in taken.items():
        known = present & (name in left)
        if name in spoiling.noised(taken) and known.any():
            values = _noisy(ids, name, values, present, spoiling)
        if name in at_random:
            known = known & ~at_random[name]
        if not known.all():
            values = np.where(known[:, None], values, np.float32(np.nan))
        found[name] = values, known
    return found


def _noisy(ids: list[str], name: str, values: Values, present: Mask, spoiling: Spoiling) -> Values:
    spread = deviations(single_tokens(values, present))
    added = noise(ids, name, present.astype(np.int64), spread, spoiling)
    values = values.copy()
    values[present] += added
    return values
