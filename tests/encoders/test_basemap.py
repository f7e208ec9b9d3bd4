"""Basemaps against geometry itself (shapely, GDAL), and what a map of a known place must show."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import shapely
from rasterio.features import rasterize
from rasterio.transform import from_origin

from urbancli.encoders import _basemap_style as style
from urbancli.encoders._basemap import Basemap, read_drawing
from urbancli.encoders._images import open_images
from urbancli.encoders._painting import paint
from urbancli.errors import UrbanError
from urbancli.grid import Grid, Places, tiles_of
from urbancli.layers import CityLayers
from urbancli.sources.osm import Source
from urbancli.workspace import geometries

Tiny = Callable[..., Any]
Classes = npt.NDArray[np.int64]


def maps(images: Basemap, places: Places, window_m: float) -> npt.NDArray[np.uint8]:
    """Return the maps (N, bands, 256, 256) in the order of the places; all must be valid."""
    found = np.zeros((len(places), len(images.bands), 256, 256), np.uint8)
    seen = []
    for number, samples, valid in images.windows(places, window_m):
        assert samples.dtype == np.uint8 and samples.flags.c_contiguous
        assert valid.shape == (256, 256) and valid.all()
        found[number] = samples
        seen.append(number)
    assert sorted(seen) == list(range(len(places)))
    return found


def shown(city: CityLayers, places: Places, window_m: float) -> Classes:
    """Return the class of each pixel (N, 256, 256) by its channel; one holds everywhere."""
    bands = maps(Basemap(city, classes=True), places, window_m)
    assert (bands.sum(axis=1) == 1).all()
    return bands.argmax(axis=1)


def number(name: str) -> int:
    return style.NAMES.index(name)


def centres(left: float, top: float, side_px: int, pixel_m: float) -> tuple[np.ndarray, np.ndarray]:
    step = (np.arange(side_px) + 0.5) * pixel_m
    return np.meshgrid(left + step, top - step)


def by_geometry(
    things: list[tuple[int, int, shapely.Geometry]], left: float, top: float, pixel_m: float
) -> Classes:
    """Return the class of each pixel centre: by distance and containment, a shape at a time.

    Args:
        things: (rank, class, geometry in metres), a building's walls among them.
    """
    x, y = centres(left, top, 256, pixel_m)
    found = np.zeros(x.shape, np.int64)
    for _, name, shape in sorted(things, key=lambda thing: thing[0]):
        if pixel_m > style.CLASSES[name].pixel_limit_m:
            continue
        reach = max(style.CLASSES[name].width_m, pixel_m) / 2
        west, south, east, north = shape.bounds
        near = (x > west - reach) & (x < east + reach) & (y > south - reach) & (y < north + reach)
        shapely.prepare(shape)
        if shape.geom_type.endswith("Polygon"):
            inside = shapely.contains_xy(shape, x[near], y[near])
        else:
            inside = shapely.dwithin(shape, shapely.points(x[near], y[near]), reach)
        found[near] = np.where(inside, name, found[near])
    return found


def town(rng: np.random.Generator, side: float) -> list[tuple[dict[str, str], shapely.Geometry]]:
    """Return random entities of many kinds in a square: areas with holes, lines, points."""

    def blob(size: float) -> shapely.Polygon:
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        radius = size * rng.uniform(0.4, 1, 9)
        xy = (
            rng.uniform(0, side, 2)
            + np.column_stack([np.cos(angles), np.sin(angles)]) * (radius[:, None])
        )
        shape = shapely.make_valid(shapely.Polygon(xy))
        hole = shapely.Point(shape.centroid).buffer(size * 0.15, quad_segs=2)
        return shape.difference(hole)

    def line(count: int) -> shapely.LineString:
        return shapely.LineString(np.cumsum(rng.normal(0, 60, (count, 2)), axis=0) + side / 2)

    areas = [
        {"landuse": "residential"}, {"landuse": "forest"}, {"natural": "water"},
        {"leisure": "park"}, {"building": "house"}, {"building": "yes"}, {"amenity": "parking"},
    ]  # fmt: skip
    lines = [
        {"highway": "footway"}, {"highway": "residential"}, {"highway": "primary"},
        {"railway": "rail"}, {"waterway": "stream"}, {"highway": "secondary", "bridge": "yes"},
    ]  # fmt: skip
    found: list[tuple[dict[str, str], shapely.Geometry]] = []
    for _ in range(12):
        found += [(tags, blob(rng.uniform(10, 160))) for tags in areas]
        found += [(tags, line(int(rng.integers(2, 8)))) for tags in lines]
        found.append(({"natural": "tree"}, shapely.Point(rng.uniform(0, side, 2))))
    many = shapely.MultiPolygon([shapely.box(20, 20, 90, 70), shapely.box(100, 30, 130, 64)])
    roads = shapely.MultiLineString([[(5, 5), (200, 160)], [(250, 20), (250, 180.3)]])
    return [*found, ({"leisure": "pitch"}, many), ({"highway": "track"}, roads)]


def ranked(
    tags: dict[str, str], shape: shapely.Geometry, name: str
) -> list[tuple[int, int, shapely.Geometry]]:
    lifted = len(style.CLASSES) * ("bridge" in tags)
    things = [(number(name) + lifted, number(name), shape)]
    if name == "building":
        things.append((number("wall"), number("wall"), shape.boundary))
    return things


NAMED = {
    "residential": "residential", "forest": "wood", "water": "water", "park": "park",
    "house": "building", "yes": "building", "parking": "parking", "footway": "path",
    "primary": "primary", "rail": "railway", "stream": "stream", "secondary": "secondary",
    "tree": "wood", "pitch": "sport", "track": "service",
}  # fmt: skip


def _named(tags: dict[str, str]) -> str:
    return "street" if tags.get("highway") == "residential" else NAMED[next(iter(tags.values()))]


@pytest.mark.parametrize("window_m", [300.0, 600.0, 1200.0])
def test_every_pixel_is_what_the_geometry_at_its_centre_says(tiny: Tiny, window_m: float) -> None:
    builder = tiny(4, 4)
    entities = town(np.random.default_rng(7), 1200)
    builder.entities("entities", [shape for _, shape in entities], [tags for tags, _ in entities])
    city, places = builder.open()
    x, y = builder.corner()
    things = [
        thing
        for tags, shape in entities
        for thing in ranked(
            tags, shapely.transform(shape, lambda xy: np.add(xy, [x, y])), _named(tags)
        )
    ]
    chosen = places.take(np.array([5, 9, 10]))
    found = shown(city, chosen, window_m)
    for each, east, north in zip(found, chosen.x, chosen.y, strict=True):
        half = window_m / 2
        wanted = by_geometry(things, east - half, north + half, window_m / 256)
        assert len(np.unique(wanted)) > 4
        # Some centres lie within a nanometre of a side; shapely calls a side of a line a part of it
        assert np.count_nonzero(each != wanted) <= 3


def test_polygons_are_those_of_gdal(tiny: Tiny) -> None:
    builder = tiny(2, 2)
    rng = np.random.default_rng(3)
    entities = [each for each in town(rng, 600) if each[0] == {"natural": "water"}]
    builder.entities("entities", [shape for _, shape in entities], [tags for tags, _ in entities])
    city, places = builder.open()
    x, y = builder.corner()
    moved = [shapely.transform(shape, lambda xy: np.add(xy, [x, y])) for _, shape in entities]
    found = shown(city, places, 600)
    for each, east, north in zip(found, places.x, places.y, strict=True):
        transform = from_origin(east - 300, north + 300, 600 / 256, 600 / 256)
        wanted = rasterize(moved, (256, 256), transform=transform)
        assert 2000 < wanted.sum() < 60000
        assert np.count_nonzero((each == number("water")) != wanted) <= 3


@pytest.mark.parametrize("window_m", [300.0, 600.0, 1200.0, 777.0])
def test_a_map_does_not_depend_on_what_else_is_asked_for(tiny: Tiny, window_m: float) -> None:
    builder = tiny(6, 6)
    entities = town(np.random.default_rng(1), 1800)
    builder.entities("entities", [shape for _, shape in entities], [tags for tags, _ in entities])
    city, places = builder.open()
    images = open_images(city, "basemap")
    assert isinstance(images, Basemap) and images.bands == ("red", "green", "blue")
    together = maps(images, places, window_m)
    back = maps(images, places.take(np.arange(len(places))[::-1]), window_m)[::-1]
    np.testing.assert_array_equal(back, together)
    for index in (0, 14, 35):
        alone = maps(open_images(city, "basemap"), places.take(np.array([index])), window_m)[0]
        np.testing.assert_array_equal(alone, together[index])
    scattered = builder.points(np.random.default_rng(2).uniform(0, 1800, (40, 2)))
    found = maps(images, scattered, window_m)
    for index in range(0, 40, 9):
        alone = maps(images, scattered.take(np.array([index])), window_m)[0]
        np.testing.assert_array_equal(alone, found[index])


def test_whole_tiles_further_on_the_map_is_the_same(tiny: Tiny) -> None:
    here, there = tiny(5, 2), tiny(5, 2, "moved")
    entities = town(np.random.default_rng(5), 600)
    tags = [tags for tags, _ in entities]
    shapes = [shape for _, shape in entities]
    here.entities("entities", shapes, tags)
    there.entities(
        "entities", [shapely.transform(s, lambda xy: np.add(xy, [900, 0])) for s in shapes], tags
    )
    (a, places), (b, _) = here.open(), there.open()
    column, row = here.offsets(places).T
    wanted = shown(a, places.take(np.flatnonzero((column == 0) & (row == 1))), 600)
    found = shown(b, places.take(np.flatnonzero((column == 3) & (row == 1))), 600)
    assert np.count_nonzero(wanted != found) <= 1
    assert len(np.unique(wanted)) > 8


def test_a_point_is_snapped_to_the_nearest_pixel_edge(tiny: Tiny) -> None:
    builder = tiny(3, 3)
    entities = town(np.random.default_rng(4), 900)
    builder.entities("entities", [shape for _, shape in entities], [tags for tags, _ in entities])
    city, places = builder.open()
    pixel_m = 600 / 256
    offsets = np.array([[0, 0], [0.4, -0.4], [0.6, 0], [0, 0.6]]) * pixel_m + 450
    centre = (builder.offsets(places) == 1).all(axis=1)
    middle = maps(Basemap(city), places.take(centre), 600)[0]
    found = maps(Basemap(city), builder.points(offsets), 600)
    np.testing.assert_array_equal(found[0], middle)
    np.testing.assert_array_equal(found[1], middle)
    np.testing.assert_array_equal(found[2][:, :, :-1], middle[:, :, 1:])
    np.testing.assert_array_equal(found[3][:, 1:], middle[:, :-1])
    assert (found[2] != middle).any() and (found[3] != middle).any()


def drawn(tiny: Tiny, *entities: tuple[dict[str, str], shapely.Geometry]) -> Classes:
    """Return the map (256, 256) of a city of one tile, 300 m; rows from the north."""
    builder = tiny(1, 1)
    builder.entities("entities", [shape for _, shape in entities], [tags for tags, _ in entities])
    return shown(*builder.open(), 300)[0]


def at(image: Classes, x: float, y: float) -> str:
    """Return the class at metres from the tile's south-west corner."""
    return style.NAMES[image[255 - int(y * 256 / 300), int(x * 256 / 300)]]


def test_courtyards_are_open_and_north_is_up(tiny: Tiny) -> None:
    court = shapely.Polygon(
        [(20, 20), (120, 20), (120, 120), (20, 120)],
        [[(50, 50), (90, 50), (90, 90), (50, 90)]],
    )
    island = shapely.box(60, 60, 80, 80)
    image = drawn(
        tiny,
        ({"landuse": "grass"}, shapely.box(0, 0, 150, 300)),
        ({"building": "yes"}, shapely.MultiPolygon([court, island])),
        ({"natural": "water"}, shapely.box(200, 250, 300, 300)),
    )
    assert at(image, 30, 70) == "building" and at(image, 70, 70) == "building"
    assert at(image, 55, 70) == "grass" and at(image, 10, 200) == "grass"
    assert at(image, 250, 280) == "water" and at(image, 250, 20) == "ground"
    assert at(image, 120.3, 70) == "wall"


def test_the_order_of_drawing_is_the_classes_and_not_the_files(tiny: Tiny) -> None:
    image = drawn(
        tiny,
        ({"highway": "primary"}, shapely.LineString([(0, 150), (300, 150)])),
        ({"highway": "residential", "bridge": "yes"}, shapely.LineString([(50, 0), (50, 300)])),
        ({"railway": "rail"}, shapely.LineString([(150, 0), (150, 300)])),
        ({"building": "yes"}, shapely.box(200, 100, 250, 200)),
        ({"leisure": "park"}, shapely.box(0, 0, 300, 300)),
        ({"natural": "water"}, shapely.box(200, 0, 300, 120)),
    )
    assert at(image, 50, 150) == "street"  # a bridge, over the greater road
    assert at(image, 150, 150) == "railway"
    assert at(image, 225, 150) == "primary"
    assert at(image, 225, 180) == "building" and at(image, 225, 110) == "building"
    assert at(image, 280, 50) == "water" and at(image, 280, 250) == "park"


def test_an_entity_is_drawn_once_in_its_topmost_class(tiny: Tiny) -> None:
    school = {"building": "yes", "amenity": "school", "landuse": "residential"}
    image = drawn(tiny, (school, shapely.box(100, 100, 200, 200)))
    assert set(np.unique(image)) == {number("ground"), number("building"), number("wall")}


@pytest.mark.parametrize(
    "tags",
    [
        {"boundary": "administrative", "type": "boundary", "admin_level": "8"},
        {"place": "island"},
        {"building": "no"},
        {"building": "yes", "location": "underground"},
        {"amenity": "parking", "parking": "underground"},
        {"leisure": "nature_reserve", "boundary": "protected_area"},
        {"natural": "bay"},
        {"amenity": "cafe", "name": "forest"},
    ],
)
def test_what_has_no_class_or_is_below_the_ground_is_not_drawn(
    tiny: Tiny, tags: dict[str, str]
) -> None:
    assert (drawn(tiny, (tags, shapely.box(-5000, -5000, 5000, 5000))) == 0).all()


def test_roads_in_tunnels_and_points_of_interest_are_not_drawn(tiny: Tiny) -> None:
    image = drawn(
        tiny,
        ({"highway": "motorway", "tunnel": "yes"}, shapely.LineString([(0, 150), (300, 150)])),
        ({"shop": "bakery", "building": "yes"}, shapely.Point(200, 200)),
        ({"natural": "water"}, shapely.LineString([(0, 20), (300, 20)])),
        ({"highway": "service", "tunnel": "no"}, shapely.LineString([(0, 50), (300, 50)])),
    )
    assert set(np.unique(image)) == {number("ground"), number("service")}


def test_the_thinnest_line_is_connected_and_walls_are_for_fine_pixels(tiny: Tiny) -> None:
    builder = tiny(1, 1)
    path = shapely.LineString([(10, 10), (190, 290)])
    homes = [shapely.box(200, 100, 230, 160), shapely.box(230, 100, 260, 160)]
    tags: list[dict[str, str]] = [{"highway": "path"}, {"building": "house"}, {"building": "house"}]
    builder.entities("entities", [path, *homes], tags)
    city, places = builder.open()
    fine, coarse = shown(city, places, 300)[0], shown(city, places, 1200)[0]
    assert "wall" in {at(fine, 230 + east, 130) for east in (-1, 0, 1)}
    assert (coarse == number("wall")).sum() == 0 and (coarse == number("building")).sum() > 100
    rows = (coarse == number("path")).any(axis=1)
    assert rows.sum() in (59, 60, 61)  # 280 m of 4.7 m pixels, and not a row without
    assert np.ptp(np.flatnonzero(rows)) == rows.sum() - 1
    wide = (fine == number("path")).sum() * (300 / 256) ** 2
    assert wide == pytest.approx(path.buffer(1).area, rel=0.05)


def test_broken_geometry_is_mended_or_left_out(tiny: Tiny) -> None:
    bow_tie = shapely.Polygon([(20, 20), (120, 120), (120, 20), (20, 120)])
    hook = shapely.LineString([(200, 200), (200, 200), (260, 200)])
    image = drawn(tiny, ({"natural": "water"}, bow_tie), ({"highway": "service"}, hook))
    assert at(image, 25, 70) == "water" and at(image, 115, 70) == "water"
    assert at(image, 70, 25) == "ground" and at(image, 230, 200) == "service"
    nested = shapely.GeometryCollection(
        [shapely.MultiPoint([(5, 5)]), shapely.GeometryCollection([shapely.box(30, 30, 60, 60)])]
    )
    assert at(drawn(tiny, ({"natural": "water"}, nested)), 45, 45) == "water"


def test_a_city_without_entities_is_bare_ground_and_beyond_it_nothing_is_known(tiny: Tiny) -> None:
    for entities in ([], [shapely.Point(150, 150)]):
        builder = tiny(2, 1)
        builder.entities("entities", entities, [{"shop": "bakery"}] * len(entities))
        city, places = builder.open()
        ground = np.array(style.CLASSES[0].colour, np.uint8)[:, None, None]
        assert (maps(Basemap(city), places, 600) == ground).all()
        beyond = builder.points([[150, 150], [-10, 150], [9000, 150]])
        found = {
            index: (image, valid) for index, image, valid in Basemap(city).windows(beyond, 300)
        }
        assert found[0][1].all() and (found[0][0] == ground).all()
        for index in (1, 2):
            assert not found[index][1].any() and not found[index][0].any()
        assert list(Basemap(city).windows(places.take(np.array([], int)), 300)) == []


def test_colours_are_those_of_the_classes(tiny: Tiny) -> None:
    builder = tiny(1, 1)
    entities = town(np.random.default_rng(9), 300)
    builder.entities("entities", [shape for _, shape in entities], [tags for tags, _ in entities])
    city, places = builder.open()
    classes = open_images(city, "basemap", classes=True)
    assert classes.bands == style.NAMES and classes.dtype == np.uint8
    colours = maps(Basemap(city), places, 600)[0]
    np.testing.assert_array_equal(style.PALETTE[:, shown(city, places, 600)[0]], colours)
    assert len({each.colour for each in style.CLASSES}) == len({*style.NAMES}) == len(style.CLASSES)


def test_the_sea_is_what_lies_to_the_right_of_the_coast(tiny: Tiny) -> None:
    coast = {"natural": "coastline"}
    shore = shapely.LineString([(100, -3000), (130, 150), (90, 400), (90, 9000)])
    island = shapely.LineString([(200, 200), (240, 200), (240, 240), (200, 240), (200, 200)])
    land_right = shapely.reverse(shore)
    park = ({"leisure": "park"}, shapely.box(250, 0, 290, 300))
    image = drawn(tiny, (coast, shore), (coast, island), park)
    assert at(image, 160, 150) == "water" and at(image, 60, 150) == "ground"
    assert at(image, 220, 220) == "ground" and at(image, 260, 150) == "park"
    assert at(image, 129.6, 150) == "stream"
    image = drawn(tiny, (coast, land_right))
    assert at(image, 160, 150) == "ground" and at(image, 60, 150) == "water"


@pytest.mark.parametrize("end", [-20, 150])
def test_a_coast_cut_at_the_edge_counts_in_the_tiles_and_one_cut_in_them_not(
    tiny: Tiny, end: float
) -> None:
    builder = tiny(1, 1)
    builder.entities(
        "entities", [shapely.LineString([(150, end), (150, 320)])], [{"natural": "coastline"}]
    )
    city, places = builder.open()
    image = shown(city, places, 600)[0]
    inside, outside = image[128, 128 + 30], image[128, 128 + 90]
    wanted = "water" if end < 0 else "ground"
    assert (style.NAMES[inside], style.NAMES[outside]) == (wanted, "ground")
    assert style.NAMES[image[128, 128 - 30]] == "ground"


def test_a_city_without_the_layer_says_what_to_do(tiny: Tiny) -> None:
    builder = tiny(1, 1)
    builder.pixels("sentinel2", np.ones((1, 30, 30), np.uint8))
    city, _ = builder.open()
    with pytest.raises(UrbanError, match="no layer 'entities': run `urban fetch"):
        open_images(city, "basemap")


def read_town(real_data: Path, box: shapely.Polygon) -> tuple[pa.Table, Places]:
    """Return the entities of a part of Monaco as a fetch would keep them, and its tiles."""
    places = tiles_of(box, Grid(32632))
    source = Source(real_data / "osm/monaco.osm.pbf")
    source.plan(places)
    return pa.concat_tables([source.read(block) for block in source.blocks(places)]), places


def test_a_wide_map_at_the_edge_does_not_depend_on_the_area_fetched(real_data: Path) -> None:
    table, places = read_town(real_data, shapely.box(7.421, 43.733, 7.424, 43.736))
    wider, many = read_town(real_data, shapely.box(7.405, 43.722, 7.44, 43.75))
    assert len(many) > 8 * len(places) and wider.num_rows > table.num_rows
    drawings = [read_drawing(table, places), read_drawing(wider, many)]
    pixel_m = 1200 / 256
    for x, y in zip(places.x, places.y, strict=True):
        box = (round((x - 600) / pixel_m), round((-y - 600) / pixel_m), 256, 256)
        found, wanted = (paint(each, pixel_m, box, len(style.CLASSES)) for each in drawings)
        assert (wanted > 0).mean() > 0.4
        np.testing.assert_array_equal(found, wanted)


def test_a_real_town_is_what_its_geometry_says(real_data: Path) -> None:
    table, places = read_town(real_data, shapely.box(7.415, 43.73, 7.43, 43.742))
    grid = places.grid
    drawing = read_drawing(table, places)
    shapes = geometries(table)
    dimension = shapely.get_dimensions(shapes).astype(np.int64)
    classes, bridge = style.classify(table, dimension)
    things = []
    for name, over, shape in zip(classes, bridge, grid.project_geometry(shapes), strict=True):
        parts = shapely.get_parts(shapely.get_parts(shape))
        areal = shapely.get_dimensions(parts) == 2
        shape = shapely.union_all(parts[areal]) if areal.any() else shape
        if name >= 0:
            lifted = len(style.CLASSES) * bool(over and shape.geom_type.endswith("LineString"))
            things.append((name + lifted, name, shape))
            if style.NAMES[name] == "building":
                things.append((number("wall"), number("wall"), shape.boundary))
    left, top, pixel_m = places.x[9] - 150, places.y[9] + 450, 600 / 256
    column, row = round(left / pixel_m), round(-top / pixel_m)
    found = paint(drawing, pixel_m, (column, row, 256, 256), len(style.CLASSES))
    wanted = by_geometry(things, column * pixel_m, -row * pixel_m, pixel_m)
    assert len(np.unique(wanted)) >= 10 and (wanted > 0).mean() > 0.5
    assert np.count_nonzero(found != wanted) <= 3
