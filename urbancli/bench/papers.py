"""Papers: a label, a split and a probe, put to all contestants alike."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from urbancli.bench.contestants import FILE, Contestant
from urbancli.bench.evaluation import Exam, Mask, make_exam, with_probe
from urbancli.bench.external import common_support
from urbancli.bench.preparation import Material, load_split, touching_units
from urbancli.bench.probes.base import DEFAULTS, load_probe
from urbancli.bench.splits.base import NotScored, Split
from urbancli.grid import Places
from urbancli.layers import CityLayers
from urbancli.spoiling import WHOLE


@dataclass
class Paper:
    """What is put to the contestants; without an exam where it cannot be scored.

    Attributes:
        name: of the label.
        material: its units.
        kind: of the split.
        split_seed: of the split.
        probe: name of the probe.
        exam: see `evaluation`.
        notes: what a reader must know.
        pins: JSON-able, what its scores depend on beside the contestants.
        why_not: why it is not scored, or nothing.
    """

    name: str
    material: Material
    kind: str
    split_seed: int
    probe: str
    exam: Exam | None = None
    notes: list[str] = field(default_factory=list)
    pins: list[Any] = field(default_factory=list)
    why_not: str = ""

    @property
    def usual(self) -> bool:
        """Whether its probe is the default of its kind, which is put all conditions to."""
        return bool(self.probe == DEFAULTS[self.material.task.kind])

    def fail(self, why: NotScored) -> None:
        """Note why the label is not scored."""
        self.exam, self.why_not = None, f"not scored: {why}"
        self.notes.append(self.why_not)
        self.pins.append(str(why))


@dataclass(frozen=True)
class Setting:
    """How the labels of a city are put.

    Attributes:
        city: a fetched city.
        places: its tiles.
        splits: (kind, seed) of each.
        probes: names; those that suit a task's kind are used.
        folds: wanted number of folds.
    """

    city: CityLayers
    places: Places
    splits: Sequence[tuple[str, int]]
    probes: Sequence[str]
    folds: int


def set_papers(
    setting: Setting, material: Material, contestants: Sequence[Contestant]
) -> Iterator[Paper]:
    """Yield a label's papers: one for each split and probe.

    Units without an embedding in any compared file are asked of nobody, and counted.

    Args:
        setting: which splits and probes.
        material: the label's units.
        contestants: whose windows decide who touches whom, and whose files which units count.
    """
    support, notes = _support(material, contestants)
    windows = sorted({one.reach_m for one in contestants})
    probes = [n for n in setting.probes if material.task.kind in load_probe(n).KINDS]
    for kind, seed in setting.splits:
        first = Paper(material.name, material, kind, seed, probes[0])
        first.notes += [*material.notes, *notes]
        try:
            split = load_split(setting.city, material, kind, seed, setting.folds)
            exam = set_exam(material, split, setting.places, windows, support)
        except NotScored as err:
            if support is not None and not support.all():
                err = NotScored(
                    f"{support.sum():,} of {len(support):,} units are in every file of embeddings "
                    f"that is compared, and that is too few: leave out the smallest file ({err})"
                )
            first.fail(err)
            yield from (replace(first, probe=name) for name in probes)
            continue
        pins = [material.pins, split.sha256, windows, exam.design, exam.question]
        for name in probes:
            yield replace(
                first,
                probe=name,
                exam=with_probe(exam, name),
                notes=[*first.notes, *exam.notes],
                pins=[*pins, name, load_probe(name).VERSION],
            )


def set_exam(
    material: Material,
    split: Split,
    places: Places,
    windows_m: Sequence[float],
    support: Mask | None = None,
) -> Exam:
    """Return the exam on a label with the default probe of its kind.

    Args:
        material: its units.
        split: of these.
        places: the city's tiles.
        windows_m: of the encoders of all compared methods, metres: the largest counts.
        support: (U,) units that every compared file has; default all.

    Raises:
        NotScored: too little is left to learn from.
    """
    touch = touching_units(material, split, places, windows_m)
    return make_exam(material.task, material.values, split, touch, support)


def _support(
    material: Material, contestants: Sequence[Contestant]
) -> tuple[Mask | None, list[str]]:
    """Return the units (U,) that every file of embeddings has, and what is left out."""
    files = [one for one in contestants if one.pretraining == FILE]
    told = [one.reach(material) for one in files]
    notes = [text for why, note in told if (text := why or note)]
    known = [
        one.on_units(material, WHOLE) for one, (why, _) in zip(files, told, strict=True) if not why
    ]
    if not known:
        return None, notes
    both = common_support(known)
    if not both.all():
        notes.append(
            f"{int((~both).sum()):,} of {len(both):,} units lack an embedding in a compared file "
            "and are asked of nobody"
        )
    return both, notes
