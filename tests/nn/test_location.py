"""Location encoders against pyproj and a loop over the formula."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Proj

from urbancli.nn.location import PLANE_SCALE, Capsules, equal_earth

SPHERE = Proj("+proj=eqearth +R=1")


@settings(max_examples=50, deadline=None)
@given(st.floats(-180, 180), st.floats(-90, 90))
def test_the_projection_is_that_of_proj(lon: float, lat: float) -> None:
    found = equal_earth(torch.tensor([[lon, lat]], dtype=torch.float64))[0]
    assert found.tolist() == pytest.approx(SPHERE(lon, lat), abs=1e-9)


def test_the_features_are_cosines_and_sines_of_the_phase() -> None:
    torch.manual_seed(0)
    capsules = Capsules(width=6, sigmas=(1.0, 16.0, 256.0), frequencies=5, hidden=7)
    lonlat = torch.tensor([[77.2, 28.6], [-74.0, 40.75]], dtype=torch.float64)
    found = capsules.features(lonlat)
    assert found.shape == (3, 2, 10) and found.dtype == torch.float32
    for scale in range(3):
        for place, (lon, lat) in enumerate(lonlat.tolist()):
            x, y = (value * PLANE_SCALE for value in SPHERE(lon, lat))
            for number, (f, g) in enumerate(capsules.frequencies[scale].tolist()):
                phase = 2 * math.pi * (f * x + g * y)
                assert found[scale, place, number] == pytest.approx(math.cos(phase), abs=1e-5)
                assert found[scale, place, 5 + number] == pytest.approx(math.sin(phase), abs=1e-5)


def test_the_frequencies_have_the_spread_of_their_scale_and_are_not_trained() -> None:
    torch.manual_seed(0)
    capsules = Capsules(width=4, sigmas=(1.0, 256.0), frequencies=4000, hidden=4)
    spread = capsules.frequencies.std(dim=(1, 2))
    assert spread.tolist() == pytest.approx([1.0, 256.0], rel=0.05)
    assert "frequencies" not in dict(capsules.named_parameters())


def test_the_capsules_are_summed() -> None:
    torch.manual_seed(0)
    capsules = Capsules(width=4, sigmas=(1.0, 16.0), frequencies=8, hidden=8)
    lonlat = torch.tensor([[77.2, 28.6]], dtype=torch.float64)
    parts = [net(x) for net, x in zip(capsules.capsules, capsules.features(lonlat), strict=True)]
    torch.testing.assert_close(capsules(lonlat), parts[0] + parts[1])
    assert [type(layer).__name__ for layer in capsules.capsules[0]] == ["Linear", "ReLU"] * 3 + [
        "Linear"
    ]


def test_one_metre_is_not_lost_in_the_phase() -> None:
    """In float32 the longitude itself is rounded to 0.5 m and steps of the phase vanish."""
    torch.manual_seed(0)
    capsules = Capsules(width=4, sigmas=(256.0,), frequencies=64, hidden=4)
    near = torch.tensor([[77.2, 28.6], [77.2 + 1e-5, 28.6]], dtype=torch.float64)
    phase = np.diff(np.unwrap(np.arctan2(*capsules.features(near)[0].T[[64, 0]].numpy())))
    x = [SPHERE(lon, 28.6)[0] * PLANE_SCALE for lon in (77.2, 77.2 + 1e-5)]
    wanted = 2 * math.pi * float(capsules.frequencies[0, 0, 0]) * (x[1] - x[0])
    assert phase[0] == pytest.approx(wanted, abs=3e-7)
    assert abs(wanted) > 1e-6
