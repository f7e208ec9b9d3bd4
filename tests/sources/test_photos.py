"""A user's own photos: where they were taken, what of them is kept, and what is told."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from urbancli.city import City, box_area
from urbancli.errors import UrbanError, UsageError
from urbancli.fetching import fetch
from urbancli.grid import Grid, Places, tiles_of
from urbancli.sources._streetview import STREETVIEW_SCHEMA
from urbancli.sources.photos import Source
from urbancli.workspace import Workspace, read_table, sha256

GRID = Grid(32718)
CITY = City("lima", box_area((-77.05, -12.10, -77.04, -12.09)), 32718, "bbox")
SPOT = (-77.0451234, -12.0951234)

OWNER = "Owner of the camera"


@pytest.fixture(scope="module")
def places() -> Places:
    return tiles_of(CITY.area, GRID)


def sexagesimal(degrees: float) -> tuple[IFDRational, IFDRational, IFDRational]:
    whole = abs(degrees)
    minutes = whole % 1 * 60
    return (
        IFDRational(int(whole)),
        IFDRational(int(minutes)),
        IFDRational(round(minutes % 1 * 60 * 1_000_000), 1_000_000),
    )


def take_photo(
    path: Path,
    spot: tuple[float, float] | None = SPOT,
    *,
    size: tuple[int, int] = (80, 60),
    heading: tuple[str, float] | None = None,
    orientation: int = 1,
    seed: int = 0,
) -> Path:
    """A picture with a red upper left corner, as its EXIF data turns it."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 60, (size[1], size[0], 3), dtype=np.uint8)
    pixels[: size[1] // 4, : size[0] // 4] = (250, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x013B] = OWNER
    exif.get_ifd(0x8769)[36867] = "2021:07:09 12:00:00"
    gps = exif.get_ifd(0x8825)
    if spot is not None:
        gps[1], gps[2] = "S" if spot[1] < 0 else "N", sexagesimal(spot[1])
        gps[3], gps[4] = "W" if spot[0] < 0 else "E", sexagesimal(spot[0])
    if heading is not None:
        gps[16], gps[17] = heading[0], IFDRational(round(heading[1] * 100), 100)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "JPEG", exif=exif, quality=95, comment=OWNER.encode())
    return path


def rows_of(source: Source, places: Places) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    table = pa.concat_tables([source.read(block) for block in source.blocks(places)])
    assert table.schema == STREETVIEW_SCHEMA
    return table.to_pylist(), source.facts(table.drop_columns(["image", "geometry"]))


def test_a_photo_says_where_when_and_which_way(tmp_path: Path, places: Places) -> None:
    path = take_photo(tmp_path / "in/a.JPG", heading=("T", 271.25))
    source = Source([tmp_path / "in"])
    plan = source.plan(places)
    [row], facts = rows_of(source, places)
    assert (row["lon"], row["lat"]) == pytest.approx(SPOT, abs=1e-7)
    assert (row["heading"], row["captured"], row["panorama"]) == (271.25, "2021-07", False)
    cell = GRID.tile_at(*GRID.project(*SPOT))[0].tolist()
    assert (row["place_id"], row["block"]) == (GRID.tile_id(*cell), GRID.block_of(*cell).block_id)
    assert sha256(path).startswith(row["photo_id"])
    assert (row["source"], row["licence"], row["creator"]) == ("photos", "user-supplied", None)
    assert facts["photos"] == facts["with_heading"] == 1
    assert facts["magnetic"] == 0 and facts["years"] == {"2021": 1}
    assert str(tmp_path) not in str(plan) and source.asked() is None


def test_nothing_but_the_picture_is_kept(tmp_path: Path, places: Places) -> None:
    take_photo(tmp_path / "a.jpg", size=(80, 60), seed=1)
    take_photo(tmp_path / "b.jpg", size=(3000, 1200), seed=2)
    source = Source([tmp_path / "b.jpg", tmp_path / "a.jpg"])
    source.plan(places)
    rows, _ = rows_of(source, places)
    assert sorted((row["width"], row["height"]) for row in rows) == [(80, 60), (1024, 410)]
    for row in rows:
        picture = Image.open(io.BytesIO(row["image"]))
        assert picture.size == (row["width"], row["height"])
        assert not picture.getexif() and "comment" not in picture.info
        assert OWNER.encode() not in row["image"]
    assert rows_of(source, places)[0] == rows


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_photos_stand_upright(tmp_path: Path, places: Places, orientation: int) -> None:
    """The red corner of the upright picture is where EXIF's orientation puts it."""
    take_photo(tmp_path / "a.jpg", size=(80, 60), orientation=orientation)
    source = Source([tmp_path])
    source.plan(places)
    [row], _ = rows_of(source, places)
    assert (row["width"], row["height"]) == ((80, 60) if orientation in {1, 3} else (60, 80))
    pixels = np.asarray(Image.open(io.BytesIO(row["image"]))).astype(int)
    red = pixels[:, :, 0] > 150
    corner = {1: (0, 0), 3: (-1, -1), 6: (0, -1), 8: (-1, 0)}[orientation]
    assert red[corner]
    assert red.mean() == pytest.approx(1 / 16, abs=0.01)


def test_a_table_says_what_the_photos_do_not(tmp_path: Path, places: Places) -> None:
    for number in range(4):
        take_photo(tmp_path / f"{number}.jpg", None if number else SPOT, seed=number)
    take_photo(tmp_path / "m.jpg", heading=("M", 10.0), seed=9)
    with (tmp_path / "spots.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ["file", "lat", "lon", "heading"],
                ["0.jpg", "-12.0999", "-77.0499", "90"],  # a photo's own position counts
                ["1.jpg", "-12.0911", "-77.0411", "-45"],
                ["sub/2.jpg", "-12.0911", "-77.0421", ""],
            ]
        )
    source = Source([tmp_path], per_tile=9)
    plan = source.plan(places)
    rows, facts = rows_of(source, places)
    told = {row["photo_id"]: (round(row["lon"], 4), row["heading"]) for row in rows}
    names = {name: sha256(tmp_path / name)[:32] for name in ("0.jpg", "1.jpg", "2.jpg", "m.jpg")}
    assert told == {
        names["0.jpg"]: (round(SPOT[0], 4), 90.0),
        names["1.jpg"]: (-77.0411, 315.0),
        names["2.jpg"]: (-77.0421, None),
        names["m.jpg"]: (round(SPOT[0], 4), 10.0),
    }
    assert facts["without_position"] == {"count": 1, "ids": ["3.jpg"]}
    assert facts["magnetic"] == 1
    assert plan["inputs"] == [
        {
            "file": "spots.csv",
            "bytes": (tmp_path / "spots.csv").stat().st_size,
            "sha256": sha256(tmp_path / "spots.csv"),
        }
    ]


def test_every_file_is_accounted_for(tmp_path: Path, places: Places) -> None:
    inside = take_photo(tmp_path / "a.jpg")
    (tmp_path / "copy.jpg").write_bytes(inside.read_bytes())
    take_photo(tmp_path / "far.jpg", (10.0, 50.0))
    (tmp_path / "none.jpg").write_bytes(b"not a picture")
    whole = take_photo(tmp_path / "half.jpg", size=(400, 300), seed=3).read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "notes.txt").write_text("x")
    for number in range(20, 26):
        take_photo(tmp_path / f"{number}.jpg", seed=number)
    source = Source([tmp_path], per_tile=9)
    source.plan(places)
    rows, facts = rows_of(source, places)
    assert facts["files"] == 11
    assert facts["unreadable"] == {"count": 1, "ids": ["none.jpg"]}
    assert (facts["copies"], facts["outside"], facts["left_out"]) == (1, 1, 0)
    assert facts["photos"] == len(rows) == 7
    assert facts["gone"]["count"] == 1, "half a picture has EXIF data and no pixels"


def test_the_layer_is_made_by_the_engine(tmp_path: Path) -> None:
    spots = np.random.default_rng(1).uniform((-77.05, -12.10), (-77.04, -12.09), (12, 2))
    for number, spot in enumerate(spots.tolist()):
        take_photo(tmp_path / f"in/{number}.jpg", spot, seed=number)
    workspace = Workspace(tmp_path / "w")
    fetch(workspace, CITY, [Source([tmp_path / "in"], per_tile=1)], [])
    table, facts = read_table(workspace.layer_file("lima", "streetview"))
    tiles = table.column("place_id").to_pylist()
    assert len(tiles) == len(set(tiles)) == facts["photos"]
    assert facts["photos"] + facts["left_out"] == 12
    before = sha256(workspace.layer_file("lima", "streetview"))
    other = Workspace(tmp_path / "other")
    fetch(other, CITY, [Source([tmp_path / "in"], per_tile=1)], [])
    assert sha256(other.layer_file("lima", "streetview")) == before


def test_what_a_user_can_mend(tmp_path: Path, places: Places) -> None:
    with pytest.raises(UrbanError, match="no file or folder"):
        Source([tmp_path / "missing"]).plan(places)
    with pytest.raises(UsageError, match="at least one"):
        Source([tmp_path], per_tile=0)
    with pytest.raises(UrbanError, match="no JPEG"):
        Source([tmp_path]).plan(places)
    take_photo(tmp_path / "a.jpg", None)
    with pytest.raises(UrbanError, match="none of 1 photos has a position"):
        Source([tmp_path]).plan(places)
    (tmp_path / "t.csv").write_text("lat,lon,name\n-12.095,-77.045,a.jpg\n")
    with pytest.raises(UrbanError, match="no column 'file'"):
        Source([tmp_path]).plan(places)
    (tmp_path / "t.csv").write_text("lat,lon,file\n50,10,a.jpg\n")
    with pytest.raises(UrbanError, match="was taken in -77"):
        Source([tmp_path]).plan(places)
    (tmp_path / "t.csv").write_text("lat,lon,file\n-12.095,-77.045,a.jpg\n")
    source = Source([tmp_path])
    source.plan(places)
    take_photo(tmp_path / "a.jpg", None, seed=5)
    with pytest.raises(UrbanError, match="has changed"):
        rows_of(source, places)
    (tmp_path / "b.HEIC").write_bytes(b"x")
    with pytest.raises(UrbanError, match="convert"):
        Source([tmp_path]).plan(places)
