"""Spectral statistics, indices and texture against loops that spell their formulas out."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from urbancli.encoders import spectral
from urbancli.encoders._images import LayerImages
from urbancli.errors import UrbanError, UsageError
from urbancli.grid import Places
from urbancli.layers import PIXEL_SCHEMA, CityLayers
from urbancli.workspace import read_table, write_manifest, write_tables

Build = Callable[..., Any]


def mosaic(bands: int, height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint16]:
    rng = np.random.default_rng(seed)
    rough = rng.normal(size=(bands, height, width))
    smooth = np.cumsum(np.cumsum(rough, axis=1), axis=2) / 30
    return (2000 + 100 * rough + 30 * smooth).clip(1, 60000).astype(np.uint16)


def rename(builder: Any, layer: str, bands: list[str]) -> CityLayers:
    """Give the bands of a written layer their names, as a source does, and open the city."""
    path = builder.workspace.layer_file(builder.key, layer)
    table, facts = read_table(path)
    facts = {name: facts[name] for name in ("dtype", "pixel_m")} | {"bands": bands}
    bounds = [0.0, 0.0, 1.0, 1.0]
    write_tables(
        path, [table], schema=PIXEL_SCHEMA, metadata=facts, types=("Polygon",), bounds=bounds
    )
    city: CityLayers = builder.open()[0]
    folder = builder.workspace.city_dir(builder.key)
    write_manifest(folder, sorted(folder.rglob("*.parquet")))
    return city


def naive_statistics(values: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    found, ordered = [mean, deviation], sorted(values)
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        place = share * (len(values) - 1)
        low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
        found.append(low + (high - low) * (place - math.floor(place)))
    return found


def naive_index(a: float, b: float) -> float:
    return (a - b) / (a + b) if a + b else 0.0


def naive_texture(
    levels: npt.NDArray[np.int64], valid: npt.NDArray[np.bool_], distance: int, count: int
) -> list[float]:
    """Haralick et al. 1973, p. 613 and 619: pairs both ways, R their number, p(i, j) = P / R."""
    matrix, side = np.zeros((count, count)), len(levels)
    for row in range(side):
        for column in range(side):
            for down in (-distance, 0, distance):
                for right in (-distance, 0, distance):
                    y, x = row + down, column + right
                    inside = 0 <= y < side and 0 <= x < side
                    if (down or right) and inside and valid[row, column] and valid[y, x]:
                        matrix[levels[row, column], levels[y, x]] += 1
    p = matrix / matrix.sum()
    grid = [(i, j) for i in range(count) for j in range(count)]
    mean = sum(i * p[i, j] for i, j in grid)
    variance = sum((i - mean) ** 2 * p[i, j] for i, j in grid)
    covariance = sum((i - mean) * (j - mean) * p[i, j] for i, j in grid)
    return [
        sum(p[i, j] ** 2 for i, j in grid),
        sum((i - j) ** 2 * p[i, j] for i, j in grid),
        covariance / variance if variance > 1e-9 else 1.0,
        sum(p[i, j] / (1 + (i - j) ** 2) for i, j in grid),
        -sum(p[i, j] * math.log(p[i, j]) for i, j in grid if p[i, j] > 0),
    ]


def naive(
    encoder: spectral.Encoder,
    city: CityLayers,
    layer: str,
    places: Places,
    pairs: list[tuple[int, int]],
    state: Any,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    rows, present = [], []
    opened = city.pixels(layer)
    for x, y in zip(places.x, places.y, strict=True):
        samples, valid = opened.window(x, y, encoder.window_m)
        valid = valid & np.isfinite(samples).all(axis=0)
        present.append(valid.mean() >= 0.5)
        if not present[-1]:
            continue
        pixels = samples[:, valid].astype(float).tolist()
        row = [value for band in pixels for value in naive_statistics(band)]
        for a, b in pairs:
            row += naive_statistics(list(map(naive_index, pixels[a], pixels[b])))
        grey = sum(w * band for w, band in zip(state["grey"], samples.astype(float), strict=True))
        levels = np.array(
            [[sum(v > edge for edge in state["edges"]) for v in line] for line in grey]
        )
        for distance in encoder.distances_px:
            row += naive_texture(levels, valid, distance, encoder.levels)
        rows.append(row)
    return np.array(rows), np.array(present)


def assert_as_naive(
    encoder: spectral.Encoder,
    city: CityLayers,
    layer: str,
    places: Places,
    pairs: list[tuple[int, int]],
) -> Any:
    state = encoder.fit(city, layer, places, 0)
    images = LayerImages(city.pixels(layer))
    found, present = encoder.features(images, layer, places, state)
    wanted, wanted_present = naive(encoder, city, layer, places, pairs, state)
    np.testing.assert_array_equal(present, wanted_present)
    np.testing.assert_allclose(found[present], wanted, rtol=1e-7, atol=2e-5)  # steps of an index
    assert len(wanted) > 1 and (wanted.std(axis=0) > 0).mean() > 0.6
    return state


def holes(height: int, width: int) -> npt.NDArray[np.bool_]:
    valid = np.ones((height, width), bool)
    valid[:, 30:50] = False
    valid[5, 70] = False
    return valid


S2 = ["B02", "B03", "B04", "B08", "B11"]


def test_sentinel2_equals_the_naive_loops(tiny: Build) -> None:
    builder = tiny(4, 2)
    builder.pixels("sentinel2", mosaic(5, 60, 120), holes(60, 120))
    city = rename(builder, "sentinel2", S2)
    encoder = spectral.Encoder(window_m=200.0, levels=8, distances_px=(1, 3))
    places = city.tiles()
    state = assert_as_naive(encoder, city, "sentinel2", places, [(3, 2), (1, 3), (4, 3)])
    tokens = encoder.encode(city, "sentinel2", places, state)
    assert 0 < tokens.present.sum() < len(places)
    assert tokens.values.shape[1] == 7 * (5 + 3) + 5 * 2
    assert tokens.values.dtype == np.float16
    values = tokens.values.astype(np.float64)
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-2)
    np.testing.assert_allclose(values.std(axis=0), 1, atol=1e-2)


@pytest.mark.parametrize(
    ("layer", "dtype", "bands", "pairs"),
    [
        ("naip", np.uint8, ["red", "green", "blue", "nir"], [(3, 0), (1, 3)]),
        ("naip", np.uint8, ["band1", "band2", "band3", "band4"], [(3, 0), (1, 3)]),
        ("naip", np.uint8, ["band1", "band2", "band3"], []),
        ("sentinel2", np.uint16, ["band1", "band2", "band3", "band4"], []),
        ("sentinel2", np.uint16, ["nir", "Green"], [(1, 0)]),
        ("sentinel1", np.float32, ["vv", "vh"], []),
    ],
)
def test_other_layers_have_the_indices_that_their_bands_allow(
    tiny: Build, layer: str, dtype: Any, bands: list[str], pairs: list[tuple[int, int]]
) -> None:
    builder = tiny(3, 1)
    samples = mosaic(len(bands), 30, 90) / (20 if dtype is np.uint8 else 1)
    samples = samples.clip(0, 255 if dtype is np.uint8 else 60000).astype(dtype)
    if dtype is np.float32:
        samples = samples / 100 - 30
        samples[0, 4, 20], samples[1, 9, 50] = np.nan, np.inf
    else:
        samples[:, 12, 40] = 0  # where a + b = 0
    builder.pixels(layer, samples)
    city = rename(builder, layer, bands)
    encoder = spectral.Encoder(window_m=200.0, levels=4, distances_px=(2,))
    assert_as_naive(encoder, city, layer, city.tiles(), pairs)


def test_pixels_equal_to_a_quantile_are_of_one_level(tiny: Build) -> None:
    """However their sum over bands is rounded, here not as in the encoder."""
    builder = tiny(3, 1)
    samples = mosaic(5, 30, 90) // 100 * 100
    samples[1:] = np.array([713, 1207, 911, 1999])[:, None, None]
    builder.pixels("sentinel2", samples)
    city = rename(builder, "sentinel2", S2)
    encoder, places = spectral.Encoder(window_m=150.0, distances_px=(1,)), city.tiles()
    state = encoder.fit(city, "sentinel2", places, 0)
    found, _ = encoder.features(LayerImages(city.pixels("sentinel2")), "sentinel2", places, state)
    wanted, _ = naive(encoder, city, "sentinel2", places, [], state)
    np.testing.assert_allclose(found[:, -5:], wanted[:, -5:], rtol=1e-7, atol=1e-9)
    assert (wanted[:, -4] > 0).all()


def test_windows_are_described_alike_alone_and_together(
    tiny: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = tiny(5, 3)
    builder.pixels("sentinel2", mosaic(5, 90, 150))
    city = rename(builder, "sentinel2", S2)
    encoder, places = spectral.Encoder(), city.tiles()
    state = encoder.fit(city, "sentinel2", places, 0)
    together = encoder.encode(city, "sentinel2", places, state).values
    monkeypatch.setattr(spectral, "CHUNK_BYTES", 1)
    np.testing.assert_array_equal(encoder.encode(city, "sentinel2", places, state).values, together)
    one = places.take(np.array([7]))
    present = encoder.encode(city, "sentinel2", places, state).present
    row = np.flatnonzero(present).tolist().index(7)
    alone = encoder.encode(city, "sentinel2", one, state).values[0]
    np.testing.assert_array_equal(alone, together[row])


def test_nothing_outside_the_window_or_invalid_is_read(tiny: Build) -> None:
    samples, valid = mosaic(5, 90, 150), np.ones((90, 150), bool)
    plain, changed = tiny(5, 3), tiny(5, 3, key="changed")
    valid[30:40, 60:70] = False
    plain.pixels("sentinel2", samples, valid)
    city = rename(plain, "sentinel2", S2)
    middle = city.tiles().take(np.flatnonzero((plain.offsets(city.tiles()) == [2, 1]).all(axis=1)))
    encoder = spectral.Encoder()
    state = encoder.fit(city, "sentinel2", city.tiles(), 0)
    base = encoder.encode(city, "sentinel2", middle, state).values
    inside = np.zeros((90, 150), bool)
    inside[15:75, 45:105] = True
    changed.pixels("sentinel2", np.where(inside & valid, samples, 65000).astype(np.uint16), valid)
    found = encoder.encode(rename(changed, "sentinel2", S2), "sentinel2", middle, state).values
    np.testing.assert_array_equal(found, base)


@pytest.mark.parametrize("constant", [slice(0, 1), slice(0, 5)])
def test_constant_windows_stay_finite(tiny: Build, constant: slice) -> None:
    builder = tiny(3, 2)
    samples = mosaic(5, 60, 90)
    samples[constant] = 700
    builder.pixels("sentinel2", samples)
    city = rename(builder, "sentinel2", S2)
    encoder, places = spectral.Encoder(), city.tiles()
    state = encoder.fit(city, "sentinel2", places, 0)
    assert all(np.isfinite(array).all() for array in state.values())
    tokens = encoder.encode(city, "sentinel2", places, state)
    assert tokens.present.any() and np.isfinite(tokens.values).all()
    if constant.stop == 5:
        assert (tokens.values == 0).all()
        images = LayerImages(city.pixels("sentinel2"))
        features, present = encoder.features(images, "sentinel2", places, state)
        # Of one level: f1 = f5 = 1, no contrast or entropy, and it foretells itself.
        np.testing.assert_allclose(features[present][:, -5:], [[1, 0, 1, 1, 0]] * present.sum())


def test_values_of_another_city_are_clipped(tiny: Build) -> None:
    calm, wild, clean = tiny(3, 2), tiny(3, 2, key="wild"), tiny(3, 2, key="clean")
    calm.pixels("sentinel1", (mosaic(2, 60, 90) / 1e4).astype(np.float32))
    samples = mosaic(2, 60, 90).astype(np.float32)
    clean.pixels("sentinel1", samples)
    samples[0, 25:35, 40:50] = 3e38
    wild.pixels("sentinel1", samples)
    encoder = spectral.Encoder()
    city, other, like = (rename(one, "sentinel1", ["vv", "vh"]) for one in (calm, wild, clean))
    state = encoder.fit(city, "sentinel1", city.tiles(), 0)
    values = encoder.encode(other, "sentinel1", other.tiles(), state).values
    assert np.isfinite(values).all() and np.abs(values).max() == spectral.VALUE_LIMIT
    broken, whole = (encoder.fit(one, "sentinel1", one.tiles(), 0) for one in (other, like))
    assert all(np.isfinite(array).all() for array in broken.values())
    # Broken pixels hardly change what the others' levels are.
    np.testing.assert_allclose(broken["grey"], whole["grey"], rtol=0.15)
    np.testing.assert_allclose(broken["edges"][:12], whole["edges"][:12], rtol=0.15)


def test_fit_is_deterministic_seeded_and_bounded(
    tiny: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spectral, "FIT_PLACES", 3)
    builder = tiny(4, 2)
    builder.pixels("sentinel2", mosaic(3, 60, 120))
    city, places = builder.open()
    encoder = spectral.Encoder(window_m=300.0)
    once, again, other = (encoder.fit(city, "sentinel2", places, seed) for seed in (5, 5, 6))
    assert all(np.array_equal(once[name], again[name]) for name in once)
    assert not np.array_equal(once["centre"], other["centre"])
    first = encoder.features(LayerImages(city.pixels("sentinel2")), "sentinel2", places, once)[0]
    chosen = np.sort(np.random.default_rng(5).choice(8, 3, replace=False))
    np.testing.assert_allclose(once["centre"], first[chosen].mean(axis=0))


def test_what_a_user_can_mend_is_told(tiny: Build) -> None:
    builder = tiny(3, 2)
    builder.pixels("sentinel2", mosaic(5, 60, 90), np.zeros((60, 90), bool))
    builder.pixels("naip", mosaic(4, 60, 90).astype(np.uint8))
    builder.pixels("sentinel1", mosaic(2, 4, 6).astype(np.float32))
    city = rename(builder, "naip", ["red", "green", "blue", "nir"])
    places, encoder = city.tiles(), spectral.Encoder()
    with pytest.raises(UrbanError, match="less than half of every sentinel2 window of 'tiny'"):
        encoder.fit(city, "sentinel2", places, 0)
    with pytest.raises(UrbanError, match="has only 4 pixels a side"):
        encoder.fit(city, "sentinel1", places, 0)
    with pytest.raises(UrbanError, match="too coarse for windows of 1 m: bring imagery of 1 m or"):
        spectral.Encoder(window_m=1.0).fit(city, "naip", places, 0)
    state = encoder.fit(city, "naip", places, 0)
    other = tiny(3, 2, key="other")
    other.pixels("naip", mosaic(4, 60, 90).astype(np.uint8))
    swapped = rename(other, "naip", ["nir", "red", "green", "blue"])
    with pytest.raises(UrbanError, match="has the bands nir, red, green, blue, the encoder was"):
        encoder.encode(swapped, "naip", places, state)
    nowhere = encoder.encode(city, "naip", places.take(np.zeros(0, np.int64)), state)
    assert len(nowhere) == 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"window_m": -1.0}, "window_m is above 0"),
        ({"window_m": 1e7}, "at most 20000"),
        ({"levels": 1}, "levels is from 2 to 16"),
        ({"levels": 17}, "levels is from 2 to 16"),
        ({"distances_px": (1, 0)}, "distances_px is a list of pixels"),
    ],
)
def test_settings_out_of_their_range_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        spectral.Encoder(**setting)
