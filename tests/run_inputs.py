"""A tiny city of pixels and POIs, and what its runs are made with."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from urbancli.grid import Grid, Places
from urbancli.layers import ENTITY_SCHEMA, CityLayers, open_city
from urbancli.runs import RunOptions
from urbancli.workspace import (
    Workspace,
    geo_table,
    sha256,
    write_json,
    write_manifest,
    write_table,
)

GRID = Grid(32643)
BOTH = ("sentinel2", "pois")
CORNER = np.array([2333, 10550])
SIDE = 8
TINY = (
    "width=16", "heads=2", "capsule_frequencies=4", "capsule_width=8", "contrastive_width=8",
    "epochs=3", "batch_size=20",
)  # fmt: skip


def some_tiles(corner: np.ndarray = CORNER) -> Places:
    steps = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"), axis=-1)
    cells = corner + steps.reshape(-1, 2)
    ids = np.array([GRID.tile_id(int(c), int(r)) for c, r in cells], dtype=object)
    x, y = ((cells + 0.5) * GRID.tile_m).T
    return Places(GRID, ids, "tile", x, y, np.ones(len(cells)))


def write_pixels(city_dir: Path, places: Places, seed: int, changed: np.ndarray) -> Path:
    """Two bands at 30 m; the last tile is invalid; tiles in `changed` hold other samples."""
    rng = np.random.default_rng(seed)
    samples = rng.integers(0, 3000, (len(places), 2, 10, 10)).astype("<u2")
    samples[:, 0] += (np.arange(len(places)) * 40).astype("<u2")[:, None, None]
    samples[changed] = 9000 - samples[changed]
    known = [1.0] * (len(places) - 1) + [0.0]
    columns = {
        "place_id": pa.array(places.place_id.tolist()),
        "block": pa.array([""] * len(places)),
        "valid_fraction": pa.array(known),
        "pixels": pa.array([tile.tobytes() for tile in samples], pa.binary()),
        "valid": pa.array([b""] * len(places), pa.binary()),
    }
    shapes = GRID.unproject_geometry(places.boxes())
    path = city_dir / "layers" / "sentinel2.parquet"
    facts = {"bands": ["red", "nir"], "dtype": "uint16", "pixel_m": 30.0}
    write_table(path, geo_table(columns, shapes), facts)
    return path


def write_pois(city_dir: Path, places: Places, seed: int, changed: np.ndarray) -> Path:
    """Three POIs a tile, its first kinds by the tile's column; others where `changed`."""
    rng = np.random.default_rng(seed)
    spots = np.repeat(np.column_stack([places.x, places.y]), 3, axis=0)
    spots += rng.uniform(-140, 140, spots.shape)
    kinds = ["cafe", "school", "bank", "pub"]
    rows = []
    for number, (x, y) in enumerate(spots):
        kind = kinds[(number // 3 // SIDE + number) % 4]
        tags = [("amenity", "prison" if changed[number // 3] else kind), ("name", f"at {number}")]
        lon, lat = GRID.unproject(x, y)
        point = shapely.Point(float(lon), float(lat))
        box = dict(zip(("xmin", "ymin", "xmax", "ymax"), point.bounds, strict=True))
        rows.append({
            "entity_id": f"node/{number}", "tags": tags, "members": [], "places": [], "block": "",
            "bbox": box, "geometry": shapely.to_wkb(point),
        })  # fmt: skip
    path = city_dir / "layers" / "pois.parquet"
    write_table(path, pa.Table.from_pylist(rows, schema=ENTITY_SCHEMA), {})
    return path


def make_city(
    workspace: Workspace,
    key: str = "tinytown",
    layers: tuple[str, ...] = ("pois",),
    changed: np.ndarray | None = None,
    places: Places | None = None,
) -> CityLayers:
    places = some_tiles() if places is None else places
    folder = workspace.city_dir(key)
    write_table(workspace.places_file(key), places.to_table(), {})
    changed = np.zeros(len(places), dtype=bool) if changed is None else changed
    writers = {"sentinel2": write_pixels, "pois": write_pois}
    files = [writers[name](folder, places, 0, changed) for name in layers]
    city = {"epsg": GRID.epsg, "tile_m": GRID.tile_m}
    write_json(workspace.lock_file(key), {"city": city})
    write_manifest(folder, [workspace.places_file(key), *files])
    return open_city(workspace, key)


def options(*overrides: str, **changes: Any) -> RunOptions:
    return RunOptions(**{"overrides": (*TINY, *overrides), "checkpoint_s": 0.0, **changes})


def checksums(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in folder.iterdir() if path.name != "cost.json"}


MINE = """
from dataclasses import dataclass
from urbancli.methods import urbanfusion

@dataclass(frozen=True)
class Config(urbanfusion.Config):
    epochs: int = 1

    @classmethod
    def preset(cls, name):
        return cls(width=8, heads=2, capsule_width=8, contrastive_width=4)

class Method(urbanfusion.Method):
    inputs = ("coords",)
"""
