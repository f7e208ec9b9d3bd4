"""The method contract, over every file in urbancli/methods: a new method is covered unasked."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from urbancli import plugins
from urbancli.methods import base
from urbancli.methods.base import (
    PRESETS,
    Method,
    Width,
    code_of,
    configure,
    load_method,
    pool_once,
)
from urbancli.tokens import Batch, Tokens, make_batch, single_tokens
from urbancli.training import Progress, TrainOptions, train
from urbancli.workspace import fingerprint, sha256

PLACES = 12
BATCH = np.arange(6)


def ragged(rng: np.random.Generator, width: int, corners: int) -> Tokens:
    """Bags of 0 to 4 tokens; place 2 is unknown, place 3 known to be empty."""
    counts = rng.integers(0, 5, PLACES)
    counts[[2, 3]] = 0
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    present = np.arange(PLACES) != 2
    values = rng.normal(size=(offsets[-1], width)).astype(np.float16)
    positions = rng.random((offsets[-1], corners)).astype(np.float32)
    return Tokens(values, offsets, positions, present, bag=True)


def every_modality(seed: int = 0) -> dict[str, Tokens]:
    rng = np.random.default_rng(seed)
    lonlat = np.column_stack([77 + rng.random(PLACES), 28 + rng.random(PLACES)])
    known = np.arange(PLACES) % 4 != 1
    pixels = rng.normal(size=(PLACES, 6)).astype(np.float16)
    return {
        "coords": single_tokens(lonlat),
        "sentinel2": single_tokens(pixels, known),
        "entities": ragged(rng, 5, 8),
        "pois": single_tokens(rng.random((PLACES, 4)).astype(np.float32)),
    }


def built(name: str) -> tuple[Method, dict[str, Tokens], tuple[str, ...]]:
    """Return a prepared method, its tokens, and the modalities its `embed` reads.

    Args:
        name: of a method, with the settings that it differs in from `small` behind it.
    """
    name, *settings = name.split()
    module = load_method(name)
    tokens = every_modality()
    widths = {key: Width(part.values.shape[1], part.pooled_width) for key, part in tokens.items()}
    torch.manual_seed(0)
    method: Method = module.Method(configure(module.Config, "small", settings), widths)
    pooled = dict(pool_once(method, tokens))
    method.prepare(pooled, np.arange(PLACES))
    return method.eval(), pooled, method.inputs or method.modalities


def embedded(method: Method, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        return method.embed(batch)


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    return [kept for size in range(1, len(names) + 1) for kept in combinations(names, size)]


def scrambled(part: Any, seed: int = 1) -> Tokens:
    """The same presence and counts, other values."""
    rng = np.random.default_rng(seed)
    values = (part.values + rng.normal(size=part.values.shape)).astype(part.values.dtype)
    return Tokens(values, part.offsets, part.positions, part.present, part.bag)


EXAMPLE = Path(__file__).parents[2] / "examples/mean_pooling.py"

ABLATIONS = (
    "urbanfusion fusion=concatenation",
    "urbanfusion masked=removed",
    "urbanfusion depth=3 pooling=cls location=fourier",
    "urbanfusion depth=2 pooling=cls masked=removed mask_count=half",
    "urbanfusion pooling=attention mask_per=place mask_count=one",
    "urbanfusion pooling=attention masked=removed location=grid",
    "urbanfusion reconstruction_weight=0 location=spherical-harmonics",
    "urbanfusion reconstruction_weight=1",
    "infonce location=fourier",
    "melt-mm paired=true direction=symmetric temperatures=own weights=1,2,0",
    "melt pool=modality direction=location-to-modality location=capsules",
    "satclip modality=pois location=grid",
)

every_method = pytest.mark.parametrize(
    "name", [*plugins.names("methods"), str(EXAMPLE), *ABLATIONS]
)


def test_a_methods_code_is_its_file_and_those_it_extends() -> None:
    codes = {name: code_of(load_method(name)) for name in plugins.names("methods")}
    assert len(set(codes.values())) == len(codes)
    folder = Path(base.__file__).parent
    assert codes["urbanfusion"] == sha256(folder / "urbanfusion.py"), "it extends none"
    files = ("melt_mm.py", "_anchored.py", "melt.py")
    assert codes["melt-mm"] == fingerprint([sha256(folder / name) for name in files])
    assert code_of(load_method(str(EXAMPLE))) == sha256(EXAMPLE)


@every_method
def test_presets_are_configs(name: str) -> None:
    module = load_method(name.split()[0])
    configs = [configure(module.Config, preset) for preset in PRESETS]
    assert all(isinstance(config, module.Config) for config in configs)
    assert configs[0] == module.Config(), "the defaults are those of the paper"


@every_method
def test_any_subset_of_the_inputs_embeds(name: str) -> None:
    method, tokens, inputs = built(name)
    everything = make_batch({key: tokens[key] for key in inputs}, BATCH)
    for kept in subsets(inputs):
        values = embedded(method, everything.drop(set(inputs) - set(kept)))
        assert values.shape == (len(BATCH), method.width) and torch.isfinite(values).all()


@every_method
def test_dropped_values_do_not_matter_and_kept_ones_do(name: str) -> None:
    method, tokens, inputs = built(name)
    for gone in inputs if len(inputs) > 1 else ():
        before = make_batch({key: tokens[key] for key in inputs}, BATCH)
        other = {key: scrambled(tokens[key]) if key == gone else tokens[key] for key in inputs}
        after = make_batch(other, BATCH)
        without = [embedded(method, batch.drop([gone])) for batch in (before, after)]
        assert torch.equal(*without)
        assert not torch.equal(embedded(method, before), embedded(method, after)), gone


@every_method
def test_the_rest_of_the_batch_does_not_matter(name: str) -> None:
    method, tokens, inputs = built(name)
    read = {key: tokens[key] for key in inputs}
    together = embedded(method, make_batch(read, BATCH))
    for place in BATCH:
        alone = embedded(method, make_batch(read, [place]))
        torch.testing.assert_close(alone[0], together[place], rtol=1e-4, atol=1e-5)
    turned = embedded(method, make_batch(read, BATCH[::-1].copy()))
    torch.testing.assert_close(turned.flip(0), together, rtol=1e-4, atol=1e-5)


@every_method
def test_an_absent_modality_is_a_dropped_one(name: str) -> None:
    """Absent in some places or in all: as if dropped there, whatever lies in the arrays."""
    method, tokens, inputs = built(name)
    for gone in inputs if len(inputs) > 1 else ():
        batch = make_batch({key: tokens[key] for key in inputs}, BATCH)
        missing = ~batch.modalities[gone].present
        absent = single_tokens(np.zeros((PLACES, tokens[gone].values.shape[1]), np.float32),
                               np.zeros(PLACES, dtype=bool))  # fmt: skip
        nowhere = make_batch({key: absent if key == gone else tokens[key] for key in inputs}, BATCH)
        dropped = embedded(method, batch.drop([gone]))
        if not tokens[gone].bag:
            torch.testing.assert_close(embedded(method, nowhere), dropped, rtol=1e-4, atol=1e-5)
        partly = embedded(method, batch)
        torch.testing.assert_close(partly[missing], dropped[missing], rtol=1e-4, atol=1e-5)


@every_method
def test_embedding_draws_no_chance(name: str) -> None:
    method, tokens, inputs = built(name)
    batch = make_batch({key: tokens[key] for key in inputs}, BATCH)
    assert torch.equal(embedded(method, batch), embedded(method, batch))


@every_method
def test_a_step_of_every_optimiser_has_finite_terms(name: str) -> None:
    method, tokens, _ = built(name)
    generator = torch.Generator().manual_seed(0)
    for stage in method.stages():
        found = method.represent(make_batch(tokens, BATCH), stage.name, generator)
        assert all(len(value) == len(BATCH) for value in found.values())
        for optimiser in stage.optimisers:
            terms = method.objective(found, optimiser.name)
            assert terms and all(torch.isfinite(term).all() for term in terms.values())
            assert all(parameter.requires_grad for parameter in optimiser.parameters)


# --- training --------------------------------------------------------------------------------


def draws_per_place(name: str) -> bool:
    """Return whether chunks draw other samples, masks or dropout than the whole batch does."""
    unpaired = name.startswith("melt") and "paired=true" not in name
    return unpaired or "mask_per=place" in name or "spherical-harmonics" in name


def first_gradient(
    name: str, chunk: int, folder: Path, patch: pytest.MonkeyPatch
) -> dict[str, torch.Tensor]:
    """Return what the first step of a training goes down, of every parameter that has one."""
    method, tokens, _ = built(name if name == str(EXAMPLE) else f"{name} epochs=1 batch_size=12")
    found: list[dict[str, torch.Tensor]] = []

    def look(_: Any) -> None:
        named = method.named_parameters()
        found.append({key: p.grad.clone() for key, p in named if p.grad is not None})

    how = TrainOptions(chunk=chunk, checkpoint_s=1e9)
    with patch.context() as patched:
        patched.setattr(torch.optim.AdamW, "step", look)
        train(method, tokens, np.arange(PLACES), how, folder / "checkpoint", "one", Progress())
    return found[0]


@every_method
def test_chunks_give_the_gradient_of_the_whole_batch(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To 1e-5 of the largest: before Adam, which divides by its size, hides or blows it up."""
    plain, cached = (first_gradient(name, chunk, tmp_path, monkeypatch) for chunk in (0, 5))
    assert plain.keys() == cached.keys() and plain
    assert all(torch.isfinite(value).all() for value in cached.values())
    if draws_per_place(name):
        return  # another gradient, as good
    largest = max(float(value.abs().max()) for value in plain.values())
    for key, value in plain.items():
        assert float((cached[key] - value).abs().max()) <= 1e-5 * largest, key
