"""Controls: counts and tags by hand, components against scikit-learn, coordinates appended."""

from dataclasses import replace

import numpy as np
import pytest

from tests.conftest import Town
from urbancli.bench.contestants import Contestant, on_places, title
from urbancli.bench.controls import controls, with_coordinates
from urbancli.bench.preparation import Material, prepare
from urbancli.bench.probes.base import standardise
from urbancli.errors import UrbanError
from urbancli.layers import CityLayers, open_city
from urbancli.runs import open_run
from urbancli.spoiling import WHOLE, Spoiling
from urbancli.workspace import Workspace


@pytest.fixture(scope="module")
def city(town: Town) -> CityLayers:
    return open_city(Workspace(town.workspace), "synthetic-town")


@pytest.fixture(scope="module")
def material(city: CityLayers) -> Material:
    return prepare(city, city.tiles(), "population_density")


@pytest.fixture(scope="module")
def found(city: CityLayers) -> dict[str, Contestant]:
    (run,) = [open_run(city.workspace, name) for name in city.workspace.runs()]
    return {one.method: one for one in controls(city, city.tiles(), [run])}


def test_all_controls_of_the_list_are_there(found: dict[str, Contestant]) -> None:
    assert list(found) == [
        "constant", "coordinates", "counts", "tags", "concatenation", "concatenation-pca",
    ]  # fmt: skip
    assert found["counts"].modalities == ("entities", "pois")
    assert found["tags"].modalities == ("entities",)
    assert set(found["concatenation"].modalities) == {"naip", "entities", "pois"}


def test_counts_count_the_entities_of_a_tile(
    city: CityLayers, material: Material, found: dict[str, Contestant]
) -> None:
    """The last column of `tagcounts` is log1p of how many entities touch the tile."""
    blocks = found["counts"].blocks
    assert blocks is not None
    values = blocks(material, WHOLE)["entities"]
    counts = dict.fromkeys(city.tiles().place_id, 0)
    for places in city.entities("entities").column("places").to_pylist():
        for place in places or ():
            counts[place] = counts.get(place, 0) + 1
    expected = np.log1p([counts[place] for place in city.tiles().place_id])
    order = [list(city.tiles().place_id).index(unit) for unit in material.units.unit_id]
    np.testing.assert_allclose(values[:, -1], expected[order], rtol=1e-5)


def test_components_are_the_principal_ones(
    material: Material, found: dict[str, Contestant]
) -> None:
    from sklearn.decomposition import PCA

    whole = found["concatenation"].on_units(material, WHOLE)
    pca = found["concatenation-pca"]
    values = pca.on_units(material, WHOLE)
    width = min(192, len(whole) - 1)
    assert values.shape == (len(whole), width) and "192 wide" in pca.settings
    scaled = standardise(whole, whole)[0]
    theirs = PCA(width, svd_solver="full").fit_transform(scaled)
    # Turned in their own space: distances between units are those of the components.
    np.testing.assert_allclose(
        values.astype(np.float64) @ values.T,
        theirs @ theirs.T,
        atol=1e-3 * (theirs**2).sum(1).max(),
    )
    # What a probe makes of columns of one size is not what whitened components would be.
    sizes = values.std(axis=0)
    assert sizes.max() < 3 * sizes.min()


def test_what_is_gone_is_nan_in_the_concatenation(
    material: Material, found: dict[str, Contestant]
) -> None:
    one = found["concatenation"]
    whole, left = one.on_units(material, WHOLE), one.on_units(material, Spoiling(gone=("pois",)))
    gone = np.isnan(left).all(axis=0)
    assert whole.shape == left.shape and 0 < gone.sum() < whole.shape[1]
    np.testing.assert_array_equal(whole[:, ~gone], left[:, ~gone])


def test_coordinates_stand_in_columns_of_their_own(
    city: CityLayers, material: Material, found: dict[str, Contestant]
) -> None:
    plain = found["concatenation"]
    more = with_coordinates(plain, city.tiles())
    values = more.on_units(material, WHOLE)
    np.testing.assert_array_equal(values[:, :-2], plain.on_units(material, WHOLE))
    x = city.tiles().x
    assert np.ptp(values[:, -2]) == pytest.approx(np.ptp(x) / 1000, rel=1e-4)
    assert more.identity != plain.identity and "coords" in more.modalities
    row = {"run": "", "method": more.method, "settings": more.settings, "pretraining": "none"}
    assert title(row) == "concatenation (control, + coordinates)"


def test_features_that_are_not_finite_are_refused(city: CityLayers, material: Material) -> None:
    places = city.tiles()
    values = np.ones((len(places), 2))
    values[3, 1] = np.nan
    there = np.ones(len(places), dtype=bool)
    broken = Contestant("mine", on_places("mine", lambda spoiling: [(values, there)]))
    with pytest.raises(UrbanError, match="embeddings of mine are not finite"):
        broken.on_units(material, WHOLE)
    there[3] = False
    known = replace(broken, on_units=on_places("mine", lambda spoiling: [(values, there)]))
    assert np.isnan(known.on_units(material, WHOLE)).any(axis=1).sum() == 1
