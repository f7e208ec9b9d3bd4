"""The catalogue of synthetic scenes: valid, relative, movable, and told from the files."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from urbancli.city import SYNTHETIC
from urbancli.demo._cogs import write_cog
from urbancli.demo.catalogue import CATALOGUE, COG_TYPE, NAIP, SENTINEL, Scene, write_catalogue
from urbancli.demo.recipe import GRID, Recipe

RECIPE = Recipe(3, 8, 5.0)
KINDS = {
    "Catalog": pystac.STACObjectType.CATALOG,
    "Collection": pystac.STACObjectType.COLLECTION,
    "Feature": pystac.STACObjectType.ITEM,
}


def _write(folder: Path) -> list[Scene]:
    left, bottom, right, top = RECIPE.box_m
    scenes = []
    for sensor, name, keys, pixel_m in [
        (SENTINEL, "a", ("B02", "SCL"), 10.0),
        (SENTINEL, "b", ("B02", "SCL"), 10.0),
        (NAIP, "c", ("image",), 5.0),
    ]:
        assets = {key: folder / sensor.name / name / f"{key}.tif" for key in keys}
        for key, path in assets.items():
            dtype = "uint16" if key.startswith("B") else "uint8"
            side = round((right - left) / pixel_m)
            samples = np.ones((side, side), dtype=dtype)
            write_cog(path, samples, (left, top), pixel_m, key, nodata=0)
        when = datetime(2023, 6, 14, tzinfo=UTC)
        facts = {"eo:cloud_cover": 7.5}
        scenes.append(Scene(sensor, name, when, (left, bottom, right, top), assets, facts))
    write_catalogue(folder, RECIPE, scenes)
    return scenes


def test_every_document_is_valid_and_says_that_it_is_synthetic(tmp_path: Path) -> None:
    _write(tmp_path)
    documents = sorted(tmp_path.rglob("*.json"))
    assert len(documents) == 1 + 2 + 3
    validator = JsonSchemaSTACValidator()
    for path in documents:
        said = json.loads(path.read_text())
        # The schemas of the core come with pystac; those of extensions would want the network.
        validator.validate_core(said, KINDS[said["type"]], said["stac_version"], str(path))
        marks = said.get("properties", said)
        assert marks["synthetic"] is True
        assert SYNTHETIC in marks["description"] and marks["title"].startswith("SYNTHETIC")
        assert str(tmp_path) not in path.read_text()


def test_the_folder_can_be_moved(tmp_path: Path) -> None:
    _write(tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    catalogue = pystac.Catalog.from_file(str(tmp_path / "there" / CATALOGUE))
    items = list(catalogue.get_items(recursive=True))
    assert sorted(item.id for item in items) == ["a", "b", "c"]
    for item in items:
        assert item.get_collection() is not None
        for asset in item.assets.values():
            assert asset.href.startswith("./") and asset.media_type == COG_TYPE
            path = asset.get_absolute_href()
            assert path is not None and Path(path).is_file()


def test_items_tell_what_their_files_are(tmp_path: Path) -> None:
    _write(tmp_path)
    catalogue = pystac.Catalog.from_file(str(tmp_path / CATALOGUE))
    for item in catalogue.get_items(recursive=True):
        assert item.properties["proj:code"] == f"EPSG:{GRID.epsg}"
        assert tuple(item.properties["proj:bbox"]) == RECIPE.box_m
        assert item.properties["eo:cloud_cover"] == 7.5
        for key, asset in item.assets.items():
            with rasterio.open(asset.get_absolute_href()) as dataset:
                assert asset.extra_fields["proj:shape"] == list(dataset.shape)
                assert asset.extra_fields["proj:transform"] == list(dataset.transform)[:6]
                assert asset.extra_fields["data_type"] == dataset.dtypes[0]
                assert asset.extra_fields["gsd"] == dataset.res[0]
            bands = asset.extra_fields.get("bands", [])
            named = {"B02": ["blue"], "SCL": [], "image": ["red", "green", "blue", "nir"]}
            assert [band["eo:common_name"] for band in bands] == named[key]


def test_an_item_covers_its_box(tmp_path: Path) -> None:
    _write(tmp_path)
    catalogue = pystac.Catalog.from_file(str(tmp_path / CATALOGUE))
    left, bottom, right, top = RECIPE.box_m
    lon, lat = GRID.unproject([left, right], [bottom, top])
    item = next(catalogue.get_items(recursive=True))
    assert item.bbox is not None
    assert item.bbox[0] <= lon[0] + 1e-7 and item.bbox[2] >= lon[1] - 1e-7
    assert item.bbox[1] <= lat[0] + 1e-7 and item.bbox[3] >= lat[1] - 1e-7
    assert item.geometry is not None
    corners = np.array(item.geometry["coordinates"][0])
    assert np.abs(corners - [lon[0], lat[0]]).sum(axis=1).min() < 1e-6


def test_the_same_scenes_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        _write(tmp_path / name)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 6 + 5
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_scene_without_its_file_is_an_error(tmp_path: Path) -> None:
    scenes = _write(tmp_path)
    scenes[0].assets["B02"].unlink()
    with pytest.raises(rasterio.errors.RasterioIOError):
        write_catalogue(tmp_path / "again", RECIPE, scenes)
