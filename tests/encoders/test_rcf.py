"""Random convolutional features against a naive loop over places, filters and positions."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from urbancli.encoders import _convolution, rcf
from urbancli.encoders._images import Images, Window
from urbancli.errors import UrbanError, UsageError
from urbancli.grid import Places
from urbancli.layers import PixelLayer

Build = Callable[..., Any]


def mosaic(bands: int, height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint16]:
    rng = np.random.default_rng(seed)
    rough = rng.normal(size=(bands, height, width))
    smooth = np.cumsum(np.cumsum(rough, axis=1), axis=2) / 30
    return (2000 + 100 * rough + 30 * smooth).clip(0, 60000).astype(np.uint16)


def naive(
    encoder: rcf.Encoder, layer: PixelLayer, places: Places, state: Mapping[str, npt.NDArray[Any]]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The definition: for each place and position, ReLU(filters · standardised patch + bias)."""
    size, features, present = encoder.patch_px, [], []
    for x, y in zip(places.x, places.y, strict=True):
        samples, valid = layer.window(x, y, encoder.window_m)
        valid = valid & np.isfinite(samples).all(axis=0)
        scaled = (samples - state["mean"][:, None, None]) / state["std"][:, None, None]
        scaled = np.clip(scaled, -50, 50)
        total, count, positions = np.zeros(len(state["filters"])), 0, 0
        for row in range(valid.shape[0] - size + 1):
            for column in range(valid.shape[1] - size + 1):
                positions += 1
                part = (slice(row, row + size), slice(column, column + size))
                if valid[part].all():
                    patch = scaled[(slice(None), *part)]
                    response = (state["filters"] * patch).sum(axis=(1, 2, 3)) + state["bias"]
                    total, count = total + np.maximum(response, 0), count + 1
        features.append(total / max(count, 1))
        present.append(count >= positions / 2)
    return np.array(features), np.array(present)


def points(builder: Any, count: int, seed: int, spread_m: float = 0.0) -> Places:
    """Centres anywhere in the city and up to `spread_m` outside it."""
    rng = np.random.default_rng(seed)
    size = 300 * np.array([builder.columns, builder.rows])
    points: Places = builder.points(rng.uniform(-spread_m, size + spread_m, size=(count, 2)))
    return points


def assert_as_naive(
    encoder: rcf.Encoder, layer: PixelLayer, places: Places, state: Any, every: int = 1
) -> None:
    """All places are encoded together, and each `every`-th compared with the definition."""
    found, present = (part[::every] for part in encoder.features(layer, places, state))
    some = places.take(np.arange(0, len(places), every))
    wanted, wanted_present = naive(encoder, layer, some, state)
    np.testing.assert_array_equal(present, wanted_present)
    np.testing.assert_allclose(found[present], wanted[present], atol=1e-4, rtol=1e-4)
    assert wanted[present].std() > 1e-2


def test_tiles_equal_the_naive_reference(tiny: Build) -> None:
    builder = tiny(6, 3)
    valid = np.ones((90, 180), bool)
    valid[:, 100:135] = False
    valid[10, 20] = False
    builder.pixels("sentinel2", mosaic(3, 90, 180), valid)
    city, places = builder.open()
    encoder = rcf.Encoder(filters=8)
    state = encoder.fit(city, "sentinel2", places, seed=3)
    present = encoder.features(city.pixels("sentinel2"), places, state)[1]
    assert 0 < present.sum() < len(places) == 18
    assert_as_naive(encoder, city.pixels("sentinel2"), places, state, every=4)


@pytest.mark.parametrize("patch_px", [2, 3, 5])
def test_points_equal_the_naive_reference(tiny: Build, patch_px: int) -> None:
    builder = tiny(9, 2)
    valid = np.random.default_rng(1).random((60, 270)) > 0.01
    builder.pixels("sentinel2", mosaic(2, 60, 270), valid)
    city, _ = builder.open()
    encoder = rcf.Encoder(filters=6, patch_px=patch_px, window_m=125.0)
    places = points(builder, 70, seed=2, spread_m=60.0)
    state = encoder.fit(city, "sentinel2", places, seed=0)
    assert_as_naive(encoder, city.pixels("sentinel2"), places, state)


def test_strips_and_fine_pixels_change_nothing(
    tiny: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = tiny(3, 2)
    builder.pixels("naip", mosaic(4, 120, 180).astype(np.uint8))
    city, places = builder.open()
    encoder = rcf.Encoder(filters=5)
    state = encoder.fit(city, "naip", places, seed=0)
    whole, _ = encoder.features(city.pixels("naip"), places, state)
    monkeypatch.setattr(_convolution, "STRIP_BYTES", 20_000)
    strips, _ = encoder.features(city.pixels("naip"), places, state)
    np.testing.assert_allclose(strips, whole, rtol=1e-5, atol=1e-7)


def test_broken_pixels_are_clipped_and_what_is_no_number_is_invalid(tiny: Build) -> None:
    clean, broken = tiny(3, 2), tiny(3, 2, key="broken")
    samples = mosaic(2, 60, 90).astype(np.float32)
    clean.pixels("sentinel1", samples)
    city, places = clean.open()
    samples[0, 20, 40], samples[1, 40, 50], samples[:, 44, 14] = 3e38, -3e38, np.nan
    broken.pixels("sentinel1", samples)
    encoder = rcf.Encoder(filters=6, window_m=250.0)
    for key, source in (("clean", city), ("broken", broken.open()[0])):
        state = encoder.fit(city, "sentinel1", places, seed=0)
        assert_as_naive(encoder, source.pixels("sentinel1"), places, state)
        values = encoder.encode(source, "sentinel1", places, state).values
        assert np.isfinite(values).all(), key
    state = encoder.fit(source, "sentinel1", places, seed=0)
    assert all(np.isfinite(array).all() for array in state.values())


def test_fit_reads_a_bounded_number_of_places(tiny: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rcf, "FIT_PLACES", 1)
    builder = tiny(3, 1)
    samples = mosaic(1, 30, 90)
    samples += (np.arange(90) // 30 * 5000).astype(np.uint16)
    builder.pixels("sentinel2", samples)
    city, places = builder.open()
    encoder = rcf.Encoder(filters=4, window_m=300.0)
    mean = encoder.fit(city, "sentinel2", places, seed=0)["mean"]
    tiles = [samples[0, :, start : start + 30].mean() for start in (0, 30, 60)]
    assert np.isclose(tiles, mean).sum() == 1


def test_every_window_is_in_one_group_of_bounded_size(tiny: Build) -> None:
    builder = tiny(12, 2)
    builder.pixels("sentinel2", mosaic(1, 60, 360))
    city, tiles = builder.open()
    layer = city.pixels("sentinel2")
    many = points(builder, 900, seed=0)
    few = points(builder, 4, seed=0)
    for places in (tiles, many, few):
        groups = list(_convolution.groups(*_convolution.windows(layer, places, 600, 3), layer))
        assert sorted(np.concatenate(groups).tolist()) == list(range(len(places)))
        assert max(map(len, groups)) <= _convolution.GROUP_PLACES
    windows = _convolution.windows(layer, tiles, 600, 3)
    assert len(list(_convolution.groups(*windows, layer))) < len(tiles) / 4


def test_a_feature_reads_nothing_outside_its_window(tiny: Build) -> None:
    samples = mosaic(3, 90, 150).astype(np.float32)
    plain = tiny(5, 3)
    changed, touched = tiny(5, 3, key="changed"), tiny(5, 3, key="touched")
    plain.pixels("sentinel1", samples)
    city, places = plain.open()
    middle = np.flatnonzero((plain.offsets(places) == [2, 1]).all(axis=1))
    inside = np.zeros((90, 150), bool)
    inside[15:75, 45:105] = True
    wild = np.where(inside, samples, np.float32(3e38))
    wild[1, ~inside] = np.nan
    changed.pixels("sentinel1", wild, inside)
    changed.pixels("sentinel2", np.nan_to_num(wild))
    samples[0, 15, 45] += 500
    touched.pixels("sentinel1", samples)
    encoder = rcf.Encoder(filters=16)
    state = encoder.fit(city, "sentinel1", places.take(middle), seed=0)
    base = encoder.features(city.pixels("sentinel1"), places, state)[0][middle]
    wild_city, corner_city = changed.open()[0], touched.open()[0]
    for layer in ("sentinel1", "sentinel2"):
        found = encoder.features(wild_city.pixels(layer), places, state)[0][middle]
        np.testing.assert_array_equal(found, base)
    corner = encoder.features(corner_city.pixels("sentinel1"), places, state)[0][middle]
    assert (corner != base).any()


def test_fit_reads_only_the_windows_of_its_places(tiny: Build) -> None:
    plain = tiny(5, 3)
    poisoned = tiny(5, 3, key="poisoned")
    samples = mosaic(3, 90, 150)
    plain.pixels("sentinel2", samples)
    city, places = plain.open()
    training = places.take(np.flatnonzero(plain.offsets(places)[:, 0] == 0))
    samples[:, :, 45:] = 65000
    poisoned.pixels("sentinel2", samples)
    encoder = rcf.Encoder(filters=8)
    states = [encoder.fit(c, "sentinel2", training, 0) for c in (city, poisoned.open()[0])]
    assert states[0].keys() == states[1].keys()
    for name, array in states[0].items():
        np.testing.assert_array_equal(states[1][name], array)


def test_fit_is_deterministic_and_seeded(tiny: Build) -> None:
    builder = tiny(4, 2)
    builder.pixels("sentinel2", mosaic(3, 60, 120))
    city, places = builder.open()
    encoder = rcf.Encoder(filters=8)
    once, again, other = (encoder.fit(city, "sentinel2", places, seed) for seed in (5, 5, 6))
    assert all(np.array_equal(once[name], again[name]) for name in once)
    assert not np.array_equal(once["filters"], other["filters"])


def test_tokens_are_standardised_over_the_fitted_places(tiny: Build) -> None:
    builder = tiny(6, 4)
    valid = np.ones((120, 180), bool)
    valid[:, :60] = False
    builder.pixels("sentinel2", mosaic(3, 120, 180), valid)
    city, places = builder.open()
    encoder = rcf.Encoder(filters=32)
    state = encoder.fit(city, "sentinel2", places, seed=0)
    tokens = encoder.encode(city, "sentinel2", places, state)
    assert tokens.values.dtype == np.float16
    assert tokens.values.shape == (tokens.present.sum(), 32)
    west = builder.offsets(places)[:, 0]
    # Half of the window of column 2 is invalid, and a patch more by its width.
    np.testing.assert_array_equal(tokens.present, west >= 2)
    values = tokens.values.astype(np.float64)
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-2)
    np.testing.assert_allclose(values.std(axis=0), 1, atol=1e-2)


def test_filters_are_whitened_patches() -> None:
    rng = np.random.default_rng(0)
    patches = rng.normal(size=(500, 12)) @ rng.normal(size=(12, 12)) + 3
    weights, bias = rcf._filters(patches, 7, np.random.default_rng(4))
    chosen = patches[np.random.default_rng(4).choice(500, 7, replace=False)]
    mean = patches.mean(axis=0)
    covariance = (patches - mean).T @ (patches - mean) / 500 + rcf.WHITENING_FLOOR * np.eye(12)
    inverse = np.linalg.inv(covariance)
    for filter_weights, filter_bias, patch in zip(weights, bias, chosen, strict=True):
        length = np.sqrt((patch - mean) @ inverse @ (patch - mean))
        wanted = (patches - mean) @ inverse @ (patch - mean) / length - 1.0  # as published
        np.testing.assert_allclose(patches @ filter_weights + filter_bias, wanted, atol=1e-8)


@pytest.mark.parametrize("constant", [slice(0, 1), slice(0, 3)])
def test_constant_bands_stay_finite(tiny: Build, constant: slice) -> None:
    builder = tiny(3, 2)
    samples = mosaic(3, 60, 90)
    samples[constant] = 700
    builder.pixels("sentinel2", samples)
    city, places = builder.open()
    encoder = rcf.Encoder(filters=8)
    state = encoder.fit(city, "sentinel2", places, seed=0)
    assert all(np.isfinite(array).all() for array in state.values())
    assert np.isfinite(encoder.encode(city, "sentinel2", places, state).values).all()


def test_what_a_user_can_mend_says_so(tiny: Build) -> None:
    builder = tiny(3, 2)
    builder.pixels("sentinel2", mosaic(3, 60, 90), np.zeros((60, 90), bool))
    builder.pixels("naip", mosaic(4, 60, 90))
    builder.pixels("sentinel1", mosaic(2, 2, 3))
    city, places = builder.open()
    encoder = rcf.Encoder(filters=4)
    with pytest.raises(UrbanError, match="no valid sentinel2 pixels around the places of 'tiny'"):
        encoder.fit(city, "sentinel2", places, 0)
    with pytest.raises(UrbanError, match="too coarse"):
        encoder.fit(city, "sentinel1", places, 0)
    fine = builder.open()[0].pixels("naip")
    fine.pixel_m = 0.5
    with pytest.raises(UrbanError, match=r"too fine .* \(12000 a side\): set window_m=5000 or"):
        _convolution.windows(fine, places, 6000.0, 3)
    state = encoder.fit(city, "naip", places, 0)
    with pytest.raises(UrbanError, match="has 3 bands, the encoder was fitted on 4"):
        encoder.encode(city, "sentinel2", places, state)


# --- patches -----------------------------------------------------------------------------------


def naive_cells(
    encoder: rcf.Encoder,
    samples: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    state: Mapping[str, npt.NDArray[Any]],
) -> list[tuple[npt.NDArray[np.float64], bool, int, int]]:
    """The definition: each cell of a window is an image of its own; mean, enough, row, column."""
    size, side, found = encoder.patch_px, len(valid), []
    scaled = (samples - state["mean"][:, None, None]) / state["std"][:, None, None]
    scaled = np.clip(scaled, -50, 50)
    edges = [round(number * side / encoder.grid) for number in range(encoder.grid + 1)]
    for row in range(encoder.grid):
        for column in range(encoder.grid):
            north, south = edges[row], edges[row + 1]
            west, east = edges[column], edges[column + 1]
            image, known = scaled[:, north:south, west:east], valid[north:south, west:east]
            total, count, positions = np.zeros(len(state["filters"])), 0, 0
            for top in range(south - north - size + 1):
                for left in range(east - west - size + 1):
                    positions += 1
                    if known[top : top + size, left : left + size].all():
                        patch = image[:, top : top + size, left : left + size]
                        response = (state["filters"] * patch).sum(axis=(1, 2, 3)) + state["bias"]
                        total, count = total + np.maximum(response, 0), count + 1
            found.append((total / max(count, 1), count >= positions / 2, row, column))
    return found


def standardised(
    values: npt.NDArray[np.float64], state: Mapping[str, npt.NDArray[Any]], kind: str
) -> npt.NDArray[np.float64]:
    scaled: npt.NDArray[np.float64] = (values - state[f"{kind}centre"]) / state[f"{kind}scale"]
    return scaled


def square(left: float, bottom: float, side: float) -> list[float]:
    right, top = left + side, bottom + side
    return [left, bottom, right, bottom, right, top, left, top]


@pytest.mark.parametrize("cell_bytes", [1 << 26, 2000])
def test_patches_equal_the_naive_reference(
    tiny: Build, monkeypatch: pytest.MonkeyPatch, cell_bytes: int
) -> None:
    monkeypatch.setattr(_convolution, "CELL_BYTES", cell_bytes)
    builder = tiny(5, 2)
    valid = np.random.default_rng(1).random((60, 150)) > 0.01
    valid[5:40, 60:110] = False
    builder.pixels("sentinel2", mosaic(2, 60, 150), valid)
    city, _ = builder.open()
    # 19 pixels a window: cells of 6, 7 and 6.
    encoder = rcf.Encoder(filters=5, window_m=190.0, tokens="both", grid=3)
    places = points(builder, 90, seed=2, spread_m=60.0)
    columns, rows, side = _convolution.windows(city.pixels("sentinel2"), places, 190, 3)
    groups = _convolution.groups(columns, rows, side, city.pixels("sentinel2"))
    assert max(map(len, groups)) > 10
    state = encoder.fit(city, "sentinel2", places, seed=0)
    tokens = encoder.encode(city, "sentinel2", places, state)
    layer = city.pixels("sentinel2")
    whole, present = naive(encoder, layer, places, state)
    assert tokens.bag and 0 < present.sum() < len(places)
    np.testing.assert_array_equal(tokens.present, present)
    left_out = 0
    for number, (x, y) in enumerate(zip(places.x, places.y, strict=True)):
        wanted, corners = [], []
        # As the window snaps: its west and north sides, in tile sides from the place's square.
        west = (round(x / 10 - 9.5) * 10 - x) / 300 + 0.5
        north = (-round(-y / 10 - 9.5) * 10 - y) / 300 + 0.5
        if present[number]:
            wanted.append(standardised(whole[number], state, ""))
            corners.append(square(west, north - 190 / 300, 190 / 300))
            samples, known = layer.window(x, y, 190)
            for mean, enough, row, column in naive_cells(encoder, samples, known, state):
                left_out += not enough
                if enough:
                    wanted.append(standardised(mean, state, "patch_"))
                    low, high = ([0, 6, 13, 19][row + k] / 30 for k in (0, 1))
                    start, end = ([0, 6, 13, 19][column + k] / 30 for k in (0, 1))
                    x_edges, y_edges = (west + start, west + end), (north - high, north - low)
                    pick = ((0, 0), (1, 0), (1, 1), (0, 1))
                    corners.append([edge for i, j in pick for edge in (x_edges[i], y_edges[j])])
        own = slice(tokens.offsets[number], tokens.offsets[number + 1])
        assert own.stop - own.start == len(wanted)
        if wanted:
            np.testing.assert_allclose(tokens.values[own], wanted, atol=2e-3, rtol=2e-3)  # float16
            np.testing.assert_allclose(tokens.positions[own], corners, atol=1e-5)
    assert left_out


def test_unstandardised_patches_equal_the_naive_reference_closely(tiny: Build) -> None:
    builder = tiny(3, 2)
    builder.pixels("naip", mosaic(4, 120, 180))
    city, places = builder.open()
    encoder = rcf.Encoder(filters=6, window_m=250.0, tokens="patches", grid=2)
    state = encoder.fit(city, "naip", places, seed=0)
    layer = city.pixels("naip")
    found = _convolution.layer_responses(layer, places, 250, 2, state)
    for number, (x, y) in enumerate(zip(places.x, places.y, strict=True)):
        samples, valid = layer.window(x, y, 250)
        cells = naive_cells(encoder, samples, valid, state)
        wanted = np.array([mean for mean, *_ in cells])
        np.testing.assert_allclose(found.means[number, 1:], wanted, atol=1e-4, rtol=1e-4)
        assert found.enough[number, 1:].tolist() == [enough for _, enough, *_ in cells]


def test_a_patch_reads_nothing_outside_its_cell(tiny: Build) -> None:
    samples = mosaic(3, 90, 150).astype(np.float32)
    plain = tiny(5, 3)
    plain.pixels("sentinel1", samples)
    city, places = plain.open()
    middle = places.take(np.flatnonzero((plain.offsets(places) == [2, 1]).all(axis=1)))
    encoder = rcf.Encoder(filters=16, tokens="both", grid=4)
    state = encoder.fit(city, "sentinel1", places, seed=0)
    base = encoder.encode(city, "sentinel1", middle, state)
    assert len(base.values) == 17
    # The window is rows 15…74 and columns 45…104; its cells are 15 pixels wide.
    for row, column in ((0, 0), (1, 2), (3, 3)):
        inside = np.zeros((90, 150), bool)
        inside[15 + 15 * row : 30 + 15 * row, 45 + 15 * column : 60 + 15 * column] = True
        changed = tiny(5, 3, key=f"changed{row}{column}")
        changed.pixels("sentinel1", np.where(inside, samples, samples[:, ::-1, ::-1] * 1.5))
        found = encoder.encode(changed.open()[0], "sentinel1", middle, state).values
        same = (found == base.values).all(axis=1)
        assert np.flatnonzero(same).tolist() == [1 + 4 * row + column]
        # And every pixel of the cell matters.
        for corner in ((0, 0), (0, 14), (14, 0), (14, 14)):
            touched = samples.copy()
            touched[:, 15 + 15 * row + corner[0], 45 + 15 * column + corner[1]] += 5000
            other = tiny(5, 3, key="t{}{}{}{}".format(row, column, *corner))
            other.pixels("sentinel1", touched)
            found = encoder.encode(other.open()[0], "sentinel1", middle, state).values
            differ = np.flatnonzero((found != base.values).any(axis=1)).tolist()
            assert differ == [0, 1 + 4 * row + column]


def test_tokens_of_patches_are_those_of_both_without_the_first(tiny: Build) -> None:
    builder = tiny(4, 3)
    valid = np.ones((90, 120), bool)
    valid[:, :50] = False
    builder.pixels("sentinel2", mosaic(2, 90, 120), valid)
    city, places = builder.open()
    found = {}
    for tokens in ("global", "patches", "both"):
        encoder = rcf.Encoder(filters=6, tokens=tokens)
        state = encoder.fit(city, "sentinel2", places, seed=0)
        found[tokens] = encoder.encode(city, "sentinel2", places, state)
    counts = np.diff(found["both"].offsets)
    first = found["both"].offsets[:-1][counts > 0]
    np.testing.assert_array_equal(found["both"].values[first], found["global"].values)
    rest = np.delete(found["both"].values, first, axis=0)
    np.testing.assert_array_equal(found["patches"].values, rest)
    assert not found["patches"].present.all()
    for part in found.values():
        np.testing.assert_array_equal(part.present, found["global"].present)
    # The window of the second column from the west keeps its cells in the imagery.
    assert set(np.diff(found["patches"].offsets)[found["patches"].present]) > {16}
    values = found["patches"].values.astype(np.float64)
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-2)
    np.testing.assert_allclose(values.std(axis=0), 1, atol=1e-2)


class Maps(Images):
    """A map of real arrays: 40 × 40 pixels for any window, cut from a mosaic by nearest pixel."""

    bands = ("red", "green", "blue")
    dtype = np.dtype(np.uint8)

    def __init__(self, samples: npt.NDArray[np.uint8], west: float, north: float) -> None:
        self._samples, self._west, self._north = samples, west, north

    def windows(self, places: Places, window_m: float) -> Iterator[Window]:
        """Yield the squares, last place first; pixels of 5 m."""
        steps = (np.arange(40) + 0.5) * window_m / 40 - window_m / 2
        for number in reversed(range(len(places))):
            columns = np.floor((places.x[number] + steps - self._west) / 5).astype(int)
            rows = np.floor((self._north - places.y[number] + steps) / 5).astype(int)
            rows, columns = (part.clip(0, self._samples.shape[1] - 1) for part in (rows, columns))
            yield number, self._samples[:, rows[:, None], columns], np.ones((40, 40), bool)


def test_maps_in_several_windows_equal_the_naive_reference(
    tiny: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = tiny(2, 2)
    city, places = builder.open()
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (3, 40, 40)).repeat(3, axis=1).repeat(3, axis=2).astype(np.uint8)
    west, south = builder.corner()
    maps = Maps(blocks, west, south + 600)
    monkeypatch.setattr(rcf, "open_images", lambda city, modality: maps)
    sides = (150.0, 300.0)
    found = {}
    for tokens in ("global", "both"):
        encoder = rcf.Encoder(filters=6, tokens=tokens, grid=2, basemap_windows_m=sides)
        assert encoder.reach_m("basemap") == 300
        state = encoder.fit(city, "basemap", places, seed=0)
        found[tokens] = encoder.encode(city, "basemap", places, state)
        assert found[tokens].values.shape[1] == encoder.width("basemap")
    assert found["global"].values.shape == (4, 12) and found["both"].values.shape == (40, 6)
    for index, side in enumerate(sides):
        own = {name: state[name][6 * index :][:6] for name in state if name.endswith(KINDS)}
        for number, samples, valid in maps.windows(places, side):
            one = rcf.Encoder(filters=6, grid=1)
            whole = naive_cells(one, samples, valid, state)[0][0]
            wanted = standardised(whole, own, "")
            concatenated = found["global"].values[number, 6 * index :][:6]
            np.testing.assert_allclose(concatenated, wanted, atol=3e-3, rtol=3e-3)
            cells = [mean for mean, *_ in naive_cells(encoder, samples, valid, state)]
            rows = [wanted, *(standardised(mean, own, "patch_") for mean in cells)]
            bag = found["both"].take([number])
            part = slice(5 * index, 5 * index + 5)
            np.testing.assert_allclose(bag.values[part], rows, atol=3e-3, rtol=3e-3)
            low = 0.5 - side / 600
            wanted_corners = [square(low, low, side / 300)]
            for y in (0.5, low):
                wanted_corners += [square(x, y, side / 600) for x in (low, 0.5)]
            np.testing.assert_allclose(bag.positions[part], wanted_corners, atol=1e-6)


KINDS = ("centre", "scale")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"window_m": 0.0}, "window_m is above 0, at most 20000"),
        ({"window_m": 1e9}, "window_m is above 0, at most 20000"),
        ({"filters": 0}, "filters is from 1 to 65536"),
        ({"filters": 10**12}, "filters is from 1 to 65536"),
        ({"patch_px": 0}, "patch_px is from 1 to 32"),
        ({"patch_px": 33}, "patch_px is from 1 to 32"),
        ({"grid": 0}, "grid is from 1 to 64"),
        ({"grid": 10**9}, "grid is from 1 to 64"),
        *(
            ({"basemap_windows_m": sides}, "is a list of sides from 10 to 20000 metres")
            for sides in [(), (300.0, -1.0), (1e-300,), (0.001,), (9.9, 300.0), (300.0, 1e9)]
        ),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        rcf.Encoder(**setting)


def test_a_grid_too_fine_for_the_pixels_is_refused(tiny: Build) -> None:
    builder = tiny(2, 1)
    builder.pixels("sentinel2", mosaic(2, 30, 60))
    city, places = builder.open()
    encoder = rcf.Encoder(filters=2, window_m=100.0, tokens="patches", grid=4)
    with pytest.raises(UsageError, match="a window of 10 pixels has room for 3 patches of 3"):
        encoder.fit(city, "sentinel2", places, 0)
