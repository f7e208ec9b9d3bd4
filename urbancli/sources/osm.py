"""OpenStreetMap from a local file: every tagged node, way and relation as an entity of the city.

The file is a PBF, or XML, plain or packed with gzip or bzip2: an extract, or a saved Overpass
answer.
"""

from typing import Any

from urbancli.sources._entities import Entities, EntitySource
from urbancli.sources._osm_file import read_entities


class Source(EntitySource):
    """The entities of one OSM file.

    Facts: `counted` = `kept` + `outside` (they touch no tile of the city) + all `broken`.
    """

    layer = "entities"
    licence = "ODbL-1.0"
    attribution = "© OpenStreetMap contributors"

    def collect(self) -> tuple[Entities, dict[str, Any]]:
        """Return the tagged elements of the file."""
        return read_entities(self.path)
