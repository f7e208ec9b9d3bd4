"""The workspace on disk: paths, GeoParquet in and out, atomic writes, versions, checksums.

Crash safety comes from order, not machinery: a file is written under a temporary name, flushed,
and renamed, so a name that exists is a whole file; `manifest.json` is written after what it lists.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from urbancli.errors import UrbanError
from urbancli.hilbert import hilbert_order_of_boxes

SCHEMA_VERSION = 1
"""Version of every file this package writes; a reader refuses any other."""

GEOMETRY_TYPES = (
    "Point", "LineString", "LinearRing", "Polygon", "MultiPoint", "MultiLineString",
    "MultiPolygon", "GeometryCollection",
)  # fmt: skip

Geometries = npt.NDArray[np.object_]
"""An object array of shapely geometries."""

BBOX_TYPE = pa.struct([(name, pa.float64()) for name in ("xmin", "ymin", "xmax", "ymax")])


@dataclass(frozen=True)
class Workspace:
    """A folder with `data/`, `runs/`, `splits/` and `results/` in it; every path is made here.

    `inputs/` is there where a city was generated.
    """

    root: Path

    def inputs_dir(self, city: str) -> Path:
        """Return where the files of a generated city lie, which sources then read."""
        return self.root / "inputs" / city

    def city_dir(self, city: str) -> Path:
        """Return the folder of a fetched city."""
        return self.root / "data" / city

    def lock_file(self, city: str) -> Path:
        """Return what exactly was read for a city: the plan."""
        return self.city_dir(city) / "lock.json"

    def manifest_file(self, city: str) -> Path:
        """Return the list of a city's finished files with their checksums; written last."""
        return self.city_dir(city) / "manifest.json"

    def places_file(self, city: str) -> Path:
        """Return the tiles of a city."""
        return self.city_dir(city) / "places.parquet"

    def layer_file(self, city: str, layer: str) -> Path:
        """Return the compacted file of a layer."""
        return self.city_dir(city) / "layers" / f"{layer}.parquet"

    def label_file(self, city: str, label: str) -> Path:
        """Return the units and values of a label."""
        return self.city_dir(city) / "labels" / f"{label}.parquet"

    def staging_dir(self, city: str, layer: str, fingerprint: str) -> Path:
        """Return where the blocks of an unfinished layer wait; gone once it is compacted."""
        return self.city_dir(city) / ".staging" / f"{layer}-{fingerprint}"

    def listed_files(self, city: str) -> dict[str, dict[str, Any]]:
        """Return the files of a city's manifest: path → sha256 and bytes; none without a manifest.

        Raises:
            UrbanError: the manifest is broken.
        """
        path = self.manifest_file(city)
        if not path.exists():
            return {}
        files = read_json(path).get("files")
        whole = isinstance(files, dict) and all(
            isinstance(entry, dict) and "sha256" in entry for entry in files.values()
        )
        if not whole:
            raise UrbanError(
                f"{path} does not list the city's files: delete it and run the same "
                f"`urban fetch --city {city}` again"
            )
        return dict(files or {})

    def token_dir(self, city: str, modality: str, fingerprint: str) -> Path:
        """Return the cache of one encoder's output over a city."""
        return self.city_dir(city) / "tokens" / f"{modality}-{fingerprint}"

    def run_dir(self, run: str) -> Path:
        """Return the folder of a training run."""
        return self.root / "runs" / run

    def method_file(self, name: str, code_sha256: str) -> Path:
        """Return where the code of a user's own method lies that a lock brought."""
        return self.root / "methods" / code_sha256[:8] / f"{name}.py"

    def split_file(self, city: str, label: str, seed: int, kind: str = "spatial") -> Path:
        """Return the split of a label's units into groups and folds."""
        name = f"{city}-{label}-s{seed}" + ("" if kind == "spatial" else f"-{kind}")
        return self.root / "splits" / f"{name}.parquet"

    def picture_file(self, city: str) -> Path:
        """Return the picture of a fetched city."""
        return self.results_dir() / f"{city}.png"

    def results_dir(self) -> Path:
        """Return where the benchmark writes its rows."""
        return self.root / "results"

    def answers_dir(self) -> Path:
        """Return where the benchmark keeps the predictions that its rows were made from."""
        return self.results_dir() / "answers"

    def cities(self) -> list[str]:
        """Return the fetched cities: those whose manifest, written last, exists."""
        return sorted(path.parent.name for path in self.root.glob("data/*/manifest.json"))

    def labels(self, city: str) -> list[str]:
        """Return the names of a city's labels."""
        return sorted(path.stem for path in self.city_dir(city).glob("labels/*.parquet"))

    def layers(self, city: str) -> list[str]:
        """Return the names of a city's finished layers."""
        return sorted(path.stem for path in self.city_dir(city).glob("layers/*.parquet"))

    def runs(self) -> list[str]:
        """Return the finished runs: those whose `run.json`, written last, exists."""
        return sorted(path.parent.name for path in self.root.glob("runs/*/run.json"))


# --- whole files or none ---------------------------------------------------------------------


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it into place.

    Raises:
        UrbanError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as err:
        if "No space left" in str(err):
            raise UrbanError(
                f"no space left to write {path}: make room and run the same command again"
            ) from err
        raise UrbanError(f"cannot write {path}: {err.strerror or err}") from err
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes left anywhere below a folder."""
    for litter in folder.rglob(".*.part"):
        owner = litter.suffixes[-2].lstrip(".") if len(litter.suffixes) > 1 else ""
        if not (owner.isdigit() and _alive(int(owner))):
            litter.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file with sorted keys and the schema version, whole or not at all."""
    document = {"schema_version": SCHEMA_VERSION, **content}
    write_text(path, json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of ours.

    Raises:
        UrbanError: it is missing, broken, or of another schema version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise UrbanError(f"no file {path}: run the command that makes it first") from err
    except (OSError, ValueError) as err:
        raise UrbanError(f"cannot read {path}: {err}; delete it and run the command again") from err
    if not isinstance(content, dict):
        raise UrbanError(f"{path} is not a JSON object; delete it and run the command again")
    check_version(content, path)
    return content


def check_version(metadata: dict[str, Any], path: Path) -> None:
    """Refuse a file whose schema version is not the one this package writes."""
    version = metadata.get("schema_version")
    if version != SCHEMA_VERSION:
        raise UrbanError(
            f"{path} has schema version {version}, this urban reads {SCHEMA_VERSION}: "
            "use the urban that wrote it, or make the file anew"
        )


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(content: Any) -> str:
    """Return 16 hexadecimal digits that change whenever a JSON-able content changes."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- GeoParquet 1.1 --------------------------------------------------------------------------


def geo_table(columns: dict[str, Any], geometry: Geometries) -> pa.Table:
    """Return a table of `columns`, `geometry` (WKB, EPSG:4326, lon lat) and its `bbox` struct."""
    bounds = shapely.bounds(geometry).reshape(-1, 4)
    bbox = pa.StructArray.from_arrays(
        [pa.array(bounds[:, axis]) for axis in range(4)], fields=list(BBOX_TYPE)
    )
    wkb = pa.array(shapely.to_wkb(geometry).tolist(), pa.binary())
    return pa.table({**columns, "bbox": bbox, "geometry": wkb})


def geometries(table: pa.Table) -> Geometries:
    """Return the geometries of a table as shapely objects, EPSG:4326, lon lat."""
    wkb = table.column("geometry").to_numpy(zero_copy_only=False)
    return np.asarray(shapely.from_wkb(wkb), dtype=object)


def boxes_of(table: pa.Table) -> npt.NDArray[np.float64]:
    """Return the `bbox` column of a table as (N, 4): west, south, east, north in degrees."""
    bbox = table.column("bbox").combine_chunks()
    return np.column_stack([bbox.field(name).to_numpy() for name in BBOX_TYPE.names])


def geometry_types(wkb: pa.ChunkedArray) -> list[str]:
    """Return the types of geometries, which little-endian WKB holds in its second byte."""
    codes: set[int] = set()
    for chunk in wkb.drop_null().chunks:
        _, offsets, data = chunk.buffers()
        begin = np.frombuffer(offsets, np.int32)[chunk.offset : chunk.offset + len(chunk)]
        codes |= set(np.unique(np.frombuffer(data, np.uint8)[begin + 1]).tolist())
    # WKB knows no rings by themselves, which shapely counts between lines and polygons.
    return sorted(GEOMETRY_TYPES[code - 1 if code < 3 else code] for code in codes)


def _geo_metadata(types: Sequence[str], bounds: Sequence[float]) -> dict[str, Any]:
    from pyproj import CRS

    return {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {
            "geometry": {
                "encoding": "WKB",
                "geometry_types": list(types),
                "crs": CRS.from_epsg(4326).to_json_dict(),
                "bbox": [float(value) for value in bounds],
                "covering": {
                    "bbox": {name: ["bbox", name] for name in ("xmin", "ymin", "xmax", "ymax")}
                },
            }
        },
    }


def write_tables(
    path: Path,
    tables: Iterable[pa.Table],
    *,
    schema: pa.Schema,
    metadata: dict[str, Any],
    types: Sequence[str] = (),
    bounds: Sequence[float] = (),
    passing: bool = False,
) -> None:
    """Write tables as the row groups of one Parquet file, whole or not at all.

    Args:
        path: the file.
        tables: one per row group, all of `schema`.
        schema: with `geometry` and `bbox` columns the file is GeoParquet 1.1.
        metadata: JSON-able facts kept under the key `urban`: provenance, licence, counts.
        types: the geometry types present, e.g. `("Polygon",)`; for GeoParquet.
        bounds: (west, south, east, north) of all geometries, EPSG:4326 degrees; for GeoParquet.
        passing: the file will soon be read and written again: packed fast, not well.
    """
    packed = {"compression": "zstd", "compression_level": 3}
    if passing:
        packed = {"compression": "lz4", "use_dictionary": False, "write_statistics": False}
    facts = json.dumps({"schema_version": SCHEMA_VERSION, **metadata}, sort_keys=True)
    keys = {b"urban": facts.encode()}
    if "geometry" in schema.names:
        keys[b"geo"] = json.dumps(_geo_metadata(types, bounds)).encode()
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(temporary, schema.with_metadata(keys), **packed) as writer,
    ):
        for table in tables:
            if table.num_rows:
                writer.write_table(table.replace_schema_metadata(keys), row_group_size=1 << 30)


def write_table(path: Path, table: pa.Table, metadata: dict[str, Any], rows: int = 65536) -> None:
    """Write one table; a geometry column makes it GeoParquet 1.1 in Hilbert order.

    Args:
        path: the file.
        table: from `geo_table`, or without geometry.
        metadata: JSON-able facts kept under the key `urban`.
        rows: rows per row group.
    """
    types: list[str] = []
    bounds = [0.0] * 4
    if "geometry" in table.column_names:
        types = geometry_types(table.column("geometry"))
        boxes = boxes_of(table)
        if len(boxes):
            low, high = np.fmin.reduce(boxes[:, :2]), np.fmax.reduce(boxes[:, 2:])
            bounds = [*low.tolist(), *high.tolist()]
        table = table.take(pa.array(hilbert_order_of_boxes(boxes)))
    groups = (table.slice(start, rows) for start in range(0, table.num_rows, rows))
    write_tables(path, groups, schema=table.schema, metadata=metadata, types=types, bounds=bounds)


def open_parquet(path: Path) -> tuple[pq.ParquetFile, dict[str, Any]]:
    """Open a Parquet file of ours and return it with its `urban` facts.

    Raises:
        UrbanError: it is missing, broken, not ours, or of another schema version.
    """
    if not path.is_file():
        raise UrbanError(f"no file {path}: run the command that makes it first")
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as err:
        raise UrbanError(f"{path} is not a whole Parquet file: delete it and make it anew") from err
    facts = json.loads((file.schema_arrow.metadata or {}).get(b"urban", b"{}"))
    check_version(facts, path)
    return file, facts


def read_table(path: Path, columns: list[str] | None = None) -> tuple[pa.Table, dict[str, Any]]:
    """Return the table of a Parquet file of ours and its `urban` facts; see `open_parquet`."""
    file, facts = open_parquet(path)
    try:
        with file:
            return file.read(columns=columns), facts
    except (OSError, pa.ArrowException) as err:
        raise UrbanError(f"{path} is damaged: delete it and make it anew") from err


# --- manifest --------------------------------------------------------------------------------


def write_manifest(folder: Path, files: Iterable[Path]) -> None:
    """Write `manifest.json` of a folder: path, SHA-256 and size of every file in it; written last.

    Args:
        folder: where the manifest goes; paths in it are relative to this.
        files: all files that belong to it.
    """
    listed = {
        path.relative_to(folder).as_posix(): {"sha256": sha256(path), "bytes": path.stat().st_size}
        for path in files
    }
    write_json(folder / "manifest.json", {"files": listed})
