"""Whatever is wrong with a file of embeddings is said in one line, with what to do about it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import shapely
from external_inputs import (
    label_of,
    lonlat_of,
    numbered,
    odd_shapes,
    scattered,
    units_of,
    values_of,
    vectors,
    write_csv,
    write_geo,
    write_parquet,
)

from urbancli.bench.external import NoOverlap, load_external, unit_values
from urbancli.errors import UrbanError, UsageError

UNITS = units_of(odd_shapes(), [f"{number:05d}" for number in range(1001, 1020)])
KEYS = UNITS.unit_id.tolist()
LON, LAT = lonlat_of(scattered(30))


def refused(text: str, kind: type[UrbanError] = UrbanError) -> str:
    """Return why a file is refused, which is one line."""
    with pytest.raises(kind) as caught:
        values_of(text, UNITS)
    assert "\n" not in str(caught.value) and type(caught.value) is kind
    return str(caught.value)


# --- the option ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing.csv", "no file nothing.csv; give [NAME=]FILE"),
        ("mine=nothing.csv", "no file nothing.csv"),
        ("folder", "folder is a folder: make one file of it, of rasters by `gdalbuildvrt"),
        ("x.pkl", "x.pkl is none of the files that embeddings are read from (.parquet"),
        ("x.csv:KEYS.csv", "'x.csv:KEYS.csv' is not [NAME=]FILE, with :key=COLUMN"),
        ("x.csv:units=label", "'x.csv:units=label' is not [NAME=]FILE"),
        ("x.npy:nothing.csv", "no file nothing.csv that says where the rows of x.npy belong"),
        ("x.npy:key=a", "'x.npy:key=a' is not [NAME=]FILE"),
        ("my file.csv", "'my file' cannot be a method's name: give one, NAME=my file.csv"),
        ("urbanfusion=x.csv", "'urbanfusion' is the name of a method or control"),
        ("Coordinates=x.csv", "'Coordinates' is the name of a method or control"),
        ("untrained=x.csv", "e.g. my-untrained=x.csv"),
        ("x.csv:key=geoid", "x.csv has no column 'geoid': it has unit_id, e0, e1, e2"),
    ],
)
def test_an_option_that_is_none_is_refused(tmp_path, monkeypatch, text, message) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("x.pkl").write_bytes(b"")
    for name in ("x.csv", "my file.csv"):
        write_csv(Path(name), {"unit_id": KEYS, **numbered(vectors(19))})
    np.save("x.npy", vectors(19))
    with pytest.raises(UrbanError) as caught:
        load_external(text)
    assert message in str(caught.value) and "\n" not in str(caught.value)


# --- what stands in tables -------------------------------------------------------------------


def keyed(columns: dict) -> dict:
    return {"unit_id": KEYS, **columns}


def spoilt(row: int, value: float) -> np.ndarray:
    values = vectors(19)
    values[row:, 1] = value
    return values


TABLES: dict[str, tuple[Callable[[], dict], str]] = {
    "nan": (
        lambda: keyed(numbered(spoilt(12, np.nan))),
        "7 of 19 embeddings of {} hold NaN or infinite values (rows 13, 14, 15, 16, 17, …): leave",
    ),
    "infinite": (lambda: keyed(numbered(spoilt(18, np.inf))), "1 of 19 embeddings of {} hold NaN"),
    "too large": (
        lambda: keyed(numbered(vectors(19).astype(np.float64) * 1e40)),
        "19 of 19 embeddings of {} hold NaN or infinite",
    ),
    "twice": (
        lambda: {"unit_id": ["01001", "01001", "01002"], **numbered(vectors(3))},
        "'unit_id' of {} has 1 ids more than once (01001): give one row per id",
    ),
    "no id": (
        lambda: {"unit_id": ["01001", None, "01002"], **numbered(vectors(3))},
        "1 of 3 rows of {} have no 'unit_id' (rows 2): leave them out",
    ),
    "no numbers": (lambda: keyed({"name": ["a"] * 19}), "(it has no columns of numbers): name"),
    "other numbers": (
        lambda: keyed({"population": range(19), "area": range(19)}),
        "{} holds no embeddings that can be told (its numbers are population, area)",
    ),
    "words": (
        lambda: keyed({**numbered(vectors(19)), "e1": ["a"] * 19}),
        "column 'e1' of {} holds string, not numbers",
    ),
    "gap": (
        lambda: keyed({"e0": range(19), "e1": range(19), "e3": range(19)}),
        "the columns e0 … e3 of {} lack number 2",
    ),
    "two sets": (
        lambda: keyed({**numbered(vectors(19), "a"), **numbered(vectors(19), "b")}),
        "{} has 2 numbered sets of columns (from a0, b0)",
    ),
    "one number twice": (
        lambda: keyed({"e1": range(19), "e01": range(19)}),
        "{} has both 'e1' and 'e01'",
    ),
    "nowhere": (lambda: numbered(vectors(19)), "{} does not say where its rows belong: add lat"),
    "not degrees": (
        lambda: {"lat": LAT * 1e5, "lon": LON, **numbered(vectors(30))},
        "are out of range (row 1: ",
    ),
    "swapped beyond": (
        lambda: {"lat": LON * 1.5, "lon": LAT, **numbered(vectors(30))},
        "): lat and lon are swapped",
    ),
    "no coordinates": (
        lambda: {"lat": [np.nan, *LAT[1:]], "lon": LON, **numbered(vectors(30))},
        "1 of 30 rows of {} have no coordinates (rows 1): leave them out",
    ),
    "no rows": (lambda: {"unit_id": [], "e0": np.zeros(0)}, "{} has no rows: give a"),
    "two grids": (
        lambda: {"place_id": ["32618_300_1_1", "32617_300_1_1"], **numbered(vectors(2))},
        "'place_id' of {} names tiles of 2 grids",
    ),
    "tiles twice": (
        lambda: {"place_id": ["32618_300_1_1"] * 2, **numbered(vectors(2))},
        "'place_id' of {} has 1 ids more than once",
    ),
    "no such cell": (
        lambda: {"h3_id": ["8ffffffffffffff"], **numbered(vectors(1))},
        "'8ffffffffffffff' of {} is no H3 cell",
    ),
}  # fmt: skip


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("what", TABLES)
def test_a_table_that_is_not_whole_is_refused(tmp_path, what, suffix) -> None:
    make, message = TABLES[what]
    path = tmp_path / f"x.{suffix}"
    write_csv(path, make()) if suffix == "csv" else write_parquet(path, make())
    assert message.format(path) in refused(str(path))


LISTS: dict[str, tuple[Callable[[], dict], str]] = {
    "ragged": (
        lambda: {"embedding": [[1.0, 2.0]] * 11 + [[1.0, 2.0, 3.0]] * 8},
        "are not of one length: 2 numbers in row 1, 3 in row 12",
    ),
    "empty": (lambda: {"embedding": pa.array([[]] * 19, pa.list_(pa.float32()))}, "empty lists"),
    "missing": (
        lambda: {"embedding": [[1.0, 2.0]] * 18 + [None]},
        "1 of 19 embeddings of {} hold NaN or infinite values (rows 19)",
    ),
    "missing number": (
        lambda: {"embedding": [[1, None]] + [[1, 2]] * 18},
        "1 of 19 embeddings of {} hold NaN or infinite values (rows 1)",
    ),
    "all missing": (
        lambda: {"embedding": pa.array([None] * 19, pa.list_(pa.float64()))},
        "19 of 19 embeddings",
    ),
    "texts": (lambda: {"embedding": ["[1, 2]"] * 19}, "'embedding' of {} holds string, not lists"),
    "lists of texts": (lambda: {"embedding": [["a"]] * 19}, "holds list<"),
    "several": (
        lambda: {"a": [[1.0]] * 19, "b": [[1.0]] * 19},
        "{} has 2 columns of lists (a, b): call the one that is meant `embedding`",
    ),
}


@pytest.mark.parametrize("what", LISTS)
def test_lists_that_are_no_vectors_are_refused(tmp_path, what) -> None:
    make, message = LISTS[what]
    path = write_parquet(tmp_path / "x.parquet", keyed(make()))
    assert message.format(path) in refused(str(path))


def test_geometry_that_does_not_serve_is_refused(tmp_path) -> None:
    path = tmp_path / "x.parquet"
    points = [shapely.Point(*one) for one in scattered(3)]
    columns = {"embedding": list(vectors(3))}
    assert "has no CRS" in refused(str(write_geo(path, points, columns, crs=None)))
    lines = [shapely.LineString([(0, 0), (9, 9)]), *points[1:]]
    assert "holds LineString, Point: give" in refused(str(write_geo(path, lines, columns)))
    holes = [None, *points[1:]]
    assert "1 of 3 rows of" in refused(str(write_geo(path, holes, columns)))
    bow = [shapely.Polygon([(0, 0), (900, 900), (900, 0), (0, 900)])]
    external = load_external(str(write_geo(path, bow, {"embedding": [[1.0, 2.0]]})))
    assert external.notes == ("1 invalid polygons were made valid",)
    assert unit_values(external, UNITS, label_of(UNITS))[1].embedded > 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"", "is empty: give a table with a header"),
        ("x.csv", b"unit_id;e0\nstra\xdfe;1\n", "cannot read"),
        ("x.csv", b"unit_id,e0,e0\na,1,1\n", "has two columns 'e0'"),
        ("x.csv", b"unit_id,e0\na,1\nb,1,2\n", "cannot read"),
        ("x.csv", b"unit_id;e0\na;1,5\nb;2,5\n", "column 'e0' of"),
        ("x.csv", b"unit_id,e0\n" + b"b,2\n" * 3_000_000 + b"c,none\n", "invalid value 'none'"),
        ("x.csv", b"0.5,0.25\n1.5,2.5\n", "holds no embeddings that can be told"),
        ("x.parquet", b"PAR1", "is not a whole Parquet file: write it anew"),
        ("x.npy", b"", "cannot read"),
        ("x.npy", b"\x93NUMPY\x01\x00", "write it with numpy.save"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_refused(tmp_path, name, content, message) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert message in refused(str(path))


# --- arrays ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([{"a": 1}], dtype=object), "holds Python objects, which could run code"),
        (np.zeros(19), "holds float64 of 19, not numbers of rows × dimensions"),
        (np.zeros((4, 5, 6)), "or write a GeoTIFF if these are pixels"),
        (np.array([["a", "b"]]), "holds <U1 of 1 × 2"),
        (np.zeros((19, 0)), "is empty (19 × 0)"),
        (np.zeros((0, 3)), "is empty (0 × 3)"),
        (np.full((19, 3), np.nan), "19 of 19 embeddings"),
        (np.full((19, 3), 1e300), "19 of 19 embeddings"),
        (np.zeros((18, 3)), "has 19 rows and"),
    ],
)  # fmt: skip
def test_an_array_that_is_no_embedding_is_refused(tmp_path, array, message) -> None:
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    write_csv(tmp_path / "x.csv", {"unit_id": KEYS})
    assert message in refused(str(tmp_path / "x.npy"))


def test_an_array_without_places_is_refused(tmp_path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, vectors(18))
    assert "put x.csv with lat and lon or the units' ids beside it" in refused(str(path))
    external = load_external(f"{path}:units=test")
    with pytest.raises(UrbanError, match="has 18 rows and 'test' 19 units: give one row per unit"):
        unit_values(external, UNITS, label_of(UNITS))
    with pytest.raises(NoOverlap, match="follow the units of 'test': they say nothing of 'other'"):
        unit_values(external, UNITS, label_of(UNITS, "other"))


# --- nothing in common with the city ---------------------------------------------------------


def test_a_file_of_another_place_is_told_from_one_with_lat_and_lon_swapped(tmp_path) -> None:
    path = tmp_path / "x.csv"
    write_csv(path, {"lat": LAT - 3, "lon": LON, **numbered(vectors(30))})
    assert "misses the city: none of its 30 rows lies in any of the 19" in refused(
        str(path), NoOverlap
    )
    write_csv(path, {"lat": LON, "lon": LAT, **numbered(vectors(30))})
    assert "lies in it with lat and lon swapped: swap them" in refused(str(path), NoOverlap)
    shapes = [shapely.box(x, y, x + 400, y + 400) for x, y in scattered(9)]
    geo = write_geo(tmp_path / "x.parquet", shapes, {"embedding": list(vectors(9))})
    import geopandas as gpd

    frame = gpd.read_parquet(geo)
    frame.geometry = shapely.transform(frame.geometry.to_numpy(), lambda xy: xy[:, ::-1])
    frame.to_parquet(geo)
    assert "lat and lon swapped" in refused(str(geo), NoOverlap)
    far = {"place_id": ["32618_300_1_1"], **numbered(vectors(1))}
    assert "misses the city" in refused(str(write_csv(path, far)), NoOverlap)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            [1001, 1002, 1003],
            "units of 'test' (01001, 01002, 01003, …): leading zeros were lost: write the",
        ),
        (["T1001", "T1002"], "units of 'test' (01001, 01002, 01003, …): 'T1001' is near '01001'"),
        (["Queens", "Bronx"], "none of 2 ids in 'unit_id' of"),
    ],
)
def test_ids_that_are_no_units_are_shown_on_both_sides(tmp_path, keys, message) -> None:
    columns = {"unit_id": keys, **numbered(vectors(len(keys)))}
    for path in (
        write_csv(tmp_path / "x.csv", columns),
        write_parquet(tmp_path / "x.parquet", columns),
    ):
        text = refused(str(path), NoOverlap)
        assert message in text and "01001, 01002, 01003" in text


def test_usage_errors_are_those_of_the_command_line(tmp_path) -> None:
    path = write_csv(tmp_path / "x.csv", keyed(numbered(vectors(19))))
    assert "has no column 'nope'" in refused(f"{path}:key=nope", UsageError)
