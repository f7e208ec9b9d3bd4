"""POI vectors against a loop over places and POIs."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import shapely

from urbancli.encoders import pois
from urbancli.encoders._hashing import hash_words, text_grams
from urbancli.encoding import load_encoder
from urbancli.errors import UsageError
from urbancli.workspace import geometries

# Open to the east: its centroid lies in the gap, in the next tile.
CRESCENT = shapely.box(595, 400, 700, 460) - shapely.box(599, 410, 701, 450)

POIS = [
    (shapely.Point(150, 150), {"amenity": "cafe", "name": "Blue Door"}),
    (shapely.Point(150, 152), {"amenity": "cafe", "name": "Blue Door"}),
    (shapely.Point(301, 20), {"shop": "books"}),
    (CRESCENT, {"leisure": "park", "name": "Élan"}),
    (shapely.Point(870, 590), {"name": "nameless kind"}),
]


def city_of(tiny: Callable[..., Any], shapes: list[Any], layer: str = "pois") -> Any:
    builder = tiny(4, 2)
    builder.entities(layer, [shape for shape, _ in shapes], [tags for _, tags in shapes])
    return builder, *builder.open()


def expected(spots: list[Any], x: float, y: float) -> np.ndarray:
    """The definition, for one place; spots are (x, y, tags) in metres."""
    square, circle, text = np.zeros(65), np.zeros(65), np.zeros(64)
    for east, north, tags in spots:
        kind = next((f"{k}={v}" for k, v in tags.items() if k != "name"), None)
        one = np.zeros(65)
        one[-1] = 1
        if kind:
            one[hash_words([kind], 64)[0][0]] += 1
        if -150 <= east - x < 150 and -150 <= north - y < 150:
            square += one
        if np.hypot(east - x, north - y) <= 300:
            circle += one
            words = f"{tags.get('name', '')} {kind.split('=')[1] if kind else ''}"
            for gram in text_grams(words):
                column, sign = hash_words([gram], 64)
                text[column[0]] += sign[0]
    length = np.linalg.norm(text)
    return np.concatenate([np.log1p(square), np.log1p(circle), text / length if length else text])


def test_tiles_and_points_equal_the_loop(tiny: Callable[..., Any]) -> None:
    builder, city, tiles = city_of(tiny, POIS)
    assert CRESCENT.centroid.x > 600
    within = [(shape.point_on_surface(), tags) for shape, tags in POIS]
    spots = [(point.x, point.y, tags) for point, tags in within]
    points = builder.points([(10, 10), (149.9, 449.99), (600, 500), (1190, 150)])
    for places in (tiles, points):
        tokens = pois.Encoder().encode(city, "pois", places, {})
        assert tokens.present.all() and not tokens.bag
        assert tokens.values.dtype == np.float32
        west, south = builder.corner()
        wanted = [
            expected(spots, x - west, y - south) for x, y in zip(places.x, places.y, strict=True)
        ]
        np.testing.assert_allclose(tokens.values, wanted, atol=1e-5)
        assert (np.abs(tokens.values).sum(axis=1) > 0).sum() >= 3


def test_the_west_side_of_a_square_counts_and_the_east_side_does_not(
    tiny: Callable[..., Any],
) -> None:
    builder, city, _ = city_of(tiny, [(shapely.Point(500, 200), {"shop": "x"})])
    x, y = city.grid.project(*shapely.get_coordinates(geometries(city.entities("pois"))).T)
    square = builder.points([(500, 200)])
    for east, counted in ((150, 1), (-150, 0)):
        place = dataclasses.replace(square, x=x + east, y=y)
        tokens = pois.Encoder().encode(city, "pois", place, {})
        assert np.expm1(tokens.values[0, 64]).round(3) == counted


def test_every_poi_inside_is_counted_in_one_tile(tiny: Callable[..., Any]) -> None:
    on_sides = [(shapely.Point(x, 300), {"shop": "x"}) for x in range(75, 1200, 150)]
    _, city, places = city_of(tiny, on_sides)
    tokens = pois.Encoder().encode(city, "pois", places, {})
    assert np.expm1(tokens.values[:, 64]).sum().round(3) == len(on_sides)


def test_pois_come_from_the_entities_where_no_layer_is_theirs(tiny: Callable[..., Any]) -> None:
    _, city, places = city_of(tiny, POIS, layer="entities")
    tokens = pois.Encoder().encode(city, "pois", places, {})
    # The spot without a category is no POI of an OSM file.
    assert np.expm1(tokens.values[:, 64]).sum().round(3) == 4


def test_a_city_without_pois_is_known_to_have_none(tiny: Callable[..., Any]) -> None:
    _, city, places = city_of(tiny, [(shapely.box(0, 0, 9, 9), {"building": "yes"})], "entities")
    tokens = pois.Encoder().encode(city, "pois", places, {})
    assert tokens.values.shape == (8, 194)
    assert tokens.present.all() and (tokens.values == 0).all()


def test_of_a_place_in_no_tile_nothing_is_known(tiny: Callable[..., Any]) -> None:
    builder, city, _ = city_of(tiny, POIS)
    places = builder.points([(1, 1), (-1, 150), (1199, 599), (1201, 599), (40, 601)])
    tokens = pois.Encoder().encode(city, "pois", places, {})
    assert tokens.present.tolist() == [True, False, True, False, False]
    assert len(tokens.values) == 2


def test_grams_mark_words_and_fold_case() -> None:
    assert text_grams("Le BAR") == ["<le>", "<le", "le>", "<bar>", "<ba", "bar", "ar>"]
    assert "bar" in text_grams("barber") and "<bar>" not in text_grams("barber")
    assert text_grams("") == []


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        *((f"category_width={width}", "from 1 to 65536") for width in (0, -1, 65537)),
        *((f"text_width={width}", "from 1 to 65536") for width in (0, -3, 10**12)),
        *((f"window_m={side}", "above 0, at most 20000") for side in (-5, 0, 1e300)),
    ],
)
def test_settings_out_of_range(setting: str, wanted: str) -> None:
    name = setting.partition("=")[0]
    with pytest.raises(UsageError, match=f"^{name}=.* does not fit: {name} is {wanted}$"):
        load_encoder("pois", [setting])
