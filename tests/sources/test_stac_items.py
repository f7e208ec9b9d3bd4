"""Properties of STAC items that are null, missing, text or a list: unknown, or said in one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stac_scenes import EARTH_SEARCH, PX, item, noise, places, scene, write_catalogue, write_raster

from urbancli.errors import UrbanError
from urbancli.sources import naip, sentinel1, sentinel2

JUNE = "2023-06-14T05:30:00+00:00"
MISSING = "missing"
MODULES = {"sentinel2": sentinel2, "earth-search": sentinel2, "sentinel1": sentinel1, "naip": naip}
NUMBERS = {"scale": 1e-4, "offset": -0.1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Static catalogues of one item each, by the names of `MODULES`."""
    folder = tmp_path_factory.mktemp("items")
    radar = {
        band: write_raster(folder / f"{band}.tif", np.ones((1, PX, PX), np.float32))
        for band in ("vv", "vh")
    }
    image = write_raster(folder / "image.tif", np.ones((4, PX, PX), np.uint8))
    earth_search = scene(
        folder, "e", JUNE, noise(12), 4, names=EARTH_SEARCH, earthsearch__boa_offset_applied=False
    )
    earth_search.assets["red"].extra_fields["raster:bands"] = [NUMBERS]
    of = {
        "sentinel2": scene(folder, "s", JUNE, noise(12), 4),
        "earth-search": earth_search,
        "sentinel1": item("r", JUNE, radar, "sentinel-1-rtc", sat__orbit_state="ascending",
                          sat__relative_orbit=63),
        "naip": item("m", JUNE, {"image": image}, "naip", gsd=10.0, naip__year="2022"),
    }  # fmt: skip
    for name, each in of.items():
        write_catalogue(folder / name, each)
    return folder


def _plan(folder: Path, name: str, changed: dict[str, Any], red: Any = None) -> Any:
    """Plan a copy of a catalogue in which properties, or the red asset's bands, say other things.

    Args:
        folder: of the catalogues.
        name: which.
        changed: property → what it says; `MISSING`: nothing.
        red: what `raster:bands` says; None: as it is.
    """
    (path,) = (folder / name).glob("*/*/*.json")
    whole = path.read_text()
    document = json.loads(whole)
    document["properties"] |= changed
    for key in [key for key, value in changed.items() if value is MISSING]:
        del document["properties"][key]
    if red is not None:
        document["assets"]["red"]["raster:bands"] = red
    try:
        path.write_text(json.dumps(document))
        (planned,) = MODULES[name].Source(str(folder / name)).plan(places())["items"]
    finally:
        path.write_text(whole)
    return planned


@pytest.mark.parametrize("unknown", [None, MISSING])
@pytest.mark.parametrize(
    ("name", "key", "told", "value"),
    [
        ("sentinel2", "eo:cloud_cover", "cloud_cover", None),
        ("earth-search", "earthsearch:boa_offset_applied", "offset_rule", "raster:bands"),
        ("sentinel1", "sat:orbit_state", "orbit_state", "unknown"),
        ("sentinel1", "sat:relative_orbit", "relative_orbit", None),
        ("naip", "naip:year", "year", 2023),
        ("naip", "gsd", "native_m", 10.0),
    ],
)
def test_null_is_unknown(
    folder: Path, name: str, key: str, told: str, value: Any, unknown: Any
) -> None:
    assert _plan(folder, name, {key: unknown})[told] == value


def test_a_scene_that_does_not_say_its_clouds_comes_last(tmp_path: Path) -> None:
    """It counts as cloudy as one can be, not as clear."""
    dn = noise(12)
    said = {"a": 99.0, "b": 10.0}
    scenes = [
        scene(tmp_path, n, f"2023-06-{10 + i}T05:30:00+00:00", dn, 4, eo__cloud_cover=said[n])
        for i, n in enumerate(said)
    ]
    scenes[1].properties["eo:cloud_cover"] = None
    plan = sentinel2.Source(str(write_catalogue(tmp_path, *scenes)), dates=1).plan(places())
    assert [each["id"] for each in plan["items"]] == ["a"]


@pytest.mark.parametrize("nonsense", ["abc", ["5"], {"a": 1}, True, float("nan"), "1e999"])
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("sentinel2", "eo:cloud_cover"),
        ("sentinel1", "sat:relative_orbit"),
        ("naip", "naip:year"),
        ("naip", "gsd"),
    ],
)
def test_what_is_no_number_is_said_of_its_item(
    folder: Path, name: str, key: str, nonsense: Any
) -> None:
    _refused(folder, name, key, nonsense)


@pytest.mark.parametrize(
    ("name", "key", "nonsense"),
    [
        ("sentinel2", "s2:processing_baseline", "abc"),
        ("sentinel2", "s2:processing_baseline", ["05.09"]),
        ("sentinel2", "s2:processing_baseline", None),
        ("sentinel2", "s2:processing_baseline", MISSING),
        ("earth-search", "earthsearch:boa_offset_applied", "yes"),
        ("earth-search", "earthsearch:boa_offset_applied", [True]),
        ("sentinel1", "sat:orbit_state", ["ascending"]),
        ("sentinel1", "sat:orbit_state", 7),
        ("naip", "gsd", -0.6),
        ("naip", "naip:year", 1e12),
    ],
)
def test_what_cannot_be_is_said_of_its_item(
    folder: Path, name: str, key: str, nonsense: Any
) -> None:
    _refused(folder, name, key, nonsense)


def _refused(folder: Path, name: str, key: str, nonsense: Any) -> None:
    with pytest.raises(UrbanError, match=key) as error:
        _plan(folder, name, {key: nonsense})
    (path,) = (folder / name).glob("*/*/*.json")
    assert f"item {path.stem} " in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "red",
    ["abc", [], {}, [None], ["a"], [{"scale": "x", "offset": -0.1}], [{"scale": 0, "offset": 1}],
     [{"scale": None, "offset": None}], [{"scale": 1e-4, "offset": float("nan")}],
     [{"scale": 1e-4, "offset": -0.2}]],
)  # fmt: skip
def test_bands_that_do_not_say_their_offset(folder: Path, red: Any) -> None:
    unsaid = {"earthsearch:boa_offset_applied": MISSING}
    assert _plan(folder, "earth-search", unsaid)["offset"] == 1000
    with pytest.raises(UrbanError, match=r"item e does not say .*raster:bands") as error:
        _plan(folder, "earth-search", unsaid, red)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("code", [None, MISSING, "abc", ["EPSG:32643"]])
@pytest.mark.parametrize("name", ["sentinel2", "sentinel1", "naip"])
def test_the_crs_is_the_files_own(folder: Path, name: str, code: Any) -> None:
    """What an item says of it is told in the plan, and nothing follows from it."""
    changed = {"proj:code": code, "proj:epsg": code} if code is not MISSING else {}
    assert "proj:code" in _plan(folder, name, changed)
