"""A check at run time that an embedding does not depend on what was dropped, nor on its company.

A score without a modality means nothing if the method still knows it. What is dropped is not in the
batch; but a method could remember it, from a batch it was shown before or from the tokens it was
prepared with. So what is dropped is exchanged for that of other places, everywhere a method can get
at it, and the embedding must stay. (A method that reads files of the workspace is not caught.)
"""

import copy
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from urbancli.errors import UrbanError
from urbancli.grid import Places
from urbancli.layers import CityLayers
from urbancli.methods.base import Method, pool_once
from urbancli.runs.embedding import Reader, Values, embed_batch, embed_places, spread
from urbancli.runs.run import Run
from urbancli.spoiling import Spoiling, holes
from urbancli.tokens import Tokens
from urbancli.training import pick_device

SAMPLE = 24
"""Places whose embeddings are compared."""

PREPARED = 96
"""Places that a method is prepared with once more."""

EXCHANGED = 4
"""Of these, those that get each other's tokens."""

SAME = 1e-3
"""Of a feature's deviation over the sample: what may change by rounding."""

SMALL = 1e-6
"""Of a feature's mean: below that it does not vary, to a probe and here."""

IN_COMPANY = 1e-2
"""As `SAME` where batches differ in size, and with them the order of sums."""

REMEMBERED = 0.5
"""Of a feature's deviation: what must change where a place was learnt by heart. Statistics over all
places move a little with any of them, and a regression on them somewhat more."""

OWN = 4.0
"""How many times more than all others such a place must change."""

Mask = npt.NDArray[np.bool_]


def assert_invariant(
    run: Run, city: CityLayers, places: Places, spoiling: Spoiling, *, untrained: bool = False
) -> None:
    """Refuse a method that still reads what was dropped, or other places of its batch.

    Args:
        run: whose method.
        city: whose layers are read.
        places: those that are embedded; a sample of them is looked at.
        spoiling: where nothing of it goes missing nothing is checked.
        untrained: whether the method before its training is meant.

    Raises:
        UrbanError: it does; or no modality is left.
    """
    if not (spoiling.rate or set(spoiling.gone) & set(run.modalities)) or len(places) < 2:
        return
    method = run.untrained if untrained else run.trained
    tokens = run.tokens(city, places, spoiling.stale)
    index = spread(len(places), SAMPLE)
    some = {name: part.take(index) for name, part in tokens.items()}
    _Sample(run.name, method, places.take(index), spoiling).check(some)
    names = run.facts["modalities"]
    trains = run.tokens(city, places, spoiling.stale, names)
    if len(trains) == len(names) and type(method).prepare is not Method.prepare:
        index = spread(len(places), PREPARED)
        some = {name: part.take(index) for name, part in trains.items()}
        _Sample(run.name, method, places.take(index), spoiling).check_memory(some, run.modalities)


class _Sample:
    """A method and places that it is asked to embed, with their own tokens and with others'."""

    def __init__(self, name: str, method: Method, places: Places, spoiling: Spoiling) -> None:
        self._name, self._method, self._places = name, method, places
        self._spoiling = spoiling
        self._device = pick_device("auto")
        self._every = np.arange(len(places))
        method.to(self._device)

    def check(self, tokens: Mapping[str, Tokens]) -> None:
        """Refuse a method that changes with what is dropped, or with its company."""
        lost = self._lost(tokens)
        known = self._reader(tokens)
        values = self._after_whole(known)
        names = [name for name, mask in lost.items() if mask.any()]

        def reads(some: list[str]) -> bool:
            other = self._reader(_exchanged(tokens, lost, some), known)
            return bool((_change(values, self._after_whole(other), values) > SAME).any())

        if reads(names):
            raise self._reads([name for name in names if reads([name])] or names)
        company = embed_batch(self._method, known.batch(self._every[::-2], self._device))[0]
        if (_change(values[::-2], company, values) > IN_COMPANY).any():
            raise UrbanError(
                f"{self._name}: an embedding depends on the other places of its batch: mend "
                "embed() of its method, and train again"
            )

    def check_memory(self, tokens: Mapping[str, Tokens], read: tuple[str, ...]) -> None:
        """Refuse a method that knows a place's tokens from those it was prepared with."""
        own = {name: tokens[name] for name in read}
        few: dict[str, Mask] = {}
        for name, mask in self._lost(own).items():
            some = np.flatnonzero(mask)[spread(int(mask.sum()), EXCHANGED)]
            if len(some) > 1:
                few[name] = np.isin(self._every, some)
        before = self._prepared(tokens, own)

        def remembers(names: list[str]) -> bool:
            after = self._prepared(_exchanged(tokens, few, names), own)
            change = _change(before, after, before)
            moved = np.logical_or.reduce([few[name] for name in names])
            others = float(change[~moved].max(initial=0.0))
            return bool(change[moved].max() > max(REMEMBERED, OWN * others))

        if few and remembers(list(few)):
            raise self._reads([name for name in few if remembers([name])] or list(few))

    def _reads(self, names: list[str]) -> UrbanError:
        return UrbanError(
            f"{self._name} reads what was dropped: without {' and '.join(names)} its embeddings "
            "change with it: mend embed() of its method, and train again"
        )

    def _lost(self, tokens: Mapping[str, Tokens]) -> dict[str, Mask]:
        """Return which places lose a modality."""
        left = {n: part.present for n, part in tokens.items() if n not in self._spoiling.gone}
        gone = {n: np.ones(len(self._places), dtype=bool) for n in tokens if n not in left}
        return {**gone, **holes(self._places.place_id, left, self._spoiling).gone}

    def _reader(self, tokens: Mapping[str, Tokens], like: Reader | None = None) -> Reader:
        spread = like.spread if like else None
        return Reader(self._method, tokens, self._places, self._spoiling, spread)

    def _after_whole(self, reader: Reader) -> Values:
        """Return the embeddings of a method that was shown the places whole right before."""
        embed_batch(self._method, reader.whole(self._every, self._device))
        return embed_batch(self._method, reader.batch(self._every, self._device))[0]

    def _prepared(self, tokens: Mapping[str, Tokens], own: Mapping[str, Tokens]) -> Values:
        """Return the embeddings, after it was prepared with other tokens, from a place's own."""
        import torch

        twin = copy.deepcopy(self._method)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            twin.prepare(pool_once(twin, tokens), self._every)
        return embed_places(twin, self._reader(own), len(self._places))[0]


def _exchanged(
    tokens: Mapping[str, Tokens], lost: Mapping[str, Mask], names: list[str]
) -> dict[str, Tokens]:
    """Return tokens of which the lost ones of some modalities went one lost place on."""
    found = dict(tokens)
    for name in names:
        index = np.arange(len(tokens[name]))
        where = np.flatnonzero(lost[name])
        # One place alone that lost it gets another's that did not.
        index[where] = np.roll(where, 1) if len(where) > 1 else (where + 1) % len(index)
        found[name] = tokens[name].take(index)
    return found


def _change(first: Values, second: Values, sample: Values) -> npt.NDArray[np.float64]:
    """Return per place (N,) the largest change of a feature, in its deviations over a sample."""
    sample = sample.astype(np.float64)
    floor = SMALL * np.abs(sample.mean(axis=0)) / SAME
    scale = np.maximum(sample.std(axis=0), floor)
    gap = np.abs(first.astype(np.float64) - second)
    return np.asarray(
        np.divide(gap, scale, out=np.where(gap > 0, np.inf, 0.0), where=scale > 0).max(axis=1)
    )
