"""Exports read back by other tools: the same pixels, the same rows, whose data they are."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import rasterio
import shapely

from tests.small_city import KEY, fetch_small_city
from urbancli.errors import UrbanError, UsageError
from urbancli.exporting import beside, choose, export
from urbancli.layers import entity_view, open_city, pack_valid
from urbancli.workspace import (
    Workspace,
    geometries,
    read_table,
    write_tables,
)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory, demo_inputs: Path) -> Workspace:
    """A fetched town; in its NAIP a tile is missing, and half of another is not valid."""
    workspace = fetch_small_city(tmp_path_factory.mktemp("exported"), demo_inputs)
    path = workspace.layer_file(KEY, "naip")
    table, facts = read_table(path)
    rows = table.to_pylist()[:-1]
    side = 120
    valid = np.ones((side, side), dtype=bool)
    valid[:40] = False
    samples = np.frombuffer(rows[0]["pixels"], np.uint8).reshape(4, side, side) * valid
    rows[0]["pixels"] = samples.tobytes()
    rows[0]["valid_fraction"], rows[0]["valid"] = pack_valid(valid)
    plain = table.schema.remove_metadata()
    cut = pa.Table.from_pylist(rows, schema=plain)
    groups = [cut.slice(start, 50) for start in range(0, len(cut), 50)]
    write_tables(path, groups, schema=plain, metadata=facts, types=["Polygon"], bounds=[0] * 4)
    return workspace


def _export(town: Workspace, name: str, to: str, out: Path, *, wkt: bool = False) -> int:
    return export(choose(town, KEY, name), to, out, lambda *_: None, wkt=wkt)


@pytest.mark.parametrize("layer", ["naip", "sentinel2"])
def test_a_cog_holds_the_layers_own_pixels(town: Workspace, layer: str, tmp_path: Path) -> None:
    out = tmp_path / "out.tif"
    tiles = _export(town, layer, "cog", out)
    assert tiles == pq.ParquetFile(town.layer_file(KEY, layer)).metadata.num_rows
    pixels = open_city(town, KEY).pixels(layer)
    with rasterio.open(out) as dataset:
        left, top = dataset.bounds.left, dataset.bounds.top
        column, row = round(left / pixels.pixel_m), round(-top / pixels.pixel_m)
        samples, valid = pixels.read(column, row, dataset.width, dataset.height)
        np.testing.assert_array_equal(dataset.read(), samples)
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, valid)
        assert valid.any() and (layer == "sentinel2" or not valid.all())
        assert dataset.crs.to_epsg() == 32624
        assert dataset.res == (pixels.pixel_m, pixels.pixel_m)
        assert list(dataset.descriptions) == pixels.bands
        # A window where a user may click: the middle of the city.
        x, y = (dataset.bounds.left + dataset.bounds.right) / 2, top - 1500
        square, _ = pixels.window(x, y, 300)
        size = round(300 / pixels.pixel_m)
        at = rasterio.windows.from_bounds(x - 150, y - 150, x + 150, y + 150, dataset.transform)
        window = rasterio.windows.Window(round(at.col_off), round(at.row_off), size, size)
        np.testing.assert_array_equal(dataset.read(window=window), square)


def test_a_cog_is_one_and_says_whose_data_it_holds(town: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "out.tif"
    _export(town, "naip", "cog", out)
    with rasterio.open(out) as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.block_shapes == [(512, 512)] * 4
        assert dataset.overviews(1)[:1] == [2]
        assert dataset.mask_flag_enums == ([rasterio.enums.MaskFlags.per_dataset],) * 4
        assert rasterio.enums.ColorInterp.alpha not in dataset.colorinterp
        tags = dataset.tags()
        assert "SYNTHETIC" in tags["ATTRIBUTION"] and "CC0-1.0" in tags["LICENCE"]
        assert "SYNTHETIC" in tags["TIFFTAG_COPYRIGHT"]
    assert str(tmp_path).encode() not in out.read_bytes()
    # Header and directories come first, so that one read of a server finds them all.
    assert out.read_bytes().index(b"LAYOUT=IFDS_BEFORE_DATA") < 300
    assert not [path for path in tmp_path.iterdir() if path != out]


def test_sentinel2_has_its_scale(town: Workspace, tmp_path: Path) -> None:
    _export(town, "sentinel2", "cog", tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert set(dataset.scales) == {1e-4}


@pytest.mark.parametrize(
    ("layer", "to"), [("naip", "cog"), ("pois", "gpkg"), ("house_price", "csv")]
)
def test_the_same_layer_gives_the_same_bytes(
    town: Workspace, layer: str, to: str, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        _export(town, layer, to, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_gpkg_holds_every_entity_with_all_its_tags(town: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "out.gpkg"
    rows = _export(town, "entities", "gpkg", out)
    table, _ = read_table(town.layer_file(KEY, "entities"))
    frame = pyogrio.read_dataframe(out)
    assert rows == len(frame) == len(table)
    assert frame.entity_id.tolist() == table.column("entity_id").to_pylist()
    right = np.asarray(geometries(table), dtype=object)
    assert shapely.equals_exact(frame.geometry.to_numpy(), right, 0.0).all()
    tags = [dict(pairs) for pairs in table.column("tags").to_pylist()]
    assert [json.loads(text) for text in frame.tags] == tags
    assert [json.loads(text) for text in frame.places] == table.column("places").to_pylist()
    assert [json.loads(text) for text in frame.members] == table.column("members").to_pylist()
    for key in ("name", "building", "highway"):
        own = [None if pd.isna(value) else value for value in frame[key]]
        assert own == [each.get(key) for each in tags]
    info = pyogrio.read_info(out)
    assert (info["layer_name"], info["crs"]) == ("entities", "EPSG:4326")
    assert "OpenStreetMap" in info["layer_metadata"]["ATTRIBUTION"]
    assert info["layer_metadata"]["LICENCE"].startswith("ODbL-1.0 https://")


def test_a_view_of_the_entities(town: Workspace, tmp_path: Path) -> None:
    rows = _export(town, "buildings", "gpkg", tmp_path / "out.gpkg")
    table, _ = read_table(town.layer_file(KEY, "entities"))
    buildings = entity_view(table, "buildings")
    frame = pyogrio.read_dataframe(tmp_path / "out.gpkg")
    assert 0 < rows == len(frame) == len(buildings) < len(table)
    assert frame.entity_id.tolist() == buildings.column("entity_id").to_pylist()


def test_a_csv_holds_a_point_inside_and_the_whole_shape(town: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    rows = _export(town, "land_use", "csv", out, wkt=True)
    table, _ = read_table(town.label_file(KEY, "land_use"))
    frame = pd.read_csv(out)
    assert frame.columns.tolist() == ["unit_id", "value", "lon", "lat", "wkt"]
    assert rows == len(frame) == len(table)
    assert frame.unit_id.astype(str).tolist() == table.column("unit_id").to_pylist()
    assert frame.value.tolist() == table.column("value").to_pylist()
    shapes = geometries(table)
    assert shapely.intersects_xy(shapes, frame.lon.to_numpy(), frame.lat.to_numpy()).all()
    assert shapely.equals_exact(shapely.from_wkt(frame.wkt.to_numpy()), shapes, 1e-7).all()
    assert "LICENCE: user-supplied" in beside(out).read_text()


def test_numbers_of_a_csv_are_whole(town: Workspace, tmp_path: Path) -> None:
    _export(town, "population_density", "csv", tmp_path / "out.csv")
    table, _ = read_table(town.label_file(KEY, "population_density"))
    frame = pd.read_csv(tmp_path / "out.csv")
    assert frame.value.tolist() == table.column("value").to_pylist()
    assert "wkt" not in frame


def test_tiles_as_gpkg(town: Workspace, tmp_path: Path) -> None:
    assert _export(town, "places", "gpkg", tmp_path / "out.gpkg") == 9
    frame = pyogrio.read_dataframe(tmp_path / "out.gpkg")
    assert {"place_id", "lon", "lat", "share_inside", "block"} < set(frame.columns)


def test_photos_as_points(town: Workspace, tmp_path: Path) -> None:
    assert _export(town, "streetview", "gpkg", tmp_path / "out.gpkg") == 3
    frame = pyogrio.read_dataframe(tmp_path / "out.gpkg")
    assert "image" not in frame and frame.heading.max() == 359.5


@pytest.mark.parametrize(
    ("layer", "to", "wkt", "remedy"),
    [
        ("entities", "cog", False, "use --to gpkg or csv"),
        ("naip", "gpkg", False, "use --to cog"),
        ("naip", "csv", False, "use --to cog"),
        ("pois", "shp", False, "choose from|did you mean"),
        ("naip", "cog", True, "--wkt is for --to csv"),
    ],
)
def test_an_impossible_pair_is_refused(
    town: Workspace, layer: str, to: str, wkt: bool, remedy: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=remedy):
        _export(town, layer, to, tmp_path / "out", wkt=wkt)
    assert not list(tmp_path.iterdir())


def test_names_of_layers_labels_and_nothing(town: Workspace) -> None:
    assert choose(town, KEY, "layers/pois").path == town.layer_file(KEY, "pois")
    assert choose(town, KEY, "labels/land_use").name == "land_use"
    assert choose(town, KEY, "aoi").view == "aoi" and choose(town, KEY, "pois").view == ""
    for wrong in ("labels/pois", "lnd_use", "layers/places"):
        with pytest.raises(UsageError, match="unknown layer"):
            choose(town, KEY, wrong)


@pytest.mark.parametrize(("layer", "to"), [("naip", "cog"), ("pois", "gpkg"), ("pois", "csv")])
def test_a_folder_that_cannot_be_written_is_one_line(
    town: Workspace, layer: str, to: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UrbanError, match=r"cannot write .*file/out"):
        _export(town, layer, to, tmp_path / "file/out")


LIMITED = """
import sys, resource
from pathlib import Path
from urbancli.exporting import choose, export
from urbancli.workspace import Workspace
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
chosen = choose(Workspace(Path(sys.argv[1])), "town", sys.argv[2])
try:
    export(chosen, sys.argv[3], Path(sys.argv[4]), lambda *_: None)
except Exception as err:
    print(type(err).__name__, err)
"""


@pytest.mark.parametrize(("layer", "to"), [("naip", "cog"), ("entities", "gpkg"), ("pois", "csv")])
def test_a_full_disk_leaves_what_was_there(
    town: Workspace, layer: str, to: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.write_text("before")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(town.root), layer, to, str(out)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.startswith(f"UrbanError cannot write {out}"), done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert out.read_text() == "before"
    assert {path.name for path in tmp_path.iterdir()} <= {"out", "out.attribution.txt"}


ON_A_SMALL_DISK = """
mount -t tmpfs -o size="$1" tmpfs "$2" || exit 77
"$3" -m urbancli -w "$4" export --city town --layer "$5" --to "$6" --out "$2/out"
ls -A "$2" | grep -v '^out.attribution.txt$'
"""


@pytest.mark.parametrize(
    ("layer", "to", "size"),
    [
        ("naip", "cog", "300k"),
        ("naip", "cog", "mosaic"),  # room for the mosaic, not for the COG beside it
        ("entities", "gpkg", "200k"),
        ("entities", "csv", "100k"),
    ],
)
def test_a_disk_that_is_full_is_one_line(
    town: Workspace, layer: str, to: str, size: str, tmp_path: Path
) -> None:
    if size == "mosaic":
        _export(town, layer, to, tmp_path / "whole")
        with rasterio.open(tmp_path / "whole") as dataset:
            blocks = len(list(dataset.block_windows(1)))
        size = str(blocks * (512 * 512 * 4 + 512 * 512 // 8) + 100_000)
    given = [size, str(tmp_path), sys.executable, str(town.root), layer, to]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", ON_A_SMALL_DISK, "sh", *given],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no disk of its own on this machine")
    assert done.stdout == ""
    assert ("pixels: " in done.stderr) == size.isdigit()
    lines = [line for line in done.stderr.splitlines() if not line.startswith("pixels: ")]
    assert lines == [
        f"error: no space left to write {tmp_path}/out: make room and run the same command again"
    ]
