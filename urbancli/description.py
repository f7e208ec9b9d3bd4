"""What stands beside a city's data: a STAC Item per layer, and ATTRIBUTION.md.

Both follow from the finished files alone: no clock, no network, the same bytes each time. Items
are STAC 1.1 with the extensions File Info 2.1, Projection 2.0 and, for imagery, EO 2.0 and Raster
2.0. Licences, their terms and who made the data are looked up here by the names that layers carry.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from urbancli.city import synthetic_marks
from urbancli.grid import Grid, Integers, cells_of_ids, places_from_table
from urbancli.layers import fetched_area
from urbancli.licences import LICENCES, Licence, licences, producers
from urbancli.lock import unlist
from urbancli.workspace import Workspace, open_parquet, read_table, sha256, write_text

PARQUET_TYPE = "application/vnd.apache.parquet"

EXTENSION = "https://stac-extensions.github.io/{}/schema.json"

FILE_EXTENSIONS = ("file/v2.1.0", "projection/v2.0.0")
IMAGE_EXTENSIONS = ("eo/v2.0.0", "raster/v2.0.0")

ALWAYS = ("1700-01-01T00:00:00Z", "2200-01-01T00:00:00Z")
"""The interval of data of unknown time: STAC wants one. It fits into 64-bit nanoseconds, and the
property `urban:time_known` is false beside it."""

MULTIHASH_SHA256 = "1220"
"""What a SHA-256 of 32 bytes begins with as a multihash."""

DIGITS = 7
"""Of degrees: a centimetre."""

COMMON_NAMES = {
    "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge071",
    "B06": "rededge075", "B07": "rededge078", "B08": "nir", "B8A": "nir08", "B09": "nir09",
    "B11": "swir16", "B12": "swir22", "red": "red", "green": "green", "blue": "blue", "nir": "nir",
}  # fmt: skip
"""The EO extension's common names of bands."""

LISTED = 20
"""So many input files are named."""

SERVICES = ("catalogue", "endpoint", "service")
"""Keys of a plan that say where its data are from."""


def item_file(workspace: Workspace, key: str, layer: str) -> Path:
    """Return the STAC Item of a city's layer."""
    return workspace.city_dir(key) / "stac" / f"{layer}.json"


def attribution_file(workspace: Workspace, key: str) -> Path:
    """Return who is to be named beside a city's data, and under which licences it is."""
    return workspace.city_dir(key) / "ATTRIBUTION.md"


def describe(workspace: Workspace, key: str) -> list[Path]:
    """Write the Items of a city's finished layers and its ATTRIBUTION.md; return these files.

    A file whose text would stay the same is left alone; one that changes leaves the manifest
    first, and so does the Item of a layer that is gone, which is removed.

    Raises:
        UrbanError: a file of the city cannot be read, or the folder cannot be written.
    """
    texts = {item_file(workspace, key, n): item_text(item(workspace, key, n))
             for n in workspace.layers(key)}  # fmt: skip
    texts[attribution_file(workspace, key)] = attribution(workspace, key)
    for stale in set(workspace.city_dir(key).glob("stac/*.json")) - set(texts):
        unlist(workspace, key, stale)
        stale.unlink()
    for path, text in texts.items():
        if not path.exists() or path.read_bytes() != text.encode():
            unlist(workspace, key, path)
            write_text(path, text)
    return list(texts)


def item_text(document: dict[str, Any]) -> str:
    """Return an Item as its file holds it."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


# --- items -------------------------------------------------------------------------------------


def item(workspace: Workspace, key: str, layer: str, checksum: str | None = None) -> dict[str, Any]:
    """Return the STAC 1.1 Item of one finished layer, hrefs relative to where it will lie.

    Args:
        workspace: where it lies.
        key: the city.
        layer: the layer.
        checksum: SHA-256 of the layer's file, where it is known, to save reading it.
    """
    path = workspace.layer_file(key, layer)
    file, facts = open_parquet(path)
    with file:
        rows = file.metadata.num_rows
    pixels = "bands" in facts
    grid = Grid(facts["epsg"], facts["tile_m"])
    cells = _covered(workspace, key, path, facts)
    area = _footprint(grid, cells)
    known = licences(facts["licence"])
    extensions = FILE_EXTENSIONS + (IMAGE_EXTENSIONS if pixels else ())
    properties = {
        "title": f"{layer} of {key}",
        "description": " ".join(_changes(facts)),
        **_times(facts),
        "license": (known[0].spdx if len(known) == 1 else None) or "other",
        "providers": _providers(facts),
        "attribution": facts["attribution"],
        "urban:city": key,
        "urban:layer": layer,
        "urban:licence": facts["licence"],
        "urban:rows": rows,
        "urban:tile_m": grid.tile_m,
        "urban:plan_fingerprint": facts["plan_fingerprint"],
        **_projection(grid, cells, facts),
        **({"synthetic": True} if "synthetic" in facts else {}),
    }
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [EXTENSION.format(name) for name in extensions],
        "id": f"{key}-{layer}",
        "geometry": shapely.geometry.mapping(area),
        "bbox": _box(area),
        "properties": properties,
        "links": _links(known),
        "assets": {
            "data": {
                "href": f"../layers/{path.name}",
                "title": f"{layer}, GeoParquet 1.1",
                "type": PARQUET_TYPE,
                "roles": ["data"],
                "file:size": path.stat().st_size,
                "file:checksum": MULTIHASH_SHA256 + (checksum or sha256(path)),
                **(_bands(facts) if pixels else {}),
            }
        },
    }


def _covered(workspace: Workspace, key: str, path: Path, facts: dict[str, Any]) -> Integers:
    """Return the tiles (N, 2) a layer covers: those of its rows, or the city's with its halo."""
    grid = Grid(facts["epsg"], facts["tile_m"])
    if "bands" in facts:
        return cells_of_ids(read_table(path, ["place_id"])[0].column(0).combine_chunks())
    places = places_from_table(read_table(workspace.places_file(key))[0], grid)
    return grid.halo(places.cells, float(facts["provenance"].get("halo_m", 0.0)))


def _footprint(grid: Grid, cells: Integers) -> Any:
    """Return the union of tiles, EPSG:4326, lon lat, cut at the antimeridian."""
    union = shapely.coverage_union_all(grid.tile_boxes(np.unique(cells, axis=0)))
    # Straight edges bend by less than a metre over 20 km.
    outline = shapely.segmentize(shapely.simplify(union, 0.0), 20_000.0)
    lonlat = grid.unproject_geometry(outline)
    rounded = shapely.transform(lonlat, lambda points: points.round(DIGITS))
    return shapely.orient_polygons(shapely.normalize(rounded))


def _box(area: Any) -> list[float]:
    """Return west, south, east, north; west > east across the antimeridian (RFC 7946)."""
    west, south, east, north = area.bounds
    if east - west > 180:
        parts = shapely.get_parts(area)
        bounds = shapely.bounds(parts)
        west = float(bounds[bounds[:, 0] > 0, 0].min())
        east = float(bounds[bounds[:, 2] < 0, 2].max())
    return [west, south, east, north]


def _times(facts: dict[str, Any]) -> dict[str, Any]:
    """Return STAC's times of what was read; the widest interval where nothing says."""
    plan = facts["provenance"]
    found = [item["datetime"] for item in plan.get("items", []) if "datetime" in item]
    found += plan.get("osm_base", [])
    found += [plan["release"][:10]] if "release" in plan else []
    if isinstance(facts.get("years"), dict):  # of photos, which say no more
        years = [year for year in facts["years"] if year.isdigit()]
        found += [f"{year}-{day}" for year in years for day in ("01-01", "12-31T23:59:59")]
    moments = sorted(_utc(each) for each in found)
    first, last = (moments[0], moments[-1]) if moments else ALWAYS
    return {
        "datetime": first if first == last else None,
        "start_datetime": first,
        "end_datetime": last,
        "urban:time_known": bool(moments),
    }


def _utc(text: str) -> str:
    """Return a moment in UTC to the second, as RFC 3339 writes it."""
    moment = datetime.fromisoformat(text)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _projection(grid: Grid, cells: Integers, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the grid of an imagery layer's mosaic; entities are in degrees."""
    if "bands" not in facts:
        return {"proj:code": "EPSG:4326"}
    low, high = cells.min(axis=0) * grid.tile_m, (cells.max(axis=0) + 1) * grid.tile_m
    size = facts["pixel_m"]
    sides = [round(float(side) / size) for side in high - low]
    return {
        "proj:code": f"EPSG:{grid.epsg}",
        "proj:bbox": [float(value) for value in (*low, *high)],
        "proj:shape": sides[::-1],
        "proj:transform": [size, 0.0, float(low[0]), 0.0, -size, float(high[1])],
    }


def _bands(facts: dict[str, Any]) -> dict[str, Any]:
    bands = []
    for name in facts["bands"]:
        common = {"eo:common_name": COMMON_NAMES[name]} if name in COMMON_NAMES else {}
        scale = {"raster:scale": facts["scale"]} if "scale" in facts else {}
        bands.append({"name": name, "data_type": facts["dtype"], **common, **scale})
    return {
        "gsd": facts["native_m"],
        "raster:spatial_resolution": facts["pixel_m"],
        "bands": bands,
    }


def _providers(facts: dict[str, Any]) -> list[dict[str, Any]]:
    named = [] if "synthetic" in facts else producers(facts["attribution"])
    found = [{"name": name, "roles": ["producer", "licensor"], "url": url} for name, url in named]
    return [*found, {"name": "urban", "roles": ["processor"]}]


def _links(known: list[Licence]) -> list[dict[str, str]]:
    links = [{"rel": "describedby", "href": "../ATTRIBUTION.md", "type": "text/markdown"}]
    return links + [
        {"rel": "license", "href": each.url, "title": each.title} for each in known if each.url
    ]


# --- ATTRIBUTION.md ----------------------------------------------------------------------------


def attribution(workspace: Workspace, key: str) -> str:
    """Return the text of a city's ATTRIBUTION.md: per layer and label whom to name, and why."""
    entry = fetched_area(workspace, key, ("origin",))
    lines = [f"# Attribution of the data of {key}", ""]
    if marks := synthetic_marks(entry["origin"]):
        lines += [f"**{marks['synthetic']}**", ""]
    lines += ["Whoever passes these files on, or what was made from them, passes this on too.", ""]
    if entry["origin"].startswith("geocoder"):
        osm = LICENCES["ODbL-1.0"]
        lines += ["## area", "", "The outline is of Nominatim: © OpenStreetMap contributors, "
                  f"[{osm.name}]({osm.url}).", ""]  # fmt: skip
    files = [workspace.layer_file(key, name) for name in workspace.layers(key)]
    files += [workspace.label_file(key, name) for name in workspace.labels(key)]
    sections: dict[str, list[str]] = {}
    for path in files:
        file, facts = open_parquet(path)
        file.close()
        name = f"{path.parent.name}/{path.name}"
        sections.setdefault("\n".join(_section(facts)), []).append(name)
    for section, names in sections.items():
        lines += [f"## {', '.join(names)}", "", section, ""]
    return "\n".join(lines)


def _section(facts: dict[str, Any]) -> list[str]:
    """Return the lines of one file: whom to name, licences, what was read, what was done."""
    name = facts.get("attribution", "")
    if "synthetic" in facts:
        name = f"nobody, the city is generated (a layer of a real one: {name})" if name else ""
    lines = [f"- Name: {name}"] if name else []
    for each in licences(facts["licence"]):
        title = f"[{each.title}]({each.url})" if each.url else each.title
        lines.append(f"- Licence: `{each.name}`, {title}. {each.asks}")
    lines += [f"- Read: {text}" for text in _read(facts)]
    return lines + [f"- Done to the data: {text}" for text in _changes(facts)]


def _read(facts: dict[str, Any]) -> list[str]:
    """Return what was read: how much of which service, or the user's files by name."""
    plan = facts.get("provenance", facts.get("source", {}))
    where = [str(plan[name]) for name in SERVICES if name in plan]
    if not where:
        names = [each["file"] for each in plan.get("inputs", [plan]) if "file" in each]
        return [", ".join(names[:LISTED]) + (", …" if len(names) > LISTED else "")] if names else []
    items = [f"{len(plan['items'])} items of"] if plan.get("items") else []
    collection = [f"{plan['collection']} of"] if "collection" in plan else []
    release = [f"release {plan['release']} of"] if "release" in plan else []
    as_of = [f"as of {plan['osm_base'][-1]}"] if "osm_base" in plan else []
    return [" ".join([*items, *collection, *release, *where, *as_of])]


def _changes(facts: dict[str, Any]) -> list[str]:
    """Return in sentences how a file's data differ from what was read."""
    told = [f"{facts['synthetic']}."] if "synthetic" in facts else []
    if "label" in facts:
        return [*told, *_label_changes(facts)]
    plan = facts["provenance"]
    if "bands" in facts:
        return [*told, *_pixel_changes(facts, plan)]
    if "photos" in facts:
        told.append(
            f"At most {facts['per_tile']} photos of a tile chosen, large ones made smaller."
        )
        return told
    reach = f" and {plan['halo_m']:,.0f} m around them" if plan.get("halo_m") else ""
    told.append(f"Cut to what touches the city's tiles{reach}, coordinates in EPSG:4326.")
    if number := _number(facts.get("repaired")):
        told.append(f"{number:,} invalid polygons repaired.")
    return told


def _pixel_changes(facts: dict[str, Any], plan: dict[str, Any]) -> list[str]:
    how = plan.get("resampling", "bilinear")
    how = how["bands"] if isinstance(how, dict) else how
    native, size = facts["native_m"], facts["pixel_m"]
    brought = "" if native == size else f" brought to {size:g} m"
    told = [f"Pixels of {native:g} m{brought} on the city's grid (EPSG:{facts['epsg']}), {how}."]
    if "composite" in facts:
        clouds = "Clouds masked, " if plan.get("masked_classes") else ""
        unit = facts.get("unit", "reflectance times 10,000")
        dates = len(facts["dates"])
        told.append(f"{clouds}{facts['composite']} composite of {dates} dates, {unit}.")
    if facts.get("years"):
        told.append(f"Mosaic of {', '.join(map(str, facts['years']))}.")
    if plan.get("gaps"):
        told.append(f"{len(plan['gaps'])} blocks could not be read and are missing.")
    return told


def _label_changes(facts: dict[str, Any]) -> list[str]:
    told = [f"Cut to the city; a {facts['kind']} by {facts['unit']}."]
    asked = facts["source"]
    if asked.get("per_km2"):
        told.append("Values divided by the unit's area, km².")
    if asked.get("radius_m"):
        told.append(f"Points made circles of {asked['radius_m']:g} m.")
    if number := _number(facts.get("repaired")):
        told.append(f"{number:,} invalid polygons repaired.")
    return told


def _number(count: Any) -> int:
    return int(count["count"]) if isinstance(count, dict) else int(count or 0)
