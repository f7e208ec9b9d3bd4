"""Sentinel-1 from catalogues: composites, direction of flight, which dates, no data, mistakes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.transform import from_origin
from stac_scenes import (
    CORNER,
    HALO,
    LEFT,
    PX,
    TOP,
    fetched,
    halo_pixels,
    item,
    places,
    write_catalogue,
    write_raster,
)

from urbancli.errors import UrbanError
from urbancli.sources.sentinel1 import NODATA, Source


def _power(seed: int = 1, count: int = 2) -> Any:
    """Return speckle (count, PX, PX) of 4.4 looks over a mean power of 0.1."""
    generator = np.random.default_rng(seed)
    return generator.gamma(4.4, 0.1 / 4.4, (count, PX, PX)).astype(np.float32)


def _scene(
    folder: Path, item_id: str, day: str, power: Any, *, orbit: int = 63,
    direction: str | None = "descending", names: tuple[str, str] = ("vv", "vh"), **profile: Any,
) -> Any:  # fmt: skip
    given = {"nodata": NODATA, **profile}
    assets = {
        name: write_raster(folder / "scenes" / item_id / f"{name}.tif", band[None], **given)
        for name, band in zip(names, power, strict=True)
    }
    said: dict[str, Any] = {"sat__relative_orbit": orbit}
    if direction:
        said["sat__orbit_state"] = direction
    return item(item_id, f"{day}T00:50:00+00:00", assets, "sentinel-1-rtc", **said)


def _ids(source: Source) -> list[str]:
    return [each["id"] for each in source.plan(places())["items"]]


def test_a_window_across_four_blocks_is_a_crop_in_decibel(tmp_path: Path) -> None:
    power = _power()
    catalogue = write_catalogue(tmp_path, _scene(tmp_path, "a", "2023-06-14", power))
    layer, facts = fetched(tmp_path, Source(str(catalogue)))
    assert layer.bands == facts["bands"] == ["vv", "vh"] and layer.pixel_m == 10
    assert facts["unit"] == "dB, gamma naught" and facts["orbit_state"] == "descending"
    assert facts["attribution"] == "contains modified Copernicus Sentinel data"
    for size in (300, 600, 3000):
        window, valid = layer.window(CORNER[0] * 300, CORNER[1] * 300, size)
        part = slice(PX // 2 - size // 20, PX // 2 + size // 20)
        np.testing.assert_array_equal(window, 10 * np.log10(power[:, part, part]))
        assert valid.all() and window.dtype == np.float32


def test_the_composite_equals_a_naive_loop(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    power = np.stack([_power(seed) for seed in range(4)])
    lost = generator.random(power[:, 0].shape) < 0.5
    power[:, 0][lost] = generator.choice([NODATA, 0.0, -0.001, np.nan], lost.sum())
    items = [_scene(tmp_path, f"s{n}", f"2023-0{n + 1}-03", each) for n, each in enumerate(power)]
    samples, valid = halo_pixels(
        fetched(tmp_path, Source(str(write_catalogue(tmp_path, *items))))[0]
    )
    lost, power = lost[:, HALO, HALO], power[:, :, HALO, HALO]
    np.testing.assert_array_equal(valid, (~lost).any(axis=0))
    assert not valid.all() and not samples[:, ~valid].any()
    for row, column in generator.integers(0, 300, (400, 2)).tolist():
        known = power[~lost[:, row, column], :, row, column]
        if len(known):
            expected = 10 * np.log10(np.median(known, axis=0))
            np.testing.assert_allclose(samples[:, row, column], expected, rtol=1e-6)


def test_scenes_of_one_overpass_are_one_date(tmp_path: Path) -> None:
    """Two slices of one overpass, and another orbit on the same day."""
    north, south, other = _power(1), _power(2), _power(3)
    north[:, PX // 2 :] = NODATA
    items = [
        _scene(tmp_path, "s1_a", "2023-06-14", north),
        _scene(tmp_path, "s1_b", "2023-06-14", south),
        _scene(tmp_path, "s1_c", "2023-06-14", other, orbit=136),
    ]
    source = Source(str(write_catalogue(tmp_path, *items)))
    samples, _ = halo_pixels(fetched(tmp_path, source)[0])
    first = np.where(north > 0, north, south)
    expected = 10 * np.log10((first + other) / 2)[:, HALO, HALO]
    np.testing.assert_allclose(samples, expected, rtol=1e-6)


def test_all_dates_are_of_the_direction_that_shows_more(tmp_path: Path) -> None:
    power = _power()
    half = {"transform": from_origin(LEFT + 1800, TOP, 10, 10)}
    items = [
        _scene(tmp_path, f"up{n}", f"2023-0{n + 1}-05", power, direction="ascending")
        for n in range(2)
    ]
    items += [
        _scene(tmp_path, f"down{n}", f"2023-0{n + 1}-03", power[:, :, : PX // 2], **half)
        for n in range(3)
    ]
    items.append(_scene(tmp_path, "lost", "2023-05-01", power, direction=None))
    catalogue = str(write_catalogue(tmp_path, *items))
    assert sorted(_ids(Source(catalogue))) == ["up0", "up1"]
    assert Source(catalogue).plan(places())["orbit_state"] == "ascending"
    items.append(_scene(tmp_path, "down3", "2023-03-09", power))
    catalogue = str(write_catalogue(tmp_path / "more", *items))
    assert sorted(_ids(Source(catalogue))) == ["down0", "down1", "down2", "down3"]


def test_the_dates_are_spread_over_the_time(tmp_path: Path) -> None:
    power = _power()
    items = [_scene(tmp_path, f"m{n:02}", f"2023-{n:02}-15", power) for n in range(1, 13)]
    catalogue = str(write_catalogue(tmp_path, *items))
    plan = Source(catalogue, dates=4).plan(places())
    assert [each["id"] for each in plan["items"]] == ["m12", "m01", "m07", "m04"]
    assert plan["dates_at_most"] == 4 and plan["found"] == 12
    assert sorted(_ids(Source(catalogue, "2023-03", "2023-05"))) == ["m03", "m04", "m05"]


def test_no_data_is_not_mixed_into_its_neighbours(tmp_path: Path) -> None:
    """A scene whose pixels are half a pixel beside the tiles' grid: it is interpolated."""
    power = np.full((2, PX, PX), 0.2, np.float32)
    power[:, PX // 2, PX // 2] = NODATA
    beside = {"transform": from_origin(LEFT + 5, TOP - 5, 10, 10)}
    catalogue = write_catalogue(tmp_path, _scene(tmp_path, "a", "2023-06-14", power, **beside))
    samples, valid = halo_pixels(fetched(tmp_path, Source(str(catalogue)))[0])
    np.testing.assert_allclose(samples[:, valid], 10 * np.log10(0.2), rtol=1e-5)
    assert (~valid).sum() <= 4


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    polar = _scene(tmp_path, "polar", "2023-06-14", _power(), names=("hh", "hv"))
    catalogue = str(write_catalogue(tmp_path, polar))
    for asked in ((), ("2023",)):
        with pytest.raises(UrbanError, match=r"no Sentinel-1 scene .* with vv and vh") as error:
            Source(catalogue, *asked).plan(places())
        assert "\n" not in str(error.value)
