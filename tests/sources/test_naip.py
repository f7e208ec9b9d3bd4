"""NAIP from catalogues: exact windows, near infrared, years, overlaps, native sizes, mistakes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.transform import from_origin
from stac_scenes import (
    CORNER,
    GRID,
    LEFT,
    SIDE_M,
    TOP,
    fetched,
    halo_pixels,
    item,
    noise,
    places,
    write_catalogue,
    write_raster,
)

from benchmarks._peers import duckdb_home, gpio_check
from urbancli.errors import UrbanError
from urbancli.sources.naip import NAIP_SCHEMA, Source
from urbancli.workspace import read_table

PIXEL_M = 2.5
PX = round(SIDE_M / PIXEL_M)
HALO = slice(PX // 2 - 600, PX // 2 + 600)
ALPHA = {"photometric": "RGB", "alpha": "yes"}


def _samples(seed: int = 1, width: int = PX, height: int = PX) -> Any:
    return np.random.default_rng(seed).integers(1, 255, (4, height, width)).astype(np.uint8)


def _image(
    folder: Path, item_id: str, samples: Any, *, year: int = 2022, month: int = 7,
    gsd: float | None = PIXEL_M, **profile: Any,
) -> Any:  # fmt: skip
    given = {"transform": from_origin(LEFT, TOP, PIXEL_M, PIXEL_M), **profile}
    path = write_raster(folder / "images" / f"{item_id}.tif", samples, **given)
    said = {"naip__year": str(year)} | ({"gsd": gsd} if gsd else {})
    return item(item_id, f"{year}-{month:02}-01T16:00:00+00:00", {"image": path}, "naip", **said)


def _rows(folder: Path) -> dict[tuple[int, int], dict[str, Any]]:
    table, _ = read_table(folder / "workspace/data/test/layers/naip.parquet")
    rows = table.select(["place_id", "year", "year_share", "native_m"]).to_pylist()
    return {tuple(int(n) for n in row.pop("place_id").split("_")[2:]): row for row in rows}


def test_a_window_across_four_blocks_is_a_crop_with_near_infrared(tmp_path: Path) -> None:
    samples = _samples()
    samples[3, :700] = 0  # tagged alpha, yet no mask
    catalogue = write_catalogue(tmp_path, _image(tmp_path, "m_1", samples, **ALPHA))
    layer, facts = fetched(tmp_path, Source(str(catalogue)))
    assert layer.bands == ["red", "green", "blue", "nir"] and layer.pixel_m == PIXEL_M
    for size in (300, 600, 3000):
        window, valid = layer.window(CORNER[0] * 300, CORNER[1] * 300, size)
        half = round(size / PIXEL_M) // 2
        part = slice(PX // 2 - half, PX // 2 + half)
        np.testing.assert_array_equal(window, samples[:, part, part])
        assert valid.all()
    assert facts["licence"] == "public-domain" and facts["years"] == [2022]
    rows = _rows(tmp_path)
    assert len(rows) == 100
    expected = {"year": 2022, "year_share": 1.0, "native_m": PIXEL_M}
    assert all(row == expected for row in rows.values())


def test_of_overlapping_images_the_first_id_wins(tmp_path: Path) -> None:
    first, second = _samples(1, 900), _samples(2, 900)
    right = {"transform": from_origin(LEFT + (PX - 900) * PIXEL_M, TOP, PIXEL_M, PIXEL_M)}
    images = [
        _image(tmp_path, "m_2_west", first, month=5),
        _image(tmp_path, "m_1_east", second, **right),
    ]
    expected = np.concatenate([first[:, :, : PX - 900], second], axis=2)[:, HALO, HALO]
    for number, order in enumerate((images, images[::-1])):
        folder = tmp_path / str(number)
        catalogue = write_catalogue(folder, *order)
        samples, valid = halo_pixels(fetched(folder, Source(str(catalogue)))[0])
        np.testing.assert_array_equal(samples, expected)
        assert valid.all()


def test_the_newest_year_that_covers_the_city_is_taken(tmp_path: Path) -> None:
    half = _samples(1, PX // 2)
    images = [
        _image(tmp_path, "m_new_part", half, year=2024),
        _image(tmp_path, "m_whole", _samples(2), year=2021),
        _image(tmp_path, "m_old", _samples(3), year=2018),
    ]
    source = Source(str(write_catalogue(tmp_path, *images)))
    plan = source.plan(places())
    assert [each["id"] for each in plan["items"]] == ["m_whole"]
    assert plan["one_year_covers"] and plan["years"] == [2021] and plan["found"] == 3
    plan = Source(str(tmp_path / "catalog.json"), until="2020").plan(places())
    assert [each["id"] for each in plan["items"]] == ["m_old"]


def test_older_years_fill_what_newer_ones_leave(tmp_path: Path) -> None:
    newest, older = _samples(1, PX // 2), _samples(2, PX // 2 + 100)
    offset = PX // 2 - 100
    right = {"transform": from_origin(LEFT + offset * PIXEL_M, TOP, PIXEL_M, PIXEL_M)}
    images = [
        _image(tmp_path, "m_b", newest, year=2022),
        _image(tmp_path, "m_a", older, year=2019, gsd=5.0, **right),
    ]
    source = Source(str(write_catalogue(tmp_path, *images)))
    layer, facts = fetched(tmp_path, source)
    samples, valid = halo_pixels(layer)
    expected = np.concatenate([newest, older[:, :, 100:]], axis=2)[:, HALO, HALO]
    np.testing.assert_array_equal(samples, expected)
    assert valid.all()
    assert facts["years"] == [2022, 2019] and not facts["one_year_covers"]
    rows = _rows(tmp_path)
    for (column, _), row in rows.items():
        west = column < CORNER[0]
        assert row == {
            "year": 2022 if west else 2019,
            "year_share": 1.0,
            "native_m": PIXEL_M if west else 5.0,
        }


def test_a_tile_of_two_years_says_their_share(tmp_path: Path) -> None:
    newest, older = _samples(1, PX // 2 + 30), _samples(2, PX // 2 + 40)
    right = {"transform": from_origin(LEFT + (PX // 2 - 40) * PIXEL_M, TOP, PIXEL_M, PIXEL_M)}
    images = [
        _image(tmp_path, "m_b", newest, year=2022),
        _image(tmp_path, "m_a", older, year=2019, **right),
    ]
    fetched(tmp_path, Source(str(write_catalogue(tmp_path, *images))))
    row = _rows(tmp_path)[CORNER]
    assert row == {"year": 2019, "year_share": 0.75, "native_m": PIXEL_M}


@pytest.mark.parametrize(("native", "pixel"), [(0.3, 0.6), (0.6, 0.6), (1.0, 1.0), (2.5, 2.5)])
def test_pixels_are_as_large_as_nominal_or_coarser(
    tmp_path: Path, native: float, pixel: float
) -> None:
    image = _image(tmp_path, "m_1", _samples(), gsd=native)
    plan = Source(str(write_catalogue(tmp_path, image))).plan(places())
    assert plan["pixel_m"] == pixel
    assert plan["items"][0]["native_m"] == native


def test_an_item_without_its_pixel_size_is_measured(tmp_path: Path) -> None:
    image = _image(tmp_path, "m_1", _samples(), gsd=None)
    plan = Source(str(write_catalogue(tmp_path, image))).plan(places())
    assert plan["items"][0]["native_m"] == PIXEL_M


def test_images_of_another_zone_fill_in(tmp_path: Path) -> None:
    """The west in the city's zone, the east in the next one, a slope of values over both."""
    far = type(GRID)(32644)
    x, y = far.project(*GRID.unproject([LEFT + 1500, LEFT + 3600], [TOP, TOP - 3600]))
    left, top, step = min(x) - 300, max(y) + 300, 5
    steps = np.arange(1000) * step + step / 2
    east, north = np.meshgrid(left + steps[:600], top - steps)
    here = GRID.project(*far.unproject(east.ravel(), north.ravel()))
    slope = ((here[0] - LEFT) / 20 + 30).reshape(1000, 600)
    beyond = np.repeat(np.round(slope).clip(0, 255).astype(np.uint8)[None], 4, axis=0)
    columns = np.round((np.arange(360) * step + step / 2) / 20 + 30).astype(np.uint8)
    own = np.broadcast_to(columns, (4, 720, 360))
    images = [
        _image(tmp_path, "m_1", own, gsd=5.0, transform=from_origin(LEFT, TOP, step, step)),
        _image(tmp_path, "m_2", beyond, gsd=5.0, crs="EPSG:32644",
               transform=from_origin(left, top, step, step)),
    ]  # fmt: skip
    layer, _ = fetched(tmp_path, Source(str(write_catalogue(tmp_path, *images))))
    samples, valid = halo_pixels(layer)
    centres = 300 + np.arange(600) * step + step / 2
    assert valid.all()
    expected = np.broadcast_to(centres / 20 + 30, (4, 600, 600))
    np.testing.assert_allclose(samples.astype(float), expected, atol=1.1)


def test_the_file_passes_gpio(tmp_path: Path) -> None:
    image = _image(tmp_path, "m_1", _samples())
    fetched(tmp_path, Source(str(write_catalogue(tmp_path, image))))
    path = tmp_path / "workspace/data/test/layers/naip.parquet"
    assert read_table(path)[0].schema.names == NAIP_SCHEMA.names
    assert gpio_check(path, duckdb_home(tmp_path / "home")) == ""


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    aside = {"transform": from_origin(LEFT + 1e5, TOP, PIXEL_M, PIXEL_M)}
    far = str(write_catalogue(tmp_path / "far", _image(tmp_path, "far", _samples(), **aside)))
    with pytest.raises(UrbanError, match=r"NAIP covers the United States only.*use sentinel2"):
        Source(far).plan(places())
    with pytest.raises(UrbanError, match="in that time"):
        Source(far, since="2020").plan(places())
    bare = _image(tmp_path, "bare", _samples())
    bare.assets["other"] = bare.assets.pop("image")
    catalogue = str(write_catalogue(tmp_path / "bare", bare))
    with pytest.raises(UrbanError, match="item bare of 'naip' has no asset image: it has other"):
        Source(catalogue).plan(places())
    for name, samples in (("three", _samples()[:3]), ("deep", noise(4).astype(np.uint16))):
        image = _image(tmp_path, name, samples)
        source = Source(str(write_catalogue(tmp_path / name, image)))
        source.plan(places())
        with pytest.raises(UrbanError, match="NAIP has 4 of uint8") as error:
            source.read(source.blocks(places())[0])
        assert "\n" not in str(error.value)
