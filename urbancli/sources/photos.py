"""A user's own photos with a position, as street view: a folder or single files, JPEG.

Where and when a photo was taken and which way it looks is read from its EXIF data; a CSV table
among the files (columns `file`, `lat`, `lon`, and if known `heading`) says it for photos whose
EXIF does not. What is stored is the picture alone, turned upright and scaled to 1,024 pixels:
none of the photo's metadata, which may name its owner, goes into the layer.
"""

import hashlib
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from urbancli.errors import UrbanError
from urbancli.grid import Places
from urbancli.sources._entities import count_and_list
from urbancli.sources._streetview import (
    PER_TILE,
    SIDE_PX,
    Image,
    PhotoSource,
    Spot,
    choose,
    nothing_here,
)
from urbancli.sources.base import pin, places_grid
from urbancli.vector import read_vector

JPEG = (".jpg", ".jpeg")
HEIC = (".heic", ".heif")

GPS, EXIF = 0x8825, 0x8769
LATITUDE, LONGITUDE, DIRECTION = (1, 2), (3, 4), (16, 17)
"""EXIF 2.32: where GPS and camera data are, and tags as (reference, value)."""

TAKEN = 36867
"""DateTimeOriginal, the camera's local time."""

QUALITY = 90


class Source(PhotoSource):
    """The photos of a user.

    A photo's id is the beginning of its checksum: the same picture under two names is one photo.
    Facts beside those of every street-view layer: `files`, `without_position` (neither EXIF nor
    table), `unreadable` (no JPEG), `copies`, `outside` the city, and `magnetic`: headings from
    magnetic north, kept as they are.

    Args:
        paths: folders, photos, and tables.
        per_tile: photos of a tile, at most.
    """

    licence = "user-supplied"
    attribution = "photos of the user"
    name = "photos"
    image_licence = "user-supplied"

    def __init__(self, paths: Sequence[Path], per_tile: int = PER_TILE) -> None:
        super().__init__(per_tile)
        self._paths = list(paths)
        self._files: dict[str, Path] = {}
        self._counts: dict[str, Any] = {}

    def plan(self, places: Places) -> dict[str, Any]:
        """Read every photo's EXIF data, choose photos, and pin those by their checksums."""
        grid = places_grid(places)
        photos, tables = _inputs(self._paths)
        told = {name: row for table in tables for name, row in _told(table).items()}
        spots: dict[str, Spot] = {}
        lists: dict[str, list[str]] = {"without_position": [], "unreadable": []}
        copies = magnetic = 0
        for path in photos:
            content = path.read_bytes()
            photo_id = hashlib.sha256(content).hexdigest()[:32]
            if photo_id in spots:
                copies += 1
                continue
            try:
                spot, from_magnetic = _spot(photo_id, content, told.get(path.name))
            except ValueError:
                lists["unreadable"].append(path.name)
                continue
            if spot is None:
                lists["without_position"].append(path.name)
                continue
            magnetic += from_magnetic
            spots[photo_id] = spot
            self._files[photo_id] = path
        if not spots:
            raise UrbanError(
                f"none of {len(photos)} photos has a position: keep their EXIF data, or put a "
                "table photos.csv with file,lat,lon,heading beside them"
            )
        tiles, left_out = choose(list(spots.values()), places, self._per_tile)
        if not tiles:
            raise nothing_here(f"none of {len(spots)} photos was taken", places)
        inside = left_out + sum(map(len, tiles.values()))
        self._counts = {
            "files": len(photos),
            **{name: count_and_list(names) for name, names in lists.items()},
            "copies": copies,
            "outside": len(spots) - inside,
            "magnetic": magnetic,
        }
        self._take(tiles, left_out, places)
        return {
            "source": "photos",
            "inputs": [pin(table) for table in tables],
            "per_tile": self._per_tile,
            "side_px": SIDE_PX,
            "tiles": tiles,
            "left_out": left_out,
            "epsg": grid.epsg,
            "version": 1,
        }

    def image(self, spot: Spot) -> Image | None:
        """Return a photo, upright, at most 1,024 pixels wide and high, without metadata."""
        path = self._files[spot.photo_id]
        try:
            content = path.read_bytes()
        except OSError as err:
            raise UrbanError(f"cannot read {path}: {err.strerror or err}") from err
        if hashlib.sha256(content).hexdigest()[:32] != spot.photo_id:
            raise UrbanError(f"{path} has changed since it was looked at: run the command again")
        return upright(content)

    def facts(self, tiles: Any) -> dict[str, Any]:
        """Return what every street-view layer says, and what became of the files."""
        return {**super().facts(tiles), **self._counts}


def upright(content: bytes) -> Image | None:
    """Return a photo as its EXIF data turns it, scaled down, and nothing but its pixels.

    None where it is broken.
    """
    from PIL import Image as Pictures
    from PIL import ImageOps

    try:
        with Pictures.open(io.BytesIO(content), formats=("JPEG",)) as picture:
            turned = ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, SyntaxError, ValueError, Pictures.DecompressionBombError):
        return None
    turned.thumbnail((SIDE_PX, SIDE_PX), Pictures.Resampling.LANCZOS, reducing_gap=3.0)
    turned.info = {}
    file = io.BytesIO()
    turned.save(file, "JPEG", quality=QUALITY)
    return Image(file.getvalue(), *turned.size)


def _inputs(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the photos and the tables among files and folders, sorted by name.

    Raises:
        UrbanError: there are none, or some are in a form that we cannot read.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += [each for each in path.rglob("*") if each.is_file()]
        elif path.is_file():
            found.append(path)
        else:
            raise UrbanError(f"no file or folder {path}: check --streetview")
    found = sorted(set(found), key=lambda path: (path.name, path.as_posix()))
    if heic := [path for path in found if path.suffix.lower() in HEIC]:
        raise UrbanError(
            f"{heic[0]} and {len(heic) - 1} others are HEIC: convert them to JPEG with their EXIF "
            "data, e.g. `heif-convert in.heic out.jpg`"
        )
    photos = [path for path in found if path.suffix.lower() in JPEG]
    if not photos:
        raise UrbanError(f"no JPEG in {', '.join(map(str, paths))}: --streetview wants .jpg files")
    return photos, [path for path in found if path.suffix.lower() == ".csv"]


def _told(table: Path) -> dict[str, tuple[float, float, float | None]]:
    """Return (lon, lat, heading) of every file that a table has a position for."""
    frame = read_vector(table)
    names = {name.lower(): name for name in frame.columns}
    if "file" not in names:
        raise UrbanError(f"{table} has no column 'file': name each photo, without its folder")
    headings = frame[names["heading"]] if "heading" in names else [None] * len(frame)
    told = {}
    for name, point, heading in zip(frame[names["file"]], frame.geometry, headings, strict=True):
        if isinstance(name, str) and point is not None:
            told[Path(name.strip()).name] = (point.x, point.y, _degrees(heading))
    return told


def _degrees(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return round(value % 360, 2) if math.isfinite(value) else None


def _spot(
    photo_id: str, content: bytes, told: tuple[float, float, float | None] | None
) -> tuple[Spot | None, bool]:
    """Return where, which way and when a photo was taken, and whether by magnetic north.

    None where nobody knows where. The table counts only for what the photo does not say.

    Raises:
        ValueError: it is no JPEG.
    """
    from PIL import Image as Pictures

    try:
        with Pictures.open(io.BytesIO(content), formats=("JPEG",)) as picture:
            exif = picture.getexif()
            gps, camera = exif.get_ifd(GPS), exif.get_ifd(EXIF)
            panorama = picture.width == 2 * picture.height
    except (OSError, SyntaxError, Pictures.DecompressionBombError) as err:
        raise ValueError("no JPEG") from err
    lat = _position(gps, LATITUDE, "S", 90)
    lon = _position(gps, LONGITUDE, "W", 180)
    heading = _degrees(gps.get(DIRECTION[1]))
    magnetic = heading is not None and gps.get(DIRECTION[0]) == "M"
    if lat is None or lon is None:
        if told is None:
            return None, False
        lon, lat = told[:2]
    if heading is None and told is not None:
        heading = told[2]
    taken = re.match(r"(\d{4}):(0[1-9]|1[0-2]):", str(camera.get(TAKEN) or ""))
    captured = f"{taken[1]}-{taken[2]}" if taken else None
    spot = Spot(photo_id, round(lon, 7), round(lat, 7), heading, captured, panorama)
    return spot, magnetic


def _position(gps: Any, tags: tuple[int, int], negative: str, most: float) -> float | None:
    """Return signed degrees of (degrees, minutes, seconds) and their reference; None if none."""
    try:
        degrees, minutes, seconds = (float(part) for part in gps[tags[1]])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    value = degrees + minutes / 60 + seconds / 3600
    if not value <= most or str(gps.get(tags[0])).strip("\0 ") == "":
        return None
    return -value if str(gps.get(tags[0])).upper().startswith(negative) else value
