"""Items of a STAC catalogue: what a lock keeps of them, what they cover, when they were taken.

What is pinned holds no absolute path and no signature.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from urbancli.errors import UrbanError, UsageError
from urbancli.grid import Places
from urbancli.sources import base
from urbancli.sources._pixels import SATELLITE_WINDOW_M

SIGNATURE_KEYS = {"sig", "se", "st", "sp", "x-amz-signature", "x-amz-security-token", "x-amz-date"}
"""Keys of a URL's query that make it a signed one."""


@dataclass(frozen=True)
class Asset:
    """A file of an item.

    Attributes:
        name: key in the item.
        href: what is pinned: relative to a static catalogue, or a URL without signature.
        location: where it is read, perhaps absolute or signed; never written anywhere.
        known: checksum and size, as far as the item says.
    """

    name: str
    href: str
    location: str = field(repr=False)
    known: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def is_local(self) -> bool:
        """Whether it is a file here and not a URL."""
        return not is_url(self.location)

    def pin(self) -> dict[str, Any]:
        """Return href, and size and SHA-256 of a local file, else what the item says of them.

        Raises:
            UrbanError: the local file is missing.
        """
        if not self.is_local:
            return {"href": self.href, **self.known}
        pinned = base.pin(Path(self.location))
        return {"href": self.href, "bytes": pinned["bytes"], "sha256": pinned["sha256"]}


@dataclass(frozen=True)
class Item:
    """What a search found: one scene or image.

    Attributes:
        item_id: its id.
        collection: its collection's id.
        acquired: when, UTC.
        footprint: what it covers, EPSG:4326, lon lat.
        properties: as the item says.
        assets: its files by key.
    """

    item_id: str
    collection: str
    acquired: datetime
    footprint: BaseGeometry
    properties: dict[str, Any] = field(repr=False)
    assets: dict[str, Asset] = field(repr=False)

    def asset(self, *names: str) -> Asset:
        """Return the first asset there is of several names for the same thing.

        Raises:
            UrbanError: there is none.
        """
        for name in names:
            if name in self.assets:
                return self.assets[name]
        raise UrbanError(
            f"item {self.item_id} of '{self.collection}' has no asset {' or '.join(names)}: it has "
            f"{', '.join(sorted(self.assets)[:12]) or 'none'}; use another catalogue or collection"
        )

    def pin(self, **more: Any) -> dict[str, Any]:
        """Return what a lock keeps of it: id, collection, time, CRS, and more."""
        crs = self.properties.get("proj:code")
        if crs is None and self.properties.get("proj:epsg"):
            crs = f"EPSG:{self.properties['proj:epsg']}"
        return {
            "id": self.item_id,
            "collection": self.collection,
            "datetime": self.acquired.isoformat(),
            "proj:code": crs,
            **more,
        }


def is_url(href: str) -> bool:
    return "://" in href and not href.startswith("file://")


def unsigned(href: str) -> str:
    """Return a URL without user and password, and without its query if that signs it."""
    if not is_url(href):
        return href
    parts = urlsplit(href)
    signed = SIGNATURE_KEYS & {key.lower() for key in parse_qs(parts.query)}
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path,
                       "" if signed else parts.query, ""))  # fmt: skip


def asset_of(name: str, href: str, home: str, static: str | None, said: dict[str, Any]) -> Asset:
    """Return an asset of an item that lies at `home`, in a static catalogue's file or an API."""
    from pystac.utils import make_absolute_href, make_relative_href

    location = make_absolute_href(href, home).removeprefix("file://")
    known: dict[str, Any] = {
        key: said[key] for key in ("file:checksum", "file:size") if key in said
    }
    if static is not None:
        pinned = make_relative_href(unsigned(location), unsigned(static))
    else:
        pinned = unsigned(location) if is_url(location) else Path(location).name
    return Asset(name, pinned, location, known)


# --- times and places --------------------------------------------------------------------------


def period(since: str | None, until: str | None) -> tuple[datetime | None, datetime | None]:
    """Return the first and last second that two dates include, UTC.

    Args:
        since: year, month or day: `2023`, `2023-05` or `2023-05-14`.
        until: likewise, included to its end.

    Raises:
        UsageError: one is no date, or they are the wrong way round.
    """
    first = None if since is None else _unit("since", since)[0]
    last = None if until is None else _unit("until", until)[1]
    if first and last and first > last:
        raise UsageError(f"since {since} is after until {until}: swap them")
    return first, last


def _unit(what: str, text: str) -> tuple[datetime, datetime]:
    match = re.fullmatch(r"(\d{4})(?:-(\d\d))?(?:-(\d\d))?", text)
    try:
        if match is None:
            raise ValueError
        year, month, day = (int(part) if part else None for part in match.groups())
        first = datetime(year or 0, month or 1, day or 1, tzinfo=UTC)
    except ValueError as err:
        raise UsageError(
            f"{what} '{text}' is no date: write a year, month or day as 2023, 2023-05 or 2023-05-14"
        ) from err
    if day:
        after = first + timedelta(days=1)
    elif month:
        after = (first + timedelta(days=31)).replace(day=1)
    else:
        after = first.replace(year=first.year + 1)
    return first, after - timedelta(seconds=1)


def search_area(places: Places) -> BaseGeometry:
    """Return the box of a city's tiles and halo, EPSG:4326, lon lat, cut at the antimeridian."""
    left, bottom, right, top = shapely.total_bounds(places.boxes(SATELLITE_WINDOW_M))
    side = max(right - left, top - bottom)
    box = shapely.segmentize(shapely.box(left, bottom, right, top), side / 8)
    area: BaseGeometry = places.grid.unproject_geometry(box)
    return area


def share_seen(footprint: BaseGeometry, places: Places) -> npt.NDArray[np.float64]:
    """Return how much (N,) of each tile a footprint (EPSG:4326) covers, by centre and corners."""
    half = places.grid.tile_m / 2 - 1e-3
    steps = np.array([(0, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)]) * half
    lon, lat = places.grid.unproject(
        places.x[:, None] + steps[:, 0], places.y[:, None] + steps[:, 1]
    )
    shapely.prepare(footprint)
    seen = shapely.intersects_xy(footprint, lon.ravel(), lat.ravel()).reshape(lon.shape)
    return np.asarray(seen.mean(axis=1))


def told_synthetic(items: Sequence[Item]) -> str | None:
    """Return what generated items say of themselves; None where any is a real one."""
    if not all(item.properties.get("synthetic") is True for item in items):
        return None
    return str(items[0].properties.get("description") or "SYNTHETIC")


def union(items: Sequence[Item]) -> BaseGeometry:
    """Return what items cover together, EPSG:4326, without hairlines between neighbours."""
    return shapely.union_all(shapely.buffer([item.footprint for item in items], 1e-6))
