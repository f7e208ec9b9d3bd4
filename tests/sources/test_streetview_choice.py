"""Which photos of a tile are taken: against a slow search, and by what they must not depend on."""

import itertools

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from urbancli.grid import Grid, Places, tiles_of
from urbancli.sources._streetview import HEADING_WEIGHT, Spot, choose, spread

GRID = Grid(32632)


@pytest.fixture(scope="module")
def places() -> Places:
    return tiles_of(shapely.box(8.9, 49.96, 8.91, 49.97), GRID)


def spots_of(count: int, seed: int = 0) -> list[Spot]:
    generator = np.random.default_rng(seed)
    at = generator.uniform((8.9, 49.96), (8.91, 49.97), (count, 2))
    turned = generator.uniform(0, 360, count)
    return [
        Spot(f"{n:04d}", lon, lat, heading=None if n % 5 == 0 else turned[n])
        for n, (lon, lat) in enumerate(at.tolist())
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 1000))
def test_each_is_the_farthest_from_those_before(count: int, wanted: int, seed: int) -> None:
    """Against a loop over all pairs."""
    spots = spots_of(count, seed)
    position = np.random.default_rng(seed).uniform(0, 1, (count, 2))

    def apart(one: int, other: int) -> float:
        a, b = spots[one].heading, spots[other].heading
        turned = 0.5 if a is None or b is None else np.sin(np.radians(a - b) / 2) ** 2
        return ((position[one] - position[other]) ** 2).sum() + HEADING_WEIGHT**2 * turned

    taken = spread(spots, position, wanted)
    assert len(taken) == len(set(taken)) == min(count, wanted)
    centre = ((position - 0.5) ** 2).sum(axis=1)
    assert taken[0] == int(np.argmin(centre))
    for step in range(1, len(taken)):
        nearest = {
            index: min(apart(index, before) for before in taken[:step])
            for index in range(count)
            if index not in taken[:step]
        }
        assert nearest[taken[step]] == pytest.approx(max(nearest.values()))


def test_a_crossing_is_seen_in_all_directions() -> None:
    """Forty photos of one drive eastwards, and three that look elsewhere: all three are taken."""
    spots = [Spot(f"{n:02d}", 0, 0, heading=90.0) for n in range(40)]
    spots += [Spot(f"{40 + n}", 0, 0, heading=turned) for n, turned in enumerate((0.0, 180, 270))]
    position = np.column_stack([np.linspace(0.45, 0.55, 43), np.full(43, 0.5)])
    taken = spread(spots, position, 4)
    assert sorted(spots[i].heading for i in taken) == [0.0, 90.0, 180.0, 270.0]


def test_a_panorama_is_taken_where_there_is_nothing_else() -> None:
    spots = [Spot(str(n), 0, 0, panorama=n != 3) for n in range(5)]
    position = np.array([[0.5, 0.5], [0.4, 0.5], [0.1, 0.9], [0.99, 0.99], [0.0, 0.0]])
    assert spread(spots, position, 1) == [3], "the farthest from the centre"
    taken = spread(spots, position, 3)
    assert taken[0] == 3 and len(taken) == 3


def test_the_order_given_and_other_tiles_do_not_count(places: Places) -> None:
    spots = spots_of(200)
    chosen, left_out = choose(spots, places, 3)
    for seed in range(3):
        mixed = list(np.random.default_rng(seed).permutation(np.array(spots, dtype=object)))
        assert choose(mixed, places, 3) == (chosen, left_out)
    assert list(chosen) == [place for place in places.place_id if place in chosen]
    some = places.take(np.arange(4))
    part, _ = choose(spots, some, 3)
    assert part == {place: chosen[place] for place in some.place_id if place in chosen}
    rows = list(itertools.chain.from_iterable(chosen.values()))
    assert len(rows) + left_out == 200
    x, y = GRID.project([row[1] for row in rows], [row[2] for row in rows])
    names = [GRID.tile_id(*cell) for cell in GRID.tile_at(x, y).tolist()]
    assert names == [place for place, pinned in chosen.items() for _ in pinned]


def test_no_photo_is_no_tile(places: Places) -> None:
    assert choose([], places, 3) == ({}, 0)
    assert choose([Spot("a", 0.0, 0.0)], places, 3) == ({}, 0)
