"""A picture of a fetched city: its imagery, its map, its tiles and its labels, side by side."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.grid import Places
from urbancli.labels.files import Label, load_label
from urbancli.layers import CityLayers, has_tag
from urbancli.workspace import Geometries, Workspace, atomic_path, geometries

DETAIL_TILES = 8
"""Side of the square around the middle that is shown closely."""

WHOLE_PX = 900
"""Pixels along the longer side of imagery of the whole city, at most."""

RED_GREEN_BLUE = (("B04", "B03", "B02"), ("R", "G", "B"), ("red", "green", "blue"))
"""Names of the bands of a true-colour image; without any of them the first three are shown."""

GAMMA = 0.75

AREA_COLOURS = (
    ("landuse", "residential", "#f0ece4"), ("landuse", "commercial", "#f3dfd4"),
    ("landuse", "retail", "#f6d8cf"), ("landuse", "industrial", "#e3dbe6"),
    ("landuse", "railway", "#dcd9d4"), ("landuse", "farmland", "#f2eecb"),
    ("landuse", "meadow", "#dcebc1"), ("landuse", "allotments", "#d6e4c0"),
    ("landuse", "cemetery", "#bcd5b2"), ("landuse", "grass", "#d3ebb8"),
    ("landuse", "forest", "#a9cf9a"), ("natural", "wood", "#a9cf9a"),
    ("natural", "scrub", "#c3dba8"), ("leisure", "park", "#c4e6b5"),
    ("leisure", "garden", "#cfe9c3"), ("leisure", "golf_course", "#b8dfae"),
    ("leisure", "pitch", "#a5dcc0"), ("leisure", "playground", "#d2f0d0"),
    ("amenity", "school", "#f4eec6"), ("amenity", "university", "#f4eec6"),
    ("amenity", "hospital", "#f7dede"), ("amenity", "parking", "#e9e9e9"),
    ("natural", "water", "#9fc6e3"), ("leisure", "swimming_pool", "#7fb8e6"),
)  # fmt: skip
"""Key, value and fill of areas, in the order they are drawn."""

LINE_STYLES = (
    ("waterway", None, "#9fc6e3", 1.0), ("highway", "track", "#c8b899", 0.4),
    ("highway", "path", "#b8a88a", 0.35), ("highway", "footway", "#c9a9a0", 0.35),
    ("highway", "cycleway", "#8fa8c8", 0.4), ("highway", "service", "#ffffff", 0.6),
    ("highway", "pedestrian", "#d8d4e6", 0.9), ("highway", "residential", "#ffffff", 1.0),
    ("highway", "tertiary", "#fbf6c4", 1.4), ("highway", "secondary", "#f6dd9b", 1.8),
    ("highway", "primary", "#f3b878", 2.2), ("highway", "trunk", "#ee9377", 2.5),
    ("highway", "motorway", "#e57b8a", 2.8), ("railway", None, "#777777", 0.8),
)  # fmt: skip
"""Key, value (None: any), colour and width in points, in the order they are drawn."""

BUILDING_COLOUR = "#b7a79a"


def draw_city(workspace: Workspace, city: CityLayers, path: Path, title: str) -> None:
    """Write a PNG of a city: left the whole of it, right its middle closely, below its labels.

    Args:
        workspace: where its labels lie.
        city: fetched.
        path: of the PNG.
        title: stands above.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    places = city.tiles()
    whole = _box(places)
    detail = _middle(whole, DETAIL_TILES * places.grid.tile_m)
    imagery = [name for name in ("sentinel2", "naip") if name in city.modalities()]
    panels: list[tuple[str, Any]] = []
    for name, box in zip(imagery, (whole, detail), strict=False):
        panels.append((name, lambda axes, n=name, b=box: _draw_imagery(axes, city, n, b)))
    if "entities" in city.modalities():
        for box, what in ((whole, "OSM and tiles"), (detail, "OSM, the middle")):
            panels.append((what, lambda axes, b=box: _draw_map(axes, city, b, places)))
    for chosen in _labels_to_show(workspace.labels(city.key)):
        label = load_label(workspace, city.key, chosen)
        panels.append((f"label {chosen}", lambda axes, v=label: _draw_label(axes, v, city, whole)))
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(15, 0.6 + 7.3 * rows), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=15)
    for number, (heading, draw) in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, 2, number)
        axes.set_title(heading, fontsize=11)
        draw(axes)
        axes.set_aspect("equal")
        axes.ticklabel_format(style="plain", useOffset=False)
        axes.tick_params(labelsize=7)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None, "Title": title})


def _labels_to_show(names: list[str]) -> list[str]:
    """Return at most four labels, the benchmark's usual ones first."""
    first = ("population_density", "land_use", "greenness", "crime")
    known = [name for name in first if name in names]
    return (known + [name for name in names if name not in known])[:4]


def _box(places: Places) -> tuple[float, float, float, float]:
    half = places.grid.tile_m / 2
    x, y = places.x, places.y
    return (
        float(x.min() - half),
        float(y.min() - half),
        float(x.max() + half),
        float(y.max() + half),
    )


def _middle(
    box: tuple[float, float, float, float], side_m: float
) -> tuple[float, float, float, float]:
    left, bottom, right, top = box
    x, y = (left + right) / 2, (bottom + top) / 2
    half = min(side_m, right - left, top - bottom) / 2
    return x - half, y - half, x + half, y + half


def _limit(axes: Any, box: tuple[float, float, float, float]) -> None:
    axes.set_xlim(box[0], box[2])
    axes.set_ylim(box[1], box[3])


def _draw_imagery(
    axes: Any, city: CityLayers, name: str, box: tuple[float, float, float, float]
) -> None:
    layer = city.pixels(name)
    column, row = round(box[0] / layer.pixel_m), round(-box[3] / layer.pixel_m)
    width = round((box[2] - box[0]) / layer.pixel_m)
    height = round((box[3] - box[1]) / layer.pixel_m)
    samples, valid = layer.read(column, row, width, height)
    chosen = next((n for n in RED_GREEN_BLUE if set(n) <= set(layer.bands)), layer.bands[:3])
    bands = ([layer.bands.index(band) for band in chosen] * 3)[:3]
    colours = np.where(valid, samples[bands].astype(np.float32), np.nan)
    image = _shrink(colours, -(-max(width, height) // WHOLE_PX))
    known = np.isfinite(image)
    low, high = np.percentile(image[known], [0.5, 99]) if known.any() else (0.0, 1.0)
    # One stretch for all bands, so that grey stays grey; brightened as a display expects it.
    stretched = np.clip((image - low) / max(high - low, 1e-6), 0, 1) ** GAMMA
    shown = np.where(known, stretched, 1.0).transpose(1, 2, 0)
    axes.imshow(shown, extent=(box[0], box[2], box[1], box[3]), interpolation="nearest")


def _shrink(bands: npt.NDArray[np.float32], factor: int) -> npt.NDArray[np.float32]:
    """Return the means over squares of pixels (bands, rows, columns), NaN where none is known."""
    rows, columns = (size // factor * factor for size in bands.shape[1:])
    cut = bands[:, :rows, :columns]
    squares = cut.reshape(len(bands), rows // factor, factor, columns // factor, factor)
    known = np.isfinite(squares)
    count = known.sum(axis=(2, 4))
    total = np.where(known, squares, 0).sum(axis=(2, 4))
    mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return np.asarray(mean, dtype=np.float32)


def _draw_map(
    axes: Any, city: CityLayers, box: tuple[float, float, float, float], places: Places
) -> None:
    table = city.entities("entities")
    shapes = np.asarray(city.grid.project_geometry(geometries(table)), dtype=object)
    near = shapely.intersects(shapes, shapely.box(*box))
    table, shapes = table.filter(near), shapes[near]
    tags = [dict(pairs or ()) for pairs in table.column("tags").to_pylist()]
    kind = shapely.get_dimensions(shapes)
    axes.set_facecolor("#f7f5f0")
    close = box[2] - box[0] <= 2 * DETAIL_TILES * city.grid.tile_m
    for key, value, colour in AREA_COLOURS:
        wanted = np.array([t.get(key) == value for t in tags], dtype=bool)
        _fill(axes, shapes[wanted & (kind == 2)], colour)
    for key, wish, colour, width in LINE_STYLES:
        wanted = np.array([key in t and wish in (None, t[key]) for t in tags], dtype=bool)
        wide = width * (1.8 if close else 0.35)
        _stroke(axes, shapes[wanted & (kind == 1)], colour, wide)
    buildings = has_tag(table, ["building"]) & (kind == 2)
    _fill(axes, shapes[buildings], BUILDING_COLOUR)
    if close:
        trees = np.array([t.get("natural") == "tree" for t in tags], dtype=bool) & (kind == 0)
        axes.plot(*shapely.get_coordinates(shapes[trees]).T, ".", color="#6ea35c", markersize=1.5)
    outlines = shapely.boundary(places.boxes())
    _stroke(axes, np.asarray(outlines, dtype=object), "#3b5bdb", 0.8 if close else 0.08)
    _limit(axes, box)


def _fill(axes: Any, shapes: Geometries, colour: str | npt.NDArray[Any]) -> None:
    """Fill polygons, holes left open, in one colour or (N, 4) in one each."""
    from matplotlib.collections import PathCollection
    from matplotlib.path import Path as Outline

    parts, owner = shapely.get_parts(shapes, return_index=True)
    paths = []
    for polygon in parts:
        rings = shapely.get_rings(polygon)
        points, ring = shapely.get_coordinates(rings, return_index=True)
        codes = np.full(len(points), Outline.LINETO, dtype=np.uint8)
        codes[np.flatnonzero(np.diff(ring, prepend=-1))] = Outline.MOVETO
        paths.append(Outline(points, codes))
    colours = colour if isinstance(colour, str) else colour[owner]
    axes.add_collection(PathCollection(paths, facecolors=colours, edgecolors="none"))


def _stroke(axes: Any, shapes: Geometries, colour: str, width: float) -> None:
    from matplotlib.collections import LineCollection

    lines = [shapely.get_coordinates(line) for line in shapely.get_parts(shapes)]
    axes.add_collection(LineCollection(lines, colors=colour, linewidths=width))


def _draw_label(
    axes: Any, label: Label, city: CityLayers, box: tuple[float, float, float, float]
) -> None:
    """Draw units in the colour of their value: ranks of numbers, a colour a class."""
    from matplotlib import colormaps
    from matplotlib.lines import Line2D

    shapes = np.asarray(city.grid.project_geometry(label.geometry), dtype=object)
    if label.kind == "classification":
        names = sorted({str(value) for value in label.value if value is not None})
        palette = colormaps["tab10"](np.arange(max(len(names), 1)) % 10)
        known = np.array([value is not None for value in label.value])
        colours = palette[[names.index(str(v)) if v is not None else 0 for v in label.value]]
        marks = [Line2D([], [], marker="s", linestyle="", color=c) for c in palette[: len(names)]]
        axes.legend(marks, names, fontsize=8, loc="lower right")
    else:
        values = label.value.astype(np.float64)
        known = np.isfinite(values)
        rank = np.zeros(len(values))
        rank[known] = np.argsort(np.argsort(values[known])) / max(known.sum() - 1, 1)
        colours = colormaps["viridis"](rank)
        low, high = np.nanmin(values), np.nanmax(values)
        axes.set_xlabel(f"{low:,.3g} to {high:,.3g}, coloured by rank", fontsize=8)
    points = shapely.get_dimensions(shapes) == 0
    spots = shapely.get_coordinates(shapes[known & points])
    axes.scatter(*spots.T, c=colours[known & points], s=6, linewidths=0)
    _fill(axes, shapes[known & ~points], colours[known & ~points])
    _limit(axes, box)
