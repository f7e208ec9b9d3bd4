"""The plain contrastive baselines against loops over pairs of modalities."""

from itertools import combinations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from tests.methods.test_anchored import PLACES, some_tokens
from tests.nn.test_losses import naive_info_nce
from urbancli.errors import UrbanError
from urbancli.methods.base import Method, Width, configure, load_method
from urbancli.nn.losses import barlow_twins
from urbancli.tokens import make_batch


def tiny(name: str, *overrides: str) -> Method:
    torch.manual_seed(0)
    tokens = some_tokens()
    module = load_method(name)
    widths = {key: Width(part.values.shape[1], part.pooled_width) for key, part in tokens.items()}
    settings = ["width=6", "projection=4", *overrides]
    method: Method = module.Method(configure(module.Config, "small", settings), widths)
    method.prepare(tokens, np.arange(PLACES))
    return method


@pytest.mark.parametrize("name", ["infonce", "barlowtwins"])
def test_the_objective_is_the_mean_over_pairs_that_a_place_has(name: str) -> None:
    method = tiny(name)
    tokens = some_tokens()
    with torch.no_grad():
        found = method.represent(make_batch(tokens, np.arange(PLACES)), "", torch.Generator())
        (term,) = method.objective(found, "main").values()
    wanted = []
    for one, other in combinations(tokens, 2):
        both = [i for i in range(PLACES) if tokens[one].present[i] and tokens[other].present[i]]
        first, second = found[one][both], found[other][both]
        if name == "infonce":
            pair = [normalize(part, dim=1).tolist() for part in (first, second)]
            wanted.append(naive_info_nce(*pair, 1 / 0.07))
        else:
            wanted.append(float(barlow_twins(first, second, 0.005)) / 4)
    assert term.item() == pytest.approx(np.mean(wanted), rel=1e-4)


@pytest.mark.parametrize("name", ["infonce", "barlowtwins"])
def test_the_embedding_is_the_mean_of_what_a_place_has(name: str) -> None:
    method = tiny(name).eval()
    batch = make_batch(some_tokens(), np.arange(PLACES))
    with torch.no_grad():
        views, present = method.views(batch)
        found = method.embed(batch)
    for place in range(PLACES):
        mine = [views[m][place] for m in views if present[m][place]]
        torch.testing.assert_close(found[place], torch.stack(mine).mean(dim=0))


@pytest.mark.parametrize("name", ["infonce", "barlowtwins"])
def test_one_modality_has_nothing_to_be_compared_with(name: str) -> None:
    module = load_method(name)
    with pytest.raises(UrbanError, match="there is only pois: fetch more"):
        module.Method(module.Config.preset("small"), {"pois": Width(3, 3)})
