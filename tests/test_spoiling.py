"""Spoiling: equal ones are equal; chance is a place's own, not of the order nor of the rate."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_inputs import BOTH, CORNER, GRID, make_city, some_tiles

from urbancli.encoding import choose, encode_cached, fit_encoders
from urbancli.errors import UrbanError, UsageError
from urbancli.grid import Grid
from urbancli.layers import CityLayers
from urbancli.spoiling import Spoiling, city_at, deviations, holes, noise, spoil_blocks
from urbancli.tokens import Tokens, single_tokens
from urbancli.workspace import Workspace, write_json

IDS = [f"32643_300_{column}_{row}" for column in range(60) for row in range(50)]
ALL = np.ones(len(IDS), dtype=bool)


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({}, ""),
        ({"gone": ("satellite",)}, "satellite"),
        ({"gone": ("naip", "sentinel2")}, "sentinel2+naip"),
        ({"gone": ("pois", "satellite")}, "satellite+pois"),
        ({"rate": 0.3}, "rate=0.3"),
        ({"noise": 1.0}, "noise=1"),
        ({"noise": 0.5, "noisy": ("coords",)}, "noise:coords=0.5"),
        ({"stale": (("sentinel2", "delhi-2019"),)}, "stale:sentinel2=delhi-2019"),
        ({"gone": ("pois",), "rate": 0.1, "noise": 2.0}, "pois,rate=0.1,noise=2"),
    ],
)
def test_a_label_says_what_is_done(changes: dict[str, Any], label: str) -> None:
    assert Spoiling(**changes).label == label


def test_equal_spoilings_are_equal_however_they_are_written() -> None:
    one = Spoiling(gone=("pois", "satellite", "naip"))
    assert one == Spoiling(gone=("sentinel2", "naip", "sentinel1", "pois"))
    assert hash(one) == hash(Spoiling(gone=("satellite", "pois")))
    dates = (("pois", "a"), ("naip", "b"))
    assert Spoiling(stale=dates) == Spoiling(stale=dates[::-1])
    assert Spoiling(rate=0.3) != Spoiling(rate=0.3, seed=1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rate": 1.0}, "drop-rate=1.0 does not fit: drop-rate is at least 0 and below 1"),
        ({"rate": -0.1}, "rate is at least 0"),
        ({"rate": float("nan")}, "rate=nan does not fit"),
        ({"noise": float("inf")}, "noise=inf does not fit: noise is at least 0 and finite"),
        ({"seed": -1}, "seed is at least 0"),
        ({"gone": ("satelite",)}, "unknown modality 'satelite': did you mean satellite"),
        ({"noisy": ("pois",)}, "noise on pois of no deviation: set noise above 0"),
        ({"stale": (("poi", "a"),)}, "unknown modality 'poi': did you mean pois"),
        ({"stale": (("coords", "a"),)}, "coords are the same at every date"),
        ({"stale": (("pois", "a"), ("pois", "b"))}, "a modality is stale twice"),
        ({"stale": (("naip", "a"),), "gone": ("satellite",)}, "naip cannot be gone and stale"),
    ],
)
def test_what_does_not_fit_is_told(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Spoiling(**changes)


# --- holes -----------------------------------------------------------------------------------


def test_a_place_loses_each_modality_at_the_rate_and_never_all() -> None:
    present = {"sentinel2": ALL, "pois": np.arange(len(IDS)) % 3 > 0, "naip": ~ALL}
    gone, spared = holes(IDS, present, Spoiling(rate=0.3))
    has, lost = (np.stack(list(part.values())) for part in (present, gone))
    assert not (lost & ~has).any(), "what is not there is not lost"
    assert ((has & ~lost).any(axis=0) == has.any(axis=0)).all(), "something stays"
    two = present["pois"]
    both = 0.3**2  # of places with two, one of the two stays where both would go
    for name in ("sentinel2", "pois"):
        assert abs(gone[name][two].mean() - (0.3 - both / 2)) < 0.03
    assert not gone["sentinel2"][~two].any(), "the only one stays"
    expected = both * two.sum() + 0.3 * (~two).sum()
    assert abs(spared - expected) < 4 * np.sqrt(expected)
    together = (gone["sentinel2"] & gone["pois"]).sum()
    assert together == 0


def test_holes_are_a_places_own_and_grow_with_the_rate() -> None:
    present = {"sentinel2": ALL, "pois": ALL, "coords": ALL}
    some, more = (holes(IDS, present, Spoiling(rate=rate)).gone for rate in (0.3, 0.7))
    turned = holes(IDS[::-1], present, Spoiling(rate=0.3)).gone
    fewer = holes(IDS[:9], {n: m[:9] for n, m in present.items()}, Spoiling(rate=0.3)).gone
    other = holes(IDS, present, Spoiling(rate=0.3, seed=1)).gone
    for name, mask in some.items():
        assert np.array_equal(turned[name][::-1], mask) and np.array_equal(fewer[name], mask[:9])
        assert (mask <= more[name]).all() and mask.sum() < more[name].sum()
        assert 0.4 < (other[name] != mask).mean() / (2 * 0.3 * 0.7) < 1.6
    # Whoever reads less, or in another order, meets the same holes but where it would lose all.
    gone, spared = holes(IDS, {"pois": ALL, "sentinel2": ALL}, Spoiling(rate=0.3))
    different = (gone["pois"] != some["pois"]) | (gone["sentinel2"] != some["sentinel2"])
    assert 0 < different.sum() <= spared


def test_nothing_goes_without_a_rate() -> None:
    assert holes(IDS, {"pois": ALL}, Spoiling(noise=1.0)) == ({}, 0)
    assert holes(IDS, {}, Spoiling(rate=0.5)) == ({}, 0)


# --- noise -----------------------------------------------------------------------------------


def test_noise_has_the_deviation_of_each_feature_and_is_a_places_own() -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(len(IDS), 4)) * [1.0, 30.0, 0.0, 0.1] + 5).astype(np.float16)
    spread = deviations(single_tokens(values))
    np.testing.assert_allclose(spread, values.astype(np.float64).std(axis=0), rtol=1e-6)
    counts = np.arange(len(IDS)) % 3
    added = noise(IDS, "pois", counts, spread, Spoiling(noise=2.0))
    assert added.shape == (counts.sum(), 4) and not added[:, 2].any()
    np.testing.assert_allclose(added.std(axis=0), 2 * spread, rtol=0.05)
    assert abs(np.corrcoef(added[:, 0], added[:, 1])[0, 1]) < 0.05
    rows = np.repeat(np.arange(len(IDS)), counts)
    for place in (2, 5, 1):
        alone = noise([IDS[place]], "pois", counts[[place]], spread, Spoiling(noise=2.0))
        assert np.array_equal(alone, added[rows == place])
    half = noise(IDS, "pois", counts, spread, Spoiling(noise=1.0))
    np.testing.assert_allclose(half * 2, added, rtol=1e-6)
    for changed in (noise(IDS, "naip", counts, spread, Spoiling(noise=2.0)),
                    noise(IDS, "pois", counts, spread, Spoiling(noise=2.0, seed=1))):  # fmt: skip
        assert abs(np.corrcoef(changed[:, 0], added[:, 0])[0, 1]) < 0.06


def test_noise_wants_a_deviation_to_be_measured_in() -> None:
    one = Tokens(np.ones((1, 3), np.float16), np.array([0, 1, 1]), np.zeros((1, 0), np.float32),
                 np.array([True, False]), bag=False)  # fmt: skip
    with pytest.raises(UrbanError, match="give at least two that have data"):
        deviations(one)


def test_noise_is_on_all_but_coordinates_unless_they_are_named() -> None:
    names = ["coords", "sentinel2", "pois"]
    assert Spoiling().noised(names) == ()
    assert Spoiling(noise=1.0).noised(names) == ("sentinel2", "pois")
    assert Spoiling(noise=1.0, noisy=("coords",)).noised(names) == ("coords",)
    assert Spoiling(noise=1.0, gone=("pois",)).noised(names) == ("sentinel2",)


# --- plain frozen features, and other dates --------------------------------------------------


def pooled(city: CityLayers, of: CityLayers) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A city's features by encoders fitted on another one."""
    places, found = city.tiles(), {}
    for name in BOTH:
        encoders = choose()[name]
        part = encode_cached(
            city, name, places, encoders, *fit_encoders(of, name, places, encoders)
        )
        found[name] = part.pooled(), part.present
    return found


def test_blocks_lose_what_is_gone_and_keep_the_rest(tmp_path: Path) -> None:
    city = make_city(Workspace(tmp_path / "w"), layers=BOTH)
    places, blocks = city.tiles(), pooled(city, city)
    copies = {name: values.copy() for name, (values, _) in blocks.items()}
    values, present = spoil_blocks(city, places, blocks, Spoiling(gone=("pois",)), {})["pois"]
    assert values.shape == copies["pois"].shape and np.isnan(values).all() and not present.any()
    same = spoil_blocks(city, places, blocks, Spoiling(gone=("pois",)), {})["sentinel2"]
    known = blocks["sentinel2"][1]
    assert np.array_equal(same[0][known], copies["sentinel2"][known])
    assert np.isnan(same[0][~known]).all() and np.array_equal(same[1], known)
    spoiling = Spoiling(rate=0.5, noise=1.0)
    found = spoil_blocks(city, places, blocks, spoiling, {})
    gone = holes(places.place_id, {n: part[1] for n, part in blocks.items()}, spoiling).gone
    for name, (values, present) in found.items():
        assert np.array_equal(present, blocks[name][1] & ~gone[name]) and gone[name].any()
        assert np.isnan(values[~present]).all() and np.isfinite(values[present]).all()
        assert (values[present] != copies[name][present]).any(axis=1).all()
        assert np.array_equal(blocks[name][0], copies[name]), "what was given stays as it was"


def test_another_date_is_encoded_as_the_city_is(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    city = make_city(workspace, layers=BOTH)
    then = make_city(workspace, "tinytown-2019", layers=BOTH, changed=np.arange(64) < 9)
    blocks = pooled(city, city)
    spoiling = Spoiling(stale=(("sentinel2", then.key),))
    found = spoil_blocks(city, city.tiles(), blocks, spoiling, choose())
    old = pooled(then, city)["sentinel2"]
    known = old[1]
    assert np.array_equal(found["sentinel2"][0][known], old[0][known])
    assert not np.array_equal(old[0][known], blocks["sentinel2"][0][known])
    assert np.array_equal(found["pois"][0], blocks["pois"][0])


def test_a_city_of_other_tiles_or_without_the_layer_is_no_other_date(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    city = make_city(workspace, layers=BOTH)
    places = city.tiles()
    make_city(workspace, "poorer", layers=("pois",))
    with pytest.raises(UrbanError, match="'poorer' has no sentinel2: run `urban fetch --city poo"):
        city_at(city, places, "sentinel2", "poorer")
    make_city(workspace, "beside", layers=BOTH, places=some_tiles(CORNER + np.array([1, 0])))
    with pytest.raises(UrbanError, match="'beside' lacks 8 of 64 places of 'tinytown': fetch it"):
        city_at(city, places, "sentinel2", "beside")
    make_city(workspace, "coarse", layers=BOTH)
    write_json(workspace.lock_file("coarse"), {"city": {"epsg": GRID.epsg, "tile_m": 600}})
    with pytest.raises(UrbanError, match="'coarse' has other tiles than 'tinytown'"):
        city_at(city, places, "sentinel2", "coarse")
    with pytest.raises(UsageError, match="no data for 'nowhere'"):
        city_at(city, places, "sentinel2", "nowhere")
    assert Grid(GRID.epsg, 600) != city.grid
