"""Sentinel-2 from catalogues: offsets, clouds, composites, dates, coarse bands, pinned files."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.transform import from_origin
from stac_scenes import (
    CORNER,
    EARTH_SEARCH,
    ESA,
    GRID,
    HALO,
    LEFT,
    PX,
    TOP,
    city,
    fetched,
    halo_pixels,
    noise,
    places,
    scene,
    write_catalogue,
    write_raster,
)

from urbancli.errors import UrbanError, UsageError
from urbancli.fetching import fetch
from urbancli.planning import Engine
from urbancli.sources.sentinel2 import ASSETS, UNCLEAR, Source
from urbancli.workspace import Workspace, read_table

JUNE, JULY = "2023-06-14T05:30:00+00:00", "2023-07-14T05:30:00+00:00"
CLEAR, CLOUD = 4, 9


def _doubled(classes: Any) -> Any:
    return classes.repeat(2, axis=0).repeat(2, axis=1)


def test_a_window_across_four_blocks_is_a_crop_of_the_bands(tmp_path: Path) -> None:
    dn = noise(12)
    catalogue = write_catalogue(tmp_path, scene(tmp_path, "a", JUNE, dn, CLEAR))
    layer, facts = fetched(tmp_path, Source(str(catalogue)))
    assert layer.bands == facts["bands"] == list(ESA) == list(ASSETS)
    for size in (300, 600, 3000):
        window, valid = layer.window(CORNER[0] * 300, CORNER[1] * 300, size)
        part = slice(PX // 2 - size // 20, PX // 2 + size // 20)
        np.testing.assert_array_equal(window, dn[:, part, part] - 1000)
        assert valid.all() and window.dtype == np.uint16
    assert facts["pixels_never_clear"] == 0
    assert facts["attribution"] == "contains modified Copernicus Sentinel data"


@pytest.mark.parametrize(
    ("names", "said", "taken"),
    [
        (ESA, {"s2__processing_baseline": "03.01"}, 0),
        (ESA, {"s2__processing_baseline": "04.00"}, 1000),
        (ESA, {"s2__processing_baseline": "05.09"}, 1000),
        (EARTH_SEARCH, {"earthsearch__boa_offset_applied": True}, 0),
        (EARTH_SEARCH, {"earthsearch__boa_offset_applied": False}, 1000),
        (
            EARTH_SEARCH,
            {"earthsearch__boa_offset_applied": False, "s2__processing_baseline": "02.14"},
            0,
        ),
    ],
)
def test_the_offset_is_taken_off_once(
    tmp_path: Path, names: tuple[str, ...], said: dict[str, Any], taken: int
) -> None:
    dn = noise(12)
    dn[3, PX // 2, PX // 2] = 400  # darker than the offset: reflectance 0 is 1, not nodata
    dn[5, PX // 2, PX // 2 + 1] = 0  # nodata in one band
    catalogue = write_catalogue(
        tmp_path, scene(tmp_path, "a", JUNE, dn, CLEAR, names=names, **said)
    )
    source = Source(str(catalogue))
    plan = source.plan(places())
    assert [each["offset"] for each in plan["items"]] == [taken]
    samples, valid = halo_pixels(fetched(tmp_path, source)[0])
    known = np.ones((PX, PX), bool)
    known[PX // 2, PX // 2 + 1] = False
    expected = np.where(known, np.maximum(dn.astype(int) - taken, 1), 0)[:, HALO, HALO]
    np.testing.assert_array_equal(samples, expected)
    np.testing.assert_array_equal(valid, known[HALO, HALO])


def test_clouds_on_all_dates_leave_a_hole_that_is_counted(tmp_path: Path) -> None:
    dn = np.stack([noise(12, seed) for seed in (1, 2)])
    classes = np.full((2, PX // 2, PX // 2), CLEAR)
    classes[0, 80:100, 80:] = CLOUD
    classes[1, 90:110, 70:95] = 3
    items = [
        scene(tmp_path, f"s{n}", when, dn[n], classes[n]) for n, when in enumerate((JUNE, JULY))
    ]
    layer, facts = fetched(tmp_path, Source(str(write_catalogue(tmp_path, *items))))
    samples, valid = halo_pixels(layer)
    clear = np.stack([_doubled(each == CLEAR) for each in classes])[:, HALO, HALO]
    np.testing.assert_array_equal(valid, clear.any(axis=0))
    assert facts["pixels_never_clear"] == (~clear.any(axis=0)).sum() == 20 * 30
    only = clear[0] & ~clear[1]
    first = dn[0][:, HALO, HALO] - 1000
    np.testing.assert_array_equal(samples[:, only], first[:, only])
    assert not samples[:, ~valid].any()


def test_every_class_is_clear_or_not(tmp_path: Path) -> None:
    classes = np.repeat(np.arange(PX // 2)[None] // 2 % 12, PX // 2, axis=0)
    item = scene(tmp_path, "a", JUNE, noise(12), classes)
    layer, _ = fetched(tmp_path, Source(str(write_catalogue(tmp_path, item))))
    _, valid = halo_pixels(layer)
    np.testing.assert_array_equal(valid, np.isin(_doubled(classes), (2, 4, 5, 6, 7))[HALO, HALO])
    assert set(UNCLEAR) == {0, 1, 3, 8, 9, 10, 11}


@pytest.mark.parametrize("composite", ["median", "least-cloud"])
def test_composites_equal_a_naive_loop(tmp_path: Path, composite: str) -> None:
    generator = np.random.default_rng(3)
    count = 4
    dn = np.stack([noise(12, seed) for seed in range(count)])
    dn[1, 7, 200:220] = 0
    classes = np.where(generator.random((count, PX // 2, PX // 2)) < 0.4, CLOUD, CLEAR)
    clouds = [30.0, 5.0, 80.0, 20.0]
    items = [
        scene(tmp_path, f"s{n}", f"2023-0{n + 1}-03T05:30:00+00:00", dn[n], classes[n],
              eo__cloud_cover=clouds[n])
        for n in range(count)
    ]  # fmt: skip
    catalogue = write_catalogue(tmp_path, *items)
    layer, facts = fetched(tmp_path, Source(str(catalogue), composite=composite))
    assert facts["dates"] == ["2023-02-03", "2023-04-03", "2023-01-03", "2023-03-03"]
    samples, valid = halo_pixels(layer)
    for row, column in generator.integers(0, 300, (400, 2)).tolist():
        at = (HALO.start + row, HALO.start + column)
        seen = [
            dn[n][(slice(None), *at)].astype(int) - 1000
            for n in (1, 3, 0, 2)
            if classes[n][at[0] // 2, at[1] // 2] == CLEAR and dn[n][(slice(None), *at)].all()
        ]
        assert valid[row, column] == bool(seen)
        expected = np.zeros(12)
        if seen:
            middle = np.floor(np.median(seen, axis=0) + 0.5)
            expected = middle if composite == "median" else seen[0]
        np.testing.assert_array_equal(samples[:, row, column], expected)


def test_bands_of_20_and_60_m_are_interpolated(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    bands = [generator.integers(2000, 9000, (PX // f, PX // f)).astype(np.uint16)
             for f in (6, 1, 1, 1, 2, 2, 2, 1, 2, 6, 2, 2)]  # fmt: skip
    catalogue = write_catalogue(tmp_path, scene(tmp_path, "a", JUNE, bands, CLEAR))
    samples, valid = halo_pixels(fetched(tmp_path, Source(str(catalogue)))[0])
    assert valid.all()
    for band, dn in enumerate(bands):
        ratio = PX // len(dn)
        at = (np.arange(HALO.start, HALO.stop) + 0.5) / ratio - 0.5
        low = np.floor(at).astype(int)
        part = at - low
        rows = dn[low] * (1 - part)[:, None] + dn[low + 1] * part[:, None]
        expected = rows[:, low] * (1 - part) + rows[:, low + 1] * part - 1000
        np.testing.assert_allclose(samples[band], expected, atol=0.51 if ratio > 1 else 0)


def test_no_data_is_not_mixed_into_its_neighbours(tmp_path: Path) -> None:
    bands = [np.full((PX, PX), 5000, np.uint16) for _ in ESA]
    bands[4] = np.full((PX // 2, PX // 2), 5000, np.uint16)
    bands[4][90, 90] = 0
    catalogue = write_catalogue(tmp_path, scene(tmp_path, "a", JUNE, bands, CLEAR))
    samples, valid = halo_pixels(fetched(tmp_path, Source(str(catalogue)))[0])
    assert 0 < (~valid).sum() <= 4
    assert set(np.unique(samples[4][valid])) == {4000}


def test_scenes_of_another_zone_are_warped(tmp_path: Path) -> None:
    far = type(GRID)(32644)
    x, y = far.project(*GRID.unproject([LEFT, LEFT + 3600], [TOP, TOP - 3600]))
    left, top = round(min(x)) // 60 * 60 - 600, round(max(y)) // 60 * 60 + 600
    steps = np.arange(480) * 10 + 5
    east, north = np.meshgrid(left + steps, top - steps)
    here = GRID.project(*far.unproject(east.ravel(), north.ravel()))
    slope = (2000 + (here[0] - LEFT) + 0.5 * (here[1] - TOP + 3600)).reshape(480, 480)
    profile = {"crs": "EPSG:32644", "transform": from_origin(left, top, 10, 10)}
    bands = np.repeat(np.round(slope).astype(np.uint16)[None], 12, axis=0)
    item = scene(tmp_path, "a", JUNE, bands, CLEAR, profile=profile)
    samples, valid = halo_pixels(fetched(tmp_path, Source(str(write_catalogue(tmp_path, item))))[0])
    centres = (np.arange(HALO.start, HALO.stop) + 0.5) * 10
    expected = 1000 + centres[None] + 0.5 * (3600 - centres[:, None])
    assert valid.all()
    np.testing.assert_allclose(samples[4], expected, atol=1.1)


def test_scenes_of_one_overpass_are_one_date(tmp_path: Path) -> None:
    """A granule processed twice, and its neighbour: the newest processing wins where both know."""
    old, new, beside = noise(12, 1), noise(12, 2), noise(12, 3)
    new[:, :, PX // 2 :] = 0
    items = [
        scene(tmp_path, "a_old", JUNE, old, CLEAR, s2__processing_baseline="03.00"),
        scene(tmp_path, "a_new", JUNE, new, CLEAR, s2__processing_baseline="05.10"),
        scene(tmp_path, "b", "2023-06-14T05:30:14+00:00", beside, CLEAR),
    ]
    source = Source(str(write_catalogue(tmp_path, *items)))
    plan = source.plan(places())
    assert [each["id"] for each in plan["items"]] == ["a_new", "b", "a_old"]
    assert {each["date"] for each in plan["items"]} == {"2023-06-14"}
    samples, _ = halo_pixels(fetched(tmp_path, source)[0])
    expected = np.where(new > 0, new, beside)[:, HALO, HALO] - 1000
    np.testing.assert_array_equal(samples, expected)


def test_only_the_least_cloudy_dates_are_read(tmp_path: Path) -> None:
    dn = noise(12)
    items = [
        scene(tmp_path, f"s{n}", f"2023-{n + 1:02}-03T05:30:00+00:00", dn + n, CLEAR,
              eo__cloud_cover=float((n * 7) % 5))
        for n in range(5)
    ]  # fmt: skip
    half = {"transform": from_origin(LEFT + 1800, TOP, 10, 10)}
    items.append(
        scene(tmp_path, "east", JUNE, dn[:, :, : PX // 2], CLEAR, profile=half, eo__cloud_cover=0.5)
    )
    catalogue = str(write_catalogue(tmp_path, *items))
    # Clouds: s0 0, east 0.5, s3 1, s1 2, s4 3, s2 4; the west needs s3 for its second date.
    plan = Source(catalogue, dates=2).plan(places())
    assert [each["id"] for each in plan["items"]] == ["s0", "east", "s3"]
    assert plan["dates_at_most"] == 2 and plan["found"] == 6
    least = fetched(tmp_path, Source(catalogue, composite="least-cloud", dates=1))
    np.testing.assert_array_equal(halo_pixels(least[0])[0], dn[:, HALO, HALO] - 1000)


def test_without_dates_the_last_twelve_months_are_read(tmp_path: Path) -> None:
    dn = noise(12)
    times = {"old": "2021-06-01", "year": "2022-03-15", "new": "2023-03-01"}
    items = [scene(tmp_path, name, f"{day}T05:30:00+00:00", dn, CLEAR)
             for name, day in times.items()]  # fmt: skip
    catalogue = str(write_catalogue(tmp_path, *items))

    def ids(*asked: str | None) -> list[str]:
        plan = Source(catalogue, *asked).plan(places())
        return sorted(each["id"] for each in plan["items"])

    assert ids() == ["new", "year"]
    assert ids("2021") == ["new", "old", "year"]
    assert ids(None, "2022-03-15") == ["old", "year"]
    assert ids("2022-03-16", "2023-03") == ["new"]
    half = {"transform": from_origin(LEFT + 1800, TOP, 10, 10)}
    items[2] = scene(tmp_path, "new", "2024-09-01T05:30:00+00:00", dn[:, :, : PX // 2], CLEAR,
                     profile=half)  # fmt: skip
    catalogue = str(write_catalogue(tmp_path / "other", *items))
    assert ids() == ["new", "old", "year"]


def test_a_moved_catalogue_gives_the_same_plan(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "a" / "second"
    write_catalogue(first, scene(first, "a", JUNE, noise(12), CLEAR))
    plan = Source(str(first / "catalog.json")).plan(places())
    shutil.copytree(first, second)
    shutil.rmtree(first)
    assert Source(str(second)).plan(places()) == plan
    assert plan["items"][0]["assets"]["B02"]["href"] == "./scenes/a/B02.tif"
    assert set(plan["items"][0]["assets"]) == {*ESA, "SCL"}
    assert len(plan["items"][0]["assets"]["SCL"]["sha256"]) == 64
    assert str(tmp_path) not in json.dumps(plan)
    write_raster(second / "scenes" / "a" / "B02.tif", noise(1, 9))
    assert Source(str(second)).plan(places()) != plan


def test_a_resumed_fetch_counts_what_an_earlier_one_read(tmp_path: Path) -> None:
    classes = np.full((PX // 2, PX // 2), CLEAR)
    classes[60:90, 60:120] = CLOUD
    item = scene(tmp_path, "a", JUNE, noise(12), classes)
    catalogue = str(write_catalogue(tmp_path, item))
    _, whole = fetched(tmp_path / "whole", Source(catalogue))

    class Interrupted(Exception):
        pass

    def stop(_: str, done: int, __: int) -> None:
        if done == 3:
            raise Interrupted

    workspace = Workspace(tmp_path / "w")
    with pytest.raises(Interrupted):
        fetch(workspace, city(), [Source(catalogue)], [], Engine(progress=stop))
    fetch(workspace, city(), [Source(catalogue)], [])
    file = workspace.layer_file("test", "sentinel2")
    assert read_table(file)[1] == whole
    assert whole["pixels_never_clear"] == 60 * 120
    there = tmp_path / "whole" / "workspace/data/test/layers/sentinel2.parquet"
    assert file.read_bytes() == there.read_bytes()


def _without(item: Any, *names: str) -> Any:
    for name in names:
        del item.assets[name]
    return item


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    dn = noise(12)
    cases = {
        "asset": (
            _without(scene(tmp_path, "asset", JUNE, dn, CLEAR), "B8A"),
            "no asset B8A or nir08",
        ),
        "mask": (_without(scene(tmp_path, "mask", JUNE, dn, CLEAR), "SCL"), "boa_offset_applied"),
        "baseline": (
            scene(tmp_path, "baseline", JUNE, dn, CLEAR, s2__processing_baseline=None),
            "processing baseline",
        ),
        "flag": (
            scene(tmp_path, "flag", JUNE, dn, CLEAR, names=EARTH_SEARCH),
            "boa_offset_applied",
        ),
    }
    for name, (item, message) in cases.items():
        catalogue = write_catalogue(tmp_path / "catalogues" / name, item)
        with pytest.raises(UrbanError, match=message) as error:
            Source(str(catalogue)).plan(places())
        assert "\n" not in str(error.value)
    aside = {"transform": from_origin(LEFT + 1e5, TOP, 10, 10)}
    far = scene(tmp_path, "far", JUNE, dn, CLEAR, profile=aside)
    catalogue = str(write_catalogue(tmp_path / "catalogues" / "far", far))
    for asked in ((), ("2023",)):
        with pytest.raises(UrbanError, match=r"no Sentinel-2 scene .* touches the city"):
            Source(catalogue, *asked).plan(places())
    with pytest.raises(UsageError, match="unknown composite 'mean'"):
        Source(catalogue, composite="mean")


def test_files_that_are_no_rasters_are_said(tmp_path: Path) -> None:
    good = scene(tmp_path, "a", JUNE, noise(12), CLEAR)
    catalogue = str(write_catalogue(tmp_path, good))
    source = Source(catalogue)
    source.plan(places())
    block = source.blocks(places())[0]
    path = tmp_path / "scenes" / "a" / "B03.tif"
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(UrbanError, match=r"cannot read \./scenes/a/B03\.tif of item a") as error:
        source.read(block)
    assert "\n" not in str(error.value)
    path.write_text("no raster")
    again = Source(catalogue)
    again.plan(places())
    again.blocks(places())
    with pytest.raises(UrbanError, match=r"cannot read \./scenes/a/B03\.tif"):
        again.read(block)
    path.unlink()
    with pytest.raises(UrbanError, match="no file"):
        Source(catalogue).plan(places())
