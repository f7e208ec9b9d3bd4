"""Labels from points: vector files and text tables, as points and as circles."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from label_inputs import city_tiles, point_file, polygon_file, read, spots, values

from urbancli.errors import UrbanError, UsageError
from urbancli.grid import Grid, tiles_of
from urbancli.workspace import geometries


def test_points_without_radius_stay_points(tmp_path) -> None:
    path = point_file(
        tmp_path / "p.csv", [(10, 10), (1190, 1190), (1210, 10), (-10, 10)], v=[1, 2, 3, 4]
    )
    table, facts = read(f"n={path}")
    assert values(table) == {"row-0": 1.0, "row-1": 2.0}
    assert (facts["unit"], facts["outside"], facts["kind"]) == ("point", 2, "regression")
    lon, lat = spots((10, 10), (1190, 1190))
    np.testing.assert_allclose(
        shapely.get_coordinates(geometries(table)), np.column_stack([lon, lat]), rtol=0, atol=1e-12
    )
    with pytest.raises(UsageError, match="add @RADIUSm for /km2"):
        read(f"n={path}:v/km2")


@pytest.mark.parametrize("epsg", [32643, 32723])
def test_a_radius_makes_circles_in_metres(tmp_path, epsg) -> None:
    places = city_tiles(epsg)
    points = [(600, 600), (-90, 600), (-110, 600), (1295, 1200), (0, 9e6)]
    lon, lat = spots(*points, places=places)
    path = tmp_path / "p.csv"
    pd.DataFrame({"Latitude": lat, "LONGITUDE": lon, "n": [3.0] * 5}).to_csv(path, index=False)
    table, facts = read(f"n={path}:n/km2@100m", places)
    assert list(values(table)) == ["row-0", "row-1", "row-3"]
    assert (facts["unit"], facts["outside"], facts["source"]["radius_m"]) == ("circle", 2, 100.0)
    shapes = places.grid.project_geometry(geometries(table))
    area = 128 / 2 * np.sin(2 * np.pi / 128) * 100**2  # of the polygon with 128 corners
    np.testing.assert_allclose(shapely.area(shapes), area, rtol=1e-7)
    np.testing.assert_allclose(table.column("value").to_numpy(), 3 / (area / 1e6), rtol=1e-7)
    centre = shapely.Point(places.x.min() + 450, places.y.min() + 450)
    assert shapes[0].centroid.distance(centre) < 1e-3
    distances = shapely.distance(shapely.points(shapely.get_coordinates(shapes[0])), centre)
    np.testing.assert_allclose(distances, 100, atol=1e-3)


def test_a_circle_across_the_antimeridian(tmp_path) -> None:
    grid = Grid(32760)
    area = shapely.MultiPolygon(
        [shapely.box(179.98, -17.02, 180, -17.0), shapely.box(-180, -17.02, -179.98, -17.0)]
    )
    path = tmp_path / "p.csv"
    pd.DataFrame({"lat": [-17.01] * 2, "lon": [179.9999, -179.999], "v": [1, 2]}).to_csv(path)
    table, _ = read(f"n={path}:v@300m", tiles_of(area, grid))
    assert table.num_rows == 2
    for shape in geometries(table):
        assert shape.geom_type == "MultiPolygon"
        west, _, east, _ = shape.bounds
        assert (west, east) == (-180, 180)


def test_points_from_vector_files_and_lone_multipoints(tmp_path) -> None:
    lon, lat = spots((10, 10), (400, 400))
    one = shapely.MultiPoint([(lon[1], lat[1])])
    frame = gpd.GeoDataFrame({"v": [1, 2]}, geometry=[shapely.Point(lon[0], lat[0]), one], crs=4326)
    frame.to_parquet(tmp_path / "p.parquet")
    table, facts = read(f"n={tmp_path}/p.parquet:v@50m")
    assert facts["unit"] == "circle" and values(table) == {"row-0": 1.0, "row-1": 2.0}
    two = shapely.MultiPoint([(lon[0], lat[0]), (lon[1], lat[1])])
    frame.geometry = [two, two]
    frame.to_parquet(tmp_path / "p.parquet")
    with pytest.raises(UrbanError, match="holds MultiPoint"):
        read(f"n={tmp_path}/p.parquet:v")


def test_words_for_nothing_are_no_value_among_numbers_and_a_class_among_texts(tmp_path) -> None:
    points = [(10 + i, 10) for i in range(4)]
    path = point_file(tmp_path / "p.csv", points, v=["1", "NA", "nan", ""], c=["NA", "b", "", "b"])
    assert list(values(read(f"n={path}:v")[0]).values()) == [1.0, None, None, None]
    assert list(values(read(f"n={path}:c")[0]).values()) == ["NA", "b", None, "b"]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    ("lat_name", "lon_name"),
    [("lat", "lng"), ("Latitude", "Longitude"), ("Y", "X"), (" LAT", "long")],
)
def test_tables_of_any_separator_and_spelling(tmp_path, separator, lat_name, lon_name) -> None:
    lon, lat = spots((10, 10), (400, 400))
    rows = [["code", lat_name, lon_name, "kind"]]
    rows += [["007", lat[0], lon[0], "bücher"], ["0070", lat[1], lon[1], ""]]
    text = "\n".join(separator.join(map(str, row)) for row in rows)
    path = tmp_path / ("p.tsv" if separator == "\t" else "p.csv")
    path.write_text("\ufeff" + text, encoding="utf-8")
    table, facts = read(f"n={path}")
    assert values(table) == {"007": "bücher", "0070": None}, "ids keep their zeros"
    assert facts["id_column"] == "code" and facts["kind"] == "classification"


def test_rows_without_usable_coordinates_are_counted(tmp_path) -> None:
    lon, lat = spots((10, 10))
    path = tmp_path / "p.csv"
    path.write_text(f"lat,lon,v\n{lat[0]},{lon[0]},5\n,,6\nx,y,7\n95,10,8\n10,999,9\n90,-100,3\n")
    table, facts = read(f"n={path}:v@100m")
    assert values(table) == {"row-0": 5.0}
    assert (facts["rows"], facts["without_geometry"], facts["outside"]) == (6, 4, 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lat,v\n1,2\n", "has no lat and lon columns"),
        ("", "is empty"),
        ("lat,lon,v\n1,2,3,4\n", "cannot read .* as a table"),
        ("lat,lon,v\n1,2,3\n1,2,3,4,5\n", "cannot read .* as a table"),
        ("lat,lon,v\n3170000,720000,1\n", "give degrees"),
        ("lat,lon,v\n1,2,3\n", "misses the city"),
        ("lat,lon,v\n", "has no rows"),
        ("lat,lon,v\n1,2,3\n1,2,4\n1,2,many\n", "mixes numbers and text \\('many' in row 2\\)"),
    ],
)
def test_a_table_that_cannot_be_a_label_says_why(tmp_path, text, says) -> None:
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(UrbanError, match=says) as caught:
        read(f"n={path}:v")
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_utf8_says_so(tmp_path) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes("lat,lon,v\n1,2,bücher\n".encode("latin-1"))
    with pytest.raises(UrbanError, match=r"cannot read .* as a table: save it as UTF-8"):
        read(f"n={path}:v")
    with pytest.raises(UrbanError, match="no file"):
        read(f"n={tmp_path}/none.csv:v")


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    points=st.lists(
        st.tuples(st.floats(-900, 2100), st.floats(-900, 2100)), min_size=1, max_size=12
    ),
    radius_m=st.integers(1, 700),
)
def test_no_row_is_lost(tmp_path, points, radius_m) -> None:
    path = point_file(tmp_path / "p.csv", points, v=range(len(points)))
    x, y = np.array(points).T
    gap = np.hypot(np.maximum(np.abs(x - 600) - 600, 0), np.maximum(np.abs(y - 600) - 600, 0))
    reaches = set(np.flatnonzero(gap < 0.999 * radius_m - 0.01))
    may = set(np.flatnonzero(gap < radius_m + 0.01))
    try:
        table, facts = read(f"n={path}:v@{radius_m}m")
    except UrbanError as err:
        assert "misses the city" in str(err) and not reaches
        return
    found = {int(unit.removeprefix("row-")) for unit in values(table)}
    assert reaches <= found <= may
    assert facts["outside"] + table.num_rows == facts["rows"] == len(points)
    assert all(values(table)[f"row-{row}"] == row for row in found)


def test_points_are_counted_per_tile(tmp_path) -> None:
    spots = [(10, 10), (20, 299), (310, 10), (299, 299), (-5000, 10), (10, 9e5)]
    path = point_file(tmp_path / "crimes.csv", spots, kind=list("abcdef"))
    table, facts = read(f"crime={path}:#")
    west = [f"32643_300_2380_{10_500 + row}" for row in range(2)]
    east = "32643_300_2381_10500"
    counted = values(table)
    assert (counted[west[0]], counted[west[1]], counted[east]) == (3.0, 0.0, 1.0)
    assert len(counted) == 16 and sum(counted.values()) == 4
    assert (facts["unit"], facts["rows"], facts["outside"]) == ("tile", 6, 2)

    per_km2, _ = read(f"crime={path}:#/km2")
    assert values(per_km2)[west[0]] == pytest.approx(3 / 0.09)


def test_counting_wants_points_in_the_city(tmp_path) -> None:
    far = point_file(tmp_path / "far.csv", [(-9000, -9000)], kind=["a"])
    with pytest.raises(UrbanError, match="misses the city"):
        read(f"crime={far}:#")
    near = point_file(tmp_path / "near.csv", [(10, 10)], kind=["a"])
    with pytest.raises(UsageError, match="takes no @RADIUSm"):
        read(f"crime={near}:#@100m")
    areas = polygon_file(tmp_path / "areas.parquet", people=[1, 2])
    with pytest.raises(UsageError, match="holds polygons"):
        read(f"crime={areas}:#")
