"""The token cache: what it is keyed by, and that half of it is taken for nothing."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from urbancli import encoding
from urbancli.encoding import choose, encode_cached, fit_encoders, load_encoder, reach_of
from urbancli.tokens import Tokens, single_tokens

SHAPES = [shapely.box(20, 30, 60, 50), shapely.LineString([(10, 100), (850, 100)])]
TAGS = [{"building": "yes"}, {"highway": "primary"}]


def build(tiny: Callable[..., Any]) -> Any:
    builder = tiny(3, 2)
    builder.entities("entities", SHAPES, TAGS)
    return builder


def folders(city: Any) -> list[Path]:
    return sorted(city.workspace.city_dir(city.key).glob("tokens/*"))


def encode(city: Any, places: Any, modality: str = "entities") -> Tokens:
    encoders = choose()[modality]
    state = fit_encoders(city, modality, places, encoders)
    return encode_cached(city, modality, places, encoders, *state)


def assert_equal(one: Tokens, two: Tokens) -> None:
    for field in dataclasses.fields(Tokens):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(two, field.name))


def test_the_second_call_reads_what_the_first_wrote(tiny: Callable[..., Any]) -> None:
    city, places = build(tiny).open()
    first = encode(city, places)
    assert isinstance(first.values, np.memmap)
    (folder,) = folders(city)
    stamps = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert set(stamps) == {f"{n}.npy" for n in ("values", "offsets", "positions", "present")} | {
        "tokens.json"
    }
    assert_equal(encode(city, places), first)
    assert stamps == {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    direct = load_encoder("entities").encoder.encode(city, "entities", places, {})
    assert_equal(direct, first)


@pytest.mark.parametrize("left", [[], ["values.npy"], ["values.npy", ".offsets.npy.part"]])
def test_a_half_made_folder_is_made_anew(tiny: Callable[..., Any], left: list[str]) -> None:
    city, places = build(tiny).open()
    whole = {
        field.name: np.array(getattr(encode(city, places), field.name))
        for field in dataclasses.fields(Tokens)
    }
    (folder,) = folders(city)
    for file in folder.iterdir():
        file.unlink()
    for name in left:
        (folder / name).write_bytes(b"\x93NUMPY half of it")
    assert_equal(encode(city, places), Tokens(**{**whole, "bag": bool(whole["bag"])}))
    assert folders(city) == [folder]
    assert not list(folder.glob(".*"))


def test_a_killed_writer_leaves_nothing_that_counts(tiny: Callable[..., Any]) -> None:
    builder = build(tiny)
    city, places = builder.open()
    script = (
        "import os, sys, pathlib\n"
        "from urbancli import workspace\n"
        "from urbancli.layers import open_city\n"
        "from urbancli import encoding\n"
        "city = open_city(workspace.Workspace(pathlib.Path(sys.argv[1])), 'tiny')\n"
        "places = city.tiles()\n"
        "encoders = encoding.choose()['entities']\n"
        "state = encoding.fit_encoders(city, 'entities', places, encoders)\n"
        "def hook(event, args):\n"
        "    if event == 'os.rename' and str(args[1]).endswith(sys.argv[2]):\n"
        "        os.kill(os.getpid(), 9)\n"
        "sys.addaudithook(hook)\n"
        "encoding.encode_cached(city, 'entities', places, encoders, *state)\n"
    )
    for last in ("positions.npy", "tokens.json"):
        run = subprocess.run(
            [sys.executable, "-c", script, str(builder.workspace.root), last], check=False
        )
        assert run.returncode == -9
        (folder,) = folders(city)
        assert not (folder / "tokens.json").exists()
    direct = load_encoder("entities").encoder.encode(city, "entities", places, {})
    assert_equal(encode(city, places), direct)
    assert os.listdir(folder.parent) == [folder.name]


def test_the_key_names_all_that_values_depend_on(tiny: Callable[..., Any]) -> None:
    builder = build(tiny)
    city, places = builder.open()
    state, mark = fit_encoders(city, "entities", places, choose()["entities"])
    points = builder.points([(10.0, 20.0), (500.0, 100.0)])
    moved = dataclasses.replace(points, x=points.x + 300)
    for asked, fingerprint in (
        (places, mark),
        (places, "another state"),
        (places.take(np.arange(len(places))[::-1]), mark),
        (points, mark),
        (moved, mark),
    ):
        tokens = encode_cached(city, "entities", asked, choose()["entities"], state, fingerprint)
        direct = load_encoder("entities").encoder.encode(city, "entities", asked, state)
        assert_equal(tokens, direct)
    assert len(folders(city)) == 5
    builder.entities("entities", SHAPES[:1], TAGS[:1])
    city, places = builder.open()
    assert len(encode(city, places).values) == 1
    assert len(folders(city)) == 6


def test_a_state_has_a_fingerprint_of_its_own(tiny: Callable[..., Any]) -> None:
    builder = build(tiny)
    rng = np.random.default_rng(0)
    builder.pixels("sentinel2", rng.integers(0, 4000, (3, 60, 90)).astype(np.uint16))
    city, places = builder.open()
    marks = [
        fit_encoders(city, "sentinel2", part, choose()["sentinel2"], seed)[1]
        for part, seed in ((places, 0), (places, 0), (places, 1), (places.take(np.arange(3)), 0))
    ]
    assert marks[0] == marks[1]
    assert len(set(marks)) == 3


def test_every_modality_we_encode_has_a_default_and_a_window() -> None:
    for modality, window_m in (
        ("coords", 0), ("sentinel2", 600), ("naip", 600), ("sentinel1", 600),
        ("entities", 300), ("buildings", 300), ("aoi", 300), ("pois", 600),
    ):  # fmt: skip
        assert reach_of(choose()[modality], modality) == window_m
    assert "streetview" not in choose()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"offsets": np.array([0, 1, 1, 3])}, "one token per present place"),
        ({"offsets": np.array([0, 1, 2, 4])}, "offsets that miss"),
        ({"offsets": np.array([0, 1, 3])}, "another number of places"),
        ({"present": np.array([True, True, False])}, "tokens of absent places"),
        ({"values": np.array([[1.0], [np.nan], [2.0]])}, "not finite"),
    ],
)
def test_tokens_that_break_their_contract_are_refused(
    tiny: Callable[..., Any], broken: dict[str, Any], message: str
) -> None:
    _, places = build(tiny).open()
    tokens = dataclasses.replace(single_tokens(np.ones((3, 1))), **broken)
    with pytest.raises(ValueError, match=message):
        encoding._check(tokens, places.take(np.arange(3)), "coords")


def test_a_fit_is_kept_and_a_broken_one_made_anew(tiny: Callable[..., Any]) -> None:
    builder = build(tiny)
    pixels = np.random.default_rng(0).integers(1, 200, (2, 60, 90)).astype(np.uint16)
    builder.pixels("sentinel2", pixels)
    city, places = builder.open()
    state, mark = fit_encoders(city, "sentinel2", places, choose()["sentinel2"])
    (kept,) = city.workspace.city_dir(city.key).glob("tokens/sentinel2-fit-*/state.safetensors")
    written = kept.stat().st_mtime_ns
    again, same = fit_encoders(city, "sentinel2", places, choose()["sentinel2"])
    assert kept.stat().st_mtime_ns == written and same == mark
    for key, value in state.items():
        np.testing.assert_array_equal(again[key], value)
        assert again[key].dtype == value.dtype
    assert fit_encoders(city, "sentinel2", places, choose()["sentinel2"], seed=1)[1] != mark
    assert fit_encoders(city, "sentinel2", places.take([0, 1, 2]), choose()["sentinel2"])[1] != mark

    kept.write_bytes(kept.read_bytes()[:100])
    assert fit_encoders(city, "sentinel2", places, choose()["sentinel2"])[1] == mark
    assert kept.stat().st_size > 100
