"""Anybody's embeddings: from a file of one's own to features of a label's units.

A file says where its vectors belong by points, polygons, tiles, pixels or the units' own keys. The
forms are told in `files`; how each is brought to units in `alignment` and `_rasters`.
"""

from urbancli.bench.external.alignment import Coverage, NoOverlap, common_support, unit_values
from urbancli.bench.external.files import External, files_of, load_external, load_externals

__all__ = [
    "Coverage", "External", "NoOverlap", "common_support", "files_of", "load_external",
    "load_externals", "unit_values",
]  # fmt: skip
