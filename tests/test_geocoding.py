"""Geocoding as the last resort, through osmnx, against a Nominatim-like server on loopback."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest

from urbancli.city import find_city
from urbancli.errors import ServiceError, UrbanError

SQUARE = [[30.0, -20.0], [30.1, -20.0], [30.1, -19.9], [30.0, -19.9], [30.0, -20.0]]


def _place(kind: str, rank: int) -> dict[str, Any]:
    geometry = {"type": "Polygon", "coordinates": [SQUARE]}
    if kind == "point":
        geometry = {"type": "Point", "coordinates": [30.05, -19.95]}
    return {
        "place_id": rank, "osm_type": "relation", "osm_id": rank, "lat": "-19.95", "lon": "30.05",
        "class": "boundary", "type": "administrative", "place_rank": 16, "importance": 0.5,
        "addresstype": "city", "name": "Lemuria", "display_name": "Lemuria",
        "boundingbox": ["-20.0", "-19.9", "30.0", "30.1"], "geojson": geometry,
    }  # fmt: skip


class _Nominatim(BaseHTTPRequestHandler):
    """Knows Lemuria (a point before its polygon) and Spotville (a point alone)."""

    agents: list[str] = []  # noqa: RUF012 — shared by the requests on purpose

    def do_GET(self) -> None:
        self.agents.append(self.headers["User-Agent"])
        name = parse_qs(urlparse(self.path).query)["q"][0]
        known = {
            "Lemuria": [_place("point", 1), _place("polygon", 2)],
            "Spotville": [_place("point", 1)],
        }
        body = json.dumps(known.get(name, [])).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def nominatim(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, socket_enabled: None
) -> Iterator[str]:
    """A server on loopback that the environment names."""
    server = HTTPServer(("127.0.0.1", 0), _Nominatim)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setenv("URBAN_NOMINATIM_URL", url)
    monkeypatch.setenv("URBAN_CACHE", str(tmp_path))
    yield url
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_unknown_city_gets_its_outline(nominatim: str) -> None:
    city = find_city("Lemuria")
    assert city.area.bounds == (30.0, -20.0, 30.1, -19.9)
    assert (city.key, city.epsg, city.origin) == ("lemuria", 32736, "geocoder")
    assert _Nominatim.agents[-1].startswith("urban/")


def test_a_city_without_an_outline_asks_for_one(nominatim: str) -> None:
    for name in ("Spotville", "Nowhere at all"):
        with pytest.raises(UrbanError, match="--bbox or --aoi"):
            find_city(name)


def test_a_service_out_of_reach_is_said_so(nominatim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URBAN_NOMINATIM_URL", "http://127.0.0.1:9/")
    with pytest.raises(ServiceError, match="cannot be reached"):
        find_city("Elsewhere Town")
