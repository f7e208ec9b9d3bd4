"""A label's file in the workspace, and the real files by an independent route."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from label_inputs import polygon_file, read, values

from urbancli.city import find_city
from urbancli.errors import UsageError
from urbancli.grid import Grid, Places, tiles_of
from urbancli.labels.files import load_label
from urbancli.workspace import Workspace, geometries, write_table

DATA = Path(__file__).parents[2] / "../shared/data"

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")


def test_a_label_file_comes_back_as_it_went(tmp_path) -> None:
    workspace = Workspace(tmp_path)
    path = polygon_file(
        tmp_path / "p.parquet", geoid=["a", "b", "c"], v=[1.5, np.nan, 3.0], c=["x", None, "y"]
    )
    for name, column in {"amount": "v", "sort": "c"}.items():
        table, facts = read(f"{name}={path}:{column}")
        write_table(workspace.label_file("town", name), table, facts)
        label = load_label(workspace, "town", name)
        assert (label.name, label.kind, label.unit) == (name, facts["kind"], "polygon")
        assert label.facts == {"schema_version": 1, **facts}
        order = [table.column("unit_id").to_pylist().index(unit) for unit in label.unit_id]
        np.testing.assert_array_equal(
            label.value, np.array([[1.5, np.nan, 3.0], ["x", None, "y"]][name == "sort"])[order]
        )
        assert label.value.dtype == (np.float64 if name == "amount" else object)
        assert shapely.equals(label.geometry, geometries(table)[order]).all()
        assert len(gpd.read_parquet(workspace.label_file("town", name))) == 3
    source = label.facts["source"]
    assert source["file"] == "p.parquet" and source["bytes"] == path.stat().st_size
    assert label.facts["licence"] == "user-supplied"
    with pytest.raises(UsageError, match="unknown label 'amonut': did you mean amount"):
        load_label(workspace, "town", "amonut")


@pytest.fixture(scope="module")
def manhattan() -> Places:
    city = find_city("new-york", box=(-74.014, 40.736, -73.963, 40.759))
    return tiles_of(city.area, Grid(city.epsg))


@pytest.fixture(scope="module")
def tracts() -> gpd.GeoDataFrame:
    return gpd.read_parquet(DATA / "nyc/tracts.parquet").to_crs(32618)


@needs_data
def test_the_tracts_of_manhattan(manhattan, tracts) -> None:
    squares_m = gpd.GeoDataFrame(geometry=list(manhattan.boxes()), crs=32618)
    hit = gpd.overlay(tracts[["boro_ct2020", "geometry"]], squares_m, keep_geom_type=True)
    hit = hit[hit.area > 1]
    inside = tracts[tracts.boro_ct2020.isin(hit.boro_ct2020)].set_index("boro_ct2020")

    table, facts = read(f"crime={DATA}/nyc/tracts.parquet:crime_count/km2", manhattan)
    found = pd.Series(values(table), dtype=float)
    assert set(found.index) == set(inside.index)
    expected = inside.crime_count.astype(float) / (inside.area / 1e6)
    np.testing.assert_allclose(found, expected[found.index], rtol=1e-9)
    assert facts["outside"] == 2325 - len(inside) and facts["rows"] == 2325
    assert facts["without_value"] == int(inside.crime_count.isna().sum()) == 3
    assert (facts["id_column"], facts["unit"]) == ("boro_ct2020", "polygon")

    table, facts = read(f"d={DATA}/nyc/tracts.parquet:pop_density_km2", manhattan)
    np.testing.assert_array_equal(
        pd.Series(values(table)), inside.pop_density_km2[list(values(table))]
    )
    table, facts = read(f"lu={DATA}/nyc/tracts.parquet:lu5_*", manhattan)
    shares = inside.filter(like="lu5_")
    expected = shares.idxmax(axis=1).str.removeprefix("lu5_")
    assert values(table) == expected.to_dict()
    assert facts["kind"] == "classification"


@needs_data
def test_the_alignment_of_the_tracts_is_the_overlay(manhattan, tracts) -> None:
    from urbancli.embeddings import align

    table, _ = read(f"d={DATA}/nyc/tracts.parquet:pop_density_km2", manhattan)
    alignment = align(geometries(table), manhattan)
    ids = table.column("unit_id").to_pylist()
    squares_m = gpd.GeoDataFrame(
        {"place": range(len(manhattan))}, geometry=list(manhattan.boxes()), crs=32618
    )
    overlay = gpd.overlay(tracts[tracts.boro_ct2020.isin(ids)], squares_m)
    area = np.zeros((len(ids), len(manhattan)))
    for unit, place, size in zip(overlay.boro_ct2020, overlay.place, overlay.area, strict=True):
        area[ids.index(unit), place] += size
    whole = tracts.set_index("boro_ct2020").area[ids].to_numpy()
    np.testing.assert_allclose(alignment.coverage, area.sum(axis=1) / whole, atol=1e-6)
    big = area.sum(axis=1) > 1
    np.testing.assert_allclose(
        alignment.weights.toarray()[big], area[big] / area[big].sum(axis=1)[:, None], atol=1e-6
    )


@needs_data
def test_the_land_cover_of_delhi() -> None:
    city = find_city("delhi", box=(77.06, 28.48001, 77.31997, 28.73998))
    places = tiles_of(city.area, Grid(city.epsg))
    table, facts = read(f"lc={DATA}/delhi/landcover_patches.csv:class_name@640m", places)
    source = pd.read_csv(DATA / "delhi/landcover_patches.csv")
    assert table.column("value").to_pylist() == source.class_name.tolist()
    assert (facts["unit"], facts["rows"], facts["outside"]) == ("circle", 841, 0)
    assert pd.Series(table.column("value").to_pylist()).value_counts().to_dict() == {
        "Built-up": 604,
        "Tree cover": 209,
        "Cropland": 20,
        "Permanent water bodies": 4,
        "Shrubland": 4,
    }
    points = gpd.GeoSeries(gpd.points_from_xy(source.lon, source.lat), crs=4326).to_crs(32643)
    circles = gpd.GeoSeries(geometries(table), crs=4326).to_crs(32643)
    assert circles.centroid.distance(points).max() < 1e-3
    np.testing.assert_allclose(circles.area, np.pi * 640**2, rtol=5e-4)
