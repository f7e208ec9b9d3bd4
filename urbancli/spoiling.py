"""Spoiling: what is done to a city's modalities before they are embedded, to see what it costs.

A modality can be gone, go missing at random, be noisy, or be of another date. Chance is drawn per
place and modality from the place's id: every method that reads the same modalities of a city meets
the same holes and the same noise, whatever the order and number of places, and a higher rate only
adds holes to those of a lower one.
"""

import math
from dataclasses import dataclass

from urbancli.configs import check_range
from urbancli.errors import UsageError, unknown
from urbancli.layers import MODALITIES, MODALITY_GROUPS, expand_modalities


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
        check_range("rate", self.rate, "at least 0 and below 1", 0 <= self.rate < 1)
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
