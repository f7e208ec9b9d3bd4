"""MELT, SALT and SatCLIP against loops over what they are to compute."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from urbancli.errors import UrbanError, UsageError
from urbancli.methods.base import Method, Width, configure, load_method
from urbancli.methods.melt import Config
from urbancli.tokens import Tokens, make_batch, single_tokens
from urbancli.training import Progress, TrainOptions, train

PLACES = 12


def some_tokens() -> dict[str, Tokens]:
    """Sentinel-2 at some places, POIs at others, both at some, neither at place 5."""
    rng = np.random.default_rng(0)
    lonlat = np.column_stack([77 + rng.random(PLACES), 28 + rng.random(PLACES)])
    number = np.arange(PLACES)
    pixels = rng.normal(size=(PLACES, 5)).astype(np.float32)
    pois = rng.normal(size=(PLACES, 3)).astype(np.float32)
    return {
        "coords": single_tokens(lonlat),
        "sentinel2": single_tokens(pixels, (number < 8) & (number != 5)),
        "pois": single_tokens(pois, (number % 2 == 0) | (number > 8)),
    }


def tiny(name: str, *overrides: str) -> Method:
    torch.manual_seed(0)
    tokens = some_tokens()
    module = load_method(name)
    widths = {key: Width(part.values.shape[1], part.pooled_width) for key, part in tokens.items()}
    method: Method = module.Method(
        configure(module.Config, "small", ["width=6", *overrides]), widths
    )
    method.prepare(tokens, np.arange(PLACES))
    return method


def represented(method: Method, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        return method.represent(make_batch(some_tokens(), np.arange(PLACES)), "anchor", generator)


def softmax_loss(row: list[float], columns: list[list[float]], own: int, scale: float) -> float:
    logits = [scale * sum(a * b for a, b in zip(row, other, strict=True)) for other in columns]
    return math.log(sum(math.exp(logit) for logit in logits)) - logits[own]


def naive(found: dict[str, torch.Tensor], m: int, direction: str, pool: str, scale: float) -> float:
    """The loss of modality m, sample by sample."""
    samples = [(i, k) for i in range(PLACES) for k in range(2) if found["samples"][i, k]]
    u = [found["location"][i].tolist() for i, _ in samples]
    v = [found["vectors"][i, k].tolist() for i, k in samples]
    rows = [number for number, (_, k) in enumerate(samples) if k == m]
    columns = rows if pool == "modality" else list(range(len(samples)))
    losses = {"modality-to-location": [], "location-to-modality": []}
    for row in rows:
        own = columns.index(row)
        losses["modality-to-location"].append(
            softmax_loss(v[row], [u[column] for column in columns], own, scale)
        )
        losses["location-to-modality"].append(
            softmax_loss(u[row], [v[column] for column in columns], own, scale)
        )
    each = {name: sum(found) / len(found) for name, found in losses.items()}
    return each[direction] if direction != "symmetric" else sum(each.values()) / 2


@pytest.mark.parametrize("paired", ["true", "false"])
@pytest.mark.parametrize("pool", ["joint", "modality"])
@pytest.mark.parametrize("direction", ["modality-to-location", "location-to-modality", "symmetric"])
def test_the_objective_is_its_formula(direction: str, pool: str, paired: str) -> None:
    method = tiny("melt", f"direction={direction}", f"pool={pool}", f"paired={paired}",
                  "weights=1,3", "temperatures=own", "temperature=0.2")  # fmt: skip
    with torch.no_grad():
        method.log_scale[1] = math.log(2.0)
    found = represented(method)
    terms = method.objective(found, "main")
    for m, (name, weight, scale) in enumerate((("sentinel2", 0.25, 5.0), ("pois", 0.75, 2.0))):
        wanted = weight * naive(found, m, direction, pool, scale)
        assert terms[name].item() == pytest.approx(wanted, rel=1e-5)


def test_samples_are_unpaired_and_every_modality_draws_its_own_places() -> None:
    present = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    method = tiny("melt")
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([method.samples(present, generator) for _ in range(400)])
    assert drawn.sum(dim=2).max() == 1 and not (drawn & ~present).any()
    shares = drawn.double().mean(dim=0)
    assert shares[0].tolist() == pytest.approx([0.5, 0.5], abs=0.1)
    assert shares[1:].tolist() == [[1, 0], [0, 1], [0, 0]]
    paired = tiny("melt", "paired=true").samples(present, generator)
    assert torch.equal(paired, present)


def test_satclip_is_the_symmetric_case_of_one_modality() -> None:
    method = tiny("satclip")
    found = represented(method)
    mine = [i for i in range(PLACES) if found["samples"][i, 0]]
    assert mine == [0, 1, 2, 3, 4, 6, 7], "every place with Sentinel-2"
    u = found["location"][mine].tolist()
    v = found["vectors"][mine, 0].tolist()
    both = [softmax_loss(a[i], b, i, 1 / 0.07) for a, b in ((u, v), (v, u)) for i in range(len(u))]
    terms = method.objective(found, "main")
    assert list(terms) == ["sentinel2"]
    assert terms["sentinel2"].item() == pytest.approx(sum(both) / len(both), rel=1e-5)


def test_salt_trains_one_modality_an_epoch_and_goes_on_where_it_was(tmp_path: Path) -> None:
    """The heads that move in each epoch; and a resumed training ends as an uninterrupted one."""

    def trained(epochs: int, checkpoint: Path, **options: Any) -> tuple[Method, list[list[str]]]:
        method = tiny("salt", "epochs=4", "batch_size=5")
        moved: list[list[str]] = []
        before = {name: head.weight.detach().clone() for name, head in method.heads.items()}

        def look(report: Any) -> None:
            changed = [n for n, h in method.heads.items() if not torch.equal(h.weight, before[n])]
            before.update({n: h.weight.detach().clone() for n, h in method.heads.items()})
            moved.append(changed)
            if len(moved) == epochs:
                raise KeyboardInterrupt

        train(method, some_tokens(), np.arange(PLACES), TrainOptions(checkpoint_s=0.0),
              checkpoint, "one", Progress(epoch=look), **options)  # fmt: skip
        return method, moved

    whole, moved = trained(9, tmp_path / "whole.safetensors")
    assert moved == [["sentinel2"], ["pois"], ["sentinel2"], ["pois"]]
    with pytest.raises(KeyboardInterrupt):
        trained(2, tmp_path / "cut.safetensors")
    again, rest = trained(9, tmp_path / "cut.safetensors")
    assert len(rest) == 3, "the first epoch was kept"
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_location_far_away_embeds_and_modalities_are_not_read() -> None:
    method = tiny("melt").eval()
    batch = make_batch({"coords": single_tokens(np.array([[-58.4, -34.6]]))}, [0])
    assert method.inputs == ("coords",)
    with torch.no_grad():
        assert method.embed(batch).shape == (1, 6)


def test_melt_mm_reads_what_melt_is_trained_with() -> None:
    one, other = tiny("melt").eval(), tiny("melt-mm").eval()
    other.load_state_dict(one.state_dict())
    batch = make_batch(some_tokens(), np.arange(PLACES))
    with torch.no_grad():
        found = represented(one)
        alone = other.embed(batch.drop(["sentinel2", "pois"]))
        torch.testing.assert_close(alone, found["location"])
        both = other.embed(batch.drop(["coords"]))[0]
        torch.testing.assert_close(both, found["vectors"][0].mean(dim=0))


@pytest.mark.parametrize(
    ("name", "widths", "settings", "said"),
    [
        ("melt", {"coords": 2}, {}, "there is only coords: fetch"),
        ("salt", {"sentinel2": 4}, {}, "there is only sentinel2: fetch coordinates"),
        ("satclip", {"coords": 2, "pois": 3}, {}, "sentinel2, which is not there.*one of: pois"),
        ("satclip", {"coords": 2}, {"modality": "coords"}, "one of: none"),
    ],
)
def test_what_cannot_be_compared_is_said(
    name: str, widths: dict[str, int], settings: dict[str, str], said: str
) -> None:
    module = load_method(name)
    config = dataclasses.replace(module.Config.preset("small"), **settings)
    with pytest.raises(UrbanError, match=said):
        module.Method(config, {key: Width(width, width) for key, width in widths.items()})


@pytest.mark.parametrize(
    ("name", "override", "said"),
    [
        ("melt", "weights=1,-1", "weights is numbers of at least 0, not all 0"),
        ("melt", "weights=0,0", "not all 0"),
        ("melt", "degrees=10", "degrees says nothing of location=fourier"),
        ("melt", "temperature=0", "temperature is at least 0.01"),
        ("salt", "pool=modality", "pool says nothing of salt"),
        ("salt", "paired=true", "paired says nothing of salt"),
        ("melt", "location=spherical", "location is one of capsules, fourier"),
    ],
)
def test_a_wrong_setting_is_said(name: str, override: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        configure(load_method(name).Config, "small", [override])


def test_one_weight_for_each_modality() -> None:
    widths = {"coords": Width(2, 2), "pois": Width(3, 3)}
    with pytest.raises(UsageError, match="weights=1,2 does not fit: give one for each of pois"):
        load_method("melt").Method(configure(Config, "small", ["weights=1,2"]), widths)
