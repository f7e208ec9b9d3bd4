"""Rendered scenes: real COGs, clouds that are marked, and each factor only where it belongs."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import shapely
from rasterio.enums import ColorInterp

from urbancli.city import SYNTHETIC
from urbancli.demo._clouds import CIRRUS, CLOUD_HIGH, CLOUD_MEDIUM, COVERS, SHADOW, skies
from urbancli.demo._ground import block_means, shadows
from urbancli.demo._materials import BANDS, NAIP_BANDS, SHORT_WAVE
from urbancli.demo.factors import draw_factors
from urbancli.demo.imagery import BASELINE, _grain, render
from urbancli.demo.recipe import GRID, Recipe
from urbancli.demo.town import Cells, Elements, Pois, Town

RECIPE = Recipe(0, 8, 2.5)
LEFT, BOTTOM, RIGHT, TOP = RECIPE.rendered_m
PARK = (LEFT + 2100, BOTTOM + 2700, LEFT + 2400, BOTTOM + 3000)
LAKE = (LEFT + 2400, BOTTOM + 3600, LEFT + 2700, BOTTOM + 3900)
ROOF = (LEFT + 2120, BOTTOM + 3020, LEFT + 2220, BOTTOM + 3120)
MARKED = (SHADOW, CLOUD_MEDIUM, CLOUD_HIGH, CIRRUS)

Samples = npt.NDArray[Any]


def small_town(recipe: Recipe = RECIPE) -> Town:
    """A few streets, blocks of houses, a park, a lake, and things no rule is for."""
    left, bottom, right, top = recipe.rendered_m
    shapes: list[Any] = []
    tags: list[dict[str, str]] = []

    def add(shape: Any, **of: str) -> None:
        shapes.append(shape)
        tags.append({key.replace("__", ":"): value for key, value in of.items()})

    zones = ("residential", "commercial", "industrial", "farmland", "forest", "meadow")
    for step, x in enumerate(np.arange(left, right, 300.0)):
        add(shapely.LineString([(x, bottom), (x, top)]), highway="primary", lanes="four")
        y = bottom + (x - left)
        add(shapely.LineString([(left, y), (right, y)]), highway="residential", lanes="2")
        for row, south in enumerate(np.arange(bottom, top, 300.0)):
            zone = zones[(step + 2 * row) % len(zones)]
            add(shapely.box(x, south, x + 300, south + 300), landuse=zone)
            if zone == "residential":
                for k in range(9):
                    a, b = x + 40 + 80 * (k % 3), south + 40 + 80 * (k // 3)
                    house = shapely.affinity.rotate(shapely.box(a, b, a + 16, b + 11), 20 * k)
                    add(house, building="house", roof__shape="gabled", height=f"{6 + k}")
                    add(shapely.Point(a + 30, b + 20), natural="tree")
    add(shapely.box(*PARK), leisure="park")
    add(shapely.box(*LAKE), natural="water", water="lake")
    add(shapely.box(*ROOF), building="office", height="30 m")
    yard = shapely.box(RIGHT - 280, BOTTOM + 20, RIGHT - 220, BOTTOM + 80)
    add(yard.difference(yard.buffer(-20)), building="apartments", height="12")
    add(shapely.Point(left, bottom), building="house")
    add(shapely.Point(left + 50, bottom + 50), amenity="cafe", name="Café")
    add(shapely.LineString([(left, bottom), (right, top)]), waterway="river")
    add(shapely.LineString([(left, top), (right, bottom)]), highway="motorway", tunnel="yes")
    add(shapely.box(*PARK), landuse="a thing unheard of", height="tall")
    add(shapely.MultiPolygon([shapely.box(*PARK).buffer(20)]), natural="scrub")
    cells = Cells(
        np.zeros((0, 4, 2)), np.zeros(0, dtype=object), np.zeros((0, 4)), np.zeros((0, 2), np.int64)
    )
    elements = Elements(np.array(shapes, dtype=object), tags)
    return Town(draw_factors(recipe), cells, elements, [], Pois(np.zeros((0, 2)), [], []))


def replaced(town: Town, *names: str) -> Town:
    """Return the town with other values of some factors."""
    noise = np.random.default_rng(99)
    fields = dict(town.factors.fields)
    for name in names:
        fields[name] = noise.standard_normal(fields[name].shape)
    return replace(town, factors=replace(town.factors, fields=fields))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    render(folder, small_town())
    return folder


def _days(folder: Path) -> list[Path]:
    return sorted((folder / "sentinel-2-l2a").glob("S2*"))


def _read(path: Path) -> Samples:
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read(1 if dataset.count == 1 else None))


def _marks(day: Path) -> npt.NDArray[np.bool_]:
    """Where the classification says cloud or shadow, at 10 m."""
    return np.kron(np.isin(_read(day / "SCL.tif"), MARKED), np.ones((2, 2))).astype(bool)


def _crop(samples: Samples, box: tuple[float, ...], pixel_m: float) -> Samples:
    """The pixels of a box, 20 m inside its borders."""
    left, bottom, right, top = box
    rows = slice(round((TOP - top + 20) / pixel_m), round((TOP - bottom - 20) / pixel_m))
    columns = slice(round((left + 20 - LEFT) / pixel_m), round((right - 20 - LEFT) / pixel_m))
    return samples[..., rows, columns]


def _sentinel(folder: Path, band: str) -> Samples:
    """Reflectance, of the second day where the first is marked."""
    first, second = _days(folder)
    either = np.where(_marks(first), _read(second / f"{band}.tif"), _read(first / f"{band}.tif"))
    return np.asarray((either.astype(float) - 1000) / 10_000)


def _naip(folder: Path) -> Samples:
    side = round((RIGHT - LEFT) / RECIPE.gsd_m)
    mosaic = np.zeros((4, side, side), dtype=np.uint8)
    for path in sorted((folder / "naip").glob("*/*.tif")):
        with rasterio.open(path) as dataset:
            row = round((TOP - dataset.bounds.top) / RECIPE.gsd_m)
            column = round((dataset.bounds.left - LEFT) / RECIPE.gsd_m)
            part = (slice(None), slice(row, row + dataset.height),
                    slice(column, column + dataset.width))  # fmt: skip
            known = mosaic[part]
            samples = dataset.read()
            # Where quarter quads overlap they show the same.
            assert (known[known > 0] == samples[known > 0]).all()
            mosaic[part] = samples
    assert (mosaic > 0).all()
    return mosaic


def test_every_file_is_a_cog_on_the_grid_and_says_what_it_is(scenes: Path) -> None:
    paths = sorted(scenes.rglob("*.tif"))
    assert len(paths) == 2 * 13 + 4
    for path in paths:
        with rasterio.open(path) as dataset:
            assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert dataset.block_shapes[0] == (512, 512)
            assert bool(dataset.overviews(1)) == (max(dataset.shape) > 512)
            assert dataset.tags()["TIFFTAG_IMAGEDESCRIPTION"] == SYNTHETIC
            assert dataset.crs.to_epsg() == GRID.epsg
            pixel_m = 20 if path.stem == "SCL" else 10 if dataset.count == 1 else RECIPE.gsd_m
            assert dataset.res == (pixel_m, pixel_m)
            assert dataset.bounds.left % pixel_m == 0 and dataset.bounds.top % pixel_m == 0
            if dataset.count == 4:
                assert dataset.dtypes == ("uint8",) * 4 and dataset.nodata is None
                assert dataset.colorinterp[3] == ColorInterp.alpha
                continue
            assert dataset.bounds == RECIPE.rendered_m
            assert dataset.dtypes == (("uint8",) if path.stem == "SCL" else ("uint16",))
            assert dataset.nodata == 0 and (dataset.read(1) > 0).all()


def test_quarter_quads_overlap_and_fill_the_square(scenes: Path) -> None:
    boxes = []
    for path in (scenes / "naip").glob("*/*.tif"):
        with rasterio.open(path) as dataset:
            boxes.append(shapely.box(*dataset.bounds))
    assert shapely.union_all(boxes).equals(shapely.box(*RECIPE.rendered_m))
    overlap = sum(box.area for box in boxes) - shapely.union_all(boxes).area
    assert overlap > 100 * (RIGHT - LEFT)


def test_clouds_are_marked_and_miss_each_other(scenes: Path) -> None:
    first, second = (_marks(day) for day in _days(scenes))
    assert (first & second).mean() < 0.01
    assert 0.08 < first.mean() < 0.4 and 0.08 < second.mean() < 0.4
    clear = ~first & ~second
    for band in BANDS:
        one, two = (_read(day / f"{band}.tif").astype(float) for day in _days(scenes))
        # Half a per cent of noise, and the leaf that plants lose in summer.
        loose = 0.06 * np.maximum(one, two) + 60
        assert (np.abs(one - two)[clear] < loose[clear]).all()
        assert (np.abs(one - two)[first | second] > loose[first | second]).mean() > 0.3


@pytest.mark.parametrize("seed", range(4))
def test_every_pixel_that_a_sky_changes_is_marked(seed: int) -> None:
    side = 480
    days = skies(Recipe(seed, 8), side)
    none = np.zeros((side, side), dtype=np.float32)
    ground = np.full((side, side), 0.2, dtype=np.float32)
    clouded = []
    for sky, cover in zip(days, COVERS, strict=True):
        marked = np.isin(sky.classes(none, none), MARKED)
        wide = np.kron(marked, np.ones((2, 2))).astype(bool)
        assert not ((sky.veil(ground, 7) != ground) & ~wide).any()
        assert 0.6 * cover < (sky.cloud > 0).mean() < 1.5 * cover
        assert (sky.shadow > 0).mean() > 0.02
        assert ((sky.cloud > 0.05) & (sky.cloud < 0.95)).mean() > 0.01  # soft edges
        clouded.append(wide)
    assert (clouded[0] & clouded[1]).mean() <= 0.01


def test_items_tell_the_clouds_and_the_baseline(scenes: Path) -> None:
    import pystac

    catalogue = pystac.Catalog.from_file(str(scenes / "catalog.json"))
    items = {item.id: item for item in catalogue.get_items(recursive=True)}
    assert len(items) == 6
    for day in _days(scenes):
        said = items[day.name].properties
        seen = np.isin(_read(day / "SCL.tif"), (CLOUD_MEDIUM, CLOUD_HIGH, CIRRUS)).mean() * 100
        assert said["eo:cloud_cover"] == pytest.approx(seen, abs=1e-3)
        assert said["s2:processing_baseline"] == BASELINE
        assert list(items[day.name].assets) == [*BANDS, "SCL"]


def test_parks_are_green_and_water_is_black(scenes: Path) -> None:
    red, near = (_sentinel(scenes, band) for band in ("B04", "B08"))

    def index(box: tuple[float, ...]) -> float:
        r, n = (_crop(band, box, 10).mean() for band in (red, near))
        return float((n - r) / (n + r))

    assert index(PARK) > 0.3 > 0.15 > index(ROOF)
    assert _crop(near, LAKE, 10).max() < 0.05 < 0.15 < _crop(near, PARK, 10).mean()
    naip = _naip(scenes).astype(float)
    assert _crop(naip[3], LAKE, 2.5).mean() < 60 < 150 < _crop(naip[3], PARK, 2.5).mean()
    classes = _read(_days(scenes)[0] / "SCL.tif")
    assert 6 in _crop(classes, LAKE, 20) or np.isin(_crop(classes, LAKE, 20), MARKED).all()


def test_naip_is_the_finer_view_of_the_same_ground(scenes: Path) -> None:
    naip = (_naip(scenes) / 255.0) ** 2 * 0.5
    for band, fine in zip(NAIP_BANDS, naip, strict=True):
        coarse = block_means(fine.astype(np.float32), 4)
        clear = ~_marks(_days(scenes)[0])
        both = np.corrcoef(coarse[clear], _sentinel(scenes, band)[clear])[0, 1]
        assert both > 0.97


def test_moisture_shows_in_the_short_wave_bands_alone(scenes: Path, tmp_path: Path) -> None:
    render(tmp_path, replaced(small_town(), "moisture", "chains", "masonry"))
    for day, other in zip(_days(scenes), _days(tmp_path), strict=True):
        for band in (*BANDS, "SCL"):
            same = (_read(day / f"{band}.tif") == _read(other / f"{band}.tif")).all()
            assert same == (band not in SHORT_WAVE)
    np.testing.assert_array_equal(_naip(scenes), _naip(tmp_path))


def test_grain_shows_in_naip_alone_and_vanishes_in_means(scenes: Path, tmp_path: Path) -> None:
    render(tmp_path, replaced(small_town(), "grain"))
    for path in sorted((scenes / "sentinel-2-l2a").rglob("*.tif")):
        assert path.read_bytes() == (tmp_path / path.relative_to(scenes)).read_bytes()
    ours, theirs = _naip(scenes).astype(np.float32), _naip(tmp_path).astype(np.float32)
    assert (ours != theirs).mean() > 0.5
    np.testing.assert_array_equal(_crop(ours, LAKE, 2.5), _crop(theirs, LAKE, 2.5))
    dark = np.asarray((ours.min(axis=0) > 40) & (ours.max(axis=0) < 215))  # nothing clipped
    whole = block_means(dark.astype(np.float32), 4) == 1
    for band in range(4):
        one, two = (block_means(np.asarray(seen[band]), 4) for seen in (ours, theirs))
        assert np.abs(one - two)[whole].max() <= 1


@pytest.mark.parametrize("gsd_m", [0.5, 2.0, 2.5, 5.0])
def test_grain_has_mean_zero_in_every_cell(gsd_m: float) -> None:
    pattern = _grain(Recipe(0, 8, gsd_m))
    side = round(10 / gsd_m)
    assert np.abs(block_means(pattern, side)).max() == 0
    assert set(np.unique(pattern)) <= {-1.0, 0.0, 1.0} and np.abs(pattern).mean() > 0.9


def test_the_sun_stands_in_the_south_east() -> None:
    height = np.zeros((40, 40), dtype=np.float32)
    height[20, 20] = 15.0
    row, column = np.nonzero(shadows(height, 2.5))
    assert len(row) == 2
    assert (row < 20).all() and (column < 20).all() and (row == column).all()


def test_the_same_recipe_gives_the_same_bytes_in_another_process(
    scenes: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]; from pathlib import Path\n"
        "from test_demo_imagery import small_town; from urbancli.demo.imagery import render\n"
        "render(Path(sys.argv[1]), small_town())"
    )
    here = Path(__file__)
    environment = {**os.environ, "GDAL_NUM_THREADS": "3", "OMP_NUM_THREADS": "3",
                   "PYTHONHASHSEED": "7"}  # fmt: skip
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(here.parent), str(here.parents[2])],
        env=environment, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert _digests(tmp_path) == _digests(scenes)


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
