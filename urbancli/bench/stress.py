"""Stress: which modalities go missing, are noisy or of another date, and what that did to scores.

`conditions` says what a call asks for; the rest are summaries of rows (`rows.SCHEMA`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from urbancli.errors import UsageError
from urbancli.layers import MODALITY_GROUPS, expand_modalities
from urbancli.spoiling import WHOLE, Spoiling

if TYPE_CHECKING:
    from urbancli.bench.run import BenchOptions

IMPUTATIONS = ("mean", "regression")
"""How missing columns of frozen features are filled, see `imputation`."""

WHO = (
    "city", "method", "preset", "run", "settings", "pretraining", "seed", "task", "split",
    "split_seed", "probe", "metric",
)  # fmt: skip
"""The columns of a row that say whose it is and of what, whatever was missing."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Condition:
    """Under what a contestant is scored.

    Attributes:
        spoiling: what is done to the modalities.
        at: `both` where the probe is fitted on spoilt embeddings too, `test` where it is fitted on
            whole ones and only the tested units are spoilt; empty where nothing is spoilt.
        imputation: how what is missing at test is filled, one of `IMPUTATIONS`; or not.
    """

    spoiling: Spoiling = WHOLE
    at: str = ""
    imputation: str = ""

    @property
    def single(self) -> bool:
        """Whether all that happens is that one modality or group is gone."""
        gone = self.spoiling.gone
        return self.spoiling == Spoiling(gone=gone) and (
            len(gone) == 1 or any(set(gone) == set(every) for every in MODALITY_GROUPS.values())
        )


def conditions(asked: "BenchOptions", modalities: Sequence[str]) -> list[Condition]:
    """Return the conditions a call asks for, each once; the first is that nothing is spoilt.

    `drop`: each name alone. `subsets`: every non-empty subset is kept in turn; rows name what is
    gone. Whatever is spoilt, is so at both and at test only; what has gaps at test is imputed too.

    Args:
        asked: `drop` are names of modalities or groups; `noise` deviations, or `MODALITY=S` to put
            it on that one alone; `stale` are `MODALITY=CITY`; `seed` is of all that is random.
        modalities: those of the city that anybody reads: of these the subsets are made.

    Raises:
        UsageError: a name, rate, deviation or pair that does not fit.
    """
    spoilings = [Spoiling(gone=(name,)) for name in asked.drop]
    if asked.subsets:
        spoilings += [
            Spoiling(gone=tuple(name for name in modalities if name not in kept))
            for size in range(len(modalities) - 1, 0, -1)
            for kept in combinations(modalities, size)
        ]
    spoilings += [Spoiling(rate=rate, seed=asked.seed) for rate in asked.drop_rates if rate]
    spoilings += [
        one for text in asked.noise if (one := _noise(str(text), modalities, asked.seed)).noise
    ]
    spoilings += [_stale(text, modalities) for text in asked.stale]
    found = [Condition()]
    for spoiling in _different(spoilings, modalities):
        found += [Condition(spoiling, "both"), Condition(spoiling, "test")]
        if spoiling.gaps:
            found += [Condition(spoiling, "test", how) for how in IMPUTATIONS]
    return found


def _different(spoilings: Iterable[Spoiling], modalities: Sequence[str]) -> Iterator[Spoiling]:
    """Yield spoilings that do different things to what the city has; the first name counts."""
    seen = set()
    for spoiling in spoilings:
        gone = tuple(name for name in spoiling.gone if name in modalities)
        effect = replace(spoiling, gone=gone or spoiling.gone)
        if effect not in seen:
            seen.add(effect)
            yield spoiling


def _noise(text: str, modalities: Sequence[str], seed: int) -> Spoiling:
    where, equals, size = text.rpartition("=")
    try:
        deviation = float(size)
    except ValueError as err:
        raise UsageError(f"noise '{text}' is not S or MODALITY=S, e.g. 1 or coords=0.5") from err
    if equals and not set(expand_modalities([where])) & set(modalities):
        raise UsageError(f"nothing of {where} is read here: name a modality that is")
    return Spoiling(noise=deviation, noisy=(where,) if equals else (), seed=seed)


def _stale(text: str, modalities: Sequence[str]) -> Spoiling:
    where, equals, key = (part.strip() for part in text.partition("="))
    if not (equals and where and key):
        raise UsageError(f"'{text}' is not MODALITY=CITY, e.g. sentinel2=delhi-2019")
    names = expand_modalities([where])
    here = [name for name in names if name in modalities] if len(names) > 1 else names
    if not here:
        raise UsageError(f"nothing of {where} is read here: name a modality that is")
    return Spoiling(stale=tuple((name, key) for name in here))


def spared_notes(asked: Iterable[Condition], modalities: int) -> list[str]:
    """Return, per rate of random drops, how often a place keeps a modality against chance.

    Args:
        asked: conditions.
        modalities: the most that any run reads.
    """
    return [
        f"dropped at random with {rate:g}: a place that would lose all keeps one modality; of "
        f"{modalities} that is {rate**modalities:.1%} of the places"
        for rate in sorted({condition.spoiling.rate for condition in asked})
        if rate and modalities and rate**modalities >= 5e-4
    ]


# --- summaries -------------------------------------------------------------------------------


def degradation(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return the area under the degradation curve of each contestant and task.

    The curve is retention over the rate at which pairs of place and modality go missing,
    g(r) = (s(r) − s_constant) / (s(0) − s_constant), g(0) = 1. Its area by trapezoids from 0 to the
    largest rate R, over R: 1 where nothing is lost, 0 where nothing is left at any rate. (Not from
    the score itself: with it the area of a method that never had anything would be 1.)

    Args:
        rows: of a bench; those with `rate=…` alone count, and only where retention is defined at
            every rate.

    Returns:
        Rows with the columns `WHO`, `drop_at`, `imputation`, `rates` (text), `up_to` (R), `area`.
    """
    curves: dict[tuple[Any, ...], dict[float, float | None]] = {}
    for row in rows:
        name, equals, rate = row["drop"].partition("=")
        if name == "rate" and equals and "," not in rate:
            key = (*_who(row), row["drop_at"], row["imputation"])
            curves.setdefault(key, {})[float(rate)] = row["retention"]
    found = []
    for key, curve in curves.items():
        rates = sorted(curve)
        kept = [curve[rate] for rate in rates]
        if any(value is None for value in kept):
            continue
        x, y = np.array([0.0, *rates]), np.array([1.0, *kept], dtype=np.float64)
        area = float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum() / x[-1])
        facts = {"rates": ", ".join(f"{rate:g}" for rate in rates), "up_to": rates[-1]}
        found.append({**_named(key), **facts, "area": area})
    return found


def worst_subsets(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return, per contestant and task, the modalities whose absence costs most.

    Args:
        rows: of a bench; those where modalities are gone and nothing else is done count.

    Returns:
        Rows with the columns `WHO`, `drop_at`, `imputation`, `drop`, `value`, `retention`,
        `difference_full`, and `of`: how many sets of missing modalities were scored.
    """
    asked: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if only_gone(row) and row["value"] is not None:
            key = (*_who(row), row["drop_at"], row["imputation"])
            asked.setdefault(key, []).append(row)
    found = []
    for key, sets in asked.items():
        worst = min(sets, key=lambda row: float(row["value"]))
        facts = {name: worst[name] for name in ("drop", "value", "retention", "difference_full")}
        found.append({**_named(key), **facts, "of": len(sets)})
    return found


def improvements(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return where a score is surely higher with modalities gone than with all of them.

    Surely: the paired 95 % interval of the difference lies above 0, and so one in forty where
    nothing changed; `of` says how many sets were scored.

    Args:
        rows: as of `worst_subsets`.

    Returns:
        Rows with the columns `WHO`, `drop_at`, `imputation`, `drop`, `value`, `difference_full`,
        its `_low` and `_high`, and `of`; the largest difference first.
    """
    asked: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if only_gone(row) and row["value"] is not None:
            key = (*_who(row), row["drop_at"], row["imputation"])
            asked.setdefault(key, []).append(row)
    columns = (
        "drop", "value", "difference_full", "difference_full_low", "difference_full_high",
    )  # fmt: skip
    found = [
        {**_named(key), **{name: row[name] for name in columns}, "of": len(sets)}
        for key, sets in asked.items()
        for row in sets
        if (row["difference_full_low"] or 0.0) > 0
    ]
    return sorted(found, key=lambda row: -row["difference_full"])


def only_gone(row: Row) -> bool:
    """Return whether modalities are gone in a row and nothing else is done to them."""
    return bool(row["drop"]) and "=" not in row["drop"]


def _who(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in WHO)


def _named(key: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip((*WHO, "drop_at", "imputation"), key, strict=True))
