"""Mapillary's Graph API as far as photos go: search by box, addresses that expire, thumbnails."""

import io
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from tests.world.front import Answer, Request

TOKEN = "MLY|4711|TheTokenOfTheTestWorld"
"""Found in any file, log, URL or error, it has leaked."""

SIGNED = "TheSignatureOfTheTestWorld"


@dataclass
class Mapillary:
    """Answers as graph.mapillary.com does, and as the host of its thumbnails.

    Attributes:
        photos: fields by id.
        limit: photos of one search.
        largest: square degrees of a box that is refused.
        heavy: photos in a box that make the search fail with a status 500.
        deleted: ids of photos that are gone.
        stale: ids whose first address has already expired when it is asked for.
        broken: ids whose thumbnail is cut.
        asked: how often each path was asked.
    """

    photos: dict[str, dict[str, Any]]
    limit: int = 2000
    largest: float = 0.01
    heavy: int = 10**9
    deleted: set[str] = field(default_factory=set)
    stale: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    url: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: Request) -> Answer:
        """Answer a search, a photo's fields, or a thumbnail."""
        path = request.path.strip("/")
        with self._lock:
            self.asked[path] += 1
            times = self.asked[path]
        if path.startswith("thumb/"):
            return self._thumb(path.split("/")[1], request)
        if request.headers.get("authorization") != f"OAuth {TOKEN}":
            # Of a photo a Graph API says the same of a bad token as of one that is gone.
            return _error(401 if path == "images" else 400, 190, "Invalid OAuth access token")
        if path == "images":
            return self._search(request)
        if path not in self.photos or path in self.deleted:
            return _error(400, 100, "Unsupported get request. Object does not exist")
        until = "old" if path in self.stale and times == 1 else "new"
        address = f"{self.url}/thumb/{path}?oe={until}&oh={SIGNED}"
        return _json({"id": path, "thumb_1024_url": address})

    def _search(self, request: Request) -> Answer:
        west, south, east, north = (float(side) for side in request.query["bbox"].split(","))
        if (east - west) * (north - south) >= self.largest:
            return _error(400, 100, "Bounding box is too large")
        found = []
        for photo_id, photo in sorted(self.photos.items(), reverse=True):
            lon, lat = photo["geometry"]["coordinates"]
            if photo_id not in self.deleted and west <= lon <= east and south <= lat <= north:
                wanted = {"id", *request.query["fields"].split(",")}
                found.append({k: v for k, v in photo.items() if k in wanted})
        if len(found) > self.heavy:
            return _error(500, 1, "Please reduce the amount of data you're asking for")
        return _json({"data": found[: min(self.limit, int(request.query["limit"]))]})

    def _thumb(self, photo_id: str, request: Request) -> Answer:
        if "authorization" in request.headers:
            return Answer(400, b"a token where none belongs")
        if request.query.get("oh") != SIGNED or request.query.get("oe") != "new":
            return Answer(403, b"URL signature expired")
        body = picture(int(photo_id[-6:]))
        if photo_id in self.broken:
            body = body[: len(body) // 2]
        return Answer(200, body, {"Content-Type": "image/jpeg"})


def picture(seed: int, width: int = 96, height: int = 72) -> bytes:
    """Return a JPEG of noise."""
    generator = np.random.default_rng(seed)
    image = Image.fromarray(generator.integers(0, 255, (height, width, 3), dtype=np.uint8))
    file = io.BytesIO()
    image.save(file, "JPEG")
    return file.getvalue()


def photo(number: int, lon: float, lat: float, **fields: Any) -> dict[str, Any]:
    """Return the fields of a photo, as the API has them."""
    return {
        "id": str(10**15 + number),
        "geometry": {"type": "Point", "coordinates": [lon, lat]},
        "computed_geometry": {"type": "Point", "coordinates": [lon, lat]},
        "compass_angle": 12.0,
        "computed_compass_angle": float(number * 37 % 360),
        "captured_at": 1_600_000_000_000 + number * 86_400_000,
        "is_pano": False,
        "creator": {"username": f"user{number % 3}", "id": "1"},
        **fields,
    }


def _json(content: Any) -> Answer:
    return Answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})


def _error(status: int, code: int, message: str) -> Answer:
    body = json.dumps({"error": {"message": message, "code": code}}).encode()
    return Answer(status, body, {"Content-Type": "application/json"})
