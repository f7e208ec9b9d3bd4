"""Items of a STAC catalogue: what a lock keeps of them, what they cover, when they were taken.

What is pinned holds no absolute path and no signature.
"""

import math
import os
import re
from collections.abc import Callable, Sequence
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
from urbancli.sources._tiles import SATELLITE_WINDOW_M

SIGNATURE_KEYS = {"sig", "se", "st", "sp", "x-amz-signature", "x-amz-security-token", "x-amz-date"}
"""Keys of a URL's query that make it a signed one."""


REQUESTER_PAYS = frozenset({
    "naip-analytic", "naip-source", "naip-visualization", "sentinel-s2-l1c", "sentinel-s2-l2a",
    "sentinel-s1-l1c",
})  # fmt: skip
"""Buckets whose readers pay the traffic, as the registry of open data on AWS says."""


@dataclass(frozen=True)
class Asset:
    """A file of an item.

    Attributes:
        name: key in the item.
        item_id: of the item.
        href: what is pinned: relative to a static catalogue, or a URL without signature; empty
            where nothing can be.
        location: where it is read, perhaps absolute or with a password; never written anywhere.
        said: all that the item says of it.
    """

    name: str
    item_id: str
    href: str
    location: str = field(repr=False)
    said: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def is_local(self) -> bool:
        """Whether it is a file here and not a URL."""
        return not is_url(self.location)

    def pin(self) -> dict[str, Any]:
        """Return href, and size and SHA-256 of a local file, else what the item says of them.

        Raises:
            UrbanError: the local file is missing, or the address cannot be kept in a plan.
        """
        if not self.href:
            raise UrbanError(
                f"asset {self.name} of item {self.item_id} is no URL, and a service's files are "
                "read from elsewhere: use a catalog.json and the files beside it"
            )
        if self.is_local:
            pinned = base.pin(Path(self.location))
            return {"href": self.href, "bytes": pinned["bytes"], "sha256": pinned["sha256"]}
        plain = not is_url(self.href) or unsigned(self.location) == self.location
        if not plain and not blob_host(self.href):
            raise UrbanError(
                f"asset {self.name} of item {self.item_id} has a signed address or one with a "
                "password, which no plan can keep: use a catalogue with plain addresses, or "
                "download it and give its catalog.json"
            )
        bucket = self.href.removeprefix("s3://").partition("/")[0]
        if self.href.startswith("s3://") and bucket in REQUESTER_PAYS:
            _check_payer(bucket)
        known: dict[str, Any] = {
            key: self.said[key] for key in ("file:checksum", "file:size") if key in self.said
        }
        return {"href": self.href, **known}


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

    def number(self, name: str) -> float | None:
        """Return a property that is a number; None where the item does not say it, or null.

        Raises:
            UrbanError: it says something else.
        """
        said = self.properties.get(name)
        if said is None:
            return None
        try:
            found = math.nan if isinstance(said, bool) else float(said)
        except (TypeError, ValueError, OverflowError):
            found = math.nan
        if not math.isfinite(found):
            raise self.broken(name)
        return found

    def broken(self, name: str) -> UrbanError:
        """Return the error for a property that says what cannot be."""
        said = " ".join(str(self.properties.get(name)).split())
        said = said if len(said) <= 40 else said[:40] + "…"
        return UrbanError(
            f"item {self.item_id} of '{self.collection}' is broken: its {name} is '{said}'; mend "
            "or remove it, or use another catalogue"
        )

    def pin(self, assets: dict[str, Asset], **more: Any) -> dict[str, Any]:
        """Return what a plan keeps of it: what it is, what it covers, its files, and more.

        Args:
            assets: those that will be read, by the names they have for us.
            more: what else reading it needs.
        """
        crs = self.properties.get("proj:code")
        if crs is None and self.properties.get("proj:epsg"):
            crs = f"EPSG:{self.properties['proj:epsg']}"
        footprint = shapely.to_wkt(shapely.normalize(self.footprint), rounding_precision=7)
        return {
            "id": self.item_id,
            "collection": self.collection,
            "datetime": self.acquired.isoformat(),
            "proj:code": crs,
            "footprint": footprint,
            "assets": {name: asset.pin() for name, asset in assets.items()},
            **more,
        }


@dataclass(frozen=True)
class Pinned:
    """An item of a plan: all that reading it needs.

    Attributes:
        item_id: its id.
        footprint: what it covers, EPSG:4326, lon lat.
        assets: its files by the names they have for us.
        said: the item as the plan has it.
    """

    item_id: str
    footprint: BaseGeometry
    assets: dict[str, Asset]
    said: dict[str, Any] = field(repr=False)


def pinned_items(plan: dict[str, Any], locate: Callable[[str], str]) -> list[Pinned]:
    """Return the items of a plan in their order.

    Args:
        plan: as `plan` of a source returned it.
        locate: gives of a pinned href where it is read.
    """
    items = []
    for said in plan["items"]:
        assets = {
            name: Asset(name, said["id"], pin["href"], locate(pin["href"]))
            for name, pin in said["assets"].items()
        }
        footprint = shapely.make_valid(shapely.from_wkt(said["footprint"]))
        items.append(Pinned(said["id"], footprint, assets, said))
    return items


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


def _check_payer(bucket: str) -> None:
    if os.environ.get("AWS_REQUEST_PAYER") != "requester":
        raise UrbanError(
            f"the files of this catalogue lie in s3://{bucket}, where the reader pays: use another "
            "catalogue (URBAN_STAC_URL; Planetary Computer's is free), or set "
            "AWS_REQUEST_PAYER=requester and your AWS credentials"
        )


def blob_host(href: str) -> str:
    """Return the host of a URL of Azure's blob storage, whose signatures we make; else nothing."""
    host = urlsplit(href).netloc if is_url(href) else ""
    return host if host.endswith(".blob.core.windows.net") else ""


def located(href: str, start: str) -> str:
    """Return where a pinned href is read: as it stands, or beside the document it is relative to.

    Args:
        href: a URL, or relative to `start`.
        start: URL or path of the catalogue or item.
    """
    from pystac.utils import make_absolute_href

    # A query of the catalogue's URL is its own, no file's beside it.
    return make_absolute_href(
        href, start.partition("?")[0] if is_url(start) else start
    ).removeprefix("file://")


def asset_of(
    key: tuple[str, str], href: str, home: str, static: str | None, said: dict[str, Any]
) -> Asset:
    """Return an asset of an item that lies at `home`, in a static catalogue's file or an API.

    Args:
        key: its name, and its item's id.
        href: as the item says.
        home: URL or path of the item.
        static: URL or path of the catalogue, None of an API.
        said: all that the item says of it.
    """
    from pystac.utils import make_relative_href

    name, item_id = key
    location = located(href, home)
    if static is not None:
        pinned = make_relative_href(unsigned(location), unsigned(static).partition("?")[0])
    else:
        pinned = unsigned(location) if is_url(location) else ""
    return Asset(name, item_id, pinned, location, said)


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


def union(items: Sequence[Item] | Sequence[Pinned]) -> BaseGeometry:
    """Return what items cover together, EPSG:4326, without hairlines between neighbours."""
    return shapely.union_all(shapely.buffer([item.footprint for item in items], 1e-6))
