"""Tables and arrays of embeddings: equal to a loop over rows, in whatever form they are written."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import shapely
from external_inputs import (
    CORNER,
    EAST,
    GRID,
    NORTH,
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
from hypothesis import given, settings
from hypothesis import strategies as st

from urbancli.bench.external import (
    alignment,
    common_support,
    load_external,
    load_externals,
    unit_values,
)
from urbancli.bench.splits.base import Units
from urbancli.embeddings import aggregate, align, write_embeddings
from urbancli.errors import UsageError
from urbancli.grid import tiles_of


def naive(shapes, values: np.ndarray, units: Units) -> tuple[np.ndarray, np.ndarray]:
    """Units as means of shapes (metres from the corner), row by row."""
    means, shares = np.full((len(units), values.shape[1]), np.nan), np.zeros(len(units))
    moved = [shapely.transform(shape, lambda xy: xy + CORNER) for shape in shapes]
    for number, unit in enumerate(units.shape):
        weights = np.zeros(len(values))
        for row, shape in enumerate(moved):
            if shape.geom_type == "Point" == unit.geom_type:
                weights[row] = shape.distance(unit) <= 1
            elif "Point" in (shape.geom_type, unit.geom_type):
                weights[row] = shape.intersects(unit)
            else:
                weights[row] = shape.intersection(unit).area
        if weights.sum() > 1e-6:
            means[number] = weights @ values / weights.sum()
            areal = "Point" not in (moved[0].geom_type, unit.geom_type)
            shares[number] = min(weights.sum() / unit.area, 1) if areal else 1
    return means, shares


def check(text: str, shapes, values: np.ndarray, units: Units) -> None:
    found, coverage = values_of(text, units)
    expected, share = naive(shapes, values, units)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert found.dtype == np.float32 and coverage.rows == len(values)
    assert coverage.embedded == (share > 0).sum()
    assert coverage.share == pytest.approx(share[share > 0].mean(), abs=1e-6)


# --- points and polygons ---------------------------------------------------------------------


def points_for(units: Units, rows: int = 300) -> tuple[list[shapely.Geometry], np.ndarray]:
    """Scattered points, the first of them 0.3 m beside a point unit, and two at one spot."""
    metres = scattered(rows)
    spot = shapely.get_coordinates(units.shape[shapely.get_type_id(units.shape) == 0])[0]
    metres[0] = spot - CORNER + (0.3, 0)
    metres[7] = metres[8]
    return [shapely.Point(*one) for one in metres], metres


@pytest.mark.parametrize("crs", [4326, 3857, 32618])
def test_points_of_a_geoparquet_are_averaged_in_units(tmp_path, crs) -> None:
    units = units_of(odd_shapes())
    shapes, _ = points_for(units)
    values = vectors(300)
    path = write_geo(tmp_path / "pois.parquet", shapes, {"embedding": list(values)}, crs)
    check(str(path), shapes, values, units)
    external = load_external(str(path))
    assert (external.kind, external.d, external.rows) == ("points", 3, 300)
    coverage = unit_values(external, units, label_of(units))[1]
    assert coverage.duplicates == 1 and 0 < coverage.used < 300
    assert coverage.outside == 300 - coverage.used


@pytest.mark.parametrize("sep", [",", ";", "\t"])
def test_a_csv_with_lat_and_lon_is_the_same(tmp_path, sep) -> None:
    units = units_of(odd_shapes())
    shapes, metres = points_for(units)
    values = vectors(300, 12)
    lon, lat = lonlat_of(metres)
    columns = {"Latitude": lat, "lng": lon, **numbered(values, "emb_"), "name": ["x"] * 300}
    check(str(write_csv(tmp_path / "pois.csv", columns, sep)), shapes, values, units)


@pytest.mark.parametrize("crs", [4326, 32618])
def test_polygons_weigh_by_the_area_they_share(tmp_path, crs) -> None:
    """Overlapping ones, one with a hole, and unlike sizes; columns of numbers as well as lists."""
    units = units_of(odd_shapes(1))
    rng = np.random.default_rng(1)
    shapes = [
        shapely.Point(*xy).buffer(r) for *xy, r in rng.uniform(100, 2900, (60, 3)) * (1, 1, 0.1)
    ]
    shapes[3] = shapes[3].buffer(300).difference(shapes[3])
    shapes[4] = shapely.MultiPolygon([shapes[4].buffer(9), shapely.box(0, 0, 300, 300)])
    values = vectors(60)
    listed = write_geo(tmp_path / "a.parquet", shapes, {"embedding": list(values)}, crs)
    check(str(listed), shapes, values, units)
    columns = {**numbered(values, "A0"), "population": np.arange(60.0)}
    wide = write_geo(tmp_path / "b.geoparquet", shapes, columns, crs)
    check(str(wide), shapes, values, units)
    assert "population" in load_external(str(wide)).notes[0]


def test_polygons_of_native_encoding_are_read_alike(tmp_path) -> None:
    units = units_of(odd_shapes(2))
    shapes = [shapely.box(x, y, x + 500, y + 500) for x in range(0, 3000, 500) for y in (0, 900)]
    values = vectors(len(shapes))
    path = write_geo(
        tmp_path / "n.parquet", shapes, {"embedding": list(values)}, geometry_encoding="geoarrow"
    )
    check(str(path), shapes, values, units)


def test_the_same_polygons_give_their_own_vectors(tmp_path) -> None:
    shapes = [shapely.box(x, y, x + 300, y + 200) for x in (0, 300, 600) for y in (0, 200)]
    units, values = units_of(shapes), vectors(6)
    path = write_geo(tmp_path / "own.parquet", shapes, {"embedding": list(values)})
    found, coverage = values_of(str(path), units)
    np.testing.assert_allclose(found, values, atol=1e-4)
    assert coverage.share == pytest.approx(1, abs=1e-6) and coverage.used == 6


def test_a_border_in_common_is_no_overlap(tmp_path) -> None:
    units = units_of([shapely.box(0, 0, 300, 300), shapely.box(300, 0, 600, 300)])
    path = write_geo(tmp_path / "x.parquet", [shapely.box(0, 0, 300, 300)], {"embedding": [[1.0]]})
    found, coverage = values_of(str(path), units)
    assert found[0, 0] == 1 and np.isnan(found[1, 0])
    assert (coverage.embedded, coverage.missing) == (1, 1)


# --- laws ------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 999), kind=st.sampled_from(["points", "polygons", "csv"]))
def test_order_of_rows_changes_nothing_and_a_constant_stays_one(
    tmp_path_factory, seed, kind
) -> None:
    folder = tmp_path_factory.mktemp("law")
    units = units_of(odd_shapes(seed))
    metres = scattered(120, seed)
    shapes = [shapely.Point(*one) for one in metres]
    if kind == "polygons":
        shapes = [shape.buffer(180) for shape in shapes]
    values = vectors(120, 4, seed)
    values[:, 3] = 2.5
    order = np.random.default_rng(seed).permutation(120)
    found = []
    for name, rows in (("a", np.arange(120)), ("b", order)):
        if kind == "csv":
            lon, lat = lonlat_of(metres[rows])
            path = write_csv(
                folder / f"{name}.csv", {"lon": lon, "lat": lat, **numbered(values[rows])}
            )
        else:
            columns = {"embedding": list(values[rows])}
            path = write_geo(folder / f"{name}.parquet", [shapes[row] for row in rows], columns)
        found.append(values_of(str(path), units)[0])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-6)
    known = ~np.isnan(found[0][:, 3])
    assert known.any() and (found[0][known, 3] == 2.5).all()


def test_means_taken_in_parts_are_those_taken_at_once(monkeypatch, tmp_path) -> None:
    units = units_of(odd_shapes())
    shapes, _ = points_for(units)
    path = write_geo(tmp_path / "p.parquet", shapes, {"embedding": list(vectors(300))})
    whole = values_of(str(path), units)[0]
    monkeypatch.setattr(alignment, "UNITS_AT_ONCE", 4)
    monkeypatch.setattr(alignment, "NUMBERS_AT_ONCE", 21)
    np.testing.assert_allclose(values_of(str(path), units)[0], whole, rtol=1e-6)


# --- our own files ---------------------------------------------------------------------------


def test_what_urban_embed_wrote_gives_a_runs_own_features(tmp_path) -> None:
    """Tile by tile the weights of `embeddings.align`; absent tiles are absent here too."""
    units = units_of(odd_shapes(3))
    area = shapely.box(EAST + 10, NORTH + 10, EAST + 2700, NORTH + 2900)
    places = tiles_of(GRID.unproject_geometry(area), GRID)
    present = np.random.default_rng(0).random(len(places)) > 0.2
    values = vectors(len(places), 5)
    path = tmp_path / "run.parquet"
    write_embeddings(path, places, values, present, {"run": "r"})
    expected, share = aggregate(align(units.footprint, places), values, present)
    external = load_external(str(path))
    found, coverage = unit_values(external, units, label_of(units))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert external.kind == "tiles" and external.rows == present.sum()
    assert coverage.share == pytest.approx(share[share > 0].mean())
    ids = places.place_id[present].tolist()
    csv = write_csv(tmp_path / "run.csv", {"place_id": ids, **numbered(values[present])})
    again, _ = values_of(str(csv), units)
    np.testing.assert_allclose(again, expected, rtol=1e-5)


# --- keys ------------------------------------------------------------------------------------


def test_keys_match_whole_and_keep_their_zeros(tmp_path) -> None:
    """As text of a CSV, as integers of a Parquet file; the column with most matches wins."""
    shapes = odd_shapes()[:6]
    units = units_of(shapes, ["0101", "0102", "0103", "0201", "0202", "0203"])
    values = vectors(5)
    keys = ["0203", "0101", "9999", "0102", "0201"]
    columns = {"county_id": ["01", "02", "03", "04", "05"], "GEOID": keys, **numbered(values, "")}
    found, coverage = values_of(str(write_csv(tmp_path / "t.csv", columns)), units)
    np.testing.assert_allclose(found[[5, 0, 1, 3]], values[[0, 1, 3, 4]], rtol=1e-6)
    assert np.isnan(found[[2, 4]]).all()
    assert (coverage.embedded, coverage.missing, coverage.used, coverage.outside) == (4, 2, 4, 1)
    units = units_of(shapes, ["11", "12", "13", "21", "22", "23"])
    table = {"region_id": pa.array([23, 11, 99, 12, 21]), "embedding": list(values)}
    again, _ = values_of(str(write_parquet(tmp_path / "t.parquet", table)), units)
    np.testing.assert_allclose(again, found, rtol=1e-6)


def test_key_overrules_coordinates(tmp_path) -> None:
    """A centre that lies outside its own unit would be no mean of it."""
    units = units_of(odd_shapes()[:3], ["a", "b", "c"])
    columns = {"which": ["c", "a", "b"], "lat": [0.0] * 3, "lon": [0.0] * 3, **numbered(vectors(3))}
    path = write_csv(tmp_path / "t.csv", columns)
    found, _ = values_of(f"{path}:key=which", units)
    np.testing.assert_allclose(found, vectors(3)[[1, 2, 0]], rtol=1e-6)
    identities = [
        load_external(f"{path}{tail}").identity for tail in ("", ":key=which", ":key=lat")
    ]
    assert len(set(map(str, identities))) == 3


def test_a_csv_in_many_parts_is_one_table(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("urbancli.bench.external._tables.CSV_BYTES", 300)
    units, values = units_of(odd_shapes()), vectors(19)
    columns = {"unit_id": units.unit_id[::-1], **numbered(values[::-1])}
    found, _ = values_of(str(write_csv(tmp_path / "x.csv", columns)), units)
    np.testing.assert_allclose(found, values, rtol=1e-6)


def test_h3_cells_are_their_polygons(tmp_path) -> None:
    """CityRep's region tables name cells of resolution 8; a point takes the cell that holds it."""
    import h3

    units = units_of(odd_shapes(4))
    lon, lat = lonlat_of(scattered(400))
    cells = sorted({h3.latlng_to_cell(*one, 8) for one in zip(lat, lon, strict=True)})
    values = vectors(len(cells))
    path = write_parquet(tmp_path / "h3_r8.parquet", {"h3_id": cells, **numbered(values)})
    found, coverage = values_of(str(path), units)
    for number, shape in enumerate(units.footprint):
        if shape.geom_type == "Point":
            cell = cells.index(h3.latlng_to_cell(shape.y, shape.x, 8))
            np.testing.assert_allclose(found[number], values[cell], rtol=1e-6)
    assert coverage.missing == 0 and coverage.share == pytest.approx(1, abs=1e-6)


# --- arrays ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8"])
def test_an_array_with_a_table_beside_it_is_that_table(tmp_path, dtype) -> None:
    units = units_of(odd_shapes())
    shapes, metres = points_for(units)
    values = (vectors(300) * 20).astype(dtype)
    np.save(tmp_path / "v.npy", values)
    lon, lat = lonlat_of(metres)
    write_csv(tmp_path / "v.csv", {"lat": lat, "lon": lon})
    check(str(tmp_path / "v.npy"), shapes, values.astype(np.float32), units)
    other = write_geo(tmp_path / "places.parquet", shapes, {"id": range(300)})
    check(f"{tmp_path / 'v.npy'}:{other}", shapes, values.astype(np.float32), units)


def test_an_array_in_the_order_of_a_label_serves_any_of_its_units(tmp_path) -> None:
    units = units_of(odd_shapes())
    np.save(tmp_path / "v.npy", vectors(len(units)))
    some = np.array([7, 2, 11])
    part = Units(GRID, units.unit_id[some], units.footprint[some], units.shape[some])
    external = load_external(f"{tmp_path / 'v.npy'}:units=test")
    found, coverage = unit_values(external, part, label_of(units))
    np.testing.assert_array_equal(found, vectors(len(units))[some])
    assert (coverage.embedded, coverage.used) == (3, 3)


# --- forms -----------------------------------------------------------------------------------


def test_every_way_to_write_vectors_in_parquet_is_read_alike(tmp_path, monkeypatch) -> None:
    """Fixed and free lists, of doubles, halves and integers, over several batches; categories."""
    monkeypatch.setattr("urbancli.bench.external._tables.BATCH", 7)
    values = np.random.default_rng(0).integers(-50, 50, (40, 6))
    ids = [f"k{number}" for number in range(40)]
    flat = pa.array(values.ravel().astype(np.float32))
    columns = {
        "fixed": pa.FixedSizeListArray.from_arrays(flat, 6),
        "double": pa.array(values.astype(np.float64).tolist()),
        "half": pa.array(list(values.astype(np.float16))),
        "int8": pa.array(list(values.astype(np.int8))),
        "large": pa.array(values.tolist(), pa.large_list(pa.int32())),
    }
    units = units_of(odd_shapes() * 3, [*ids, *(f"z{i}" for i in range(17))])
    keys = pa.array(ids).dictionary_encode()
    for name, column in columns.items():
        path = write_parquet(
            tmp_path / f"{name}.parquet", {"embedding": column, "key": keys}, row_group_size=11
        )
        found, _ = values_of(str(path), units)
        np.testing.assert_array_equal(found[:40], values, err_msg=name)
        assert load_external(str(path)).d == 6


def test_columns_are_taken_in_the_order_of_their_numbers(tmp_path) -> None:
    """Also as pandas writes them, with an index; other numbers are no part of the embedding."""
    import pandas as pd

    values = vectors(4, 12)
    names = [f"e{number}" for number in range(1, 13)]
    frame = pd.DataFrame(values, columns=names)[sorted(names)]
    frame.insert(0, "unit_id", ["u0", "u1", "u2", "u3"])
    frame["area_km2"] = 1.0
    frame.to_csv(tmp_path / "once.csv")
    pd.read_csv(tmp_path / "once.csv").to_csv(tmp_path / "again.csv")
    frame.set_index([[5, 6, 7, 8]]).to_parquet(tmp_path / "x.parquet")
    units = units_of(odd_shapes()[:4])
    for name in ("once.csv", "again.csv", "x.parquet"):
        found, coverage = values_of(str(tmp_path / name), units)
        np.testing.assert_allclose(found, values, rtol=1e-6)
        assert coverage.notes == ("columns that are no part of the embedding: area_km2",)
    assert coverage.text.endswith("; columns that are no part of the embedding: area_km2")


def test_names_and_checksums(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    columns = {"unit_id": ["a", "b"], **numbered(vectors(2))}
    first, second = write_csv(Path("v1.2.csv"), columns), write_csv(Path("a=b.csv"), columns)
    write_csv(Path("other.csv"), {"unit_id": ["a", "b"], **numbered(vectors(2, seed=1))})
    assert load_external(str(first)).name == "v1.2"
    assert load_external(f"mine={second}").name == "mine"
    assert load_external("mine=v1.2.csv").sha256 == load_external("x=a=b.csv").sha256
    assert load_external("other.csv").sha256 != load_external("v1.2.csv").sha256
    assert [one.name for one in load_externals(["v1.2.csv", "two=v1.2.csv"])] == ["v1.2", "two"]
    with pytest.raises(UsageError, match="two files of embeddings are called 'two'"):
        load_externals(["two=v1.2.csv", "two=other.csv"])


def test_common_support_is_what_all_files_have() -> None:
    first, second = np.zeros((4, 2)), np.zeros((4, 5))
    first[1, 0] = second[3] = np.nan
    assert common_support([first, second]).tolist() == [True, False, True, False]
    assert common_support([first]).tolist() == [True, False, True, True]
