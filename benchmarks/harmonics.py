"""Real spherical harmonics: our recurrence against scipy and against SatCLIP's two closed forms.

    python -m benchmarks.harmonics [ROUNDS [DEGREES [PLACES]]]      (default 5 40 10000)

All four give (places, L²) float64 of the same places, on one thread, in turn, after one round that
does not count; figures are medians of the seconds that the process itself was at work, since the
machine is shared. The peers, written here from the formulas that SatCLIP publishes, each column by
itself:

- `closed form`: its `closed-form`, P_l^m of every pair (l, m) by the textbook recurrence from
  P_m^m on, times a norm of factorials, times the wave of the order.
- `analytic`: its `analytic`, the polynomial of every pair (l, m) written out in powers of
  cos(colatitude), as sympy expands and prints it there, with 15 digits. (There the cosine is
  written in every term and each column is a TorchScript function: here it is taken once a column,
  and the functions, which are no faster and take long to warm up, are plain.)
- `scipy`: `sph_harm_y_all`, its complex columns then made real.

`ratio` is the seconds of the faster closed form over ours, `ratio_scipy` those of scipy over ours.
Beside them: how far each is from scipy, on average places and within a degree of the poles, and
what becomes of them in float32.
"""

import math
import statistics
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from scipy.special import sph_harm_y_all
from torch import Tensor

from benchmarks._result import finish
from urbancli.nn._harmonics import real_harmonics

BAR = 8.0

Polynomial = list[tuple[int, float]]
"""(power, coefficient) of the terms."""


def legendre(degree: int, order: int, z: Tensor) -> Tensor:
    """Return P_l^m(z), m ≥ 0, without the phase (−1)^m, by the recurrence in l from l = m."""
    first = torch.ones_like(z)
    sine = torch.sqrt((1 - z) * (1 + z))
    for number in range(1, order + 1):
        first = first * (2 * number - 1) * sine
    if degree == order:
        return first
    second = z * (2 * order + 1) * first
    for row in range(order + 2, degree + 1):
        third = ((2 * row - 1) * z * second - (row + order - 1) * first) / (row - order)
        first, second = second, third
    return second


def norm(degree: int, order: int) -> float:
    """Return √((2l+1)/4π (l−m)!/(l+m)!), times √2 where m ≠ 0."""
    share = Fraction(math.factorial(degree - order), math.factorial(degree + order))
    return math.sqrt((2 * degree + 1) * share / (4 * math.pi) * (2 if order else 1))


def wave(order: int, lon: Tensor) -> Tensor:
    """Return cos(m lon) for m ≥ 0, else sin(|m| lon)."""
    return torch.cos(order * lon) if order >= 0 else torch.sin(-order * lon)


def pairs(degrees: int) -> list[tuple[int, int]]:
    """Return (l, m) of every column."""
    return [(degree, order) for degree in range(degrees) for order in range(-degree, degree + 1)]


def closed_form(lonlat: Tensor, degrees: int) -> Tensor:
    """Return the harmonics (B, L²), each by itself from a recurrence of its own."""
    lon, lat = torch.deg2rad(lonlat).unbind(dim=1)
    columns = [
        norm(degree, abs(order))
        * wave(order, lon)
        * legendre(degree, abs(order), torch.cos(math.pi / 2 - lat))
        for degree, order in pairs(degrees)
    ]
    return torch.stack(columns, dim=-1)


def expanded(degree: int, order: int) -> Polynomial:
    """Return the m-th derivative of P_l in powers of z, the norm in it, with 15 digits."""
    scale = norm(degree, order)
    terms = []
    for k in range((degree - order) // 2 + 1):
        power = degree - 2 * k
        whole = math.comb(degree, k) * math.comb(2 * degree - 2 * k, degree)
        value = (-1) ** k * math.perm(power, order) * Fraction(whole, 2**degree)
        terms.append((power - order, float(f"{float(value * Fraction(scale)):.15g}")))
    return terms


def analytic_form(degrees: int) -> Callable[[Tensor], Tensor]:
    """Return the function of the written-out expressions; their making is not part of its time."""
    expressions = [(order, expanded(degree, abs(order))) for degree, order in pairs(degrees)]

    def evaluate(lonlat: Tensor) -> Tensor:
        lon, lat = torch.deg2rad(lonlat).unbind(dim=1)
        columns = []
        for order, terms in expressions:
            z = torch.cos(math.pi / 2 - lat)
            total = sum((value * z**power for power, value in terms), start=torch.zeros_like(z))
            columns.append((1 - z**2) ** (abs(order) / 2) * total * wave(order, lon))
        return torch.stack(columns, dim=-1)

    return evaluate


def of_scipy(lonlat: Tensor, degrees: int) -> Tensor:
    """Return the harmonics (B, L²) from scipy's complex ones, without their phase (−1)^m."""
    lon, lat = np.deg2rad(lonlat.numpy()).T
    values = sph_harm_y_all(degrees - 1, degrees - 1, np.pi / 2 - lat, lon)
    found = np.empty((len(lon), degrees**2))
    for column, (degree, order) in enumerate(pairs(degrees)):
        value = values[degree, abs(order)]
        scale = (-1) ** order * (math.sqrt(2) if order else 1)
        found[:, column] = scale * (value.imag if order < 0 else value.real)
    return torch.from_numpy(found)


def spread(count: int, seed: int) -> Tensor:
    """Return places (B, 2) evenly over the sphere, lon, lat in degrees, float64."""
    generator = np.random.default_rng(seed)
    lat = np.rad2deg(np.arcsin(generator.uniform(-1, 1, count)))
    return torch.from_numpy(np.column_stack([generator.uniform(-180, 180, count), lat]))


def polar(count: int, seed: int) -> Tensor:
    """Return places (B, 2) within a degree of either pole."""
    places = spread(count, seed)
    places[:, 1] = torch.sign(places[:, 1]) * (90 - places[:, 1].abs() / 90)
    return places


def seconds(form: Callable[[Tensor], Tensor], places: Tensor) -> float:
    """Return the seconds of one evaluation."""
    started = time.process_time()
    form(places)
    return time.process_time() - started


def fidelity(form: Callable[[Tensor], Tensor], degrees: int) -> dict[str, Any]:
    """Return the largest errors against scipy, and the columns that are not finite in float32."""
    found: dict[str, Any] = {}
    for name, places in (("spread", spread(1000, 1)), ("poles", polar(1000, 2))):
        found[f"error_{name}"] = float((form(places) - of_scipy(places, degrees)).abs().max())
        rounded = places.float()
        single, double = form(rounded).double(), of_scipy(rounded.double(), degrees)
        finite = torch.isfinite(single).all(dim=0)
        found[f"float32_columns_not_finite_{name}"] = int((~finite).sum())
        found[f"float32_error_{name}"] = float((single - double)[:, finite].abs().max())
    return found


def main(rounds: int, degrees: int, count: int) -> None:
    """Measure all four in turn and print a table."""
    torch.set_num_threads(1)
    forms: dict[str, Callable[[Tensor], Tensor]] = {
        "ours": lambda places: real_harmonics(places, degrees),
        "closed form": lambda places: closed_form(places, degrees),
        "analytic": analytic_form(degrees),
        "scipy": lambda places: of_scipy(places, degrees),
    }
    places = spread(count, 0)
    times: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(rounds + 1):
        for name, form in forms.items():
            taken = seconds(form, places)
            if number:
                times[name].append(taken)
    median = {name: statistics.median(values) for name, values in times.items()}
    exact = {name: fidelity(form, degrees) for name, form in forms.items()}
    print(f"L = {degrees}, {count} places, float64, one thread, medians of {rounds}")
    print(f"{'':12} {'seconds':>8} {'ratio':>7} {'error':>9} {'at poles':>9}  in float32")
    for name in forms:
        of = exact[name]
        lost = max(of["float32_columns_not_finite_spread"], of["float32_columns_not_finite_poles"])
        worst = max(of["float32_error_spread"], of["float32_error_poles"])
        print(
            f"{name:12} {median[name]:8.3f} {median[name] / median['ours']:7.1f} "
            f"{of['error_spread']:9.1e} {of['error_poles']:9.1e}  "
            f"{worst:.1e}, {lost} of {degrees**2} columns not finite"
        )
    ratios = {name: round(median[name] / median["ours"], 1) for name in forms if name != "ours"}
    finish("harmonics", {
        "ratio": min(ratios["closed form"], ratios["analytic"]),
        "bar": BAR,
        "ratio_closed_form": ratios["closed form"],
        "ratio_analytic": ratios["analytic"],
        "ratio_scipy": ratios["scipy"],
        "seconds": {name: round(value, 4) for name, value in median.items()},
        "places_per_second": round(count / median["ours"]),
        "fidelity": exact,
        "degrees": degrees,
        "places": count,
        "rounds": rounds,
        "threads": 1,
    })  # fmt: skip


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:]]
    main(*numbers, *(5, 40, 10_000)[len(numbers) :])
