"""A city's layers in the formats of GIS: imagery as a COG; everything else as GPKG or CSV.

All is streamed by row group. What the file's licence asks travels along: as tags of a GeoTIFF, as
metadata of a GPKG, and as a text beside a CSV. The same layer gives the same bytes.
"""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urbancli.errors import UrbanError, UsageError, unknown
from urbancli.exporting.cog import write_cog
from urbancli.exporting.tables import Batches, write_csv, write_gpkg
from urbancli.layers import ENTITY_LAYERS, open_city
from urbancli.licences import licences
from urbancli.workspace import Workspace, atomic_path, open_parquet, write_text

FORMATS = {"cog": ".tif", "gpkg": ".gpkg", "csv": ".csv"}
"""Formats and the suffixes of their files."""

FULL_BYTES = 1 << 20
"""With less room left than this a disk was full: GDAL and SQLite do not tell why they cannot write,
and remove files of their own before we can look."""

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""


@dataclass(frozen=True)
class Chosen:
    """What is exported.

    Attributes:
        path: of its Parquet file.
        name: of the layer in the file that is written.
        view: `buildings`, `aoi` or `pois` where it is a part of the layer `entities`; else empty.
    """

    path: Path
    name: str
    view: str = ""


def choose(workspace: Workspace, key: str, name: str) -> Chosen:
    """Return the file behind a name: `places`, a layer or a view of one, or a label.

    `layers/NAME` and `labels/NAME` say which is meant where both have the name.

    Raises:
        UsageError: the city is not fetched, or has nothing of that name.
    """
    open_city(workspace, key)
    kind, _, bare = name.rpartition("/")
    layers, labels = workspace.layers(key), workspace.labels(key)
    views = ENTITY_LAYERS if "entities" in layers else ()
    if name == "places":
        return Chosen(workspace.places_file(key), name)
    if kind in {"", "layers"} and bare in layers:
        return Chosen(workspace.layer_file(key, bare), bare)
    if kind in {"", "labels"} and bare in labels:
        return Chosen(workspace.label_file(key, bare), bare)
    if kind == "" and bare in views:
        return Chosen(workspace.layer_file(key, "entities"), bare, bare)
    raise unknown("layer", name, {"places", *layers, *labels, *views})


def export(chosen: Chosen, to: str, out: Path, progress: Progress, *, wkt: bool = False) -> int:
    """Write a layer as a COG, GPKG or CSV, whole or not at all; return how many rows it has.

    Args:
        chosen: what.
        to: `cog`, `gpkg` or `csv`.
        out: the file; one that is there is replaced.
        progress: told of every row group.
        wkt: whether a CSV has the whole geometry as WKT too.

    Raises:
        UsageError: no such format, or one that the layer cannot have.
        UrbanError: the layer cannot be read, or the file cannot be written.
    """
    if to not in FORMATS:
        raise unknown("format", to, FORMATS)
    if wkt and to != "csv":
        raise UsageError("--wkt is for --to csv: leave it out")
    file, facts = open_parquet(chosen.path)
    with file:
        if ("bands" in facts) != (to == "cog"):
            what, other = ("imagery", "cog") if "bands" in facts else ("a table", "gpkg or csv")
            raise UsageError(f"'{chosen.name}' is {what}, it cannot be {to}: use --to {other}")
        said = _said(chosen, facts)
        with _whole(out, FORMATS[to]) as made:
            if to == "cog":
                return write_cog(file, facts, said, made, progress)
            batches = Batches(file, chosen.name, chosen.view, progress)
            if to == "gpkg":
                write_gpkg(made, batches, said)
            else:
                text = "".join(f"{name}: {value}\n" for name, value in said.items())
                write_text(beside(out), text)
                write_csv(made, batches, wkt=wkt)
            return batches.rows


def beside(out: Path) -> Path:
    """Return the text beside a CSV that says whose data it holds."""
    return out.with_name(f"{out.name}.attribution.txt")


def _said(chosen: Chosen, facts: dict[str, Any]) -> dict[str, str]:
    """Return what must travel along: whose data, under which licence, and that they changed."""
    said = {"LAYER": chosen.name}
    if facts.get("attribution"):
        said["ATTRIBUTION"] = facts["attribution"]
    known = licences(facts["licence"]) if facts.get("licence") else []
    if known:
        said["LICENCE"] = ", ".join(f"{each.name} {each.url}".strip() for each in known)
        said["CHANGES"] = "cut to a city and brought onto its grid or CRS by urban"
    if "synthetic" in facts:
        said["SYNTHETIC"] = facts["synthetic"]
    return said


@contextlib.contextmanager
def _whole(out: Path, suffix: str) -> Iterator[Path]:
    """Yield a path with a proper suffix beside `out`, which becomes `out` once it is whole.

    Raises:
        UrbanError: it cannot be written.
    """
    with (
        atomic_path(out) as temporary,
        tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder,
    ):
        made = Path(folder) / f"export{suffix}"
        try:
            yield made
        except Exception as err:
            if not (_is_of_gdal(err) or isinstance(err, OSError)):
                raise
            if shutil.disk_usage(folder).free < FULL_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from err
            if isinstance(err, OSError):
                raise
            raise UrbanError(f"cannot write {out}: {_first_line(err)}") from err
        made.replace(temporary)


def _is_of_gdal(err: Exception) -> bool:
    return type(err).__module__.split(".")[0] in {"rasterio", "pyogrio"}


def _first_line(err: Exception) -> str:
    return (str(err).splitlines() or [type(err).__name__])[0]
