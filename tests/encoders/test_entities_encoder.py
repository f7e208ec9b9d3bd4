"""Entity tokens: which entities, what their tags and sizes say, and where their boxes lie."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from urbancli.encoders import _fourier, _touching, entities
from urbancli.encoders._hashing import hash_words
from urbancli.encoding import load_encoder
from urbancli.errors import UsageError
from urbancli.layers import CityLayers
from urbancli.workspace import geometries

SHAPES = [
    (shapely.box(20, 30, 60, 50), {"building": "yes"}),
    (shapely.LineString([(10, 100), (850, 100)]), {"highway": "primary", "name": "High Street"}),
    (shapely.Point(450, 450), {"amenity": "cafe"}),
    (shapely.Point(310, 450), {"amenity": "bench"}),
    (
        shapely.Polygon([(650, 350), (690, 370), (680, 390), (640, 370)]),
        {"building": "house", "source": "survey", "tiger:reviewed": "no", "addr:street": "Elm"},
    ),
    (shapely.box(-5000, -5000, 9000, 9000).boundary, {"boundary": "administrative"}),
]


def city_of(tiny: Callable[..., Any], shapes: list[Any]) -> tuple[Any, CityLayers, Any]:
    builder = tiny(3, 2)
    builder.entities("entities", [shape for shape, _ in shapes], [tags for _, tags in shapes])
    return builder, *builder.open()


def bag(tags: dict[str, str], words: list[str]) -> npt.NDArray[np.float64]:
    """The definition: each word adds its sign to its column."""
    out = np.zeros(128)
    for word in words:
        column, sign = hash_words([word], 128)
        out[column[0]] += sign[0]
    return out


def test_a_tile_has_the_entities_listed_for_it(tiny: Callable[..., Any]) -> None:
    builder, city, places = city_of(tiny, SHAPES)
    tokens = entities.Encoder().encode(city, "entities", places, {})
    listed = city.entities("entities").column("places").to_pylist()
    for index, place in enumerate(places.place_id):
        inside = sum(place in row for row in listed)
        assert tokens.offsets[index + 1] - tokens.offsets[index] == inside
    assert tokens.present.all() and tokens.bag
    counts = {(0, 0): 2, (1, 0): 1, (2, 0): 1, (0, 1): 0, (1, 1): 2, (2, 1): 1}
    cells = [tuple(cell) for cell in builder.offsets(places).tolist()]
    assert np.diff(tokens.offsets).tolist() == [counts[cell] for cell in cells]


def test_points_have_what_their_square_touches(tiny: Callable[..., Any]) -> None:
    builder, city, _ = city_of(tiny, SHAPES)
    places = builder.points([(500, 250), (40, 60), (890, 10), (170, 480)])
    tokens = entities.Encoder().encode(city, "entities", places, {})
    assert np.diff(tokens.offsets).tolist() == [2, 2, 1, 1]
    table = city.entities("entities")
    metres = city.grid.project_geometry(geometries(table))
    for index, square in enumerate(places.boxes()):
        wanted = np.flatnonzero(shapely.intersects(metres, square))
        part = slice(tokens.offsets[index], tokens.offsets[index + 1])
        alone = entities.shape_features(metres[wanted], city.grid)
        np.testing.assert_allclose(tokens.values[part, 128:], alone, rtol=1e-6, atol=1e-6)


def test_of_a_place_in_no_tile_nothing_is_known(tiny: Callable[..., Any]) -> None:
    builder, city, _ = city_of(tiny, SHAPES)
    places = builder.points([(-4950, 0), (500, 250), (-1, 60), (2000, 2000)])
    tokens = entities.Encoder().encode(city, "entities", places, {})
    assert tokens.present.tolist() == [False, True, False, False]
    assert np.diff(tokens.offsets).tolist() == [0, 2, 0, 0]


def test_views_are_encoded_alone(tiny: Callable[..., Any]) -> None:
    _, city, places = city_of(tiny, SHAPES)
    tokens = entities.Encoder().encode(city, "buildings", places, {})
    assert len(tokens.values) == 2


def test_a_city_of_no_such_entities_is_present_and_empty(tiny: Callable[..., Any]) -> None:
    _, city, places = city_of(tiny, SHAPES[1:4])
    tokens = entities.Encoder().encode(city, "buildings", places, {})
    assert tokens.present.all() and len(tokens.values) == 0
    assert tokens.pooled().shape == (6, 2 * 183 + 1)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"building": "yes"}, ["building", "building=yes"]),
        ({"name": "A", "old_name": "B", "name:fr": "C"}, ["name", "old_name", "name:fr"]),
        ({"addr:street": "Elm", "ref": "A1"}, ["addr:street", "ref"]),
        ({"tiger:cfcc": "A41", "source": "x", "source:date": "y", "created_by": "z"}, []),
        ({"import_uuid": "x", "yh:TYPE": "y"}, []),
        ({}, []),
    ],
)
def test_tags_are_hashed_by_key_and_pair(
    tiny: Callable[..., Any], tags: dict[str, str], words: list[str]
) -> None:
    _, city, _ = city_of(tiny, [(shapely.Point(5, 5), tags)])
    found = entities.hashed_tags(city.entities("entities"), 128)
    np.testing.assert_array_equal(found[0], bag(tags, words))


def test_hashes_never_change() -> None:
    columns, signs = hash_words(["building", "building=yes", "Straße", ""], 128)
    assert columns.tolist() == [8, 111, 31, 114] and signs.tolist() == [-1, -1, 1, 1]


def test_sizes_and_dimension(tiny: Callable[..., Any]) -> None:
    builder, _, _ = city_of(tiny, SHAPES)
    shapes = np.array([shape for shape, _ in SHAPES[:3]], dtype=object)
    found = entities.shape_features(shapes, builder.grid)[:, _fourier.WIDTH :]
    wanted = [
        [*np.log1p([800, 120, 40 / 300, 20 / 300]), 0, 0, 1],
        [*np.log1p([0, 840, 840 / 300, 0]), 0, 1, 0],
        [0, 0, 0, 0, 1, 0, 0],
    ]
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_positions_are_box_corners_in_tile_units(tiny: Callable[..., Any]) -> None:
    builder, city, places = city_of(tiny, SHAPES[:5])
    tokens = entities.Encoder().encode(city, "entities", places, {})
    corners = {}
    for index, (column, row) in enumerate(builder.offsets(places).tolist()):
        part = slice(tokens.offsets[index], tokens.offsets[index + 1])
        corners[column, row] = tokens.positions[part].reshape(-1, 4, 2)
    house = [(20, 30), (60, 30), (60, 50), (20, 50)]
    street = [(10, 100), (10, 100), (850, 100), (850, 100)]
    turned = [(650, 350), (690, 370), (680, 390), (640, 370)]
    wanted = {(0, 0): [house, street], (1, 0): [street], (2, 0): [street], (2, 1): [turned]}
    wanted |= {(1, 1): [[(310, 450)] * 4, [(450, 450)] * 4]}
    for cell, shapes in wanted.items():
        relative = (np.array(shapes) - 300 * np.array(cell)) / 300
        order = np.lexsort(np.array(relative)[:, 0].T)
        found = corners[cell][np.lexsort(corners[cell][:, 0].T)]
        np.testing.assert_allclose(found, relative[order], atol=1e-4)


metre = st.floats(0, 500).map(lambda value: round(value, 1))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(metre, metre), min_size=1, max_size=6))
def test_boxes_enclose_their_shape_and_are_no_larger_than_needed(
    points: list[tuple[float, float]],
) -> None:
    shape = shapely.MultiPoint(points)
    corners = _touching.box_corners(np.array([shape], dtype=object))[0]
    box = shapely.Polygon(corners)
    assert box.buffer(1e-6).covers(shape) or shapely.LineString(corners).buffer(1e-6).covers(shape)
    assert box.area <= shape.envelope.area + 1e-6
    sides = np.diff(np.vstack([corners, corners[:1]]), axis=0)
    np.testing.assert_allclose(sides[0], -sides[2], atol=1e-6)
    assert sides[0][0] * sides[1][1] - sides[0][1] * sides[1][0] >= -1e-6
    assert corners[0].sum() <= corners.sum(axis=1).min() + 1e-9


@pytest.mark.parametrize("width", [0, -1, 65537])
def test_widths_out_of_range(width: int) -> None:
    with pytest.raises(UsageError, match=r"does not fit: tag_width is from 1 to 65536$"):
        load_encoder("entities", [f"tag_width={width}"])
