"""The picture of a city: a PNG of what is there, whatever is there, the same bytes each time."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from PIL import Image

from urbancli.city import City, box_area
from urbancli.fetching import fetch
from urbancli.labels.files import parse_label
from urbancli.layers import CityLayers, open_city
from urbancli.report.picture import _fill, draw_city
from urbancli.sources.base import Source
from urbancli.sources.imagery import Source as Imagery
from urbancli.sources.osm import Source as Osm
from urbancli.workspace import Workspace

BOX = (-41.150, 44.960, -41.130, 44.972)

LABELS = {
    "land_use": "labels/land_use.geojson:lu_*",
    "crime": "labels/crime.csv:#/km2",
}


def _city(folder: Path, inputs: Path, layers: list[str], labels: list[str]) -> CityLayers:
    sources: list[Source] = []
    if "naip" in layers:
        sources.append(Imagery("naip", sorted(inputs.rglob("naip/**/*.tif"))))
    if "osm" in layers:
        sources.append(Osm(inputs / "map.osm.pbf"))
    specs = [parse_label(f"{name}={inputs / LABELS[name]}") for name in labels]
    town = City("town", box_area(BOX), 32624, "bbox")
    fetch(Workspace(folder), town, sources, specs)
    return open_city(Workspace(folder), "town")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, demo_inputs: Path) -> CityLayers:
    """A city with imagery, a map, a label of classes and one of numbers."""
    folder = tmp_path_factory.mktemp("picture")
    return _city(folder, demo_inputs, ["naip", "osm"], ["land_use", "crime"])


def _draw(city: CityLayers, path: Path) -> npt.NDArray[np.uint8]:
    draw_city(city.workspace, city, path, "town")
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def _panels(picture: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    """Return the middles of a picture's panels, two a row, without axes and headings."""
    rows = round((len(picture) - 60) / 730)
    height, width = (len(picture) - 60) // rows, picture.shape[1] // 2
    corners = [(60 + row * height, column * width) for row in range(rows) for column in (0, 1)]
    return [
        picture[
            top + height // 3 : top + 2 * height // 3, left + width // 3 : left + 2 * width // 3
        ]
        for top, left in corners
    ]


def _colours(panel: npt.NDArray[np.uint8]) -> int:
    return len(np.unique(panel.reshape(-1, 3), axis=0))


def test_all_panels_are_drawn_and_the_bytes_are_the_same_again(
    whole: CityLayers, tmp_path: Path
) -> None:
    panels = _panels(_draw(whole, tmp_path / "a.png"))
    # Imagery of the whole, OSM whole and close, and two labels: the sixth place stays white.
    assert len(panels) == 6
    assert all(_colours(panel) > 1 for panel in panels[:5])
    assert _colours(panels[0]) > 1000, "imagery has many colours"
    assert _colours(panels[5]) == 1
    _draw(whole, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert str(tmp_path).encode() not in (tmp_path / "a.png").read_bytes()


def test_classes_have_the_colours_of_their_legend(whole: CityLayers, tmp_path: Path) -> None:
    from matplotlib import colormaps

    panel = _panels(_draw(whole, tmp_path / "a.png"))[3]
    tab10 = np.round(colormaps["tab10"](np.arange(10))[:, :3] * 255).astype(np.uint8)
    drawn = [colour for colour in tab10 if (panel == colour).all(axis=-1).mean() > 0.01]
    assert len(drawn) >= 2


@pytest.mark.parametrize(
    ("layers", "labels", "panels"),
    [(["naip"], [], 2), (["osm"], [], 2), ([], ["crime"], 2)],
)
def test_a_city_of_few_layers_is_drawn_too(
    layers: list[str], labels: list[str], panels: int, tmp_path: Path, demo_inputs: Path
) -> None:
    city = _city(tmp_path, demo_inputs, layers, labels)
    found = _panels(_draw(city, tmp_path / "a.png"))
    assert len(found) == panels
    assert _colours(found[0]) > 1


def test_holes_stay_open_and_every_part_has_its_owners_colour() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ring = shapely.box(0, 0, 10, 10).difference(shapely.box(4, 4, 6, 6))
    two = shapely.union_all([shapely.box(12, 0, 14, 4), shapely.box(12, 6, 14, 10)])
    figure = Figure(figsize=(2, 1), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, 20)
    axes.set_ylim(0, 10)
    _fill(axes, np.array([ring, two]), np.array([[1.0, 0, 0, 1], [0, 0, 1.0, 1]]))
    canvas.draw()
    image = np.asarray(canvas.buffer_rgba())[..., :3]
    at = {(2, 2): (255, 0, 0), (5, 5): (255, 255, 255), (13, 2): (0, 0, 255), (13, 8): (0, 0, 255)}
    for (x, y), colour in at.items():
        assert tuple(image[99 - y * 10, x * 10]) == colour, (x, y)
