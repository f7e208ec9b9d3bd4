"""Labels of the demo city: what a user would fetch, and that they follow what they should."""

import numpy as np
import pytest
import rasterio

from urbancli.demo.factors import TARGETS, UNIQUE, Factors, draw_factors
from urbancli.demo.files import demo_city, make_town
from urbancli.demo.labels import HEALTH, LABELS, write_labels
from urbancli.demo.recipe import GRID, Recipe
from urbancli.demo.town import Town
from urbancli.grid import Places, tiles_of
from urbancli.labels.files import parse_label, read_label


@pytest.fixture(scope="module")
def town() -> Town:
    return make_town(draw_factors(Recipe(2, 16)))


@pytest.fixture(scope="module")
def folder(town: Town, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("labels")
    write_labels(folder, town)
    return folder


@pytest.fixture(scope="module")
def places(town: Town) -> Places:
    return tiles_of(demo_city(town.factors.recipe).area, GRID)


def per_tile(folder, places: Places, name: str) -> np.ndarray:
    """The values of a label whose units are tiles, in the order of `places`."""
    table, facts = read_label(parse_label(f"{name}={folder / LABELS[name]}"), places)
    assert facts["unit"] == "tile"
    value = dict(
        zip(table.column("unit_id").to_pylist(), table.column("value").to_pylist(), strict=True)
    )
    return np.array([value[place] for place in places.place_id], dtype=float)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    ranks = [np.argsort(np.argsort(values)) for values in (a, b)]
    return float(np.corrcoef(ranks)[0, 1])


def test_every_label_can_be_fetched(folder, places: Places) -> None:
    for name, file in LABELS.items():
        table, facts = read_label(parse_label(f"{name}={folder / file}"), places)
        assert table.num_rows >= 9 and facts["without_value"] == 0, name


def test_the_city_is_its_tiles_and_no_others(places: Places, town: Town) -> None:
    left, bottom, right, top = town.factors.recipe.box_m
    assert len(places) == town.factors.recipe.tiles**2
    assert (places.x.min(), places.x.max()) == (left + 150, right - 150)
    assert (places.y.min(), places.y.max()) == (bottom + 150, top - 150)


def test_factor_targets_are_the_factors(folder, places: Places, town: Town) -> None:
    left, bottom, _, _ = town.factors.recipe.box_m
    column = ((places.x - left) // 300).astype(int)
    row = ((places.y - bottom) // 300).astype(int)
    for name in TARGETS:
        found = per_tile(folder, places, f"factor_{name}")
        np.testing.assert_allclose(found, town.factors.tile_means(name)[row, column], atol=1e-5)


def test_labels_follow_the_shared_factors(folder, places: Places, town: Town) -> None:
    at = {name: town.factors.at(name, places.x, places.y) for name in ("density", "greenery")}
    people = per_tile(folder, places, "population_density")
    assert rank_correlation(people, at["density"]) > 0.4
    assert 1_000 < people.mean() < 40_000, "people per km² of a city"
    assert rank_correlation(per_tile(folder, places, "greenness"), at["greenery"]) > 0.4
    assert rank_correlation(per_tile(folder, places, "crime"), at["density"]) > 0.4


def test_labels_know_nothing_of_the_unique_factors(town: Town, folder, tmp_path) -> None:
    other = draw_factors(Recipe(9, 16)).fields
    fields = {n: other[n] if n in UNIQUE else f for n, f in town.factors.fields.items()}
    changed = Town(
        Factors(town.factors.recipe, fields),
        town.cells, town.elements, town.relations, town.pois,
    )  # fmt: skip
    write_labels(tmp_path, changed)
    for file in sorted({text.split(":")[0] for text in LABELS.values()} - {"factors.tif"}):
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes(), file
    assert (tmp_path / "factors.tif").read_bytes() != (folder / "factors.tif").read_bytes()


def test_zip_areas_fill_the_city_and_carry_their_table(folder, town: Town) -> None:
    import geopandas as gpd

    zips = gpd.read_file(folder / "zips.geojson")
    assert set(HEALTH) < set(zips.columns) and zips.zip.is_unique
    left, bottom, right, top = town.factors.recipe.box_m
    projected = zips.to_crs(GRID.epsg)
    assert projected.area.sum() == pytest.approx((right - left) * (top - bottom), rel=0.03)
    assert projected.union_all().area == pytest.approx(projected.area.sum(), rel=1e-6)
    assert zips.obesity.between(0, 100).all() and (zips.median_income > 0).all()


def test_rasters_say_that_they_are_synthetic(folder) -> None:
    for name in ("population.tif", "ndvi.tif", "factors.tif"):
        with rasterio.open(folder / name) as dataset:
            assert "SYNTHETIC" in dataset.tags()["TIFFTAG_IMAGEDESCRIPTION"]
