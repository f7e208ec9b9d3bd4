"""OpenStreetMap from a local file: every tagged node, way and relation as an entity of the city.

The file is a PBF, or XML, plain or packed with gzip or bzip2: an extract, or a saved Overpass
answer.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from urbancli.sources._entities import Entities, EntitySource
from urbancli.sources._osm_file import stream_entities


class Source(EntitySource):
    """The entities of one OSM file.

    Facts: `counted` = `kept` + `outside` (they touch no tile of the city) + all `broken`.
    """

    layer = "entities"
    licence = "ODbL-1.0"
    attribution = "© OpenStreetMap contributors"

    def stream(self, facts: dict[str, Any]) -> Iterator[Entities]:
        """Yield the tagged elements of the file."""
        return stream_entities(self.path, facts)


def footprint(path: Path) -> BaseGeometry | None:
    """Return the box that a file's header says it covers, EPSG:4326, lon lat; None without one.

    A file that osmium cannot open has no box either: `Source.plan` says what is wrong with it.
    """
    import osmium

    try:
        with osmium.io.Reader(str(path), osmium.osm.NOTHING) as reader:
            box = reader.header().box()
            if not box.valid():
                return None
            low, high = box.bottom_left, box.top_right
            area = shapely.box(low.lon, low.lat, high.lon, high.lat)
    except (RuntimeError, ValueError, OSError):
        return None
    return area if area.area > 0 else None
