"""Cities: the table, boxes, outlines, the antimeridian, and one UTM zone per city."""

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from urbancli.city import (
    box_area,
    centre_lonlat,
    find_city,
    known_cities,
    parse_box,
    slug,
    split_antimeridian,
    synthetic_marks,
    utm_epsg,
)
from urbancli.errors import UrbanError, UsageError


def test_the_table_holds_the_benchmarks_cities() -> None:
    cities = known_cities()
    assert len(cities) == 62
    assert {"delhi", "new-york", "cape-town", "washington-dc", "sao-paulo", "nairobi"} <= set(
        cities
    )
    for key, row in cities.items():
        assert slug(row["name"]) == key or key == "kiev"
        assert row["west"] < row["lon"] < row["east"], key
        assert row["south"] < row["lat"] < row["north"], key


@pytest.mark.parametrize("origin", ["table", "bbox", None])
def test_only_a_generated_city_is_marked(origin: str | None) -> None:
    assert synthetic_marks(origin) == {}
    assert "SYNTHETIC" in synthetic_marks("synthetic")["synthetic"]


@pytest.mark.parametrize(
    ("name", "epsg"),
    [("Delhi", 32643), ("new york", 32618), ("São Paulo", 32723), ("sydney", 32756)],
)
def test_a_known_city_by_any_spelling(name: str, epsg: int) -> None:
    city = find_city(name)
    assert city.epsg == epsg
    assert city.origin == "table"


def test_a_box_in_a_neighbouring_zone_keeps_the_citys_zone() -> None:
    # London's table centre lies at 0.12° W in zone 30; this box lies east of Greenwich, zone 31.
    assert (
        find_city("london", box=(0.05, 51.5, 0.1, 51.55)).epsg == find_city("london").epsg == 32630
    )
    assert utm_epsg(0.05, 51.5) == 32631


@given(lon=st.integers(-1800, 1800).map(lambda n: n / 10), lat=st.floats(-80, 84))
def test_the_utm_zone_is_the_six_degree_one(lon: float, lat: float) -> None:
    epsg = utm_epsg(lon, lat)
    zone = epsg % 100
    assert epsg // 100 == (326 if lat >= 0 else 327)
    west = -186 + 6 * zone
    assert west <= lon < west + 6 or (lon == 180 and zone == 1)


def test_a_box_across_the_antimeridian_is_two() -> None:
    area = box_area((179.8, -17.0, -179.9, -16.9))
    assert area.geom_type == "MultiPolygon"
    assert area.area == pytest.approx(0.3 * 0.1)
    lon, lat = centre_lonlat(area)
    assert lon == pytest.approx(179.95)
    assert lat == pytest.approx(-16.95)


def _wrap(points: Any) -> Any:
    return np.column_stack([(points[:, 0] + 180) % 360 - 180, points[:, 1]])


@given(centre=st.floats(179, 181), width=st.floats(0.01, 1.5), south=st.floats(-60, 60))
def test_splitting_keeps_area_and_range(centre: float, width: float, south: float) -> None:
    wide = shapely.box(centre - width / 2, south, centre + width / 2, south + 0.5)
    wrapped = shapely.transform(wide, _wrap)
    crosses = centre - width / 2 < 180 < centre + width / 2
    split = split_antimeridian(wrapped)
    assert split.bounds[0] >= -180
    assert split.bounds[2] <= 180
    assert split.area == pytest.approx(wide.area)
    assert (split.geom_type == "MultiPolygon") == crosses


@pytest.mark.parametrize(
    ("text", "remedy"),
    [("1,2,3", "four numbers"), ("a,b,c,d", "four numbers"), ("nan,0,1,1", "four numbers")],
)
def test_a_malformed_box_names_the_form(text: str, remedy: str) -> None:
    with pytest.raises(UsageError, match=remedy):
        parse_box(text)


@pytest.mark.parametrize("box", [(0, 5, 1, 4), (0, 0, 0, 1), (-190, 0, 1, 1), (0, 0, 1, 95)])
def test_an_impossible_box_is_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(UsageError, match="box"):
        box_area(box)


def test_a_misspelt_city_gets_its_near_miss() -> None:
    with pytest.raises(UsageError, match="did you mean delhi"):
        find_city("dehli")


def test_a_known_city_with_a_box_elsewhere_is_refused() -> None:
    with pytest.raises(UsageError, match="not in delhi"):
        find_city("delhi", box=(28.4, 77.0, 28.9, 77.4))


def test_box_and_outline_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not both"):
        find_city("delhi", box=(77, 28, 77.1, 28.1), aoi=tmp_path / "a.geojson")


def test_an_outline_from_a_file_in_another_crs(tmp_path: Path) -> None:
    outline = gpd.GeoSeries([shapely.box(400_000, 5_000_000, 410_000, 5_010_000)], crs=32633)
    outline.to_file(tmp_path / "outline.gpkg")
    city = find_city("my town", aoi=tmp_path / "outline.gpkg")
    assert (city.key, city.epsg, city.origin) == ("my-town", 32633, "aoi")
    assert outline.to_crs(4326).iloc[0].equals_exact(city.area.normalize(), 1e-9) or (
        city.area.symmetric_difference(outline.to_crs(4326).iloc[0]).area < 1e-9
    )


def test_an_outline_without_polygon_or_crs_is_refused(tmp_path: Path) -> None:
    gpd.GeoSeries([shapely.Point(1, 2)], crs=4326).to_file(tmp_path / "point.geojson")
    with pytest.raises(UrbanError, match="no polygon"):
        find_city("x", aoi=tmp_path / "point.geojson")
    with pytest.raises(UrbanError, match="no file"):
        find_city("x", aoi=tmp_path / "absent.geojson")
    (tmp_path / "broken.geojson").write_text("{")
    with pytest.raises(UrbanError, match="cannot read"):
        find_city("x", aoi=tmp_path / "broken.geojson")
