"""Nominatim's `/search`, for a city that is known by name."""

import json
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from tests.world.front import Answer, Request, Service


def nominatim(cities: dict[str, BaseGeometry]) -> Service:
    """Return a service that knows the outlines (EPSG:4326, lon lat) of cities by their names."""

    def search(request: Request) -> Answer:
        area = cities.get(request.query.get("q", ""))
        found = [] if area is None else [_result(request.query["q"], area)]
        return Answer(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    return search


def _result(name: str, area: BaseGeometry) -> dict[str, Any]:
    west, south, east, north = area.bounds
    return {
        "place_id": 1, "osm_type": "relation", "osm_id": 1, "lat": str(area.centroid.y),
        "lon": str(area.centroid.x), "class": "boundary", "type": "administrative",
        "place_rank": 16, "importance": 0.5, "addresstype": "city", "name": name,
        "display_name": name, "boundingbox": [str(v) for v in (south, north, west, east)],
        "geojson": shapely.geometry.mapping(area),
    }  # fmt: skip
