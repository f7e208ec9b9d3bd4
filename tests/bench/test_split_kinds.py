"""Every kind of split: a law for all, and what each promises."""

import csv
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bench.test_splits import EAST, GRID, NORTH, circles, scattered, smooth_field
from urbancli import plugins
from urbancli.bench.evaluation import make_exam
from urbancli.bench.splits import buffered, cityrep, random, spatial, urbanfusion
from urbancli.bench.splits._files import load_kind, split_file
from urbancli.bench.splits.base import Units, classes_of, make_units, near, vanishing
from urbancli.bench.tasks.base import Task
from urbancli.errors import UrbanError, UsageError
from urbancli.grid import Grid
from urbancli.workspace import sha256

KINDS = plugins.names("bench.splits")


def indicators(classes: np.ndarray) -> np.ndarray:
    return (classes[:, None] == np.unique(classes)[None]).astype(float)


def centres(units: Units) -> np.ndarray:
    return np.array([shape.centroid.coords[0] for shape in units.shape])


def test_the_kinds() -> None:
    assert KINDS == ["buffered", "cityrep", "random", "spatial", "urbanfusion"]
    with pytest.raises(UsageError, match="did you mean buffered"):
        load_kind("bufered")


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 30), number=st.integers(60, 300))
@settings(max_examples=6, deadline=None)
def test_a_unit_is_tested_at_most_once_and_never_judges_itself(
    kind: str, seed: int, number: int
) -> None:
    units = scattered(number, seed)
    target = np.random.default_rng(seed).normal(size=(number, 1))
    split = load_kind(kind).make(units, target, seed, 5)
    again = load_kind(kind).make(units, target, seed, 5)
    assert split.kind == kind and (split.fold == again.fold).all()
    assert set(split.fold) <= {-1, *range(split.folds)} and (split.fold >= 0).any()
    if split.validation is not None:
        assert not (split.validation & (split.fold >= 0)).any() and split.validation.any()
    if kind in {"spatial", "buffered"}:
        for group in set(split.group):
            assert len(set(split.fold[split.group == group])) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_gives_back_what_was_made(kind: str, tmp_path: Path) -> None:
    units = scattered(200, 3)
    target = np.random.default_rng(3).normal(size=(200, 1))
    pins = {"label": "b", "seed": 7}
    path = tmp_path / f"{kind}.parquet"
    read = split_file(path, kind, units, target, pins, 5)
    made = load_kind(kind).make(units, target, 7, 5)
    for name in ("group", "order", "fold", "validation"):
        np.testing.assert_array_equal(getattr(read, name), getattr(made, name))
    for name in ("kind", "apart", "buffer_m", "group_m", "range_m", "warnings"):
        assert getattr(read, name) == getattr(made, name), name
    assert read.sha256 == sha256(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UrbanError, match="delete it"):
        split_file(path, kind, units, target, pins, 5)


# --- classes that would vanish ---------------------------------------------------------------


def corner_classes(units: Units) -> np.ndarray:
    """Three classes, one in a corner of the city alone: in one run of the curve."""
    x, y = centres(units).T
    classes = np.where(np.arange(len(units)) % 2 == 0, "a", "b").astype(object)
    classes[(x < EAST + 1900) & (y < NORTH + 1900)] = "corner"
    return classes


def test_no_class_stands_in_one_fold_alone() -> None:
    units = scattered(1200, 1)
    classes = corner_classes(units)
    target = indicators(classes)
    split = spatial.make(units, target, 0, 5)
    numbers = classes_of(target, split.group)
    assert numbers is not None and (numbers >= 0).all() and vanishing(numbers, split.fold) == 0
    for fold in range(split.folds):
        assert set(classes[split.fold != fold]) == {"a", "b", "corner"}
    for group in set(split.group):
        assert len(set(split.fold[split.group == group])) == 1
    # The usual cut would have lost it for some seed: this test can fail.
    plain = [spatial._cut(split.order, None, seed, 5)[0] for seed in range(20)]
    assert any(vanishing(numbers, fold) for fold in plain)
    told = [spatial.make(units, target, seed, 5).warnings for seed in range(20)]
    assert any("folds are cut" in text for warnings in told for text in warnings)


def test_what_vanishes_whatever_is_cut_is_said() -> None:
    order = np.repeat(np.arange(20), 10)
    in_one_group = np.where(order == 3, 0, 1)
    fold, told = spatial._cut(order, in_one_group, 0, 5)
    assert len(set(fold[order == 3])) == 1
    assert told == (
        "however folds are cut, 1 class would stand in one fold alone, where no other can teach it",
    )
    in_three = np.isin(order, (3, 9, 15)).astype(int)
    assert not spatial._cut(order, in_three, 0, 5)[1]
    assert vanishing(np.array([0, 0, 1, 1, -1]), np.array([0, 1, 2, 2, 0])) == 1
    assert vanishing(np.array([-1, -1]), np.array([0, 1])) == 0


def test_classes_are_dealt_evenly_at_random() -> None:
    units = scattered(400, 2)
    classes = np.where(np.arange(400) < 40, "rare", "usual")
    split = random.make(units, indicators(classes), 0, 5)
    counts = [(classes[split.fold == fold] == "rare").sum() for fold in range(5)]
    assert max(counts) - min(counts) <= 1 and not split.apart and split.buffer_m == 0
    part = urbanfusion.make(units, indicators(classes), 42, 5)
    assert part.validation is not None
    assert (part.fold == 0).sum() == part.validation.sum() == 80
    assert (classes[part.fold == 0] == "rare").sum() == 8


# --- buffers ---------------------------------------------------------------------------------


def test_a_buffer_keeps_correlated_neighbours_out_of_training() -> None:
    rng = np.random.default_rng(0)
    x, y = EAST + rng.uniform(0, 20_000, 900), NORTH + rng.uniform(0, 20_000, 900)
    units = circles(x, y, 20.0)
    values = smooth_field(x, y, 900.0, 1)
    split = buffered.make(units, values[:, None], 0, 5)
    assert split.buffer_m == split.range_m > 0 and split.apart
    close = near(units, split.buffer_m).toarray()
    exam = make_exam(Task("t", 1, "regression", "r2"), values, split, close)
    distance = np.hypot(x[:, None] - x[None], y[:, None] - y[None]) - 40.0
    for fold in exam.folds:
        apart = distance[np.ix_(fold.training, fold.testing)]
        assert apart.min() > split.buffer_m - 1.0  # circles are polygons
    assert sum(exam.removed) > 0


def test_a_buffer_that_leaves_too_little_is_cut_and_said() -> None:
    units = scattered(300, 0, width_m=4000.0)
    x, y = centres(units).T
    split = buffered.make(units, (x + y)[:, None], 0, 5)
    assert split.buffer_m < split.range_m
    assert any("too few training units" in text for text in split.warnings)


def odd_shapes() -> Units:
    """Points, lines, a horseshoe, two far parts of one unit, and one large among small ones."""
    rng = np.random.default_rng(4)
    shapes = list(scattered(40, 4).shape)
    shapes += [shapely.Point(EAST + x, NORTH + y) for x, y in rng.uniform(0, 9000, (20, 2))]
    shapes.append(shapely.LineString([(EAST, NORTH), (EAST + 4000, NORTH + 9000)]))
    ring = shapely.Point(EAST + 4500, NORTH + 4500).buffer(4000)
    shapes.append(ring.difference(shapely.Point(EAST + 4500, NORTH + 4800).buffer(3800)))
    shapes.append(shapely.union(shapes[0].buffer(50), shapes[30].buffer(300)))
    shapes.append(shapely.box(EAST + 6000, NORTH, EAST + 9000, NORTH + 3000))
    ids = np.array([f"u{number}" for number in range(len(shapes))], dtype=object)
    footprint = GRID.unproject_geometry(np.array(shapes, dtype=object))
    return make_units(GRID, ids, np.asarray(footprint), "odd")


@pytest.mark.parametrize("distance_m", [0.01, 300.0, 700.0, 2500.0])
def test_near_is_every_pair_by_itself(distance_m: float) -> None:
    units = odd_shapes()
    found = near(units, distance_m).toarray()
    expected = np.array([[a.distance(b) <= distance_m for b in units.shape] for a in units.shape])
    np.testing.assert_array_equal(found, expected)
    assert 0 < expected.mean() < 1


# --- real labels -----------------------------------------------------------------------------


def test_random_folds_test_beside_what_they_learn(real_data: Path) -> None:
    """Delhi's 841 land-cover patches overlap: at random, every one has a neighbour in training."""
    with (real_data / "delhi/landcover_patches.csv").open() as file:
        rows = list(csv.DictReader(file))
    centre = np.array([[float(row["lon"]), float(row["lat"])] for row in rows])
    half = 64 * (77.31997 - 77.06) / 2894
    footprint = shapely.box(*(centre - half).T, *(centre + half).T)
    ids = np.array([f"p{number}" for number in range(len(rows))], dtype=object)
    units = make_units(Grid(32643), ids, footprint, "land_cover")
    classes = np.array([row["class_name"] for row in rows])
    touch = near(units, 0.0).toarray()
    shares = {}
    for kind in KINDS:
        module = load_kind(kind)
        split = module.make(units, indicators(classes), (module.SEEDS or (0,))[0], 5)
        tested = split.fold == 0
        learnt = ~tested if split.validation is None else ~tested & ~split.validation
        shares[kind] = touch[np.ix_(tested, learnt)].any(axis=1).mean()
        # Cropland, 20 patches, is the rarest class that is told apart: no fold loses it.
        numbers = classes_of(indicators(classes), split.group)
        assert numbers is not None and (classes[numbers >= 0] == "Cropland").sum() in (0, 20)
        for number in np.unique(numbers[numbers >= 0]):
            assert (numbers[learnt] == number).any(), (kind, number)
    assert shares["random"] > 0.99 and shares["urbanfusion"] > 0.95
    assert shares["spatial"] < 0.4 and shares["spatial"] == shares["buffered"]


# --- CityRep ---------------------------------------------------------------------------------


def test_cityrep_has_ten_by_ten_blocks_and_five_seeds() -> None:
    units = scattered(2000, 1)
    target = np.random.default_rng(1).normal(size=(2000, 1))
    splits = [cityrep.make(units, target, seed, 5) for seed in cityrep.SEEDS]
    assert cityrep.SEEDS == (42, 24, 7, 0, 100)
    for split in splits:
        blocks = {group: set(split.fold[split.group == group]) for group in set(split.group)}
        assert len(blocks) == 100 and all(len(part) == 1 for part in blocks.values())
        assert sum(part == {0} for part in blocks.values()) == 20
        assert split.validation is not None
        assert len(set(split.group[split.validation])) == 20
    assert len({split.fold.tobytes() for split in splits}) == 5


def test_cityrep_draws_again_where_a_class_would_be_missing() -> None:
    units = scattered(1200, 1)
    classes = corner_classes(units)
    for seed in cityrep.SEEDS:
        split = cityrep.make(units, indicators(classes), seed, 5)
        assert set(classes[split.fold == 0]) == {"a", "b", "corner"}
        learnt = (split.fold < 0) & ~np.asarray(split.validation)
        assert set(classes[learnt]) == {"a", "b", "corner"}
