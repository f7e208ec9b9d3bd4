"""UrbanFusion against what its paper says, written out by hand."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from tests.nn.test_losses import naive_info_nce, naive_modality_mse
from urbancli.configs import restored
from urbancli.errors import UrbanError, UsageError
from urbancli.methods.base import Width, configure
from urbancli.methods.urbanfusion import Config, Method
from urbancli.tokens import Tokens, make_batch, single_tokens

TINY = ("width=16", "heads=2", "capsule_frequencies=4", "capsule_width=8", "contrastive_width=6")
PLACES = 10


def some_tokens() -> dict[str, Tokens]:
    rng = np.random.default_rng(0)
    lonlat = np.column_stack([77 + rng.random(PLACES), 28 + rng.random(PLACES)])
    pixels = rng.normal(size=(PLACES, 5)).astype(np.float32) * 40 + 7
    pixels[:, 2] = 3.0
    pois = rng.normal(size=(PLACES, 3)).astype(np.float32)
    return {
        "coords": single_tokens(lonlat),
        "sentinel2": single_tokens(pixels, np.arange(PLACES) != 4),
        "pois": single_tokens(pois, ~np.isin(np.arange(PLACES), [4, 7])),
    }


def tiny(tokens: dict[str, Tokens], *overrides: str) -> Method:
    torch.manual_seed(0)
    widths = {name: Width(part.values.shape[1], part.pooled_width) for name, part in tokens.items()}
    method = Method(configure(Config, "small", [*TINY, *overrides]), widths)
    method.prepare(tokens, np.arange(PLACES))
    return method


def test_the_paper_preset_has_the_papers_size() -> None:
    """About 23.6 M with the paper's five modalities of 2, 768, 384, 2304 and 384 numbers."""
    raw = {"coords": 2, "streetview": 768, "sentinel2": 384, "basemap": 2304, "pois": 384}
    with torch.device("meta"):
        method = Method(Config.preset("paper"), {name: Width(d, d) for name, d in raw.items()})
    assert sum(p.numel() for p in method.parameters()) / 1e6 == pytest.approx(23.6, abs=0.1)


def test_features_are_scored_over_the_training_places_only() -> None:
    tokens = some_tokens()
    method = tiny(tokens)
    index = np.array([0, 1, 2, 3, 4, 5])
    method.prepare(tokens, index)
    scores = method.scores(
        "sentinel2", make_batch(tokens, np.arange(PLACES)).modalities["sentinel2"]
    ).numpy()
    pixels = tokens["sentinel2"].pooled()
    known = pixels[[0, 1, 2, 3, 5]].astype(np.float64)
    wanted = (pixels - known.mean(axis=0)) / np.where(known.std(axis=0) > 0, known.std(axis=0), 1)
    wanted[4] = 0
    np.testing.assert_allclose(scores, wanted, atol=1e-5)
    assert (scores[:, 2] == 0).all(), "a constant feature says nothing"


def test_scores_are_bounded() -> None:
    tokens = some_tokens()
    method = tiny(tokens)
    far = single_tokens(np.full((1, 5), 1e6, np.float32))
    assert (
        method.scores(
            "sentinel2", make_batch({"sentinel2": far}, [0]).modalities["sentinel2"]
        ).max()
        == 10
    )


def test_a_masked_modality_is_a_zero_token_that_stays() -> None:
    tokens = some_tokens()
    method = tiny(tokens)
    with torch.no_grad():
        method.fusion.position.normal_()
    batch = make_batch(tokens, np.array([0, 1, 2]))
    parts = [method.projections["coords"](batch.modalities["coords"].pooled[:, :2])]
    parts += [
        torch.zeros(3, 16),
        method.projections["pois"](method.scores("pois", batch.modalities["pois"])),
    ]
    wanted = method.fusion.blocks[0](torch.stack(parts, dim=1) + method.fusion.position).mean(dim=1)
    torch.testing.assert_close(method.embed(batch.drop(["sentinel2"])), wanted)


def test_the_objective_is_the_papers() -> None:
    """(1 − λ) InfoNCE + λ Rec over the places with two modalities, each formula in a loop."""
    tokens = some_tokens()
    method = tiny(tokens, "reconstruction_weight=0.25", "temperature=0.1")
    batch = make_batch(tokens, np.arange(PLACES))
    found = method.represent(batch, "fusion", torch.Generator().manual_seed(3))
    terms = {name: value.item() for name, value in method.objective(found, "main").items()}
    rows = [row for row in range(PLACES) if row != 4]  # place 4 has its coordinates only

    def taken(name: str) -> Any:
        return found[name][rows].tolist()

    views = [taken("contrastive_0"), taken("contrastive_1")]
    assert terms["contrastive"] == pytest.approx(0.75 * naive_info_nce(*views, 10.0), rel=1e-4)
    scores = [method.scores(name, batch.modalities[name]) / math.sqrt(d)
              for name, d in (("coords", 2), ("sentinel2", 5), ("pois", 3))]  # fmt: skip
    target = torch.cat(scores, dim=1)[rows].tolist()
    present = [[True, True, row != 7] for row in rows]
    rec = [
        naive_modality_mse(taken(name), target, present, [2, 5, 3])
        for name in ("predicted_0", "predicted_1")
    ]
    assert terms["reconstruction"] == pytest.approx(0.25 * sum(rec) / 2, rel=1e-4)


def test_the_two_views_share_no_modality() -> None:
    """View 0 changes with a modality or view 1 does, never both."""
    tokens = some_tokens()
    method = tiny(tokens)
    index = np.array([0, 1, 2, 3])
    pixels = tokens["sentinel2"]
    other = Tokens(pixels.values + 5, pixels.offsets, pixels.positions, pixels.present, pixels.bag)
    for seed in range(6):
        first, second = (
            method.represent(
                make_batch({**tokens, "sentinel2": part}, index),
                "fusion",
                torch.Generator().manual_seed(seed),
            )
            for part in (pixels, other)
        )
        changed = [
            not torch.equal(first[f"contrastive_{view}"], second[f"contrastive_{view}"])
            for view in (0, 1)
        ]
        assert sorted(changed) == [False, True]


def test_the_temperature_is_learnt_and_bounded() -> None:
    method = tiny(some_tokens())
    assert method.log_scale.exp().item() == pytest.approx(1 / 0.07)
    assert any(parameter is method.log_scale for parameter in method.parameters())
    with torch.no_grad():
        method.log_scale.fill_(9.0)
    method.after_step(1, 1)
    assert method.log_scale.exp().item() == pytest.approx(100)


def test_one_modality_cannot_be_fused() -> None:
    with pytest.raises(UrbanError, match=r"at least two modalities.*only coords: fetch more"):
        Method(Config.preset("small"), {"coords": Width(2, 2)})


def test_overrides_are_parsed_by_the_fields() -> None:
    config = configure(Config, "paper", ["epochs=7", "lr=3e-3", "capsule_sigmas=1, 16"])
    assert (config.epochs, config.lr, config.capsule_sigmas) == (7, 3e-3, (1.0, 16.0))
    assert config.width == 768

    assert restored(Config, dataclasses.asdict(config), "the method") == config


@pytest.mark.parametrize(
    ("preset", "override", "message"),
    [
        ("small", "epoch=3", "unknown parameter 'epoch': did you mean epochs"),
        ("small", "epochs", "'epochs' is not key=value"),
        ("small", "epochs=many", "epochs=many does not fit: epochs is of type int"),
        ("small", "width=100", "not a multiple of heads"),
        ("small", "epochs=0", "epochs=0 does not fit: epochs is at least 1"),
        ("small", "batch_size=1", "batch_size is at least 2"),
        ("small", "lr=0", "lr=0.0 does not fit: lr is above 0"),
        ("small", "lr=1e300", "lr is above 0 and at most 1000"),
        ("small", "lr=a\nb", "lr=a b does not fit"),
        ("small", "lr=nan", "lr=nan does not fit: lr is a finite number"),
        ("small", "lr=1e999", "lr is a finite number"),
        ("small", "capsule_sigmas=1,inf", "capsule_sigmas is a comma-separated list of float"),
        ("small", "capsule_sigmas=1,0", "capsule_sigmas is one or more numbers above 0"),
        ("small", "capsule_sigmas=", "capsule_sigmas= does not fit"),
        ("small", "weight_decay=-1", "weight_decay is 0 to 1000"),
        ("small", "warmup=1", "warmup is at least 0 and below 1"),
        ("small", "heads=0", "heads is from 1 to 65536"),
        ("small", "width=1000000000000", "width is from 1 to 65536"),
        ("small", "width=-8", "width is from 1 to 65536"),
        ("small", "contrastive_width=0", "contrastive_width is from 1 to 65536"),
        ("small", "temperature=0.001", "temperature is at least 0.01"),
        ("small", "reconstruction_weight=1.1", "reconstruction_weight is 0 to 1"),
        ("smal", "epochs=3", "unknown preset 'smal': did you mean small"),
    ],
)
def test_a_wrong_override_is_said_in_one_line(preset: str, override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        configure(Config, preset, [override])


@dataclasses.dataclass(frozen=True)
class Odd:
    """A user's Config as it should not be."""

    sizes: tuple[float, ...] = (1.0,)
    maybe: int | None = None

    @classmethod
    def preset(cls, name: str) -> "Odd | None":
        return cls((1.0, math.inf)) if name == "small" else None


@pytest.mark.parametrize(
    ("preset", "overrides", "message"),
    [
        ("small", [], "sizes=.* does not fit: sizes is finite"),
        ("paper", [], "returns no Config"),
        ("small", ["maybe=3"], "maybe=3 does not fit"),
        ("small", ["=3"], "unknown parameter ''"),
        ("small", [""], "'' is not key=value: write e.g. sizes=…"),
    ],
)
def test_a_users_odd_config_is_said_in_one_line(
    preset: str, overrides: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        configure(Odd, preset, overrides)
