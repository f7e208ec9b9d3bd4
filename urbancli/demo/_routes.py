"""Relations: bus lines, a tram, districts, streets and school grounds."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.demo._lattice import PRIMARY, SECONDARY, TERTIARY, Lattice
from urbancli.demo._names import name_stems
from urbancli.demo._network import FIRST, SECOND, THIRD, Ways
from urbancli.demo.factors import Factors
from urbancli.demo.town import Elements, Relation

Integers = npt.NDArray[np.int64]

DISTRICTS = 3
"""Districts along a side of the city."""

BORDER_POINTS = 5
"""Vertices of the lattice in one way of a border."""

NEAR_M = 12.0
"""A stop belongs to a line whose way is this near."""


def tram_elements(lattice: Lattice, ways: Ways) -> Elements:
    """Return tram tracks on the primaries nearest the centre, one of each axis."""
    chosen = np.zeros(len(ways), dtype=bool)
    for axis, middle in enumerate(lattice.centre[::-1]):
        lines = np.flatnonzero(lattice.rank[axis] == PRIMARY)
        across = lattice.lines()[axis][lines, lattice.size // 2, 1 - axis]
        line = int(lines[np.argmin(np.abs(across - middle))]) + axis * (lattice.size + 1)
        spots = shapely.get_coordinates(shapely.centroid(ways.geometry))
        near = np.hypot(*(spots - lattice.centre).T) < 0.27 * lattice.side_m
        chosen |= (ways.line == line) & np.isin(ways.kind, (FIRST, SECOND)) & near
    index = np.flatnonzero(chosen)
    tags = [{"railway": "tram", "gauge": "1435", "electrified": "contact_line"} for _ in index]
    for tag, raised in zip(tags, ways.level[index], strict=True):
        if raised:
            tag.update(bridge="yes", layer="1")
    return Elements(ways.geometry[index], tags)


def bus_routes(
    lattice: Lattice, ways: Ways, first: int, stops: Elements, first_stop: int
) -> list[Relation]:
    """Return a bus line along each secondary and primary, there and back.

    Args:
        lattice: of the streets.
        ways: the streets, in the order of the lattice's lines.
        first: index of the first way among all elements.
        stops: of buses.
        first_stop: index of the first of them among all elements.
    """
    routes = []
    lines = np.flatnonzero(lattice.rank.ravel() >= SECONDARY)
    near_way, near_stop = shapely.STRtree(ways.geometry).query(
        stops.geometry, predicate="dwithin", distance=NEAR_M
    )[::-1]
    for number, line in enumerate(lines, start=1):
        on_line = np.flatnonzero((ways.line == line) & np.isin(ways.kind, (THIRD, SECOND, FIRST)))
        if len(on_line) < 4:
            continue
        platforms = np.unique(near_stop[np.isin(near_way, on_line)])
        members = [(first + int(way), "") for way in on_line]
        members += [(first_stop + int(stop), "platform") for stop in platforms]
        tags = {"type": "route", "route": "bus", "ref": str(number), "name": f"Bus {number}"}
        routes.append(Relation(tags, members))
    return routes


def tram_route(trams: Elements, first: int) -> list[Relation]:
    """Return the tram line."""
    if not len(trams):
        return []
    tags = {"type": "route", "route": "tram", "ref": "T1", "name": "Tram 1"}
    return [Relation(tags, [(first + i, "") for i in range(len(trams))])]


def street_relations(tags: Sequence[dict[str, str]], ways: Ways, first: int) -> list[Relation]:
    """Return a relation of all ways of a name, for the longest streets."""
    named: dict[tuple[str, int], list[int]] = {}
    for index in np.flatnonzero(ways.kind == FIRST).tolist():
        named.setdefault((tags[index].get("name", ""), int(ways.line[index])), []).append(
            int(index)
        )
    return [
        Relation({"type": "street", "name": name}, [(first + int(i), "street") for i in members])
        for (name, _), members in named.items()
        if name and len(members) >= 4
    ]


def school_sites(land: Elements, first: int, sites: Elements, first_site: int) -> list[Relation]:
    """Return a relation of every school's ground with its sports field."""
    schools = np.flatnonzero([tag.get("amenity") == "school" for tag in land.tags])
    pitches = np.flatnonzero([tag.get("leisure") == "pitch" for tag in sites.tags])
    school, pitch = shapely.STRtree(sites.geometry[pitches]).query(
        land.geometry[schools], predicate="intersects"
    )
    return [
        Relation(
            {"type": "site", "site": "school", "name": land.tags[schools[a]].get("name", "School")},
            [(first + int(schools[a]), "perimeter"), (first_site + int(pitches[b]), "")],
        )
        for a, b in zip(school, pitch, strict=True)
    ]


def districts(lattice: Lattice, factors: Factors, first: int) -> tuple[Elements, list[Relation]]:
    """Return borders along main streets, and the districts that they enclose.

    Args:
        lattice: of the streets.
        factors: of the city.
        first: index that the first border will have among all elements.
    """
    cuts = [_borders(rank) for rank in lattice.rank]
    lines = lattice.lines()
    sides: dict[tuple[int, int, int], list[int]] = {}
    shapes: list[shapely.Geometry] = []
    for axis in (0, 1):
        for line in cuts[axis]:
            for part, (start, end) in enumerate(
                zip(cuts[1 - axis], cuts[1 - axis][1:], strict=False)
            ):
                for begin in range(start, end, BORDER_POINTS):
                    stop = min(begin + BORDER_POINTS, end)
                    sides.setdefault((axis, int(line), part), []).append(first + len(shapes))
                    shapes.append(shapely.LineString(lines[axis, line, begin : stop + 1]))
    tags = [{"boundary": "administrative", "admin_level": "9"} for _ in shapes]
    stems = name_stems(factors.recipe)
    relations: list[Relation] = []
    for row in range(len(cuts[0]) - 1):
        for column in range(len(cuts[1]) - 1):
            members = [
                *sides[0, cuts[0][row], column], *sides[1, cuts[1][column + 1], row],
                *sides[0, cuts[0][row + 1], column], *sides[1, cuts[1][column], row],
            ]  # fmt: skip
            name = f"{stems[60 + len(relations)]} District"
            facts = {"type": "boundary", "boundary": "administrative", "admin_level": "9"}
            relations.append(Relation({**facts, "name": name}, [(m, "outer") for m in members]))
    return Elements(np.array(shapes, dtype=object), tags), relations


def _borders(rank: Integers) -> list[int]:
    """Return the lines of main streets nearest to those that part the city evenly."""
    main = np.flatnonzero(rank >= TERTIARY)
    main = main[(main > 0) & (main < len(rank) - 1)]
    wanted = np.linspace(0.1, 0.9, DISTRICTS + 1) * (len(rank) - 1)
    nearest = [int(main[np.argmin(np.abs(main - w))]) for w in wanted]
    return sorted(dict.fromkeys(nearest))
