"""Real spherical harmonics by a recurrence that holds at every place, and their gradient.

Y_lm(lon, lat) = N_lm P_l^|m|(sin lat) · t, where t is √2 cos(m lon) for m > 0, 1 for m = 0 and
√2 sin(|m| lon) for m < 0, and N_lm² = (2l+1)/4π · (l−|m|)!/(l+|m|)!: orthonormal over the sphere.
P carries NO Condon–Shortley phase (−1)^m. `scipy.special.sph_harm_y` (Y_l^m, at the colatitude
90° − lat) carries it: Y_lm = √2 (−1)^m Re Y_l^m, Y_l^0 and √2 (−1)^m Im Y_l^|m|.

The recurrence is the standard one in the degree for fully normalised functions (Holmes &
Featherstone 2002, eq. 11–13), run on the whole harmonic, trigonometric factor included, and seeded
with powers of cos(lat) e^(i lon). Nothing is divided by cos(lat), so that the poles are like any
other place, and no factorial is formed. Below some hundred degrees their scaling against underflow
is not needed: what underflows is smaller than any digit of the result.

SatCLIP (arXiv 2311.17179) puts lon + 180° and, for the colatitude, lat + 90° into its formulas:
that is the antipode, which multiplies a column by (−1)^l. Its `analytic` expressions, sums of
powers of cos(colatitude) that cancel badly from about L = 30 on, have no Condon–Shortley phase
either, but an m = 0 that is π times larger (√((2l+1)/4·π) where √((2l+1)/(4π)) is meant); its
`closed-form` has the phase. None of it is imitated here: weights trained there do not fit.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PLACES_AT_ONCE = 1000
"""On a CPU: the three degrees of so many places that are at work stay in its cache."""


def real_harmonics(lonlat: Tensor, degrees: int) -> Tensor:
    """Return the real orthonormal spherical harmonics of degrees l = 0 … degrees − 1.

    Differentiable once with respect to `lonlat`, at the poles too. The arithmetic is float64
    whatever the dtype: near the poles a float32 sine alone costs 1e-3 at L = 100.

    Args:
        lonlat: (B, 2) lon, lat in EPSG:4326 degrees, taken as those of a sphere.
        degrees: L, at least 1.

    Returns:
        (B, L²) of the dtype of `lonlat`; column l² + l + m is Y_lm, m = −l … l.
    """
    lon, lat = torch.deg2rad(lonlat.double()).unbind(dim=1)
    found: Tensor = _Harmonics.apply(lon, lat, degrees)  # type: ignore[no-untyped-call]
    return found.to(lonlat.dtype)


@lru_cache(maxsize=8)
def _columns(degrees: int) -> tuple[Tensor, Tensor]:
    """Return degree and order of every column, each (L²,) int64."""
    degree = torch.cat([torch.full((2 * row + 1,), row) for row in range(degrees)])
    return degree, torch.arange(degrees**2) - degree**2 - degree


@lru_cache(maxsize=8)
def _factors(degrees: int) -> tuple[Tensor, Tensor]:
    """Return a, b (L²,) of Y_lm = a z Y_(l−1)m − b Y_(l−2)m, float64; not finite where |m| = l."""
    degree, order = (part.double() for part in _columns(degrees))
    square = degree**2 - order**2
    a = torch.sqrt((4 * degree**2 - 1) / square)
    gap = (degree - 1) ** 2 - order**2
    return a, torch.sqrt((2 * degree + 1) * gap / ((2 * degree - 3) * square))


def _recur(lon: Tensor, lat: Tensor, degrees: int) -> Tensor:
    """Return the harmonics (B, L²), float64, of lon, lat (B,) in radians."""
    if lon.device.type != "cpu":
        out = lon.new_empty(len(lon), degrees**2)
        _fill(out, lon, lat, degrees)
        return out
    # NumPy asks for huge pages, torch does not: for 128 MB of fresh memory 20 ms against 110.
    out = torch.from_numpy(np.empty((len(lon), degrees**2)))
    for first in range(0, len(lon), PLACES_AT_ONCE):
        some = slice(first, first + PLACES_AT_ONCE)
        _fill(out[some], lon[some], lat[some], degrees)
    return out


def _fill(out: Tensor, lon: Tensor, lat: Tensor, degrees: int) -> None:
    """Fill `out` (B, L²) in place, degree by degree: all its orders from the two degrees before."""
    a, b = (factor.to(lon.device) for factor in _factors(degrees))
    z = torch.sin(lat)[:, None]
    x, y = torch.cos(lat) * torch.cos(lon), torch.cos(lat) * torch.sin(lon)
    real, imaginary = torch.full_like(lon, math.sqrt(1 / (4 * math.pi))), torch.zeros_like(lon)
    out[:, 0] = real
    for degree in range(1, degrees):
        start, stop = degree**2, (degree + 1) ** 2
        row, last = out[:, start:stop], out[:, (degree - 1) ** 2 : start]
        # The √2 of m ≠ 0 enters once, between m = 0 and |m| = 1.
        scale = math.sqrt(3 if degree == 1 else (2 * degree + 1) / (2 * degree))
        real, imaginary = (real * x - imaginary * y) * scale, (real * y + imaginary * x) * scale
        row[:, 0], row[:, -1] = imaginary, real
        inner = row[:, 1:-1]
        torch.mul(last, a[start + 1 : stop - 1], out=inner)
        inner.mul_(z)
        if degree > 1:
            before = out[:, (degree - 2) ** 2 : (degree - 1) ** 2]
            row[:, 2:-2].addcmul_(before, b[start + 2 : stop - 2], value=-1)


class _Harmonics(torch.autograd.Function):
    """The recurrence with its derivative in closed form, since autograd cannot follow `out=`."""

    @staticmethod
    def forward(ctx: Any, lon: Tensor, lat: Tensor, degrees: int) -> Tensor:
        """Return (B, L²) of lon, lat (B,) in radians."""
        ctx.save_for_backward(lon, lat)
        ctx.degrees = degrees
        return _recur(lon, lat, degrees)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Return the gradients of lon and lat, each (B,), where wanted."""
        lon, lat = ctx.saved_tensors
        by_lon, by_lat = ctx.needs_input_grad[:2]
        return (
            (grad * _slope_lon(lon, lat, ctx.degrees)).sum(dim=1) if by_lon else None,
            (grad * _slope_lat(lon, lat, ctx.degrees)).sum(dim=1) if by_lat else None,
            None,
        )


def _slope_lon(lon: Tensor, lat: Tensor, degrees: int) -> Tensor:
    """Return ∂Y_lm/∂lon = −m Y_l(−m), (B, L²), per radian."""
    degree, order = (part.to(lon.device) for part in _columns(degrees))
    return _recur(lon, lat, degrees)[:, degree**2 + degree - order] * -order


def _slope_lat(lon: Tensor, lat: Tensor, degrees: int) -> Tensor:
    """Return ∂Y_lm/∂lat, (B, L²), per radian, without a division by cos(lat).

    With p_m the harmonic of m ≥ 0 on the meridian lon = 0, and p_0 times √2 in the places of p:
    2 p_m' = √((l−m)(l+m+1)) p_(m+1) − √((l+m)(l−m+1)) p_(m−1) for m > 0, p_0' = √(l(l+1)/2) p_1.
    """
    degree, order = (part.to(lon.device) for part in _columns(degrees))
    size = order.abs()
    meridian = _recur(torch.zeros_like(lon), lat, degrees)
    centre = degree**2 + degree
    above = torch.sqrt(((degree - size) * (degree + size + 1)).double()) / 2
    below = torch.sqrt(((degree + size) * (degree - size + 1)).double()) / 2
    above = torch.where(size == 0, math.sqrt(2) * above, above)
    below = torch.where(size == 1, math.sqrt(2) * below, below)
    # Where there is no neighbour its factor is zero, or made so: any column stands in for it.
    slope = meridian[:, centre + torch.where(size < degree, size + 1, 0)] * above
    slope -= meridian[:, centre + (size - 1).clamp(min=0)] * below.masked_fill(size == 0, 0)
    turn = lon[:, None] * size
    return slope * torch.where(order < 0, torch.sin(turn), torch.cos(turn))
