"""Splits: size of groups, folds as runs, files, and the removal of units that touch."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from urbancli.bench.splits._files import split_file
from urbancli.bench.splits.base import (
    CONTACT_M,
    GROUP_SIZES_M,
    NotScored,
    Units,
    choose_group_m,
    correlation_range,
    equal_runs,
    hilbert_ranks,
    make_units,
    touching,
)
from urbancli.bench.splits.spatial import make
from urbancli.embeddings import align
from urbancli.errors import UrbanError
from urbancli.grid import Grid, Places, point_places, tiles_of
from urbancli.workspace import read_table

GRID = Grid(32618)
EAST, NORTH = 585_000.0, 4_510_000.0


def tiles(columns: int, rows: int) -> Places:
    """Tiles of a box whose corner is near (EAST, NORTH)."""
    box = shapely.box(EAST, NORTH, EAST + 300 * columns, NORTH + 300 * rows)
    places = tiles_of(GRID.unproject_geometry(box), GRID)
    return places.take(places.share_inside > 0.5)


def circles(x: np.ndarray, y: np.ndarray, radius_m: float | np.ndarray) -> Units:
    shapes = shapely.buffer(shapely.points(x, y), radius_m)
    ids = np.array([f"u{i}" for i in range(len(x))], dtype=object)
    return make_units(GRID, ids, GRID.unproject_geometry(np.asarray(shapes)), "test")


def scattered(number: int, seed: int, width_m: float = 9000.0) -> Units:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, width_m, (2, number))
    return circles(EAST + x, NORTH + y, 200.0)


def smooth_field(x: np.ndarray, y: np.ndarray, range_m: float, seed: int) -> np.ndarray:
    """A Gaussian random field with covariance exp(−(d / range)²): random Fourier features."""
    rng = np.random.default_rng(seed)
    waves = rng.normal(size=(400, 2)) * np.sqrt(2) / range_m
    phase = np.column_stack([x, y]) @ waves.T + rng.uniform(0, 2 * np.pi, 400)
    return np.cos(phase).mean(axis=1)


# --- correlation range and size --------------------------------------------------------------


@pytest.mark.parametrize("length_m", [600.0, 1200.0])
def test_range_of_a_known_field(length_m: float) -> None:
    # Where exp(−(d/L)²) = 0.2: d = L √ln 5 ≈ 1.27 L; one bin of tolerance, many fields on average.
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 15_000, (2, 1500))
    found = [
        correlation_range(x, y, smooth_field(x, y, length_m, seed)[:, None])[0] for seed in range(6)
    ]
    assert np.mean(found) == pytest.approx(length_m * np.sqrt(np.log(5)), abs=300)


def test_range_of_noise_is_the_first_bin() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0, 6000, (2, 800))
    assert correlation_range(x, y, rng.normal(size=(800, 1))) == (150.0, True)


def test_range_of_a_trend_is_not_found() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.uniform(0, 20_000, (2, 500))
    assert correlation_range(x, y, x[:, None]) == (4800.0, False)


def test_range_of_classes_weighs_them_by_their_variance() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.uniform(0, 15_000, (2, 1500))
    smooth = smooth_field(x, y, 1200, 0) > 0
    rare = rng.uniform(size=1500) < 0.01
    indicators = np.column_stack([smooth & ~rare, ~smooth & ~rare, rare]).astype(float)
    with_rare, _ = correlation_range(x, y, indicators)
    without, _ = correlation_range(x, y, smooth[:, None].astype(float))
    assert abs(with_rare - without) <= 300


def test_few_far_units_have_no_range() -> None:
    x = np.arange(10) * 10_000.0
    assert correlation_range(x, x, x[:, None]) == (0.0, False)


@pytest.mark.parametrize(
    ("range_m", "diameter_m", "groups", "size", "warned"),
    [
        (450, 200, (90, 40, 20), 600, False),
        (1050, 200, (90, 40, 20), 1200, False),
        (150, 1300, (90, 40, 20), 2400, False),
        (3150, 200, (90, 40, 20), 2400, True),
        (1050, 200, (30, 9, 4), 600, True),
        (1050, 200, (8, 4, 1), 600, True),
        (2250, 200, (90, 12, 9), 1200, True),
    ],
)
def test_choice_of_size(
    range_m: float, diameter_m: float, groups: tuple[int, ...], size: int, warned: bool
) -> None:
    numbers = dict(zip(GROUP_SIZES_M, groups, strict=True))
    chosen, warnings = choose_group_m(range_m, True, diameter_m, numbers)
    assert chosen == size
    assert bool(warnings) == warned


# --- folds -----------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.integers(2, 8))
@settings(max_examples=60, deadline=None)
def test_runs_are_runs_of_like_size(counts: list[int], folds: int) -> None:
    runs = equal_runs(np.array(counts), folds)
    assert set(np.diff(runs)) <= {0, 1}
    assert runs[0] == 0
    assert runs[-1] < min(folds, len(counts))
    sizes = np.bincount(runs, weights=counts)
    # A cut falls within half a group of where it should.
    assert sizes.max() <= sum(counts) / min(folds, len(counts)) + max(counts)


@given(seed=st.integers(0, 50), number=st.integers(30, 300), folds=st.integers(2, 6))
@settings(max_examples=15, deadline=None)
def test_a_split_is_a_partition_by_groups(seed: int, number: int, folds: int) -> None:
    units = scattered(number, seed)
    target = np.random.default_rng(seed).normal(size=(number, 1))
    split = make(units, target, seed, folds)
    assert split.fold.shape == (number,)
    assert set(split.fold) == set(range(split.folds))
    assert split.folds <= folds
    centroids = shapely.get_coordinates(shapely.centroid(units.shape))
    for group in set(split.group):
        members = split.group == group
        assert len(set(split.fold[members])) == 1
        assert len(set(split.order[members])) == 1
        epsg, size, column, row = (int(part) for part in group.split("_"))
        assert (epsg, size) == (GRID.epsg, split.group_m)
        assert (np.floor(centroids[members] / size) == [column, row]).all()


def test_the_seed_moves_the_folds_only() -> None:
    units, target = scattered(300, 0), np.random.default_rng(0).normal(size=(300, 1))
    first, again, other = (make(units, target, seed, 5) for seed in (1, 1, 2))
    assert (first.fold == again.fold).all()
    assert (first.fold != other.fold).any()
    assert (first.group == other.group).all()


def test_folds_are_compact() -> None:
    units, target = scattered(2000, 0), np.random.default_rng(0).normal(size=(2000, 1))
    split = make(units, target, 3, 5)
    cells = np.array([[int(part) for part in name.split("_")[2:]] for name in split.group])
    fold_of = {tuple(cell): fold for cell, fold in zip(cells, split.fold, strict=True)}
    pairs = [
        (fold, fold_of[column + 1, row])
        for (column, row), fold in fold_of.items()
        if (column + 1, row) in fold_of
    ]
    # Random folds would agree on a fifth of their borders.
    assert np.mean([a == b for a, b in pairs]) > 0.6


def test_order_follows_the_curve() -> None:
    cells = np.argwhere(np.ones((8, 8))) + np.array([-3, 70])
    ranks = hilbert_ranks(np.repeat(cells, 2, axis=0))
    assert (ranks[::2] == ranks[1::2]).all()
    steps = np.abs(np.diff(cells[np.argsort(ranks[::2])], axis=0)).sum(axis=1)
    assert (steps == 1).all()


def test_one_group_is_not_scored() -> None:
    units = circles(np.full(30, EAST + 310.0), np.full(30, NORTH + 310.0), 50.0)
    with pytest.raises(NotScored, match="one square of 600 m"):
        make(units, np.arange(30.0)[:, None], 0, 5)


def test_an_id_twice_is_refused() -> None:
    points = np.array([shapely.Point(-74, 40.7), shapely.Point(-74, 40.8)], dtype=object)
    with pytest.raises(UrbanError, match="'a' twice"):
        make_units(GRID, np.array(["a", "a"], dtype=object), points, "x")


# --- the file --------------------------------------------------------------------------------


def test_the_file_is_reused_or_made_anew(tmp_path) -> None:
    path = tmp_path / "splits/a-b.parquet"
    units, target = scattered(200, 5), np.random.default_rng(5).normal(size=(200, 1))
    pins = {"label": "b", "seed": 0, "label_sha256": "1"}
    made = split_file(path, "spatial", units, target, pins, 5)
    direct = make(units, target, 0, 5)
    for field in ("group", "order", "fold"):
        assert (getattr(made, field) == getattr(direct, field)).all(), field
    table, facts = read_table(path)
    assert facts["group_m"] == made.group_m and facts["folds"] == 5 and facts["kind"] == "spatial"
    assert facts["range_m"] == made.range_m
    fold_of = dict(zip(table["unit_id"].to_pylist(), table["fold"].to_pylist(), strict=True))
    assert [fold_of[unit] for unit in units.unit_id] == made.fold.tolist()
    # Another target would give another range: that the file is kept shows that it was read.
    stamp = path.stat().st_mtime_ns
    assert split_file(path, "spatial", units, np.zeros((200, 1)) + 1, pins, 5).sha256 == made.sha256
    assert path.stat().st_mtime_ns == stamp
    for changed in ({"seed": 1}, {"label_sha256": "2"}):
        anew = split_file(path, "spatial", units, target, {**pins, **changed}, 5)
        assert anew.sha256 != made.sha256
    assert split_file(path, "spatial", units, target, pins, 5).sha256 == made.sha256
    assert split_file(path, "spatial", units, target, pins, 4).folds == 4


# --- touching --------------------------------------------------------------------------------


def naive_touching(units: Units, places: Places, weights, window_m: float) -> np.ndarray:
    """Every pair by itself: footprint against footprint, and against each window."""
    half = window_m / 2
    dense = weights.toarray()
    windows = [
        [shapely.box(places.x[p] - half, places.y[p] - half, places.x[p] + half, places.y[p] + half)
         for p in np.flatnonzero(row)]
        for row in dense
    ]  # fmt: skip
    number = len(units)
    found = np.zeros((number, number), dtype=bool)
    for u in range(number):
        for v in range(number):
            near = any(units.shape[u].distance(w) <= CONTACT_M for w in windows[v])
            if near or units.shape[u].distance(units.shape[v]) <= CONTACT_M:
                found[u, v] = found[v, u] = True
    return found


@pytest.mark.parametrize("window_m", [300.0, 900.0])
def test_touching_equals_every_pair_by_itself(window_m: float) -> None:
    places = tiles(12, 12)
    rng = np.random.default_rng(0)
    # Of any size, and some reach out of the tiles, where only footprints can meet.
    x, y = rng.uniform(-200, 3800, (2, 40))
    units = circles(EAST + x, NORTH + y, rng.uniform(5, 400, 40))
    weights = align(units.footprint, places).weights
    expected = naive_touching(units, places, weights, window_m)
    assert 0.05 < expected.mean() < 0.95
    assert (touching(units, places, weights, window_m).toarray() == expected).all()


def test_tiles_touch_their_eight_neighbours() -> None:
    places = tiles(6, 6)
    footprint = GRID.unproject_geometry(places.boxes())
    units = make_units(GRID, places.place_id, footprint, "t")
    touch = touching(units, places, align(footprint, places).weights, 0.0).toarray()
    steps = np.abs(places.cells[:, None] - places.cells[None]).max(axis=2)
    assert (touch == (steps <= 1)).all()
    wide = touching(units, places, align(footprint, places).weights, 600.0).toarray()
    # A window of 600 m reaches 150 m into the neighbours, so up to the border of the next.
    assert (wide == (steps <= 1)).all()
    wider = touching(units, places, align(footprint, places).weights, 900.0).toarray()
    assert (wider == (steps <= 2)).all()


def test_points_touch_those_whose_tile_they_see() -> None:
    places = tiles(4, 1)
    left, bottom = places.x.min() - 150, places.y.min() - 150
    spots = np.array(
        [[left + 10, bottom + 10], [left + 290, bottom + 290], [left + 400, bottom + 9]]
    )
    lon, lat = GRID.unproject(spots[:, 0], spots[:, 1])
    units = make_units(
        GRID, point_places(lon, lat, GRID).place_id, np.asarray(shapely.points(lon, lat)), "p"
    )
    touch = touching(units, places, align(units.footprint, places).weights, 300.0).toarray()
    assert touch.tolist() == [[True, True, False], [True, True, False], [False, False, True]]
