"""Overture Maps: the features of one release around a city, read from its public GeoParquet.

A release is a folder `<release>/theme=<theme>/type=<type>/` of files whose row groups are sorted in
space and say the range of their `bbox` columns. Which files there are tells the bucket's listing,
which of them touch the city the release's index at stac.overturemaps.org (only for the public
bucket; without it every footer is read), and of those only the row groups that touch are read, and
of them only the columns that are used.

What was read is saved as one file, sorted by id, and pinned by its checksum: Overture keeps a
release for about two months. What is read is kept row group by row group until that file is whole,
so a killed read goes on where it was.
"""

import contextlib
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from urbancli.errors import ServiceError, UrbanError
from urbancli.grid import Places
from urbancli.net import ENDPOINTS, Net, endpoint
from urbancli.sources._entities import HALO_M, EntitySource
from urbancli.sources._objects import (
    Folder,
    RangeFile,
    Store,
    Stored,
    not_parquet,
    open_store,
)
from urbancli.sources._overture_files import (
    SIDES,
    Box,
    Kind,
    flat_rows,
    index_boxes,
    is_parquet,
    leaves_of,
    meet,
    raw_schema,
    touching,
)
from urbancli.sources.base import Estimate, places_grid
from urbancli.workspace import (
    GEOMETRY_TYPES,
    fingerprint,
    geo_table,
    geometries,
    open_parquet,
    read_table,
    sha256,
    sweep,
    write_tables,
)

INDEX_URL = "https://stac.overturemaps.org"
"""Where the public bucket's releases say which box each of their files covers."""

ATTEMPTS = 3
"""How often a file is read that does not decode: ranges have no checksum of their own."""

READERS = 8
"""Row groups read at a time."""


class OvertureSource(EntitySource):
    """The features of one kind of a release as an entity layer.

    Args:
        net: how Overture is asked.
        save_in: folder in which what was read is kept.
        release: name of a release, e.g. `2026-08-19.0`; by default the newest there is.
        index: URL of the index of releases; by default the public one, for the public bucket.

    Facts beside those of every entity layer: `release`, `datasets` (how many features each of
    Overture's sources gave).
    """

    kind: ClassVar[Kind]

    def __init__(
        self,
        *,
        save_in: Path,
        net: Net | None = None,
        release: str | None = None,
        index: str | None = None,
    ) -> None:
        super().__init__(save_in)
        self._save_in = save_in
        self._net = net or Net()
        self._release = release
        self._url = endpoint("overture")
        public = self._url == ENDPOINTS["overture"][1]
        self._index = index or (INDEX_URL if public else "")
        self._store: Store = open_store(self._url, self._net)

    def asked(self) -> dict[str, Any] | None:
        """Return service, release and kind; None for a local folder."""
        if isinstance(self._store, Folder):
            return None
        return {
            "source": f"overture_{self.kind.theme}",
            "service": self._store.where,
            "release": self._release or "newest",
        }

    def plan(self, places: Places) -> dict[str, Any]:
        """Read the release around the city, save it, and pin the release and the saved file."""
        places_grid(places)
        release = self._release or self._newest(places)
        self._settle(release, places)
        return self._pinned(release, places)

    def take(self, plan: dict[str, Any], places: Places) -> None:
        """Read what was saved; where it is gone, read the same release again.

        Raises:
            UrbanError: the release is gone too, or is not what it was.
        """
        pinned, release = plan["inputs"][0], plan["release"]
        self.path = self._file(release)
        if not (self.path.is_file() and sha256(self.path) == pinned["sha256"]):
            self._read(release, places)
            if sha256(self.path) != pinned["sha256"]:
                raise UrbanError(
                    f"Overture's {release} is not what lock.json pins (or another pyarrow wrote "
                    "it): run the same command with --refresh to take it as it is now"
                )
        self._pinned(release, places)

    def estimate(self, places: Places) -> Estimate:
        """Return what the row groups around the city weigh, by their files' footers, unread.

        Nothing where the saved file is enough.
        """
        release = self._release or self._newest(places)
        blocks = len(self.blocks(places))
        if self._saved(release, places):
            return Estimate(1, blocks, 0, 0)
        wanted = self._wanted(release, search_boxes(places))
        weight = 0
        for _, footer, number in wanted:
            group, names = footer.row_group(number), set(self._columns(footer))
            chunks = [group.column(index) for index in range(group.num_columns)]
            weight += sum(c.total_compressed_size for c in chunks if c.path_in_schema in names)
        return Estimate(len({stored.key for stored, _, _ in wanted}), blocks, len(wanted), weight)

    def _pinned(self, release: str, places: Places) -> dict[str, Any]:
        file, about = open_parquet(self.path)
        with file:
            if not file.metadata.num_rows:
                raise UrbanError(
                    f"Overture's {release} has no {self.kind.type} in the city: leave the layer "
                    f"'{self.layer}' out"
                )
        return {
            "source": f"overture_{self.kind.theme}",
            "service": self._store.where,
            "release": release,
            "files": about["files"],
            "row_groups": about["row_groups"],
            **super().plan(places),
            "version": 1,
        }

    # --- which release ---------------------------------------------------------------------

    def _file(self, release: str) -> Path:
        return self._save_in / f"overture-{self.kind.theme}-{release}.parquet"

    def _about(self, release: str, places: Places) -> dict[str, Any]:
        """Return what a saved file must say to be the answer to this question."""
        return {
            "service": self._store.where,
            "release": release,
            "type": self.kind.type,
            "columns": [name for name, _, _ in self.kind.columns],
            "boxes": [list(box) for box in search_boxes(places)],
        }

    def _saved(self, release: str, places: Places) -> bool:
        """Return whether the answer lies there; a folder may have changed, its never does."""
        path = self._file(release)
        if isinstance(self._store, Folder) or not path.is_file():
            return False
        try:
            file, about = open_parquet(path)
        except UrbanError:
            return False
        file.close()
        return self._about(release, places).items() <= about.items()

    def _newest(self, places: Places) -> str:
        """Return the newest release there is; offline, the newest that was saved."""
        if self._net.offline and not isinstance(self._store, Folder):
            names = self._save_in.glob(f"overture-{self.kind.theme}-*.parquet")
            releases = _releases(name.stem.split("-", 2)[2] for name in names)
            kept = [name for name in releases if self._saved(name, places)]
            return kept[-1] if kept else "newest release"  # asking for it fails with the reason
        there = _releases(self._store.folders())
        if not there:
            raise UrbanError(
                f"{self._store.where} has no releases of Overture: URBAN_OVERTURE_URL names the "
                "folder that holds them"
            )
        return there[-1]

    def _settle(self, release: str, places: Places) -> None:
        """Make the saved file be there."""
        self.path = self._file(release)
        if not self._saved(release, places):
            self._read(release, places)

    # --- reading ---------------------------------------------------------------------------

    def _read(self, release: str, places: Places) -> None:
        """Read the features around the city and save them."""
        boxes = search_boxes(places)
        wanted = self._wanted(release, boxes)
        about = self._about(release, places)
        of = [[stored.key, group] for stored, _, group in wanted]
        parts = self._save_in / f".{self.path.stem}-{fingerprint([about, of])}"
        if parts.is_dir():
            sweep(parts)
        with ThreadPoolExecutor(READERS) as pool:

            def part(numbered: tuple[int, tuple[Stored, pq.FileMetaData, int]]) -> Path:
                number, (stored, footer, group) = numbered
                path = parts / f"{number:06d}.parquet"
                if not path.exists():
                    table = self._group(stored, footer, group, boxes)
                    write_tables(path, [table], schema=table.schema, metadata={})
                return path

            paths = list(pool.map(part, enumerate(wanted)))
        counts = {"files": len({w[0].key for w in wanted}), "row_groups": len(wanted)}
        self._save([read_table(path)[0] for path in paths], about | counts)
        shutil.rmtree(parts, ignore_errors=True)

    def _wanted(
        self, release: str, boxes: Sequence[Box]
    ) -> list[tuple[Stored, pq.FileMetaData, int]]:
        """Return the row groups that touch the boxes, each with its file and footer."""
        found = self._store.files(f"{release}/{self.kind.folder}")
        files = [stored for stored in found if stored.key.endswith(".parquet")]
        if not files:
            raise UrbanError(self._gone(release))
        files = self._covering(release, files, boxes)
        with ThreadPoolExecutor(READERS) as pool:
            footers = list(pool.map(self._footer, files))
        return [
            (stored, footer, group)
            for stored, footer in zip(files, footers, strict=True)
            for group in touching(footer, boxes)
        ]

    def _gone(self, release: str) -> str:
        there = _releases(self._store.folders())
        return (
            f"Overture has no {self.kind.type} of release '{release}' at {self._store.where} "
            f"(a release stays about two months; there are: {', '.join(there) or 'none'}): run the "
            "same command with --refresh"
        )

    def _covering(
        self, release: str, files: Sequence[Stored], boxes: Sequence[Box]
    ) -> list[Stored]:
        """Return the files that the release's index says touch the boxes; all without an index."""
        if not self._index:
            return list(files)
        try:
            url = f"{self._index.rstrip('/')}/{release}/collections.parquet"
            body = self._net.get(url, check=is_parquet)
        except ServiceError:
            return list(files)  # costs more requests, and gives the same rows
        covered = index_boxes(body, f"{release}/{self.kind.folder}/")
        if not covered:
            return list(files)
        # A file that the index does not know is looked at.
        return [
            stored
            for stored in files
            if stored.key not in covered or any(meet(covered[stored.key], box) for box in boxes)
        ]

    def _footer(self, stored: Stored) -> pq.FileMetaData:
        return self._whole(stored, lambda file: pq.ParquetFile(file).metadata)

    def _group(
        self, stored: Stored, footer: pq.FileMetaData, group: int, boxes: Sequence[Box]
    ) -> pa.Table:
        """Return the rows of a row group that touch the boxes, in our columns."""
        leaves = leaves_of(footer)
        missing = [name for name in ("id", "geometry") if name not in leaves]
        if missing:
            raise UrbanError(
                f"{stored.key} has no column {' and '.join(missing)}: it is not of Overture, or "
                "of a schema this urban does not know"
            )
        columns = self._columns(footer)
        table = self._whole(
            stored,
            lambda file: pq.ParquetFile(file, metadata=footer, pre_buffer=True).read_row_group(
                group, columns=columns, use_threads=False
            ),
        )
        return flat_rows(table, self.kind, boxes)

    def _columns(self, footer: pq.FileMetaData) -> list[str]:
        """Return the columns of a file that are read, by their paths in it."""
        leaves = leaves_of(footer)
        paths = ["id", "geometry", *(path for _, path, _ in self.kind.columns)]
        paths += [f"bbox.{side}" for side in SIDES]
        return [leaves[path] for path in paths if path in leaves]

    def _whole(self, stored: Stored, act: Callable[[RangeFile], Any]) -> Any:
        """Do something with a stored file, again where its bytes make no sense."""
        for _ in range(ATTEMPTS - 1):
            with contextlib.suppress(pa.ArrowException, OSError):
                return act(RangeFile(self._store, stored))
        try:
            return act(RangeFile(self._store, stored))
        except (pa.ArrowException, OSError) as err:
            raise not_parquet(stored.key) from err

    def _save(self, tables: Sequence[pa.Table], about: dict[str, Any]) -> None:
        """Write the rows as one GeoParquet file, sorted by id, each once."""
        table = pa.concat_tables(tables) if tables else raw_schema(self.kind).empty_table()
        ids = table.column("id").to_numpy(zero_copy_only=False).astype(str)
        table = table.take(pa.array(np.unique(ids, return_index=True)[1]))
        shapes = geometries(table)
        columns = {name: table.column(name) for name in table.column_names if name != "geometry"}
        table = geo_table(columns, shapes)
        types = sorted({GEOMETRY_TYPES[t] for t in shapely.get_type_id(shapes) if t >= 0})
        bounds = shapely.total_bounds(shapes).tolist() if len(shapes) else [0.0] * 4
        groups = (table.slice(start, 1 << 16) for start in range(0, table.num_rows, 1 << 16))
        write_tables(
            self.path, groups, schema=table.schema, metadata=about, types=types, bounds=bounds
        )


def search_boxes(places: Places) -> list[Box]:
    """Return the box of a city's tiles and halo; two where it crosses the antimeridian."""
    tile_m = places.grid.tile_m
    wide = tile_m * (1 + 2 * np.ceil(HALO_M / tile_m))
    left, bottom, right, top = shapely.total_bounds(places.boxes(wide))
    outline = shapely.segmentize(shapely.box(left, bottom, right, top), (right - left) / 8)
    area = places.grid.unproject_geometry(outline)
    rounded = np.round(shapely.bounds(shapely.get_parts(area)), 7)
    boxes: list[Box] = sorted((w, s, e, n) for w, s, e, n in rounded.tolist())
    return boxes


def _releases(names: Any) -> list[str]:
    """Return the names that are releases, oldest first."""
    found = [match for name in names if (match := re.fullmatch(r"(\d{4}-\d\d-\d\d)\.(\d+)", name))]
    return [match[0] for match in sorted(found, key=lambda match: (match[1], int(match[2])))]
