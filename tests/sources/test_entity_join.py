"""Entities and the tiles they touch, against a naive loop over both."""

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from urbancli.grid import Floats, Grid, Places
from urbancli.sources import _touching
from urbancli.sources._entities import Entities, join_tiles
from urbancli.sources._touching import Tiles

GRID = Grid(32632)
CENTRE = (499_200.0, 5_539_200.0)  # a corner of four blocks: multiples of 2400 m
STEPS = st.integers(-8, 8).map(lambda half: half * 150.0)  # half of all points lie on borders
ANYWHERE = st.one_of(STEPS, st.floats(-1200, 1200))
POINTS = st.tuples(ANYWHERE, ANYWHERE)
SHAPES = st.one_of(
    POINTS.map(shapely.Point),
    st.lists(POINTS, min_size=2, max_size=4, unique=True).map(shapely.LineString),
    st.lists(POINTS, min_size=3, max_size=5, unique=True)
    .map(lambda points: shapely.MultiPoint(points).convex_hull),
    st.lists(POINTS, min_size=1, max_size=3).map(shapely.MultiPoint),
    st.tuples(POINTS, POINTS).map(
        lambda pair: shapely.GeometryCollection(
            [shapely.Point(pair[0]), shapely.Point(pair[1]).buffer(200)]
        )
    ),
)  # fmt: skip


def some_tiles(kept: list[bool]) -> Places:
    steps = np.arange(-3, 3)
    columns, rows = np.meshgrid(steps, steps, indexing="ij")
    cells = np.column_stack([columns.ravel(), rows.ravel()]) + GRID.tile_at(*CENTRE)[0]
    cells = cells[np.resize(kept, len(cells))]
    ids = np.array([GRID.tile_id(int(c), int(r)) for c, r in cells], dtype=object)
    x, y = ((cells + 0.5) * GRID.tile_m).T
    return Places(GRID, ids, "tile", x, y, np.ones(len(x)))


def naive_join(shape: shapely.Geometry, places: Places) -> tuple[list[str], str]:
    """One entity against every tile, one by one."""
    touched = [i for i, box in enumerate(places.boxes()) if shape.intersects(box)]
    if not touched:
        return [], ""
    centre = shape.centroid
    nearest = min(
        touched, key=lambda i: (places.x[i] - centre.x) ** 2 + (places.y[i] - centre.y) ** 2
    )
    column, row = places.cells[nearest]
    return [places.place_id[i] for i in touched], GRID.block_of(int(column), int(row)).block_id


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(SHAPES, min_size=1, max_size=6),
    kept=st.lists(st.booleans(), min_size=5, max_size=36).filter(any),
    budget=st.sampled_from([1, 3, 1000]),
)
def test_the_join_equals_a_naive_loop(
    shapes: list[shapely.Geometry], kept: list[bool], budget: int
) -> None:
    places = some_tiles(kept)
    moved = [shapely.transform(shape, lambda points: points + CENTRE) for shape in shapes]
    lonlat = np.empty(len(moved), dtype=object)
    lonlat[:] = GRID.unproject_geometry(np.array(moved, dtype=object))
    entities = Entities([str(i) for i in range(len(moved))], [{}] * 6, [[]] * 6, lonlat)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_touching, "CANDIDATES", budget)
        table = join_tiles(entities, Tiles(places))
    seen = {row["entity_id"]: (row["places"], row["block"]) for row in table.to_pylist()}
    # The loop works on what the join sees: the geometry after both projections.
    projected = GRID.project_geometry(lonlat)
    expected = {str(i): naive_join(shape, places) for i, shape in enumerate(projected)}
    assert seen == {name: pair for name, pair in expected.items() if pair[0]}


class Metres(Grid):
    """A grid whose lon and lat are its own metres."""

    def project(self, lon: npt.ArrayLike, lat: npt.ArrayLike) -> tuple[Floats, Floats]:
        return np.asarray(lon), np.asarray(lat)


def test_borders_belong_to_both_tiles() -> None:
    """In metres: a projection there and back would move points off the borders."""
    places = dataclasses.replace(some_tiles([True]), grid=Metres(GRID.epsg, GRID.tile_m))
    x, y = CENTRE
    shapes = [
        shapely.Point(x, y),
        shapely.Point(x + 150, y),
        shapely.Point(x + 150, y + 150),
        shapely.Point(x + 900, y + 150),
        shapely.Point(x + 901, y + 150),
        shapely.LineString([(x, y + 10), (x, y + 20)]),
        shapely.box(x, y, x + 300, y + 300),
        shapely.box(x - 9e6, y - 9e6, x + 9e6, y + 9e6),
        shapely.Point(np.inf, y),
    ]
    entity, _ = Tiles(places).touching(np.array(shapes, dtype=object))
    counts = np.bincount(entity, minlength=len(shapes)).tolist()
    assert counts == [4, 2, 1, 1, 0, 2, 9, 36, 0]
