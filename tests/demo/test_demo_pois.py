"""POIs: enough in every tile, of kinds that follow the factors, and a file the source reads."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import shapely
from lattice import lattice
from scipy.stats import spearmanr

from urbancli.demo._draws import tile_index, tile_levels
from urbancli.demo._place_kinds import CHAIN_WORDS, FAMILY_WORDS, KINDS
from urbancli.demo.factors import UNIQUE, Factors, draw_factors
from urbancli.demo.pois import CODE, place_pois, write_pois
from urbancli.demo.recipe import GRID, Recipe
from urbancli.demo.streets import lay_streets
from urbancli.demo.town import Pois
from urbancli.layers import poi_category
from urbancli.sources.pois import Source

Town = tuple[Factors, Pois]


@pytest.fixture(scope="module", params=["lattice", "streets"])
def town(request: pytest.FixtureRequest) -> Town:
    """The POIs of a small city, once on plain squares and once between the demo's streets."""
    factors = draw_factors(Recipe(seed=3, tiles=16))
    cells = lattice(factors) if request.param == "lattice" else lay_streets(factors).cells
    return factors, place_pois(factors, cells)


def _counts(town: Town, mask: np.ndarray | None = None) -> np.ndarray:
    factors, pois = town
    tile = tile_index(factors, pois.xy)
    return np.bincount(tile if mask is None else tile[mask], minlength=_levels(town, "age").size)


def _levels(town: Town, factor: str) -> np.ndarray:
    return tile_levels(town[0], factor)


def test_nearly_every_tile_has_eight_and_none_too_many(town: Town) -> None:
    count = _counts(town)
    assert (count >= 8).mean() >= 0.95
    assert 12 <= count.mean() <= 18 and count.max() <= 80
    assert spearmanr(count, _levels(town, "density")).statistic > 0.95


@pytest.mark.parametrize("position", range(4))
def test_kinds_follow_each_factor(town: Town, position: int) -> None:
    kinds = {f"{key}={value}": code for code, several in KINDS.items() for key, value in several}
    speaks = np.array([kinds[str(poi_category(tags))][position] != "-" for tags in town[1].tags])
    share = _counts(town, speaks) / np.maximum(_counts(town), 1)
    known = _counts(town) >= 5
    factor = list(CODE)[position]
    assert spearmanr(share[known], _levels(town, factor)[known]).statistic > 0.85


def test_the_listed_name_alone_shows_chains(town: Town) -> None:
    first = np.array([name.split()[0] for name in town[1].listed_name])
    assert set(first) == {*CHAIN_WORDS, *FAMILY_WORDS}
    share = _counts(town, np.isin(first, CHAIN_WORDS)) / np.maximum(_counts(town), 1)
    assert spearmanr(share, _levels(town, "chains")).statistic > 0.8
    for name, tags in zip(town[1].listed_name, town[1].tags, strict=True):
        assert name.split(" ", 1)[1] == tags["name"]
        assert len(tags) == 2


def test_every_kind_is_another_category_and_all_factors_have_as_many() -> None:
    assert len({kind for several in KINDS.values() for kind in several}) == 48
    assert len(KINDS) == 16 and {len(several) for several in KINDS.values()} == {3}
    letters = next(zip(*CODE.values(), strict=True))
    for code in KINDS:
        assert all(mark in {letter, "-"} for mark, letter in zip(code, letters, strict=True))


def test_unique_factors_change_the_listed_names_at_most() -> None:
    factors = draw_factors(Recipe(seed=5, tiles=8))
    cells = lattice(factors)
    before = place_pois(factors, cells)
    for name in UNIQUE:
        noise = np.random.default_rng(1).standard_normal(factors.fields[name].shape)
        fields = factors.fields | {name: noise}
        other = place_pois(dataclasses.replace(factors, fields=fields), cells)
        np.testing.assert_array_equal(other.xy, before.xy)
        assert other.tags == before.tags
        assert (other.listed_name == before.listed_name) == (name != "chains")


def test_the_source_reads_the_file_row_by_row(town: Town, tmp_path: Path) -> None:
    pois = town[1]
    path = tmp_path / "pois.csv"
    write_pois(path, pois)
    entities, facts = Source(path).collect()
    assert facts["counted"] == len(entities) == len(pois.tags)
    assert facts["duplicate_ids"]["count"] == facts["without_coordinates"]["count"] == 0
    assert [tags["name"] for tags in entities.tags] == list(pois.listed_name)
    assert [tags["category"] for tags in entities.tags] == [poi_category(t) for t in pois.tags]
    assert all(set(tags) == {"name", "category"} for tags in entities.tags)
    assert all(entity.startswith("poi/SYNTHETIC-") for entity in entities.entity_id)
    lonlat = np.column_stack(GRID.unproject(*pois.xy.T))
    np.testing.assert_allclose(shapely.get_coordinates(entities.geometry), lonlat, atol=6e-8)
