"""Many answers of an Overpass server as one OSM file, each element once."""

import gzip
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from urbancli.errors import UrbanError
from urbancli.sources._osm_file import AREA_RELATIONS
from urbancli.sources._osm_reading import give_back
from urbancli.sources._overpass_query import base_time
from urbancli.workspace import atomic_path

FILES_AT_ONCE = 8
"""osmium reads each file with threads of its own, and some ten megabytes of memory."""

WAYS_AT_MOST = 1000
"""An area that lacks more ways than this (a country, an ocean) is not completed: its outline says
nothing of a city, and takes tens of megabytes."""


def merge(pieces: Sequence[Path], path: Path) -> int:
    """Write the elements of all pieces into one .osm.gz: nodes, ways, relations, each by id, once.

    Of an element that differs, because the data changed between two answers, the one of the newer
    data is taken. The same pieces give the same bytes.

    Args:
        pieces: .osm.gz, elements in that order, as Overpass sends them.
        path: the file.

    Returns:
        The number of elements.

    Raises:
        UrbanError: a piece cannot be read, or the file cannot be written.
    """
    newest_first = sorted(pieces, key=lambda piece: (base_of(piece), piece.name), reverse=True)
    rounds: list[Path] = []
    folder = pieces[0].parent
    try:
        # Groups of neighbours in age: the newer data wins in every round.
        while len(newest_first) > FILES_AT_ONCE:
            groups = range(0, len(newest_first), FILES_AT_ONCE)
            merged = [folder / f"round_{len(rounds) + n}.osm.gz" for n in range(len(groups))]
            for start, file in zip(groups, merged, strict=True):
                _write(newest_first[start : start + FILES_AT_ONCE], file)
            rounds += merged
            newest_first = merged
        return _write(newest_first, path)
    except RuntimeError as err:
        raise UrbanError(
            f"cannot join the answers in {folder} ({err}): delete that folder and run "
            "the same command again; is the disk full?"
        ) from err
    finally:
        for file in rounds:
            file.unlink(missing_ok=True)


def _write(pieces: Sequence[Path], path: Path) -> int:
    import osmium

    header = osmium.io.Header()
    header.set("generator", "urban")  # else it is osmium's version
    count = 0
    with atomic_path(path) as temporary:
        file = osmium.io.File(str(temporary), "osm.gz")
        with osmium.SimpleWriter(file, header=header, overwrite=True) as writer:
            readers = [osmium.FileProcessor(osmium.io.File(str(p), "osm.gz")) for p in pieces]
            for same in osmium.zip_processors(*readers):
                writer.add(next(element for element in same if element is not None))
                count += 1
        del readers
    give_back()
    return count


def missing_ways(pieces: Sequence[Path]) -> tuple[list[int], list[str]]:
    """Return the ids of ways that areas lack, sorted, and the areas that lack too many."""
    import osmium

    found = array("q")  # a set would take ten times as much
    areas: dict[int, set[int]] = {}
    kinds = osmium.osm.WAY | osmium.osm.RELATION
    for piece in pieces:
        elements: Any = osmium.FileProcessor(str(piece), kinds)
        for element in elements:
            if element.is_way():
                found.append(element.id)
            elif element.tags.get("type") in AREA_RELATIONS:
                members = {member.ref for member in element.members if member.type == "w"}
                areas.setdefault(element.id, set()).update(members)
    wanted = {way for members in areas.values() for way in members}
    ways = wanted.intersection(found)
    lacking = {osm_id: members - ways for osm_id, members in areas.items()}
    left_out = sorted(osm_id for osm_id, lacks in lacking.items() if len(lacks) > WAYS_AT_MOST)
    missing = {way for lacks in lacking.values() if len(lacks) <= WAYS_AT_MOST for way in lacks}
    return sorted(missing), [f"relation/{osm_id}" for osm_id in left_out]


def base_of(piece: Path) -> str:
    """Return the time stamp of a piece's data."""
    with gzip.open(piece) as file:
        return base_time(file.read(1000))
