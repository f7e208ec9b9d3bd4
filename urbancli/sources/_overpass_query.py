"""What an Overpass server is asked for, and whether what it says is an answer.

A city is asked for in boxes of a fixed grid, with every node, way and relation in them and the
nodes of the ways. A way is thereby whole wherever it leads. Relations of these relations come with
them (the line of a bus route), unless they are areas (a country of its districts). Of relations
that are areas, the ways that lie in no box are asked for afterwards, by id and once. Others
(routes, which may lead through a continent) keep the members in the boxes, as in any extract.
"""

import json
import re
from dataclasses import dataclass

import numpy as np
import shapely

from urbancli.grid import Grid, Places
from urbancli.net import BusyError
from urbancli.sources._entities import HALO_M
from urbancli.sources._osm_file import AREA_RELATIONS

PIECE_M = 7200
"""Side of a box, metres: of central Manhattan, 2.1 MB of XML per km², it is 110 MB, of which the
server's memory and time hold several."""

FLOOR_DEGREES = 0.004
"""A box less high than this is not cut again: some 450 m, as 7,200 m halved four times."""

IDS_AT_ONCE = 1000

TIMEOUT_S = 180
MAX_BYTES = 512 << 20
"""What a query may take of the server; both are what servers allow where nothing is said."""

_SETTINGS = f"[out:xml][timeout:{TIMEOUT_S}][maxsize:{MAX_BYTES}];"

_REMARK = re.compile(rb"<remark>\s*(.*?)\s*</remark>", re.DOTALL)

_BASE = re.compile(rb'<meta[^>]*osm_base="([^"]*)"')


class TooMuchError(Exception):
    """The query ran out of the server's time or memory: it must be asked for less."""


@dataclass(frozen=True)
class Box:
    """A box of EPSG:4326, degrees; what lies on its border is in it."""

    south: float
    west: float
    north: float
    east: float

    def __str__(self) -> str:
        return f"{self.south:.6f},{self.west:.6f},{self.north:.6f},{self.east:.6f}"

    @property
    def query(self) -> str:
        """Everything in the box, the nodes of its ways, and relations of its relations."""
        found = "".join(f"{kind}({self});" for kind in ("node", "way", "relation"))
        parents = f'relation(br.a)["type"!~"^({"|".join(AREA_RELATIONS)})$"]->.c;'
        return f"{_SETTINGS}({found})->.a;node(w.a)->.b;{parents}(.a;.b;.c;);out body;"

    def parts(self) -> "list[Question]":
        """Return its four quarters, none where it is as small as a box may be."""
        if self.north - self.south < FLOOR_DEGREES:
            return []
        y, x = round((self.south + self.north) / 2, 6), round((self.west + self.east) / 2, 6)
        return [
            Box(self.south, self.west, y, x),
            Box(self.south, x, y, self.east),
            Box(y, self.west, self.north, x),
            Box(y, x, self.north, self.east),
        ]


@dataclass(frozen=True)
class Ways:
    """Ways by id."""

    ids: tuple[int, ...]

    def __str__(self) -> str:
        return f"{len(self.ids)} ways from {self.ids[0]}"

    @property
    def query(self) -> str:
        """The ways and their nodes."""
        return f"{_SETTINGS}way(id:{','.join(map(str, self.ids))});(._;>;);out body;"

    def parts(self) -> "list[Question]":
        """Return its two halves, none of a single way."""
        half = len(self.ids) // 2
        return [Ways(self.ids[:half]), Ways(self.ids[half:])] if half else []


Question = Box | Ways


def boxes(places: Places) -> list[Box]:
    """Return the boxes that cover the tiles and `HALO_M` around them.

    The grid of boxes is fixed in the zone, so that the same place is asked for in the same box;
    each is drawn in to the tiles that are wanted of it.
    """
    grid = places.grid
    cells = grid.halo(places.cells, HALO_M)
    numbers = np.floor_divide(cells, max(1, round(PIECE_M / grid.tile_m)))
    found: list[Box] = []
    for number in np.unique(numbers, axis=0):
        group = cells[(numbers == number).all(axis=1)]
        found += _boxes_of(grid, group)
    return found


def _boxes_of(grid: Grid, cells: np.ndarray) -> list[Box]:
    """Return the box around tiles (N, 2), or both where it lies across the antimeridian."""
    corners = np.concatenate([cells.min(axis=0), cells.max(axis=0) + 1]) * float(grid.tile_m)
    outline = grid.unproject_geometry(shapely.segmentize(shapely.box(*corners), grid.tile_m))
    found = []
    for part in shapely.get_parts(outline):
        west, south, east, north = shapely.bounds(part)
        low = np.floor(np.array([south, west]) * 1e6) / 1e6
        high = np.ceil(np.array([north, east]) * 1e6) / 1e6
        found.append(Box(float(low[0]), float(low[1]), float(high[0]), float(high[1])))
    return found


def area_km2(places: Places) -> float:
    """Return how much is asked for, the halo included, km²."""
    cells = places.grid.halo(places.cells, HALO_M)
    return float(len(cells) * places.grid.tile_m**2 / 1e6)


def check_answer(body: bytes) -> None:
    """Check that a body is a whole answer in XML, and no error.

    Overpass writes an error that comes up while it answers into a `remark`, with status 200.

    Raises:
        TooMuchError: the query ran out of time or memory.
        BusyError: the server says that it is too busy.
        ValueError: anything else that is no whole answer.
    """
    said = _error_of(body)
    if "timed out" in said or "out of memory" in said:
        raise TooMuchError(said)
    if "too busy" in said or "rate_limited" in said:
        raise BusyError(said)
    if said:
        raise ValueError(said)
    if b"<osm" not in body[:500] or not body.rstrip().endswith(b"</osm>"):
        raise ValueError("no whole OSM XML")
    _check_xml(body)


def _error_of(body: bytes) -> str:
    """Return the error that a body holds, or nothing."""
    start = body[:500].lstrip()
    if start.startswith(b"{"):
        return str(json.loads(body).get("remark") or "JSON in place of XML")
    if b"<html" in start:
        text = re.sub(rb"<head.*?</head>|<[^>]*>", b" ", body, flags=re.DOTALL)
        return " ".join(text.decode(errors="replace").split())[-100:] or "a page of HTML"
    remark = _REMARK.search(body[-2000:])
    said = remark[1].decode(errors="replace") if remark else ""
    return "" if said.startswith("runtime remark") else said


def _check_xml(body: bytes) -> None:
    import osmium

    class Nothing(osmium.SimpleHandler):  # osmium wants a handler that asks for something
        def relation(self, relation: object) -> None: ...

    try:
        with osmium.io.Reader(osmium.io.FileBuffer(body, "osm")) as reader:
            osmium.apply(reader, Nothing())
    except RuntimeError as err:
        raise ValueError(str(err)) from err


def base_time(head: bytes) -> str:
    """Return the time stamp of the data that the start of an answer tells, else nothing."""
    found = _BASE.search(head)
    return found[1].decode(errors="replace") if found else ""
