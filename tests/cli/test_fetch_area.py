"""Which area a fetch is of: what its files cover, and later what the first fetch settled."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_bounds

from tests.cli.conftest import Urban
from urbancli.workspace import Workspace, read_json


def _osm(path: Path, bounds: str) -> Path:
    """A hospital every 0.005 degrees around Connaught Place, and what the header says of it."""
    nodes = [
        f'<node id="{i * 10 + j + 1}" lat="{28.600 + i / 200}" lon="{77.200 + j / 200}">'
        '<tag k="amenity" v="hospital"/></node>'
        for i in range(10)
        for j in range(10)
    ]
    path.write_text(f'<osm version="0.6">{bounds}{"".join(nodes)}</osm>')
    return path


@pytest.fixture
def extract(tmp_path: Path) -> Path:
    bounds = '<bounds minlat="28.6" minlon="77.2" maxlat="28.65" maxlon="77.25"/>'
    return _osm(tmp_path / "extract.osm", bounds)


def _imagery(path: Path) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=300, width=300, dtype="uint16",
        crs="EPSG:4326", transform=from_bounds(77.21, 28.6, 77.24, 28.63, 300, 300),
    ) as dataset:  # fmt: skip
        dataset.write(np.ones((1, 300, 300), "uint16"))
    return path


def test_an_extract_limits_a_city_of_the_table(urban: Urban, tmp_path: Path, extract: Path) -> None:
    done = urban("-w", tmp_path / "w", "fetch", "--city", "delhi", "--osm", extract, "--json")
    assert done.code == 0, done.err
    assert "the OSM file covers" in done.err and "limited to it" in done.err
    assert 300 < done.json()["tiles"] < 400
    both = urban("-w", tmp_path / "both", "fetch", "--city", "delhi", "--osm", extract,
                 "--imagery", f"sentinel2={_imagery(tmp_path / 'a.tif')}", "--json")  # fmt: skip
    assert both.code == 0, both.err
    assert 110 < both.json()["tiles"] < 160


def test_an_extract_of_elsewhere_is_refused(urban: Urban, tmp_path: Path, extract: Path) -> None:
    done = urban("-w", tmp_path / "w", "fetch", "--city", "berlin", "--osm", extract)
    assert done.code == 2
    assert "the OSM file lies outside berlin" in done.err


def test_a_later_fetch_keeps_the_area(urban: Urban, tmp_path: Path, extract: Path) -> None:
    fetch = ("-w", tmp_path / "w", "fetch", "--city", "Delhi")
    assert urban(*fetch, "--osm", extract).code == 0
    city = Workspace(tmp_path / "w").city_dir("delhi")
    lock = read_json(city / "lock.json")
    points = tmp_path / "points.csv"
    points.write_text("lat,lon,value\n28.61,77.21,1\n28.62,77.22,2\n")
    done = urban(*fetch, "--label", f"value={points}:value@100m")
    assert done.code == 0, done.err
    imagery = _imagery(tmp_path / "a.tif")
    done = urban(*fetch, "--imagery", f"sentinel2={imagery}", "--json")
    assert done.code == 0, done.err
    assert set(done.json()["layers"]) == {"entities", "sentinel2"}
    assert set(done.json()["labels"]) == {"value"}
    assert read_json(city / "lock.json")["city"] == lock["city"]
    done = urban(*fetch, "--osm", extract, "--bbox", "77.2,28.6,77.21,28.61")
    assert done.code == 1
    assert "another area: use another --workspace" in done.err


def test_a_later_fetch_of_a_place_of_no_table_asks_no_geocoder(
    urban: Urban, tmp_path: Path, extract: Path
) -> None:
    fetch = ("-w", tmp_path / "w", "fetch", "--city", "Lutyens")
    assert urban(*fetch, "--osm", extract, "--bbox", "77.2,28.6,77.22,28.62").code == 0
    points = tmp_path / "points.csv"
    points.write_text("lat,lon,value\n28.61,77.21,1\n28.615,77.215,2\n")
    done = urban(*fetch, "--label", f"value={points}:value@100m")
    assert done.code == 0, done.err


def test_without_options_only_what_nothing_is_said_of_is_kept(
    urban: Urban, tmp_path: Path, extract: Path
) -> None:
    files = ("--osm", extract, "--imagery", f"sentinel2={_imagery(tmp_path / 'a.tif')}")
    fetch = ("-w", tmp_path / "w", "fetch", "--city", "delhi")
    assert urban(*fetch, *files).code == 0
    for options, kept in (
        ((), {"entities", "sentinel2"}),
        (("--since", "2023"), {"entities"}),
        (("--composite", "least-cloud"), {"entities"}),
        (("--layer", "entities", "--layer", "sentinel2"), set()),
    ):
        done = urban(*fetch, *options, "--offline")
        said = {name for name in ("entities", "sentinel2", "naip") if f"{name} is kept" in done.err}
        assert said == kept, done.err
        assert "offline" in done.out + done.err
