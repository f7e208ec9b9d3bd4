"""Geometry tokens: both frames against the FFT of a dense raster and against the definition."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from shapely.affinity import rotate

from urbancli.encoders import _fourier, entities, geometry
from urbancli.errors import UsageError
from urbancli.grid import Places
from urbancli.layers import CityLayers
from urbancli.tokens import Tokens

K = _fourier.OCTAVES * _fourier.ORIENTATIONS

COURTYARD = shapely.Polygon(
    [(330, 60), (470, 80), (460, 130), (390, 120), (380, 230), (320, 220)],
    [[(340, 80), (345, 110), (380, 105)], [(335, 140), (370, 150), (350, 205)]],
)
POND = shapely.Polygon(
    [(150, 20), (200, 40), (190, 90), (130, 70)], [[(160, 45), (175, 50), (165, 65)]]
)
QUARTER = shapely.Polygon(
    [(350, 400), (520, 430), (400, 570)], [[(380, 420), (450, 440), (400, 500)]]
)
# No side of an area is along the axes: a raster would be wrong by half a pixel on all of it.
BLOCKS = [rotate(shapely.box(60, 150, 110, 160), 7), rotate(shapely.box(70, 200, 75, 280), -20)]
SHAPES = {
    "courtyard": COURTYARD,
    "parts": shapely.MultiPolygon([POND, *BLOCKS]),
    "collection": shapely.GeometryCollection(
        [shapely.Point(310, 310), shapely.LineString([(310, 310), (580, 580)]), QUARTER]
    ),
    "wall": shapely.LineString([(620, 40), (640, 250)]),
    "street": shapely.LineString([(30, 330), (120, 420), (120, 520), (40, 560)]),
    "fence": shapely.MultiLineString([[(650, 350), (700, 360)], [(700, 400), (880, 560)]]),
    "tree": shapely.Point(690, 380),
    "stops": shapely.MultiPoint([(160, 480), (200, 410), (280, 590)]),
}
AREAL = ("courtyard", "parts", "collection")
ONE_TILE = {"courtyard": (1, 0), "parts": (0, 0), "collection": (1, 1), "street": (0, 1),
            "fence": (2, 1), "tree": (2, 1), "stops": (0, 1), "wall": (2, 0)}  # fmt: skip


def city_of(tiny: Callable[..., Any]) -> tuple[Any, CityLayers, Places]:
    builder = tiny(3, 2)
    # The layer's rows are in the order of the names.
    builder.entities("entities", list(SHAPES.values()), [{"name": name} for name in SHAPES])
    return builder, *builder.open()


def encoded(city: CityLayers, places: Places, **settings: Any) -> Tokens:
    return geometry.Encoder(**settings).encode(city, "entities", places, {})


def tokens_of(
    builder: Any, city: CityLayers, places: Places, **settings: Any
) -> dict[tuple[str, tuple[int, int]], npt.NDArray[np.float32]]:
    """Return (entity, tile counted from the south-west) → values; by what the layer lists."""
    tokens = encoded(city, places, **settings)
    table = city.entities("entities").to_pylist()
    found = {}
    cells = [tuple(cell) for cell in builder.offsets(places).tolist()]
    for index, (cell, place) in enumerate(zip(cells, places.place_id, strict=True)):
        names = [dict(row["tags"])["name"] for row in table if place in row["places"]]
        bag = tokens.values[tokens.offsets[index] : tokens.offsets[index + 1]]
        found |= {(name, cell): row for name, row in zip(names, bag, strict=True)}
    return found


def complex_of(values: npt.NDArray[np.float32], frame: int, waves: int = K) -> Any:
    real, imaginary = values[frame * 2 * waves :][: 2 * waves].reshape(2, waves)
    return real + 1j * imaginary


def box_frame(shape: Any) -> tuple[npt.NDArray[np.float64], float]:
    left, bottom, right, top = shape.bounds
    return np.array([left + right, bottom + top]) / 2, max(right - left, top - bottom) or 1.0


def tile_centre(cell: tuple[int, int]) -> npt.NDArray[np.float64]:
    return 300.0 * np.array(cell) + 150.0


def spectrum(
    shape: Any, centre: npt.NDArray[np.float64], unit: float
) -> npt.NDArray[np.complex128]:
    """Return what the FFT of a raster of a shape holds at our frequencies, (K,).

    The raster's period is two units, so that n cycles per unit along x are bin 2 n. Frequencies in
    other directions are along x of the shape turned back about the frame's origin.
    """
    pixels, cycles = 1024, 2.0 ** np.arange(_fourier.OCTAVES) / 2
    steps = ((np.arange(pixels) + 0.5) / pixels * 2 - 1) * unit
    x, y = np.meshgrid(centre[0] + steps, centre[1] + steps)
    out = np.empty((_fourier.OCTAVES, _fourier.ORIENTATIONS), np.complex128)
    for number in range(_fourier.ORIENTATIONS):
        turned = rotate(shape, -180 * number / _fourier.ORIENTATIONS, origin=tuple(centre))
        shapely.prepare(turned)
        image = shapely.contains_xy(turned, x, y).astype(np.float64)
        # The FFT counts from the centre of the first pixel, we from the frame's origin.
        bins = np.fft.fft2(image)[0, np.round(2 * cycles).astype(int)] / image.sum()
        out[:, number] = bins * np.exp(-2j * np.pi * cycles * steps[0] / unit)
    return out.ravel()


def definition(shape: Any, centre: npt.NDArray[np.float64], unit: float) -> Any:
    """Return the mean of exp(−i k·x) over points of a shape, spread evenly along lines."""
    if shape.length:
        lines = shapely.get_parts(shape)
        along = [np.linspace(0, line.length, round(200 * line.length)) for line in lines]
        points = np.concatenate(
            [
                shapely.get_coordinates(
                    shapely.line_interpolate_point(line, (at[1:] + at[:-1]) / 2)
                )
                for line, at in zip(lines, along, strict=True)
            ]
        )
    else:
        points = shapely.get_coordinates(shape)
    return np.exp(-1j * (points - centre) / unit @ _fourier.frequencies().T).mean(axis=0)


@pytest.mark.parametrize("name", AREAL)
def test_areas_equal_the_fft_of_a_dense_raster_in_both_frames(
    tiny: Callable[..., Any], name: str
) -> None:
    builder, city, places = city_of(tiny)
    cell = ONE_TILE[name]
    found = tokens_of(builder, city, places)[name, cell]
    areal = shapely.union_all([p for p in shapely.get_parts(SHAPES[name]) if p.area])
    wanted = spectrum(areal, *box_frame(SHAPES[name]))
    np.testing.assert_allclose(complex_of(found, 0), wanted, atol=3e-3)
    wanted = spectrum(areal, tile_centre(cell), 300.0)
    np.testing.assert_allclose(complex_of(found, 1), wanted, atol=3e-3)


@pytest.mark.parametrize("name", sorted(set(SHAPES) - set(AREAL)))
def test_lines_and_points_equal_the_definition_in_both_frames(
    tiny: Callable[..., Any], name: str
) -> None:
    builder, city, places = city_of(tiny)
    cell = ONE_TILE[name]
    found = tokens_of(builder, city, places)[name, cell]
    wanted = definition(SHAPES[name], *box_frame(SHAPES[name]))
    np.testing.assert_allclose(complex_of(found, 0), wanted, atol=1e-4)
    wanted = definition(SHAPES[name], tile_centre(cell), 300.0)
    np.testing.assert_allclose(complex_of(found, 1), wanted, atol=1e-4)


def test_nothing_has_zeros_for_a_transform(tiny: Callable[..., Any]) -> None:
    builder, city, places = city_of(tiny)
    found = tokens_of(builder, city, places)
    assert {name for name, _ in found} == set(SHAPES)
    for values in found.values():
        for frame in (0, 1):
            # The lowest radius of each orientation is never small, of no entity of about a tile.
            assert np.abs(complex_of(values, frame)[: _fourier.ORIENTATIONS]).min() > 0.1
    wall, tree = found["wall", (2, 0)], found["tree", (2, 1)]
    np.testing.assert_allclose(np.abs(complex_of(tree, 1)), 1, atol=1e-6)
    assert np.abs(complex_of(wall, 0) - complex_of(tree, 0)).max() > 0.3


def test_the_tile_frame_tells_where_an_entity_lies_and_the_box_frame_does_not(
    tiny: Callable[..., Any],
) -> None:
    builder, city, _ = city_of(tiny)
    here, there = encoded(city, builder.points([(400, 150), (430, 130)])).values[:, : 4 * K]
    np.testing.assert_array_equal(here[: 2 * K], there[: 2 * K])
    moved = np.exp(1j * _fourier.frequencies() @ [0.1, -20 / 300])
    np.testing.assert_allclose(complex_of(there, 1), moved * complex_of(here, 1), atol=1e-5)
    assert np.abs(complex_of(there, 1) - complex_of(here, 1)).max() > 0.1


def test_the_tile_frame_tells_how_large_and_how_turned_an_entity_is(
    tiny: Callable[..., Any],
) -> None:
    shape = shapely.Polygon([(-40, -10), (40, -10), (40, 10), (-20, 10)])
    variants = [
        shape,
        shapely.transform(shape, lambda xy: xy / 4),
        rotate(shape, 30, origin=(0, 0)),
    ]
    rows = []
    for key, variant in zip("abc", variants, strict=True):
        builder = tiny(1, 1, key=key)
        placed = shapely.transform(variant, lambda xy: xy + 150)
        builder.entities("entities", [placed], [{"building": "yes"}])
        city, places = builder.open()
        rows.append(encoded(city, places).values[0])
    np.testing.assert_allclose(complex_of(rows[1], 0), complex_of(rows[0], 0), atol=1e-4)
    waves = [complex_of(row, 1).reshape(_fourier.OCTAVES, -1) for row in rows]
    # A quarter of the size at four times the frequency; 30 degrees are one orientation on.
    np.testing.assert_allclose(waves[1][2:], waves[0][:2], atol=1e-5)
    np.testing.assert_allclose(waves[2][:, 1:], waves[0][:, :-1], atol=1e-5)
    np.testing.assert_allclose(waves[2][:, 0], waves[0][:, -1].conj(), atol=1e-5)


def test_it_has_the_tokens_places_and_sizes_of_the_entities_encoder(
    tiny: Callable[..., Any],
) -> None:
    builder, city, tiles = city_of(tiny)
    for places in (tiles, builder.points([(500, 250), (40, 60), (-4000, 10), (170, 480)])):
        known = entities.Encoder(tag_width=8).encode(city, "entities", places, {})
        found = encoded(city, places)
        for name in ("offsets", "positions", "present"):
            np.testing.assert_array_equal(getattr(found, name), getattr(known, name))
        np.testing.assert_array_equal(found.values[:, : 2 * K], known.values[:, 8 : 8 + 2 * K])
        np.testing.assert_array_equal(found.values[:, -7:], known.values[:, -7:])
        assert found.bag and found.values.dtype == np.float32


@pytest.mark.parametrize(("octaves", "orientations"), [(4, 6), (1, 1), (3, 8)])
def test_a_frame_is_its_columns_of_both(
    tiny: Callable[..., Any], octaves: int, orientations: int
) -> None:
    _, city, places = city_of(tiny)
    settings = {"octaves": octaves, "orientations": orientations}
    both, box, tile = (
        encoded(city, places, frame=frame, **settings).values for frame in ("both", "box", "tile")
    )
    own = 2 * octaves * orientations
    np.testing.assert_array_equal(box, both[:, np.r_[:own, 2 * own : 2 * own + 7]])
    np.testing.assert_array_equal(tile, both[:, own:])
    for frame, values in (("both", both), ("box", box), ("tile", tile)):
        encoder = geometry.Encoder(frame=frame, **settings)
        assert values.shape[1] == encoder.width("entities")


def test_other_frequencies_are_those_of_the_definition(tiny: Callable[..., Any]) -> None:
    builder, city, places = city_of(tiny)
    found = tokens_of(builder, city, places, octaves=3, orientations=8)["stops", (0, 1)]
    cycles = np.repeat([0.5, 1, 2], 8)
    angle = np.tile(np.pi * np.arange(8) / 8, 3)
    k = 2 * np.pi * cycles[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    np.testing.assert_allclose(_fourier.frequencies(3, 8), k, atol=1e-12)
    points = shapely.get_coordinates(SHAPES["stops"])
    wanted = np.exp(-1j * (points - tile_centre((0, 1))) / 300 @ k.T).mean(axis=0)
    np.testing.assert_allclose(complex_of(found, 1, 24), wanted, atol=1e-5)


def test_chunks_change_nothing(tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    _, city, places = city_of(tiny)
    whole = encoded(city, places)
    monkeypatch.setattr(geometry, "CHUNK_TOKENS", 3)
    np.testing.assert_array_equal(encoded(city, places).values, whole.values)


def test_a_city_without_such_entities_has_no_tokens(tiny: Callable[..., Any]) -> None:
    _, city, places = city_of(tiny)
    tokens = geometry.Encoder().encode(city, "buildings", places, {})
    assert tokens.present.all() and tokens.values.shape == (0, 103)


@pytest.mark.parametrize("settings", [{"octaves": 0}, {"octaves": 9}, {"orientations": 0}])
def test_frequencies_that_make_no_sense_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(settings))} is 1 to"):
        geometry.Encoder(**settings)
