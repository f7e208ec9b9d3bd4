"""The harmonics against scipy, mpmath, quadrature and the laws they obey; their gradient."""

import math
from functools import cache

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import sph_harm_y_all
from torch import Tensor

from urbancli.nn._harmonics import PLACES_AT_ONCE, real_harmonics

LARGEST = 100

SPECIAL = [
    (0.0, 90.0), (123.4, 90.0), (0.0, -90.0), (-77.0, -90.0), (10.0, 90 - 1e-9), (10.0, 1e-9 - 90),
    (45.0, 89.9999), (-45.0, -89.9), (180.0, 0.0), (-180.0, 0.0), (180.0, 51.5), (-180.0, 51.5),
    (179.9999, -33.0), (0.0, 0.0), (90.0, 0.0), (-90.0, 0.0), (77.2, 28.6), (-74.0, 40.75),
]  # fmt: skip
"""Both poles, from several longitudes and near by, the antimeridian, the equator, two cities."""


@cache
def places() -> Tensor:
    """Return (B, 2) float64: the special places and some at random, more of them near the poles."""
    generator = np.random.default_rng(7)
    lon, lat = generator.uniform(-180, 180, 200), generator.uniform(-90, 90, 150)
    near = np.concatenate([90 - 10 ** generator.uniform(-8, 1, 25),
                           10 ** generator.uniform(-8, 1, 25) - 90])  # fmt: skip
    drawn = np.column_stack([lon, np.concatenate([lat, near])])
    return torch.from_numpy(np.concatenate([np.array(SPECIAL), drawn]))


def of_scipy(lonlat: Tensor, degrees: int) -> npt.NDArray[np.float64]:
    """Return (B, L²) from scipy's complex harmonics, their phase (−1)^m taken out."""
    lon, lat = np.deg2rad(lonlat.numpy()).T
    values = sph_harm_y_all(degrees - 1, degrees - 1, np.pi / 2 - lat, lon)
    columns = []
    for degree in range(degrees):
        for order in range(-degree, degree + 1):
            value = (-1) ** abs(order) * values[degree, abs(order)]
            part = value.imag if order < 0 else value.real
            columns.append(part * (math.sqrt(2) if order else 1))
    return np.stack(columns, axis=1)


def by_hand(degree: int, order: int, lon: float, lat: float) -> float:
    """Return Y_lm from the derivative of the Legendre polynomial, with a hundred digits."""
    size = abs(order)
    with mpmath.workdps(100):
        turn, tilt = (mpmath.mpf(angle) * mpmath.pi / 180 for angle in (lon, lat))
        z = mpmath.sin(tilt)
        total = mpmath.mpf(0)
        for k in range((degree - size) // 2 + 1):
            power = degree - 2 * k
            whole = math.comb(degree, k) * math.comb(2 * power + 2 * k, degree)
            total += (-1) ** k * whole * math.perm(power, size) * z ** (power - size)
        factorials = mpmath.factorial(degree - size) / mpmath.factorial(degree + size)
        norm = mpmath.sqrt((2 * degree + 1) * factorials / (4 * mpmath.pi))
        wave = mpmath.sin(size * turn) if order < 0 else mpmath.cos(size * turn)
        scale = norm * mpmath.cos(tilt) ** size * (mpmath.sqrt(2) if order else 1)
        return float(scale * total / 2**degree * wave)


@pytest.mark.parametrize("degrees", [1, 2, 3, 40, LARGEST + 1])
def test_the_harmonics_are_those_of_scipy(degrees: int) -> None:
    found = real_harmonics(places(), degrees)
    assert found.shape == (len(places()), degrees**2) and found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), of_scipy(places(), degrees), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("degree", "order"), [(1, -1), (7, 3), (40, 0), (39, -38), (99, 1), (99, -50), (99, 99)]
)
def test_the_harmonics_are_those_of_the_definition(degree: int, order: int) -> None:
    """Not only where scipy errs alike."""
    chosen = places()[[0, 4, 6, 7, 10, 16, 17, 100, 150, 200]]
    found = real_harmonics(chosen, degree + 1)[:, degree**2 + degree + order]
    wanted = [by_hand(degree, order, lon, lat) for lon, lat in chosen.tolist()]
    assert found.tolist() == pytest.approx(wanted, abs=1e-11)


def test_the_first_degree_is_the_place_on_the_sphere_without_a_sign() -> None:
    lon, lat = torch.deg2rad(places()).T
    place = [torch.cos(lat) * torch.sin(lon), torch.sin(lat), torch.cos(lat) * torch.cos(lon)]
    wanted = math.sqrt(3 / (4 * math.pi)) * torch.stack(place, dim=1)
    torch.testing.assert_close(real_harmonics(places(), 2)[:, 1:], wanted, rtol=0, atol=1e-15)


def test_the_harmonics_are_orthonormal_over_the_sphere() -> None:
    degrees = 16
    z, weight = np.polynomial.legendre.leggauss(degrees)
    lon = np.arange(2 * degrees) * 360 / (2 * degrees)
    lat = np.rad2deg(np.arcsin(z))
    lonlat = torch.from_numpy(np.stack(np.meshgrid(lon, lat), axis=-1).reshape(-1, 2))
    weights = torch.from_numpy(np.repeat(weight, 2 * degrees) * 2 * np.pi / (2 * degrees))
    found = real_harmonics(lonlat, degrees)
    gram = (found * weights[:, None]).T @ found
    torch.testing.assert_close(gram, torch.eye(degrees**2).double(), rtol=0, atol=1e-13)


@settings(max_examples=25, deadline=None)
@given(st.floats(-180, 180), st.floats(-90, 90))
def test_the_squares_of_a_degree_sum_to_the_same_everywhere(lon: float, lat: float) -> None:
    """The addition theorem: Σ_m Y_lm² = (2l+1)/4π."""
    found = real_harmonics(torch.tensor([[lon, lat]], dtype=torch.float64), LARGEST)[0]
    for degree in range(LARGEST):
        total = found[degree**2 : (degree + 1) ** 2].square().sum()
        assert float(total) == pytest.approx((2 * degree + 1) / (4 * math.pi), rel=1e-11)


def test_both_sides_of_the_antimeridian_and_all_longitudes_of_a_pole_are_one_place() -> None:
    west, east = torch.tensor([[[-180, lat], [180, lat]] for lat in (-60.0, 0, 45)]).unbind(dim=1)
    torch.testing.assert_close(
        real_harmonics(west.double(), LARGEST), real_harmonics(east.double(), LARGEST),
        rtol=0, atol=1e-11,
    )  # fmt: skip
    for pole in (90.0, -90.0):
        found = real_harmonics(torch.tensor([[lon, pole] for lon in range(360)]).double(), LARGEST)
        assert float((found - found[0]).abs().max()) < 1e-11


@pytest.mark.parametrize("degrees", [40, LARGEST])
def test_float32_is_finite_and_near_float64_at_the_same_rounded_places(degrees: int) -> None:
    generator = torch.Generator().manual_seed(3)
    polar = torch.rand(300, 2, generator=generator) * torch.tensor([360.0, 2.0])
    polar += torch.tensor([-180.0, 88.0])
    rounded = torch.cat([places().float(), polar, -polar])
    found = real_harmonics(rounded, degrees)
    assert found.dtype == torch.float32 and bool(torch.isfinite(found).all())
    assert float((found.double() - real_harmonics(rounded.double(), degrees)).abs().max()) < 1e-5


# --- the gradient ----------------------------------------------------------------------------


@pytest.mark.parametrize("lat", [28.6, 0.0, 90.0, -90.0, 90 - 1e-7, -89.99])
@pytest.mark.parametrize("lon", [77.2, -180.0])
def test_the_gradient_passes_gradcheck(lon: float, lat: float) -> None:
    place = torch.tensor([[lon, lat]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda lonlat: real_harmonics(lonlat, 9), (place,), eps=1e-4, atol=1e-8, rtol=1e-6
    )


def test_the_gradient_is_that_of_differences_up_to_the_largest_degree() -> None:
    step = 1e-4
    base = places()
    generator = torch.Generator().manual_seed(1)
    weight = torch.rand(LARGEST**2, generator=generator, dtype=torch.float64) - 0.5
    moved = base.clone().requires_grad_()
    (real_harmonics(moved, LARGEST) @ weight).sum().backward()
    assert moved.grad is not None
    for axis in (0, 1):
        by = torch.zeros(2, dtype=torch.float64)
        by[axis] = step
        ends = [real_harmonics(base + sign * by, LARGEST) @ weight for sign in (1, -1, 2, -2)]
        # The difference of fourth order: its own error is below 1e-9 here.
        wanted = (8 * (ends[0] - ends[1]) - (ends[2] - ends[3])) / (12 * step)
        torch.testing.assert_close(moved.grad[:, axis], wanted, rtol=1e-8, atol=1e-8)


def test_the_gradient_of_one_coordinate_needs_not_the_other() -> None:
    lon, lat = places()[:5].unbind(dim=1)
    whole = places()[:5].clone().requires_grad_()
    real_harmonics(whole, 6).square().sum(dim=0)[3:].sum().backward()
    alone = lat.clone().requires_grad_()
    real_harmonics(torch.stack([lon, alone], dim=1), 6).square().sum(dim=0)[3:].sum().backward()
    assert whole.grad is not None and alone.grad is not None
    torch.testing.assert_close(alone.grad, whole.grad[:, 1])


@pytest.mark.parametrize("count", [PLACES_AT_ONCE, PLACES_AT_ONCE + 1, 2 * PLACES_AT_ONCE + 7])
def test_the_blocks_of_many_places_join_without_a_gap(count: int) -> None:
    index = torch.arange(count) % len(places())
    wanted = real_harmonics(places(), 6)[index]
    torch.testing.assert_close(real_harmonics(places()[index], 6), wanted, rtol=0, atol=1e-15)


def test_no_place_gives_no_row() -> None:
    assert real_harmonics(torch.empty(0, 2, dtype=torch.float64), 4).shape == (0, 16)


def test_off_the_cpu_there_is_one_block_on_the_device_of_the_places() -> None:
    """The meta device computes nothing: it refuses tensors of another device, as a GPU does."""
    lonlat = torch.empty(5, 2, dtype=torch.float64, device="meta", requires_grad=True)
    found = real_harmonics(lonlat, 4)
    assert found.device.type == "meta" and found.shape == (5, 16)
    found.sum().backward()
    assert lonlat.grad is not None and lonlat.grad.shape == (5, 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_gives_the_same() -> None:
    found = real_harmonics(places().cuda(), LARGEST).cpu()
    torch.testing.assert_close(found, real_harmonics(places(), LARGEST), rtol=0, atol=1e-10)
