"""Labels of a synthetic city as real sources would give them, and the factors as targets.

| file | like | unit |
|---|---|---|
| population.tif | WorldPop: people/km², from the floors of residential buildings | 100 m pixels |
| crime.csv | a police open-data set: one row an incident | points |
| land_use.geojson | PLUTO: shares of the ground by use, `lu_*` | tracts along streets |
| ndvi.tif | a vegetation index of the year before the imagery | 30 m pixels |
| zips.geojson | CDC PLACES and census tables joined to ZIP areas | about 4 × 4 tiles |
| perception.csv | Place Pulse 2.0: scores of street scenes | points |
| prices.csv | a price register: one row a sale | points |
| factors.tif | the truth: every factor and the synergy, a band each | tiles |

What is measured depends on shared factors and on the map; noise stands for all that is not known.
Only `factors.tif` knows the unique factors.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.city import SYNTHETIC
from urbancli.demo.factors import TARGETS, Factors, Floats, random_field
from urbancli.demo.recipe import GRID, Recipe
from urbancli.demo.town import Cells, Town
from urbancli.grid import TILE_M

LABELS = {
    "population_density": "population.tif",
    "crime": "crime.csv:#/km2",
    "greenness": "ndvi.tif",
    "land_use": "land_use.geojson:lu_*",
    "zip_obesity": "zips.geojson:obesity",
    "zip_poor_mental_health": "zips.geojson:poor_mental_health",
    "zip_high_blood_pressure": "zips.geojson:high_blood_pressure",
    "zip_median_income": "zips.geojson:median_income",
    "perception_safer": "perception.csv:safer",
    "perception_livelier": "perception.csv:livelier",
    "house_price": "prices.csv:log_price",
    **{f"factor_{name}": f"factors.tif:{name}" for name in TARGETS},
}
"""Label → its file and column, as `--label` takes them."""

POPULATION_PIXEL_M, NDVI_PIXEL_M = 100, 30

M2_PER_PERSON = 45.0
"""Gross floor area per inhabitant."""

CRIMES_PER_TILE = 9.0
POINTS_PER_TILE = 2

DWELLING = ("house", "detached", "semidetached_house", "terrace", "apartments", "residential")

USES = ("residential", "commercial", "industrial", "public", "green", "open")
"""Classes of land use."""

USE_OF_ZONE = {
    "residential": "residential", "commercial": "commercial", "retail": "commercial",
    "industrial": "industrial", "railway": "industrial", "school": "public", "hospital": "public",
    "park": "green", "forest": "green", "cemetery": "green", "allotments": "green",
    "farmland": "open", "meadow": "open", "water": "open",
}  # fmt: skip

NDVI_OF_ZONE = {
    "residential": 0.34, "commercial": 0.16, "retail": 0.18, "industrial": 0.15, "railway": 0.2,
    "school": 0.3, "hospital": 0.28, "park": 0.62, "forest": 0.78, "cemetery": 0.55,
    "allotments": 0.5, "farmland": 0.48, "meadow": 0.58, "water": -0.1,
}  # fmt: skip

YEAR_M = 600.0
"""Length over which vegetation differs between years."""

TILES_PER_ZIP = 4

HEALTH: Mapping[str, tuple[float, float, Mapping[str, float]]] = {
    "obesity": (31.0, 5.0, {"affluence": -0.7, "greenery": -0.2}),
    "poor_mental_health": (15.0, 2.5, {"affluence": -0.6, "density": 0.3, "greenery": -0.2}),
    "high_blood_pressure": (33.0, 5.0, {"age": 0.5, "affluence": -0.4}),
    "smoking": (16.0, 4.0, {"affluence": -0.7, "age": 0.2}),
    "binge_drinking": (18.0, 3.0, {"centrality": 0.6, "affluence": 0.3}),
    "median_income": (62_000.0, 17_000.0, {"affluence": 0.8, "centrality": 0.2}),
    "median_home_value": (340_000.0, 110_000.0, {"affluence": 0.6, "centrality": 0.4}),
}
"""Variable of a ZIP area → mean, standard deviation, weights of shared factors; the rest is noise.
Percentages of adults, and dollars."""


def write_labels(folder: Path, town: Town) -> None:
    """Write every label file of a city.

    Args:
        folder: where to; it exists.
        town: the city; only what lies in its box gets a label.
    """
    factors = town.factors
    recipe = factors.recipe
    population = _population(town)
    _write_raster(folder / "population.tif", {"people per km2": population}, 100, recipe)
    _write_raster(folder / "ndvi.tif", {"NDVI 2022": _ndvi(town)}, NDVI_PIXEL_M, recipe)
    truth = {name: factors.tile_means(name)[::-1] for name in TARGETS}
    _write_raster(folder / "factors.tif", truth, TILE_M, recipe)
    _write_crimes(folder / "crime.csv", factors)
    _write_perception(folder / "perception.csv", factors)
    _write_prices(folder / "prices.csv", factors)
    inside = _inside(town.cells, recipe)
    _write_land_use(folder / "land_use.geojson", town, inside)
    _write_zips(folder / "zips.geojson", town, inside)


# --- rasters ---------------------------------------------------------------------------------


def _population(town: Town) -> Floats:
    """Return people per km², (rows, columns), first row north: a Poisson draw per dwelling."""
    recipe = town.factors.recipe
    homes = town.elements.having("building", *DWELLING)
    floors = np.array([float(tags.get("building:levels", "1")) for tags in homes.tags])
    people = shapely.area(homes.geometry) * floors / M2_PER_PERSON
    people = recipe.generator("population").poisson(people)
    spots = shapely.get_coordinates(shapely.centroid(homes.geometry)).reshape(-1, 2)
    counts = _grid_sums(spots, people.astype(np.float64), POPULATION_PIXEL_M, recipe)
    return counts / (POPULATION_PIXEL_M / 1000) ** 2


def _ndvi(town: Town) -> Floats:
    """Return an index of vegetation, (rows, columns), first row north.

    That of the zones, more where greenery is high, less where roofs cover the ground; a smooth
    difference between the years, as of a drier summer here and there, and noise on top.
    """
    factors, cells = town.factors, town.cells
    recipe = factors.recipe
    x, y = _pixel_centres(NDVI_PIXEL_M, recipe)
    tree = shapely.STRtree(cells.polygons())
    points = shapely.points(x.ravel(), y.ravel())
    pixel, cell = tree.query(points, predicate="intersects")
    zone = np.full(x.size, 0.4)
    zone[pixel] = np.array([NDVI_OF_ZONE[name] for name in cells.zone])[cell]
    roofs = town.elements.having("building")
    spots = shapely.get_coordinates(shapely.centroid(roofs.geometry)).reshape(-1, 2)
    cover = _grid_sums(spots, shapely.area(roofs.geometry), NDVI_PIXEL_M, recipe)
    cover = np.minimum(cover / NDVI_PIXEL_M**2, 1.0)
    generator = recipe.generator("ndvi")
    noise = generator.normal(0, 0.03, x.shape)
    between_years = Factors(recipe, {"year": random_field(recipe, "ndvi of another year", YEAR_M)})
    index = zone.reshape(x.shape) - 0.15 * cover + 0.09 * factors.at("greenery", x, y) + noise
    index += 0.03 * between_years.at("year", x, y)
    return np.clip(index, -0.2, 0.95)


def _grid_sums(spots: Floats, weights: Floats, pixel_m: int, recipe: Recipe) -> Floats:
    """Return the sums of weights of points (N, 2) per pixel of the city, first row north."""
    left, bottom, right, top = recipe.box_m
    sums, _, _ = np.histogram2d(
        spots[:, 1], spots[:, 0],
        bins=round((right - left) / pixel_m), range=((bottom, top), (left, right)),
        weights=weights,
    )  # fmt: skip
    return np.asarray(sums[::-1])


def _pixel_centres(pixel_m: int, recipe: Recipe) -> tuple[Floats, Floats]:
    """Return eastings and northings (rows, columns) of the city's pixels, first row north."""
    left, bottom, right, _ = recipe.box_m
    steps = (np.arange(round((right - left) / pixel_m)) + 0.5) * pixel_m
    x, y = np.meshgrid(left + steps, (bottom + steps)[::-1])
    return x, y


def _write_raster(path: Path, bands: Mapping[str, Floats], pixel_m: int, recipe: Recipe) -> None:
    """Write bands (rows, columns) over the city's box as float32, their names as descriptions."""
    import rasterio
    from rasterio.transform import from_origin

    left, _, _, top = recipe.box_m
    rows, columns = next(iter(bands.values())).shape
    with rasterio.open(
        path, "w", driver="GTiff", count=len(bands), height=rows, width=columns, dtype="float32",
        crs=f"EPSG:{GRID.epsg}", transform=from_origin(left, top, pixel_m, pixel_m),
        compress="deflate", predictor=3,
    ) as dataset:  # fmt: skip
        dataset.write(np.stack(list(bands.values())).astype(np.float32))
        dataset.descriptions = tuple(bands)
        dataset.update_tags(TIFFTAG_IMAGEDESCRIPTION=SYNTHETIC)


# --- points ----------------------------------------------------------------------------------


def _write_crimes(path: Path, factors: Factors) -> None:
    """More where it is dense and central, fewer where it is affluent; a Poisson process."""
    recipe = factors.recipe
    generator = recipe.generator("crime")
    tile_x, tile_y = _pixel_centres(TILE_M, recipe)
    score = 0.6 * factors.at("density", tile_x, tile_y) - 0.5 * factors.at(
        "affluence", tile_x, tile_y
    )
    score += 0.3 * factors.at("centrality", tile_x, tile_y) + generator.normal(0, 0.3, score.shape)
    counts = generator.poisson(CRIMES_PER_TILE * np.exp(score)).ravel()
    x, y = (np.repeat(centre.ravel(), counts) for centre in (tile_x, tile_y))
    x += generator.uniform(-TILE_M / 2, TILE_M / 2, len(x))
    y += generator.uniform(-TILE_M / 2, TILE_M / 2, len(x))
    kinds = np.array(["theft", "burglary", "vandalism", "assault"])
    kind = kinds[generator.choice(4, size=len(x), p=[0.5, 0.2, 0.18, 0.12])]
    _write_points(path, x, y, {"kind": kind.tolist()})


def _scattered(recipe: Recipe, what: str) -> tuple[Floats, Floats, np.random.Generator]:
    """Return random points of the city, and the generator that drew them."""
    left, bottom, right, top = recipe.box_m
    generator = recipe.generator(what)
    number = POINTS_PER_TILE * recipe.tiles**2
    return generator.uniform(left, right, number), generator.uniform(bottom, top, number), generator


def _write_perception(path: Path, factors: Factors) -> None:
    x, y, generator = _scattered(factors.recipe, "perception")
    at = {name: factors.at(name, x, y) for name in ("density", "affluence", "greenery")}
    safer = 0.7 * at["affluence"] + 0.4 * at["greenery"] + generator.normal(0, 0.6, len(x))
    livelier = 0.8 * at["density"] + generator.normal(0, 0.6, len(x))
    columns = {"safer": safer, "livelier": livelier}
    rounded = {n: [f"{s:.3f}" for s in np.clip(5 + 1.4 * v, 0, 10)] for n, v in columns.items()}
    _write_points(path, x, y, rounded)


def _write_prices(path: Path, factors: Factors) -> None:
    x, y, generator = _scattered(factors.recipe, "prices")
    log_price = 12.6 + 0.35 * factors.at("affluence", x, y) + generator.normal(0, 0.2, len(x))
    log_price += 0.2 * factors.at("centrality", x, y) - 0.08 * factors.at("age", x, y)
    _write_points(path, x, y, {"log_price": [f"{value:.4f}" for value in log_price]})


def _write_points(path: Path, x: Floats, y: Floats, columns: Mapping[str, Sequence[str]]) -> None:
    lon, lat = GRID.unproject(x, y)
    rows = zip(lat, lon, *columns.values(), strict=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "lat", "lon", *columns])
        for number, (north, east, *values) in enumerate(rows):
            writer.writerow([f"SYNTHETIC-{number}", f"{north:.7f}", f"{east:.7f}", *values])


# --- polygons --------------------------------------------------------------------------------


def _inside(cells: Cells, recipe: Recipe) -> npt.NDArray[np.bool_]:
    """Return which cells (C,) have their centre in the city's box."""
    left, bottom, right, top = recipe.box_m
    x, y = cells.centres().T
    return np.asarray((x > left) & (x < right) & (y > bottom) & (y < top))


def _write_land_use(path: Path, town: Town, inside: npt.NDArray[np.bool_]) -> None:
    """Shares of ground by use in tracts: the blocks whose centres lie in one tile, together."""
    cells = town.cells
    index = np.flatnonzero(inside)
    _, tract = np.unique(cells.tile[index], axis=0, return_inverse=True)
    shapes = _unions(cells, index, tract)
    use = np.array([USES.index(USE_OF_ZONE[zone]) for zone in cells.zone[index]])
    area = shapely.area(cells.polygons()[index])
    number = len(shapes)
    sums = np.bincount(tract * len(USES) + use, area, number * len(USES)).reshape(number, -1)
    shares = sums / sums.sum(axis=1, keepdims=True)
    columns = {f"lu_{name}": shares[:, i].round(4).tolist() for i, name in enumerate(USES)}
    names = [f"T{i:05d}" for i in range(number)]
    _write_polygons(path, shapes, {"tract_id": names, **columns})


def _write_zips(path: Path, town: Town, inside: npt.NDArray[np.bool_]) -> None:
    """The blocks nearest to each of scattered post offices, together, with a table of variables."""
    factors, cells = town.factors, town.cells
    generator = factors.recipe.generator("zips")
    index = np.flatnonzero(inside)
    centre = cells.centres()[index]
    across = max(3, round(factors.recipe.tiles / TILES_PER_ZIP))
    left, bottom, right, _ = factors.recipe.box_m
    step = (right - left) / across
    offices = np.stack(np.meshgrid(np.arange(across), np.arange(across)), axis=-1).reshape(-1, 2)
    spots = (offices + generator.uniform(0.15, 0.85, offices.shape)) * step + (left, bottom)
    area = shapely.STRtree(np.asarray(shapely.points(spots))).nearest(shapely.points(centre))
    _, area = np.unique(area, return_inverse=True)
    shapes = _unions(cells, index, area)
    size = np.bincount(area)
    columns: dict[str, Any] = {"zip": [f"SYN{i:03d}" for i in range(len(size))]}
    for name, (mean, spread, weights) in HEALTH.items():
        known = sum(w * factors.at(f, *centre.T) for f, w in weights.items())
        score = np.bincount(area, known) / size + generator.normal(0, 0.35, len(size))
        columns[name] = (mean + spread * score).round(2).tolist()
    _write_polygons(path, shapes, columns)


def _unions(cells: Cells, index: npt.NDArray[np.int64], group: npt.NDArray[Any]) -> Any:
    """Return the unions of the cells at an index, one per group, EPSG:4326 lon lat."""
    order = np.argsort(group, kind="stable")
    parts = np.split(cells.polygons()[index[order]], np.flatnonzero(np.diff(group[order])) + 1)
    unions = np.array([shapely.union_all(part) for part in parts], dtype=object)
    return GRID.unproject_geometry(shapely.normalize(unions))


def _write_polygons(path: Path, shapes: Any, columns: Mapping[str, Any]) -> None:
    import geopandas as gpd

    frame = gpd.GeoDataFrame(dict(columns), geometry=list(shapes), crs=4326)
    frame.to_file(
        path, driver="GeoJSON", engine="pyogrio", layer=f"SYNTHETIC {path.stem}", RFC7946="NO"
    )
