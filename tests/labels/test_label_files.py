"""`--label` on generated polygons and points, and on the real files by an independent route."""

import decimal
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from urbancli.city import find_city
from urbancli.errors import UrbanError, UsageError
from urbancli.grid import Grid, Places, tiles_of
from urbancli.labels.files import LabelSpec, load_label, parse_label, read_label
from urbancli.workspace import Workspace, geometries, write_table

DATA = Path(__file__).parents[2] / "../shared/data"

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")


def city_tiles(epsg: int = 32643, columns: int = 4, rows: int = 4) -> Places:
    grid = Grid(epsg)
    north = 10_500 if epsg < 32700 else 24_000
    cells = np.array([(2380 + c, north + r) for c in range(columns) for r in range(rows)])
    x, y = ((cells + 0.5) * grid.tile_m).T
    ids = np.array([grid.tile_id(int(c), int(r)) for c, r in cells], dtype=object)
    return Places(grid, ids, "tile", x, y, np.ones(len(x)))


PLACES = city_tiles()


def squares(*boxes: tuple[float, float, float, float], places: Places = PLACES) -> np.ndarray:
    """Return boxes (left, bottom, right, top), metres from the city's corner, in EPSG:4326."""
    x, y = places.x.min() - 150, places.y.min() - 150
    shapes = [shapely.box(x + a, y + b, x + c, y + d) for a, b, c, d in boxes]
    return places.grid.unproject_geometry(np.array(shapes, dtype=object))


def spots(*points: tuple[float, float], places: Places = PLACES) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.array(points, dtype=float).reshape(-1, 2).T
    return places.grid.unproject(x + places.x.min() - 150, y + places.y.min() - 150)


def polygon_file(path: Path, geometry: np.ndarray | None = None, **columns) -> Path:
    count = len(next(iter(columns.values())))
    if geometry is None:
        geometry = squares(*[(100 * i, 50, 100 * i + 200, 450) for i in range(count)])
    gpd.GeoDataFrame(columns, geometry=list(geometry), crs=4326).to_parquet(path)
    return path


def point_file(path: Path, points: list[tuple[float, float]], **columns) -> Path:
    lon, lat = spots(*points)
    pd.DataFrame({**columns, "lat": lat, "lon": lon}).to_csv(path, index=False)
    return path


def read(text: str, places: Places = PLACES) -> tuple[pa.Table, dict]:
    return read_label(parse_label(text), places)


def values(table: pa.Table) -> dict:
    return dict(
        zip(table.column("unit_id").to_pylist(), table.column("value").to_pylist(), strict=True)
    )


# --- what the user wrote ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tail", "column", "per_km2", "radius_m"),
    [
        ("", None, False, None),
        (":crime", "crime", False, None),
        (":crime/km2", "crime", True, None),
        (":lu5_*", "lu5_*", False, None),
        ("@640m", None, False, 640.0),
        (":class@12.5m", "class", False, 12.5),
        (":n/km2@.5m", "n", True, 0.5),
        (":addr:street", "addr:street", False, None),
        (":@version", "@version", False, None),
        (":a@b@5m", "a@b", False, 5.0),
        (":2", "2", False, None),
    ],
)
@pytest.mark.parametrize("file", ["f.csv", "odd:na@5m=e.csv", "d@2/f.csv"])
@pytest.mark.parametrize("exists", [True, False])
def test_the_parts_of_a_label(tmp_path, tail, column, per_km2, radius_m, file, exists) -> None:
    path = tmp_path / file
    if exists:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    elif file.startswith("odd") or tail in {":addr:street", ":@version", ":a@b@5m"}:
        return  # ambiguous by nature: only the message about the missing file hangs on it
    spec = parse_label(f"a_1={path}{tail}")
    assert spec == LabelSpec("a_1", path, column, per_km2, radius_m)


def test_the_longest_file_wins(tmp_path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "a:b").touch()
    assert parse_label(f"n={tmp_path}/a:b").path == tmp_path / "a:b"
    assert parse_label(f"n={tmp_path}/a:b:c").path == tmp_path / "a:b"
    assert parse_label(f"n={tmp_path}/a:c").column == "c"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("crime", "is not NAME=FILE"),
        ("crime=", "is not NAME=FILE"),
        ("Crime Rate=f.csv", "use only a-z, 0-9 and _"),
        ("=f.csv", "use only a-z, 0-9 and _"),
        ("n=f.csv:", "names no column"),
        ("n=f.csv:/km2", "names no column"),
        ("n=f.csv:*", "names no column"),
        ("n=f.csv:@640m", "names no column"),
        ("n=f.csv:lu_*/km2", "leave out /km2"),
        ("n=f.csv@640", "metres, e.g. @640m"),
        ("n=f.csv:c@640km", "metres, e.g. @640m"),
        ("n=f.csv:c@-5m", "metres, e.g. @640m"),
        ("n=f.csv:c@0m", "metres, e.g. @640m"),
        ("n=f.csv:c@", "metres, e.g. @640m"),
        ("n=f.csv:c@infm", "metres, e.g. @640m"),
        ("n=f.csv:c@nanm", "metres, e.g. @640m"),
        ("n=f.csv:c@1e3m", "metres, e.g. @640m"),
        ("n=f.csv:c@" + "9" * 400 + "m", "metres, e.g. @640m"),
    ],
)
def test_a_malformed_label_says_how_to_write_it(text, says, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for exists in (False, True):
        if exists:
            Path("f.csv").touch()
        with pytest.raises(UsageError, match=says) as caught:
            parse_label(text)
        assert "\n" not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab=:@/*km25. \\", max_size=30))
def test_any_text_is_a_label_or_a_usage_error(text) -> None:
    try:
        spec = parse_label(text)
    except UsageError:
        return
    assert spec.name and str(spec.path)
    assert spec.radius_m is None or spec.radius_m > 0


# --- polygons --------------------------------------------------------------------------------


def test_numbers_are_regressed_and_texts_are_classes(tmp_path) -> None:
    path = polygon_file(
        tmp_path / "p.parquet",
        zone_id=["a", "b", "c"],
        whole=pd.array([1, None, 3], dtype="Int64"),
        real=[0.5, np.inf, np.nan],
        money=[decimal.Decimal("1.25"), None, decimal.Decimal("3")],
        text=["x", " ", " y "],
        sort=pd.Categorical(["u", None, "v"]),
        flag=[True, False, True],
        day=pd.to_datetime(["2020-01-01"] * 3),
        nested=[[1], [2], [3]],
    )
    expected = {
        "whole": ("regression", [1.0, None, 3.0]),
        "real": ("regression", [0.5, None, None]),
        "money": ("regression", [1.25, None, 3.0]),
        "text": ("classification", ["x", None, "y"]),
        "sort": ("classification", ["u", None, "v"]),
        "flag": ("classification", ["True", "False", "True"]),
    }
    for column, (kind, wanted) in expected.items():
        table, facts = read(f"n={path}:{column}")
        assert facts["kind"] == kind, column
        assert table.column("value").to_pylist() == wanted
        assert table.schema.field("value").type == (
            pa.float64() if kind == "regression" else pa.string()
        )
        assert facts["without_value"] == wanted.count(None)
        assert facts["without_value_ids"] == [
            unit for unit, value in zip("abc", wanted, strict=True) if value is None
        ]
        assert (facts["unit"], facts["rows"], facts["id_column"]) == ("polygon", 3, "zone_id")
    for column in ("day", "nested"):
        with pytest.raises(UsageError, match="a label is a number or a text"):
            read(f"n={path}:{column}")


def test_only_the_first_twenty_without_value_are_listed(tmp_path) -> None:
    numbers = [1.0] + [np.nan] * 25
    geometry = squares(*[(0, 0, 10 + i, 10) for i in range(26)])  # footprints may overlap
    path = polygon_file(tmp_path / "p.parquet", geometry, v=numbers)
    table, facts = read(f"n={path}")
    assert table.num_rows == 26 and facts["without_value"] == 25
    assert facts["without_value_ids"] == [f"row-{i}" for i in range(1, 21)]


def test_the_class_is_the_column_with_the_largest_share(tmp_path) -> None:
    path = polygon_file(
        tmp_path / "p.parquet",
        geoid=["1", "2", "3", "4", "5"],
        lu_b=[0.5, 0.5, 0.0, np.nan, 0.2],
        lu_a=[0.1, 0.5, 0.0, np.nan, np.nan],
        lu_c=[0.4, 0.0, 0.0, np.nan, 0.1],
        lux=[9.0] * 5,
    )
    table, facts = read(f"n={path}:lu_*")
    assert values(table) == {"1": "b", "2": "a", "3": None, "4": None, "5": "b"}
    assert (facts["kind"], facts["ties"], facts["without_value"]) == ("classification", 1, 2)
    assert facts["source"]["column"] == "lu_*"
    with pytest.raises(UsageError, match="unknown column 'lv_\\*'"):
        read(f"n={path}:lv_*")
    texts = polygon_file(tmp_path / "t.parquet", lu_a=["x", "y"], lu_b=[1.0, 2.0])
    with pytest.raises(UsageError, match="'lu_a' of 'lu_\\*' is no number"):
        read(f"n={texts}:lu_*")


@pytest.mark.parametrize("epsg", [32643, 32723])
def test_a_density_is_per_km2_of_the_whole_unit(tmp_path, epsg) -> None:
    places = city_tiles(epsg)
    boxes = [(0, 0, 500, 200), (-5000, 0, 200, 300)]  # the second reaches far out of the city
    geometry = squares(*boxes, places=places)
    path = polygon_file(tmp_path / "p.parquet", geometry, n=[10, 10])
    table, facts = read(f"n={path}:n/km2", places)
    assert table.column("value").to_pylist() == pytest.approx([10 / 0.1, 10 / 1.56], rel=1e-6)
    assert facts["source"]["per_km2"] is True
    text = polygon_file(tmp_path / "t.parquet", geometry, n=["x", "y"])
    with pytest.raises(UsageError, match="leave out /km2"):
        read(f"n={text}:n/km2", places)


def test_the_label_column_may_be_left_out_where_only_one_is_left(tmp_path) -> None:
    path = polygon_file(
        tmp_path / "p.parquet", OBJECTID=[1, 2], geoid10=["a", "b"], lon=[0, 0], price=[1.5, 2.5]
    )
    table, facts = read(f"n={path}")
    assert facts["source"]["column"] == "price"
    assert values(table) == {"1": 1.5, "2": 2.5}
    more = polygon_file(tmp_path / "m.parquet", id=[1, 2], rent=[1, 2], price=[1.5, 2.5])
    with pytest.raises(UsageError, match="one of rent, price"):
        read(f"n={more}")
    with pytest.raises(UsageError, match="unknown column 'prise': did you mean price"):
        read(f"n={more}:prise")


@pytest.mark.parametrize(
    ("name", "column", "is_id"),
    [
        ("geoid", ["01", "02"], True),
        ("BoroCT2020", ["1", "2"], True),
        ("MODZCTA", ["1", "2"], True),
        ("ZCTA5CE10", ["1", "2"], True),
        ("zip", [10001, 10002], True),
        ("region_id", [0, 1], True),
        ("LSOA11CD", ["1", "2"], True),
        ("region_id", [0, 0], False),  # not unique
        ("region_id", ["a", None], False),
        ("region_id", [0.5, 1.5], False),
        ("width", ["a", "b"], False),
        ("tract_crime", [1, 2], False),
    ],
)
def test_the_unit_id_is_the_first_unique_column_named_like_one(
    tmp_path, name, column, is_id
) -> None:
    path = polygon_file(tmp_path / "p.parquet", **{name: column}, value=[1.0, 2.0])
    table, facts = read(f"n={path}:value")
    expected = [str(v) for v in column] if is_id else ["row-0", "row-1"]
    assert table.column("unit_id").to_pylist() == expected
    assert facts["id_column"] == (name if is_id else None)


def test_the_target_is_never_the_id(tmp_path) -> None:
    path = polygon_file(tmp_path / "p.parquet", zip=[7, 8], other_id=[1, 2])
    table, _ = read(f"n={path}:zip")
    assert values(table) == {"1": 7.0, "2": 8.0}


def test_units_that_only_touch_the_city_are_outside_and_rows_keep_their_number(tmp_path) -> None:
    geometry = squares((-300, 0, 0, 300), (-300, 0, 1, 300), (1200, 0, 1300, 9), (300, 0, 600, 300))
    path = polygon_file(tmp_path / "p.parquet", geometry, v=[1.0, 2.0, 3.0, 4.0])
    table, facts = read(f"n={path}")
    assert values(table) == {"row-1": 2.0, "row-3": 4.0}
    assert (facts["rows"], facts["outside"]) == (4, 2)


def test_broken_missing_and_worldwide_footprints_are_counted(tmp_path) -> None:
    x0, y0, x1, y1 = squares((0, 0, 300, 300))[0].bounds
    bow = shapely.Polygon([(x0, y0), (x1, y1), (x1, y0), (x0, y1)])
    flat = shapely.Polygon([(x0, y0), (x1, y1), (x0, y0)])
    good = squares((0, 0, 400, 100))[0]
    world = shapely.box(-179, -89, 179, 89)
    height = shapely.force_3d(squares((600, 600, 700, 700))[0], 12.0)
    shapes = [bow, flat, good, None, world, shapely.Polygon(), height]
    path = polygon_file(tmp_path / "p.parquet", np.array(shapes, dtype=object), v=range(7))
    table, facts = read(f"n={path}")
    assert values(table) == {"row-0": 0.0, "row-2": 2.0, "row-6": 6.0}
    assert facts["repaired"] == 2
    assert facts["without_geometry"] == 3, "the flat, the missing and the empty one"
    assert facts["outside"] == 1
    footprints = geometries(table)
    assert shapely.is_valid(footprints).all() and not shapely.has_z(footprints).any()
    assert footprints[0].area == pytest.approx(shapely.make_valid(bow).area)


@pytest.mark.parametrize("suffix", ["gpkg", "shp", "geojson", "parquet"])
@pytest.mark.parametrize("epsg", [4326, 32643, 3857])
def test_any_vector_file_in_any_crs(tmp_path, suffix, epsg) -> None:
    geometry = squares((0, 0, 300, 300), (300, 300, 900, 900))
    frame = gpd.GeoDataFrame({"n": [9, 18]}, geometry=list(geometry), crs=4326).to_crs(epsg)
    if suffix == "geojson" and epsg != 4326:
        return  # GeoJSON has one CRS
    path = tmp_path / f"f.{suffix}"
    frame.to_parquet(path) if suffix == "parquet" else frame.to_file(path)
    table, _ = read(f"n={path}:n/km2")
    assert table.column("value").to_pylist() == pytest.approx([100, 50], rel=1e-6)
    found = geometries(table)
    assert shapely.area(shapely.symmetric_difference(found, geometry)).max() < 1e-13


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "no file .*: check the path"),
        (lambda path: path.write_text("{}"), "cannot read"),
        (
            lambda path: gpd.GeoDataFrame(
                {"v": [1]}, geometry=[shapely.box(0, 0, 1, 1)]
            ).to_parquet(path),
            "has no CRS",
        ),
        (lambda path: polygon_file(path, np.array([shapely.box(0, 0, 1, 1)]), v=[1]), "misses the"),
        (lambda path: polygon_file(path, v=[np.nan, np.inf]), "'v' of .* has no value in any"),
        (
            lambda path: polygon_file(
                path,
                np.array([shapely.LineString([(0, 0), (1, 1)]), shapely.Point(0, 0)]),
                v=[1, 2],
            ),
            "holds LineString, Point: ",
        ),
        (
            lambda path: polygon_file(
                path, np.array([shapely.box(0, 0, 1, 1), shapely.Point(0, 0)]), v=[1, 2]
            ),
            "wants only polygons or only points",
        ),
    ],
)
def test_a_file_that_cannot_be_a_label_says_why(tmp_path, make, says) -> None:
    path = tmp_path / "p.parquet"
    make(path)
    with pytest.raises(UrbanError, match=says) as caught:
        read(f"n={path}:v")
    assert "\n" not in str(caught.value)


def test_a_radius_is_not_for_polygons(tmp_path) -> None:
    path = polygon_file(tmp_path / "p.parquet", v=[1, 2])
    with pytest.raises(UsageError, match="@RADIUSm is for points"):
        read(f"n={path}:v@100m")


# --- points ----------------------------------------------------------------------------------


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
        ("", "cannot read .* as a table"),
        ("lat,lon,v\n1,2,3,4\n", "cannot read .* as a table"),
        ("lat,lon,v\n1,2,3\n1,2,3,4,5\n", "cannot read .* as a table"),
        ("lat,lon,v\n3170000,720000,1\n", "are not degrees"),
        ("lat,lon,v\n1,2,3\n", "misses the city"),
        ("lat,lon,v\n", "misses the city"),
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
    with pytest.raises(UrbanError, match=r"cannot read .* as a table: 'utf-8' codec"):
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


# --- the file in the workspace ---------------------------------------------------------------


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


# --- real files, by another route ------------------------------------------------------------


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
