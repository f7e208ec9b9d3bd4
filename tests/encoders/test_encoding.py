"""Choosing encoders, and several of one modality as one: equal to a plain loop over places."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from urbancli.encoding import (
    DEFAULTS,
    WHOLE_TILE,
    choose,
    described,
    encode_cached,
    encoder_of,
    fit_encoders,
    joined,
    unusual,
)
from urbancli.errors import UsageError
from urbancli.tokens import Tokens, single_tokens

SIZE = 12


def _singles(rng: np.random.Generator, width: int, gone: int) -> Tokens:
    return single_tokens(rng.normal(size=(SIZE, width)), np.arange(SIZE) % gone != 1)


def _bags(rng: np.random.Generator, width: int, gone: int) -> Tokens:
    present = np.arange(SIZE) % gone != 2
    counts = np.where(present, rng.integers(0, 4, SIZE), 0)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    values = rng.normal(size=(offsets[-1], width)).astype(np.float32)
    return Tokens(values, offsets, rng.random((len(values), 8), np.float32), present, bag=True)


def _of(tokens: Tokens, place: int) -> tuple[np.ndarray, np.ndarray]:
    own = slice(tokens.offsets[place], tokens.offsets[place + 1])
    positions = tokens.positions[own]
    if not positions.shape[1]:
        positions = np.tile(WHOLE_TILE, (len(positions), 1))
    return tokens.values[own], positions


@pytest.mark.parametrize("kinds", ["ss", "sss", "sb", "bs", "bb", "bsb"])
def test_several_are_joined_as_a_loop_joins_them(kinds: str) -> None:
    rng = np.random.default_rng(0)
    make = {"s": _singles, "b": _bags}
    parts = [make[kind](rng, 2 + n, 3 + n) for n, kind in enumerate(kinds)]
    found = joined(parts)
    widths = [part.values.shape[1] for part in parts]
    assert found.values.shape[1] == sum(widths) and found.bag == ("b" in kinds)
    for place in range(SIZE):
        there = all(part.present[place] for part in parts)
        assert found.present[place] == there
        values, positions = _of(found, place)
        if not there:
            assert not len(values)
            continue
        if not found.bag:
            np.testing.assert_array_equal(
                values[0], np.concatenate([_of(p, place)[0][0] for p in parts])
            )
            continue
        row, column = 0, 0
        for part, width in zip(parts, widths, strict=True):
            own, where = _of(part, place)
            wanted = np.zeros((len(own), sum(widths)))
            wanted[:, column : column + width] = own
            np.testing.assert_array_equal(values[row : row + len(own)], wanted)
            np.testing.assert_array_equal(positions[row : row + len(own)], where)
            row, column = row + len(own), column + width
        assert row == len(values)


def test_defaults_are_encoders_that_can() -> None:
    found = {one["encoder"]: one for one in described()}
    for modality, name in DEFAULTS.items():
        assert modality in found[name]["modalities"] and modality in found[name]["default_of"]
    assert {name: one[0].name for name, one in choose().items()} == DEFAULTS
    assert unusual(choose()) == {}


def test_what_is_named_replaces_the_default_and_adds_up() -> None:
    choice = choose(["satellite=rcf,filters=8,window_m=300", "naip=rcf", "pois=pois,text_width=4"])
    assert [one.title for one in choice["sentinel2"]] == ["rcf,window_m=300.0,filters=8"]
    assert [one.title for one in choice["naip"]] == ["rcf,window_m=300.0,filters=8", "rcf"]
    assert choice["entities"] == choose()["entities"]
    assert set(unusual(choice)) == {"sentinel2", "naip", "sentinel1", "pois"}
    for modality, encoders in choice.items():
        for one in encoders:
            assert encoder_of(one.facts(modality)) == one
            assert choose([f"{modality}={one.title}"])[modality] == (one,)


@pytest.mark.parametrize(
    ("option", "remedy"),
    [
        ("rcf", "is not MODALITY=ENCODER"),
        ("satellite=", "is not MODALITY=ENCODER"),
        ("satelite=rcf", "did you mean satellite"),
        ("satellite=rfc", "did you mean rcf"),
        ("pois=rcf", "encoder rcf cannot encode pois: it encodes sentinel2"),
        ("satellite=rcf,filter=3", "did you mean filters"),
        ("satellite=rcf,filters=x", "filters is of type int"),
        ("satellite=rcf,filters", "is not key=value"),
        ("satellite=rcf:FOLDER", "unknown parameter 'model'"),
    ],
)
def test_a_bad_choice_is_one_line(option: str, remedy: str) -> None:
    with pytest.raises(UsageError) as err:
        choose([option])
    assert remedy in str(err.value) and "\n" not in str(err.value)
    with pytest.raises(UsageError, match="given twice"):
        choose(["naip=rcf", "satellite=rcf"])


def test_several_are_cached_each_on_its_own(tiny: Callable[..., Any]) -> None:
    builder = tiny(3, 2)
    pixels = np.random.default_rng(0).integers(1, 4000, (3, 60, 90)).astype(np.uint16)
    builder.pixels("sentinel2", pixels)
    city, places = builder.open()

    def encode(*options: str) -> Tokens:
        encoders = choose([f"sentinel2=rcf,{option}" for option in options])["sentinel2"]
        state = fit_encoders(city, "sentinel2", places, encoders)
        return encode_cached(city, "sentinel2", places, encoders, *state)

    one, two = encode("filters=4"), encode("filters=6")
    before = set(city.workspace.city_dir(city.key).glob("tokens/*"))
    both = encode("filters=4", "filters=6")
    after = set(city.workspace.city_dir(city.key).glob("tokens/*"))
    assert len(after - before) == 1, "only their join is new"
    np.testing.assert_array_equal(both.values, np.concatenate([one.values, two.values], axis=1))
    swapped = encode("filters=6", "filters=4")
    np.testing.assert_array_equal(swapped.values, np.concatenate([two.values, one.values], axis=1))
