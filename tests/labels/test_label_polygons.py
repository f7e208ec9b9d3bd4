"""Labels from polygons, and how values and ids are chosen from a file's columns."""

import decimal

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import shapely
from label_inputs import city_tiles, polygon_file, read, squares, values

from urbancli.errors import UrbanError, UsageError
from urbancli.workspace import geometries


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
