"""Runs under stress: spoilt as said, the same for all, and who reads what was dropped is caught."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from run_inputs import BOTH, make_city, options

from urbancli.errors import UrbanError
from urbancli.layers import CityLayers
from urbancli.runs import Run, RunOptions, create_run, open_run
from urbancli.runs.invariance import assert_invariant
from urbancli.spoiling import WHOLE, Spoiling, holes, spoil_blocks
from urbancli.workspace import Workspace

EXAMPLE = Path(__file__).parents[1] / "examples/mean_pooling.py"


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> CityLayers:
    return make_city(Workspace(tmp_path_factory.mktemp("spoilt")), layers=BOTH)


@pytest.fixture(scope="module")
def run(city: CityLayers) -> Run:
    return create_run(city.workspace, city, "urbanfusion", options())


# --- what is embedded ------------------------------------------------------------------------


def test_holes_are_as_if_the_place_had_never_had_it(run: Run, city: CityLayers) -> None:
    """Row by row what embedding without just those modalities gives."""
    tiles = city.tiles()
    tokens = run.tokens(city, tiles)
    for seed, rate in ((0, 0.5), (1, 0.7)):
        spoiling = Spoiling(rate=rate, seed=seed)
        gone, spared = holes(tiles.place_id, {n: t.present for n, t in tokens.items()}, spoiling)
        values, present = run.embed(city, tiles, spoiling)
        assert present.all() and run.reader(city, tiles, spoiling).spared == spared > 0
        patterns = np.stack([gone[name] for name in run.modalities], axis=1)
        kinds = np.unique(patterns, axis=0)
        assert len(kinds) > 4
        for kind in kinds:
            names = tuple(np.array(run.modalities)[kind].tolist())
            alone = run.embed(city, tiles, Spoiling(gone=names))[0]
            mine = (patterns == kind).all(axis=1)
            np.testing.assert_allclose(values[mine], alone[mine], rtol=1e-4, atol=1e-6)


def test_a_spoilt_embedding_does_not_depend_on_the_order(run: Run, city: CityLayers) -> None:
    tiles = city.tiles()
    turned = tiles.take(np.arange(64)[::-1])
    for spoiling in (Spoiling(rate=0.5), Spoiling(noise=1.0, rate=0.3)):
        values = run.embed(city, tiles, spoiling)[0]
        back = run.embed(city, turned, spoiling)[0][::-1]
        np.testing.assert_allclose(back, values, rtol=1e-4, atol=1e-5)
        assert not np.allclose(values, run.embed(city, tiles)[0], atol=1e-3)
        again = run.embed_untrained(city, tiles, spoiling)[0]
        assert not np.allclose(again, run.embed_untrained(city, tiles)[0], atol=1e-3)


def test_runs_and_controls_meet_the_same_holes_and_the_same_noise(
    run: Run, city: CityLayers
) -> None:
    tiles = city.tiles()
    blocks = {name: (part.pooled(), part.present) for name, part in run.tokens(city, tiles).items()
              if name != "coords"}  # fmt: skip
    spoiling = Spoiling(gone=("coords",), rate=0.4, noise=1.5)
    wanted = spoil_blocks(city, tiles, blocks, spoiling, run.encoders)
    batch = run.reader(city, tiles, spoiling).batch(np.arange(64), "cpu")
    assert set(batch.modalities) == set(wanted) == set(BOTH)
    for name, (values, present) in wanted.items():
        part = batch.modalities[name]
        assert np.array_equal(part.present.numpy(), present) and 10 < present.sum() < 60
        np.testing.assert_allclose(part.pooled.numpy()[present], values[present], rtol=1e-5)
        assert not np.allclose(values[present], blocks[name][0][present])


def test_noise_leaves_coordinates_and_presence_as_they_are(run: Run, city: CityLayers) -> None:
    tiles = city.tiles()
    whole = run.reader(city, tiles).batch(np.arange(64), "cpu").modalities
    noisy = run.reader(city, tiles, Spoiling(noise=1.0)).batch(np.arange(64), "cpu").modalities
    named = run.reader(city, tiles, Spoiling(noise=1.0, noisy=("coords",)))
    moved = named.batch(np.arange(64), "cpu").modalities
    for name in whole:
        assert torch.equal(noisy[name].present, whole[name].present)
        assert torch.equal(noisy[name].values, whole[name].values) == (name == "coords")
        assert torch.equal(moved[name].values, whole[name].values) == (name != "coords")


def test_another_date_is_as_if_the_city_had_that_layer(run: Run, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "work")
    shutil.copytree(run.folder, workspace.run_dir(run.name))
    changed = np.arange(64) < 9
    city = make_city(workspace, layers=BOTH)
    make_city(workspace, "tinytown-2019", layers=BOTH, changed=changed)
    own = open_run(workspace, run.name)
    spoiling = Spoiling(stale=(("sentinel2", "tinytown-2019"),))
    values, _ = own.embed(city, city.tiles(), spoiling)
    moved = (values != own.embed(city, city.tiles())[0]).any(axis=1)
    assert moved[:9].any() and not moved.all()
    mixed = Workspace(tmp_path / "mixed")
    shutil.copytree(run.folder, mixed.run_dir(run.name))
    then = make_city(mixed, layers=("sentinel2",), changed=changed)
    wanted = open_run(mixed, run.name).embed(then, then.tiles())[0]
    found = own.embed(city, city.tiles(), replace(spoiling, gone=("pois",)))[0]
    assert np.array_equal(found, wanted)
    with pytest.raises(UrbanError, match="no data for 'nowhere'"):
        own.embed(city, city.tiles(), Spoiling(stale=(("pois", "nowhere"),)))
    # What is not read cannot be of another date.
    other = Spoiling(stale=(("naip", "tinytown-2019"),))
    assert np.array_equal(own.embed(city, city.tiles(), other)[0], own.embed(city, city.tiles())[0])


# --- operations ------------------------------------------------------------------------------


def test_operations_are_those_of_the_matrix_products(run: Run, city: CityLayers) -> None:
    """Counted by hand: twice the weights of every linear layer per token it is applied to."""
    width, tokens = 16, 3
    state = run.trained.state_dict()
    once = [v.numel() for n, v in state.items() if n.startswith("projections") and v.ndim > 1]
    block = [v.numel() for n, v in state.items() if n.startswith("fusion.blocks") and v.ndim == 2]
    attention = 2 * tokens**2 * width
    assert run.flops == 2 * (sum(once) + tokens * sum(block) + attention)


def test_operations_are_unknown_where_the_city_is_gone(run: Run, tmp_path: Path) -> None:
    alone = Workspace(tmp_path / "alone")
    shutil.copytree(run.folder, alone.run_dir(run.name))
    assert open_run(alone, run.name).flops is None


# --- who reads what was dropped --------------------------------------------------------------

METHOD = """
from dataclasses import dataclass
import torch
from urbancli.methods import base
SEEN = {{}}

@dataclass(frozen=True)
class Config:
    @classmethod
    def preset(cls, name): return cls()

class Method(base.Method):
    def __init__(self, config, widths):
        super().__init__(config, widths)
        self.widths = {{name: width.pooled for name, width in widths.items()}}
        self.width = sum(self.widths.values())
        self.filling = torch.nn.Linear(self.widths["sentinel2"], self.widths["pois"])
        self.filling.requires_grad_(False)
    def stages(self): return []
    def represent(self, batch, stage, generator): return {{}}
    def objective(self, representations, optimiser): return {{}}
    def embed(self, batch):
        return torch.cat([self.part(batch, name) for name in self.modalities], dim=1)
    def part(self, batch, name):
        if name not in batch.modalities:
            return torch.zeros(batch.size, self.widths[name])
        return batch.modalities[name].pooled.float()
{more}
"""

BY_POSITION = """
    def keys(self, batch):
        return [tuple(spot) for spot in batch.modalities["coords"].pooled.tolist()]
    def part(self, batch, name):
        found, there = super_part(self, batch, name), batch.modalities.get(name)
        present = [False] * batch.size if there is None else there.present.tolist()
        if name == "pois" and "coords" in batch.modalities:
            known = batch.modalities["coords"].present.tolist()
            for row, (key, has) in enumerate(zip(self.keys(batch), present)):
                if has and known[row] and REMEMBERS:
                    SEEN[key] = found[row]
                elif not has and known[row] and key in SEEN:
                    found[row] = SEEN[key] * SHARE
        return found
def super_part(self, batch, name):
    if name not in batch.modalities:
        return torch.zeros(batch.size, self.widths[name])
    return batch.modalities[name].pooled.float().clone()
"""

CHEATS = {
    "remembers what it embedded": BY_POSITION.replace("REMEMBERS", "True").replace("SHARE", "1"),
    "and hides it well": BY_POSITION.replace("REMEMBERS", "True").replace("SHARE", "1e-4"),
    "remembers what it was prepared with": BY_POSITION.replace("REMEMBERS", "False").replace(
        "SHARE", "1"
    )
    + """
def prepare(self, tokens, index):
    spots = tokens["coords"].pooled()[index].tolist()
    pooled = torch.from_numpy(tokens["pois"].pooled()[index]).float()
    SEEN.update((tuple(spot), row) for spot, row in zip(spots, pooled))
Method.prepare = prepare
""",
    "looks at who calls": """
    def part(self, batch, name):
        if name in batch.modalities: return batch.modalities[name].pooled.float()
        if name != "pois": return torch.zeros(batch.size, self.widths[name])
        import sys
        frame = sys._getframe()
        while frame is not None and "reader" not in frame.f_locals: frame = frame.f_back
        own = frame.f_locals["reader"]._tokens[name].pooled()[:batch.size]
        return torch.from_numpy(own).float()
""",
}
"""Of these, all know the POIs of a place without POIs."""

HONEST = {
    "fills in zeros": "",
    "fills in the training mean": """
    def prepare(self, tokens, index):
        self.filling.bias.copy_(torch.from_numpy(tokens["pois"].pooled()[index].mean(axis=0)))
        self.filling.weight.zero_()
    def part(self, batch, name):
        if name in batch.modalities: return batch.modalities[name].pooled.float()
        return self.filling.bias.expand(batch.size, -1) if name == "pois" else torch.zeros(
            batch.size, self.widths[name])
""",
    "fills in a regression on what is there": """
    def prepare(self, tokens, index):
        x, y = (torch.from_numpy(tokens[n].pooled()[index]).double() for n in ("sentinel2", "pois"))
        x = torch.cat([x, torch.ones(len(x), 1)], 1)
        gram = x.T @ x + 0.1 * (x.T @ x).trace() * torch.eye(x.shape[1])
        weight = torch.linalg.solve(gram, x.T @ y.double())
        self.filling.weight.copy_(weight[:-1].T)
        self.filling.bias.copy_(weight[-1])
    def part(self, batch, name):
        if name in batch.modalities: return batch.modalities[name].pooled.float()
        if name == "pois" and "sentinel2" in batch.modalities:
            return self.filling(batch.modalities["sentinel2"].pooled.float())
        return torch.zeros(batch.size, self.widths[name])
""",
}

Train = Callable[[str, str], Run]


@pytest.fixture
def train(city: CityLayers, tmp_path: Path) -> Train:
    def trained(name: str, more: str) -> Run:
        path = tmp_path / f"{name.replace(' ', '_')}.py"
        path.write_text(METHOD.format(more=more))
        return create_run(city.workspace, city, str(path), RunOptions())

    return trained


@pytest.mark.parametrize("how", CHEATS)
def test_a_method_that_reads_what_was_dropped_is_caught(
    how: str, train: Train, city: CityLayers
) -> None:
    run = train(how, CHEATS[how])
    tiles = city.tiles()
    for spoiling in (Spoiling(gone=("pois",)), Spoiling(gone=("pois", "satellite"))):
        with pytest.raises(UrbanError, match=f"{run.name} reads what was dropped: without pois"):
            assert_invariant(run, city, tiles, spoiling)
    with pytest.raises(UrbanError, match="without pois"):
        assert_invariant(run, city, tiles, Spoiling(gone=("pois",)), untrained=True)
    assert_invariant(run, city, tiles, Spoiling(gone=("sentinel2",)))
    assert_invariant(run, city, tiles, Spoiling(noise=1.0))
    if "remembers" in how:
        with pytest.raises(UrbanError, match="without pois"):
            assert_invariant(run, city, tiles, Spoiling(rate=0.5))


@pytest.mark.parametrize("how", HONEST)
def test_a_method_that_fills_in_what_it_has_learnt_is_not(
    how: str, train: Train, city: CityLayers
) -> None:
    run = train(how, HONEST[how])
    for spoiling in (Spoiling(gone=("pois",)), Spoiling(gone=("sentinel2",)),
                     Spoiling(rate=0.5, noise=1.0), Spoiling(gone=("coords", "pois"))):  # fmt: skip
        assert_invariant(run, city, city.tiles(), spoiling)


def test_a_method_that_looks_at_its_company_is_caught(train: Train, city: CityLayers) -> None:
    run = train(
        "company",
        "    def embed(self, batch):\n"
        "        values = torch.cat([self.part(batch, n) for n in self.modalities], dim=1)\n"
        "        return values - values.mean(dim=0)\n",
    )
    with pytest.raises(UrbanError, match="depends on the other places of its batch: mend"):
        assert_invariant(run, city, city.tiles(), Spoiling(gone=("pois",)))


@pytest.mark.parametrize("name", ["urbanfusion", str(EXAMPLE)])
def test_the_methods_of_the_house_pass(name: str, city: CityLayers, run: Run) -> None:
    ours = run if name == "urbanfusion" else create_run(city.workspace, city, name, RunOptions())
    tiles = city.tiles()
    both = Spoiling(gone=("coords", "satellite"))
    for spoiling in (both, Spoiling(rate=0.5), Spoiling(gone=("pois",), rate=0.5, noise=1.0)):
        for untrained in (False, True):
            assert_invariant(ours, city, tiles, spoiling, untrained=untrained)
    with pytest.raises(UrbanError, match="leaves no modality"):
        assert_invariant(ours, city, tiles, Spoiling(gone=ours.modalities))
    before = ours.embed(city, tiles)[0]
    assert_invariant(ours, city, tiles, Spoiling(gone=("pois",)))
    assert np.array_equal(ours.embed(city, tiles, WHOLE)[0], before), "it stays as it was"


ATTENDS = """
    def embed(self, batch):
        whole = torch.cat([self.part(batch, name) for name in self.modalities], dim=1)
        heads = whole[:, None].repeat(1, 3, 1).view(len(whole), 3, 2, -1).transpose(1, 2)
        mixed = torch.nn.functional.scaled_dot_product_attention(heads, heads, heads)
        return mixed.transpose(1, 2).flatten(2).mean(dim=1)
"""

ODD = """
    def embed(self, batch):
        from torch.utils._python_dispatch import _get_current_dispatch_mode
        if _get_current_dispatch_mode() is not None:
            raise RuntimeError("not made to be watched")
        return torch.cat([self.part(batch, name) for name in self.modalities], dim=1)
"""


def test_fused_attention_is_counted_and_what_cannot_be_watched_is_not(
    train: Train, city: CityLayers
) -> None:
    attends = train("attends", ATTENDS)
    assert attends.flops == 2 * 2 * 3**2 * attends.facts["width"]
    assert train("odd", ODD).flops is None
