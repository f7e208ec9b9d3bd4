"""Vector files and coordinate tables: one reader, text kept as text, errors with a remedy."""

from pathlib import Path

import geopandas as gpd
import pandas as pd
import pyogrio
import pytest
import shapely

from urbancli.errors import UrbanError
from urbancli.sources.base import pin
from urbancli.vector import is_text, read_vector


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "id,lat,lon\n007,1.5,2.5\n,,\n"),
        ("a.tsv", "id\tLatitude\tLongitude\n007\t1.5\t2.5\n\t\t\n"),
        ("a.txt", "id;y;x\n007;1.5;2.5\n;;\n"),
        ("a.csv", "\ufeffid,LAT,LNG\n007,1.5,2.5\n8,95,2\n"),
    ],
)
def test_a_table_keeps_its_text_and_gets_points(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    frame = read_vector(path)
    assert is_text(path)
    assert frame.crs.to_epsg() == 4326
    assert frame["id"][0] == "007"
    assert frame.geometry[0].equals(shapely.Point(2.5, 1.5))
    assert frame.geometry[1] is None
    assert list(frame.columns) == ["id", "geometry"]


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "parquet", "shp"])
def test_any_format_comes_back_in_degrees(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    frame = gpd.GeoDataFrame({"n": [1]}, geometry=[shapely.Point(500_000, 0)], crs=32633)
    frame = frame.to_crs(4326) if suffix == "geojson" else frame
    frame.to_parquet(path) if suffix == "parquet" else frame.to_file(path)
    assert read_vector(path).geometry[0].distance(shapely.Point(15, 0)) < 1e-9


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"name,value\na,1\n", "no lat and lon columns \\(found name, value\\)"),
        ("a.csv", b"lat,lon\n500000,6000000\n", "out of range"),
        ("a.csv", b"lat,lon\n1,2\n1,2,3\n", "as a table"),
        ("a.csv", b"\xff\xfe\x00", "as a table: save it as UTF-8"),
        ("a.csv", "lat,lon,n\n1,2,caf\u00e9\n".encode("latin-1"), "save it as UTF-8"),
        ("a.csv", b"lat,lon\n", "has no rows"),
        ("a.csv", b"lat;lon\n50.1;9\n50,2;9\n", r"decimal commas \('50,2' in row 2\)"),
        ("a.csv", b"lat,lon\nx,y\n", "hold no numbers"),
        ("a.gpkg", b"not a database", "as vector data"),
        ("a.parquet", b"not parquet", "as vector data"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UrbanError, match=message) as error:
        read_vector(tmp_path / name)
    assert "\n" not in str(error.value)


def test_without_crs_or_geometry_it_is_refused(tmp_path: Path) -> None:
    gpd.GeoDataFrame(geometry=[shapely.Point(0, 0)]).to_parquet(tmp_path / "bare.parquet")
    with pytest.raises(UrbanError, match="no CRS"):
        read_vector(tmp_path / "bare.parquet")
    with pytest.raises(UrbanError, match="no file"):
        read_vector(tmp_path / "absent.gpkg")


def test_of_several_layers_none_is_taken_unasked(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    frame = gpd.GeoDataFrame({"n": [1]}, geometry=[shapely.Point(15, 0)], crs=4326)
    frame.to_file(path, layer="homes")
    pyogrio.write_dataframe(pd.DataFrame({"n": [1]}), path, layer="notes")
    assert len(read_vector(path)) == 1
    frame.to_file(path, layer="shops")
    with pytest.raises(UrbanError, match=r"2 layers \(homes, shops\).*ogr2ogr") as error:
        read_vector(path)
    assert "\n" not in str(error.value)


def test_the_pin_of_a_shapefile_holds_its_attributes(tmp_path: Path) -> None:
    path = tmp_path / "a.shp"
    shape = shapely.Point(15, 0)
    gpd.GeoDataFrame({"n": [1]}, geometry=[shape], crs=4326).to_file(path)
    first = pin(path)
    assert [each["file"] for each in first["beside"]] == ["a.dbf", "a.shx", "a.prj", "a.cpg"]
    gpd.GeoDataFrame({"n": [2]}, geometry=[shape], crs=4326).to_file(path)
    assert pin(path)["sha256"] == first["sha256"]
    assert pin(path) != first
    assert "beside" not in pin(path.with_suffix(".dbf"))
