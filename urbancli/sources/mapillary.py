"""Mapillary: street-level photos of volunteers, through its Graph API v4.

The search takes a box of less than 0.01 square degrees and gives at most 2,000 photos of it in no
told order; a box that gives as many is split. A photo's address is signed and expires, so it is
asked for when the photo is read. The token stays in the environment: it is neither in the source
nor in any URL.
"""

import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
import shapely

from urbancli.errors import ServiceError, UrbanError, UsageError
from urbancli.grid import Places
from urbancli.net import Manners, Net, OfflineError, endpoint, is_json
from urbancli.sources._streetview import (
    PER_TILE,
    Image,
    PhotoSource,
    Spot,
    choose,
    nothing_here,
    whole_jpeg,
)
from urbancli.sources.base import Estimate, places_grid

TOKEN = "MAPILLARY_TOKEN"

LIMIT = 2000
"""Photos that one search gives, at most."""

SMALLEST_M = 75.0
"""A box of this side that still gives the limit is not split any further, metres."""

MANNERS = Manners(attempts=5, at_once=8)
FIELDS = (
    "id", "geometry", "computed_geometry", "compass_angle", "computed_compass_angle",
    "captured_at", "is_pano", "creator",
)  # fmt: skip

Box = tuple[float, float, float, float]
"""(left, bottom, right, top), metres in the grid's CRS."""


class Source(PhotoSource):
    """Photos of Mapillary, thumbnails of 1,024 pixels.

    Position and heading are those that Mapillary computed from all photos around, else those of the
    camera. Facts beside those of every street-view layer: `crowded` boxes had more photos than the
    search gives, so that others of theirs might have been chosen.

    Args:
        net: how Mapillary is asked.
        per_tile: photos of a tile, at most.
    """

    licence = "CC-BY-SA-4.0"
    attribution = (
        "© Mapillary contributors, mapillary.com (the creator of each photo is in its row)"
    )
    name = "mapillary"
    image_licence = "CC-BY-SA-4.0"

    def __init__(self, *, net: Net | None = None, per_tile: int = PER_TILE) -> None:
        super().__init__(per_tile)
        self._net = net or Net()
        self._url = endpoint("mapillary").rstrip("/")
        self._crowded = 0

    def asked(self) -> dict[str, Any] | None:
        """Return service and photos per tile."""
        parts = urlsplit(self._url)
        service = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        return {"source": "mapillary", "service": service, "per_tile": self._per_tile}

    def plan(self, places: Places) -> dict[str, Any]:
        """Search the city, choose the photos of every tile, and pin them."""
        grid = places_grid(places)
        token()  # without one nothing is begun
        found: dict[str, Spot] = {}
        crowded = 0
        groups = [block.tiles() for block in self.blocks(places)]
        city = set(map(tuple, places.cells.tolist()))
        boxes = [
            grid.tile_boxes(np.array([c for c in cells.tolist() if tuple(c) in city]))
            for cells in groups
        ]
        with ThreadPoolExecutor(MANNERS.at_once) as pool:
            for spots, full in pool.map(lambda tiles: self._search(tiles, places), boxes):
                found.update((spot.photo_id, spot) for spot in spots)
                crowded += full
        tiles, left_out = choose(list(found.values()), places, self._per_tile)
        if not tiles:
            raise nothing_here("Mapillary has no photo", places)
        plan = {
            **(self.asked() or {}),
            "found": len(found),
            "crowded": crowded,
            "left_out": left_out,
            "tiles": tiles,
            "version": 1,
        }
        self.take(plan, places)
        return plan

    def take(self, plan: dict[str, Any], places: Places) -> None:
        """Take the photos that a plan pins."""
        self._crowded = plan["crowded"]
        self._take(plan["tiles"], plan["left_out"], places)

    def image(self, spot: Spot) -> Image | None:
        """Return a photo at an address that was signed just now; None where it was deleted."""
        last: ServiceError | None = None
        for _ in range(2):
            address = self._address(spot)
            if address is None:
                return None
            try:
                return whole_jpeg(
                    self._net.get(address, manners=MANNERS, check=lambda body: _jpeg(body))
                )
            except OfflineError:
                raise
            except ServiceError as err:
                last = err
                if err.status not in {403, 404, 410}:
                    break
        raise last or ServiceError("no photo")

    def facts(self, tiles: Any) -> dict[str, Any]:
        """Return what every street-view layer says, and how many boxes were crowded."""
        return {**super().facts(tiles), "crowded": self._crowded}

    def estimate(self, places: Places) -> Estimate:
        """Return two requests for every photo."""
        told = super().estimate(places)
        return Estimate(told.items, told.blocks, 2 * told.items, told.bytes)

    def _search(self, tiles: Any, places: Places) -> tuple[list[Spot], int]:
        """Return the photos of some tiles (boxes in metres), and how many boxes were too full."""
        found: list[Spot] = []
        crowded = 0
        asking: list[list[Box]] = [[tuple(box) for box in shapely.bounds(tiles).tolist()]]
        while asking:
            boxes = asking.pop()
            try:
                spots = self._ask(boxes, places)
                full = len(spots) >= LIMIT
            except OfflineError:
                raise
            except ServiceError as err:
                # What asks for too much is answered by 500 or not in time.
                if err.status not in {0, 500} or len(boxes) == 1:
                    raise
                spots, full = [], True
            parts = list(_quarters(boxes)) if full else []
            if parts:
                asking += parts
            else:
                found += spots
                crowded += full
        return found, crowded

    def _ask(self, boxes: list[Box], places: Places) -> list[Spot]:
        sides = np.array(boxes)
        around = shapely.box(*sides[:, :2].min(axis=0), *sides[:, 2:].max(axis=0))
        area = places.grid.unproject_geometry(shapely.segmentize(around, 500.0))
        spots = []
        for part in shapely.get_parts(area):
            box = ",".join(f"{value:.7f}" for value in part.bounds)
            query = {"bbox": box, "fields": ",".join(FIELDS), "limit": LIMIT}
            answer = self._graph(f"images?{urlencode(query)}")
            spots += [spot for image in answer["data"] if (spot := _spot(image)) is not None]
        return spots

    def _address(self, spot: Spot) -> str | None:
        """Return where a photo's thumbnail is, signed just now; None where the photo is gone."""
        try:
            answer = self._graph(f"{spot.photo_id}?fields=thumb_1024_url")
        except OfflineError:
            raise
        except ServiceError as err:
            if err.status not in {400, 403, 404, 410}:
                raise
            # Graph APIs answer alike where the photo is gone and where the token is: the search
            # tells them apart.
            box = f"{spot.lon:.5f},{spot.lat:.5f},{spot.lon + 1e-4:.5f},{spot.lat + 1e-4:.5f}"
            self._graph(f"images?{urlencode({'bbox': box, 'fields': 'id', 'limit': 1})}")
            return None
        return answer.get("thumb_1024_url")

    def _graph(self, question: str) -> dict[str, Any]:
        """Return the answer to a question of the Graph API."""
        headers = {"Authorization": f"OAuth {token()}"}
        try:
            body = self._net.get(
                f"{self._url}/{question}", headers=headers, manners=MANNERS, check=_answered
            )
        except ServiceError as err:
            if err.status == 401 or (question.startswith("images") and err.status == 403):
                raise UrbanError(
                    f"Mapillary refuses the token in {TOKEN}: make one at "
                    "mapillary.com/dashboard/developers"
                ) from None
            raise
        return dict(json.loads(body))


def token() -> str:
    """Return the token, from the environment alone.

    Raises:
        UsageError: there is none, or it cannot be one.
    """
    text = os.environ.get(TOKEN, "").strip()
    if not text:
        raise UsageError(
            f"Mapillary wants a token: set {TOKEN} (from mapillary.com/dashboard/developers)"
        )
    if not re.fullmatch(r"[!-~]+", text):
        raise UsageError(f"{TOKEN} holds blanks or signs that no token has: set it anew")
    return text


def _quarters(boxes: list[Box]) -> Iterator[list[Box]]:
    """Yield the tiles of a box in four parts, a tile alone in four boxes; none where small."""
    if len(boxes) == 1:
        left, bottom, right, top = boxes[0]
        if right - left > SMALLEST_M:
            x, y = (left + right) / 2, (bottom + top) / 2
            yield [(left, bottom, x, y)]
            yield [(x, bottom, right, y)]
            yield [(left, y, x, top)]
            yield [(x, y, right, top)]
        return
    sides = np.array(boxes)
    middle = (sides[:, :2].min(axis=0) + sides[:, 2:].max(axis=0)) / 2
    # Along whole tiles: a box of an odd number of them is cut beside its middle.
    beyond = (sides[:, :2] + sides[:, 2:]) / 2 > middle
    for corner in np.unique(beyond, axis=0):
        inside = (beyond == corner).all(axis=1)
        yield [box for box, chosen in zip(boxes, inside, strict=True) if chosen]


def _spot(image: dict[str, Any]) -> Spot | None:
    """Return a photo of the search's answer; None where it has no place."""
    place = image.get("computed_geometry") or image.get("geometry")
    if not isinstance(place, dict) or len(place.get("coordinates") or []) < 2:
        return None
    lon, lat = place["coordinates"][:2]
    turned = image.get("computed_compass_angle")
    turned = image.get("compass_angle") if turned is None else turned
    taken = image.get("captured_at")
    return Spot(
        photo_id=str(image["id"]),
        lon=round(float(lon), 7),
        lat=round(float(lat), 7),
        heading=None if turned is None else round(float(turned) % 360, 2),
        captured=None if not taken else f"{datetime.fromtimestamp(taken / 1000, UTC):%Y-%m}",
        panorama=bool(image.get("is_pano")),
        creator=(image.get("creator") or {}).get("username"),
    )


def _answered(body: bytes) -> None:
    is_json(body)
    answer = json.loads(body)
    if "error" in answer or not ("data" in answer or "id" in answer):
        raise ValueError("no data")


def _jpeg(body: bytes) -> None:
    whole_jpeg(body)
