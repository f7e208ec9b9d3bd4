"""Location encoders, chosen by name: from a longitude and a latitude to a vector.

All take (B, 2) lon, lat in EPSG:4326 degrees, float64 (float32 is up to 0.85 m off), and
return (B, width) float32. None needs a city, an origin or a zone: what is in metres is measured on
the globe itself, so that a place has one code in every run and a joint model over several cities
has no seam.

- `fourier`: waves of 0.3 to 50 km, in metres. The city-scale default: tells tiles apart, and says
  nothing about a city that it was not trained in.
- `capsules`: UrbanFusion's. World scale, nearly flat inside one city.
- `spherical-harmonics`: SatCLIP's. World scale (half a wave is 500 km at L = 40), flatter still.
- `grid`: Space2Vec's, per axis and in degrees: the customary baseline.
"""

import inspect
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from urbancli.errors import UsageError, unknown
from urbancli.nn._harmonics import real_harmonics
from urbancli.nn._siren import Siren

WGS84_AXIS_M, WGS84_FLATTENING = 6_378_137.0, 1 / 298.257223563

LARGEST_WIDTH = 1 << 16
"""Bound of every width and count: far beyond any of use, and safe to compute with."""

LARGEST_DEGREES = 100
"""L up to which the harmonics are tested against an independent calculation."""

EQUAL_EARTH = (1.340264, -0.081106, 0.000893, 0.003796)
"""A1 … A4 of the Equal Earth projection (Šavrič, Patterson, Jenny 2018)."""

PLANE_SCALE = 66.50336 / 180
"""What UrbanFusion, after GeoCLIP, multiplies the projected unit sphere with."""


def equal_earth(lonlat: Tensor) -> Tensor:
    """Return the Equal Earth projection of a sphere of radius 1.

    Args:
        lonlat: (B, 2) lon, lat in EPSG:4326 degrees; float64, or 1 m is lost.

    Returns:
        (B, 2) x east, y north; same dtype.
    """
    a1, a2, a3, a4 = EQUAL_EARTH
    lon, lat = torch.deg2rad(lonlat).unbind(dim=1)
    theta = torch.asin(math.sqrt(3) / 2 * torch.sin(lat))
    slope = a1 + 3 * a2 * theta**2 + 7 * a3 * theta**6 + 9 * a4 * theta**8
    x = 2 * math.sqrt(3) / 3 * lon * torch.cos(theta) / slope
    y = theta * (a1 + a2 * theta**2 + a3 * theta**6 + a4 * theta**8)
    return torch.stack([x, y], dim=1)


class Capsules(nn.Module):
    """UrbanFusion's location encoder: a sum over scales of Fourier features through an MLP.

    Per scale σ: frequencies f ~ N(0, σ²), drawn once and never trained; cos and sin of 2π f·p, p
    the scaled Equal Earth position; Linear-ReLU three times; Linear to the width. Deviation for
    speed: float64 up to the phase only, the MLPs are float32 (published: float64 throughout).
    Inside one city the published scales are nearly flat: 300 m turn the finest phase by 0.03 rad.
    """

    frequencies: Tensor

    def __init__(
        self,
        width: int,
        sigmas: Sequence[float] = (1.0, 16.0, 256.0),
        frequencies: int = 256,
        hidden: int = 1024,
    ) -> None:
        """Build the capsules.

        Args:
            width: D of the output.
            sigmas: one per capsule.
            frequencies: per capsule; the MLP reads twice as many numbers.
            hidden: width of the MLPs.
        """
        super().__init__()
        drawn = [torch.randn(frequencies, 2, dtype=torch.float64) * sigma for sigma in sigmas]
        self.register_buffer("frequencies", torch.stack(drawn))
        self.capsules = nn.ModuleList(
            nn.Sequential(
                nn.Linear(2 * frequencies, hidden),
                nn.ReLU(),
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Linear(hidden, width),
            )
            for _ in sigmas
        )

    def features(self, lonlat: Tensor) -> Tensor:
        """Return the Fourier features (scales, B, 2F), float32, of lon, lat (B, 2) in degrees."""
        plane = equal_earth(lonlat.double()) * PLANE_SCALE
        phase = 2 * math.pi * plane @ self.frequencies.transpose(1, 2)
        return torch.cat([torch.cos(phase), torch.sin(phase)], dim=-1).float()

    def forward(self, lonlat: Tensor) -> Tensor:
        """Return (B, width) of lon, lat (B, 2) in EPSG:4326 degrees."""
        parts = [
            capsule(feature)
            for capsule, feature in zip(self.capsules, self.features(lonlat), strict=True)
        ]
        return torch.stack(parts).sum(dim=0)


class LocationEncoder(nn.Module):
    """Base of the encoders that are fixed features of the place and one network over them.

    Features are float64, the network is float32 and stays so under autocast: two tiles of a city
    differ in the third or a later digit, which bfloat16 has not.
    """

    network: nn.Module

    @abstractmethod
    def features(self, lonlat: Tensor) -> Tensor:
        """Return (B, F) float64 of lon, lat (B, 2) float64 in EPSG:4326 degrees."""

    def forward(self, lonlat: Tensor) -> Tensor:
        """Return (B, width) float32 of lon, lat (B, 2) in EPSG:4326 degrees."""
        with torch.autocast(lonlat.device.type, enabled=False):
            found: Tensor = self.network(self.features(lonlat.double()).float())
        return found


def geocentric(lonlat: Tensor) -> Tensor:
    """Return the position on the WGS84 ellipsoid (EPSG:4978, height 0).

    Args:
        lonlat: (B, 2) lon, lat in EPSG:4326 degrees, float64.

    Returns:
        (B, 3) x to lon 0, y to lon 90° east, z to the north pole, in metres.
    """
    lon, lat = torch.deg2rad(lonlat).unbind(dim=1)
    squeezed = (1 - WGS84_FLATTENING) ** 2
    sine = torch.sin(lat)
    normal = WGS84_AXIS_M / torch.sqrt(1 - (1 - squeezed) * sine**2)
    across = normal * torch.cos(lat)
    return torch.stack(
        [across * torch.cos(lon), across * torch.sin(lon), normal * squeezed * sine], dim=1
    )


def icosahedron_axes() -> Tensor:
    """Return the six axes through opposite corners of an icosahedron, (6, 3) unit vectors."""
    golden = (1 + math.sqrt(5)) / 2
    corners = [(0, 1, golden), (0, 1, -golden), (1, golden, 0), (1, -golden, 0), (golden, 0, 1),
               (golden, 0, -1)]  # fmt: skip
    return torch.tensor(corners, dtype=torch.float64) / math.sqrt(1 + golden**2)


class Fourier(LocationEncoder):
    """Cosines and sines of plane waves through the globe, in metres, then Linear-ReLU-Linear.

    Multi-scale Fourier features as in Space2Vec (Mai et al. 2020, `theory`), which has waves in
    three directions of a plane at wavelengths λ in geometric progression. Deviation: the plane
    becomes the geocentric position p in metres, the three directions the six axes k of an
    icosahedron, the features cos and sin of 2π k·p/λ. So there is no projection, zone, pole or
    seam, and since Σ (k·t)² = 2 for every unit vector t, a step on the ground changes the code by
    the same amount in every direction and at every place on earth. Along a direction t the wave of
    axis k is λ/|k·t| long: never shorter than λ.

    The code repeats: beyond some `longest_m` two places look unrelated, however far apart they are.
    A network trained on it has learnt its cities by heart, and answers at random in another one.
    """

    frequencies: Tensor

    def __init__(
        self,
        width: int,
        shortest_m: float = 300.0,
        longest_m: float = 50_000.0,
        scales: int = 16,
        hidden: int = 256,
    ) -> None:
        """Build the encoder.

        Args:
            width: D of the output.
            shortest_m: smallest wavelength, metres.
            longest_m: largest wavelength, metres.
            scales: wavelengths, log-spaced, both ends included; at least 2.
            hidden: width of the network's hidden layer.

        Raises:
            UsageError: a parameter out of its range.
        """
        super().__init__()
        _check_counts(width=width, hidden=hidden)
        _check("scales", scales, f"2 to {LARGEST_WIDTH}", 2 <= scales <= LARGEST_WIDTH)
        _check("shortest_m", shortest_m, "at least 1 (metre)", 1 <= shortest_m < math.inf)
        fits = shortest_m < longest_m < math.inf
        _check("longest_m", longest_m, f"above shortest_m={shortest_m:g}", fits)
        waves = 1 / _geometric(shortest_m, longest_m, scales)
        frequencies = waves[:, None, None] * icosahedron_axes()
        self.register_buffer("frequencies", frequencies.reshape(-1, 3))
        self.network = _two_layers(12 * scales, hidden, width)

    def features(self, lonlat: Tensor) -> Tensor:
        """Return (B, 12 scales): the cosines, then the sines, scale by scale and axis by axis."""
        phase = 2 * math.pi * geocentric(lonlat) @ self.frequencies.T
        return torch.cat([torch.cos(phase), torch.sin(phase)], dim=1)


class Grid(LocationEncoder):
    """Cosines and sines of longitude and of latitude, each by itself, then Linear-ReLU-Linear.

    What the field calls `grid` (Space2Vec, Mai et al. 2020; eq. 3 of Sphere2Vec, arXiv 2201.10489;
    one of the choices in SatCLIP's code): wavelengths in geometric progression, in degrees. As
    published, a wave of longitude is shorter on the ground by cos(lat), and a pole has many codes:
    `fourier` has neither flaw. Deviations: wavelengths are given as such (published: radii,
    1/2π of a wavelength) and range from 300 m of latitude to the whole circle, not from 1° to
    360° radius, where a city is flat; each is rounded so that a whole number of waves goes round,
    and the antimeridian is no seam.
    """

    waves: Tensor

    def __init__(
        self,
        width: int,
        shortest_deg: float = 0.0027,
        longest_deg: float = 360.0,
        scales: int = 16,
        hidden: int = 256,
    ) -> None:
        """Build the encoder.

        Args:
            width: D of the output.
            shortest_deg: smallest wavelength, degrees.
            longest_deg: largest wavelength, degrees, at most 360.
            scales: wavelengths, log-spaced, both ends included; at least 2.
            hidden: width of the network's hidden layer.

        Raises:
            UsageError: a parameter out of its range.
        """
        super().__init__()
        _check_counts(width=width, hidden=hidden)
        _check("scales", scales, f"2 to {LARGEST_WIDTH}", 2 <= scales <= LARGEST_WIDTH)
        _check("shortest_deg", shortest_deg, "at least 1e-5 (1 m)", 1e-5 <= shortest_deg < 360)
        fits = shortest_deg < longest_deg <= 360
        _check("longest_deg", longest_deg, f"above shortest_deg={shortest_deg:g}, to 360", fits)
        waves = torch.round(360 / _geometric(shortest_deg, longest_deg, scales))
        self.register_buffer("waves", waves)
        self.network = _two_layers(4 * scales, hidden, width)

    def features(self, lonlat: Tensor) -> Tensor:
        """Return (B, 4 scales): the cosines of longitude, of latitude, then their sines."""
        phase = (torch.deg2rad(lonlat)[:, :, None] * self.waves).flatten(start_dim=1)
        return torch.cat([torch.cos(phase), torch.sin(phase)], dim=1)


class SphericalHarmonics(LocationEncoder):
    """SatCLIP's location encoder: real spherical harmonics of degrees 0 … L − 1 through a SIREN.

    As published: L² features, 2 sine layers of 256 and a linear one, dropout 0.5 before each sine
    in training. Deviations: the columns are orthonormal, without Condon–Shortley phase, at the
    place and not at its antipode (`nn._harmonics` says what the published ones are); a stable
    recurrence gives them; behind them all is float32 (published: float64). So released weights do
    not fit, and are not read.
    """

    def __init__(
        self,
        width: int,
        degrees: int = 40,
        hidden: int = 256,
        layers: int = 2,
        first_frequency: float = 30.0,
        dropout: float = 0.5,
    ) -> None:
        """Build the encoder.

        Args:
            width: D of the output.
            degrees: L, 1 to 100; SatCLIP has 10 and 40.
            hidden: width of the sine layers.
            layers: sine layers.
            first_frequency: what the first sine's argument is multiplied with.
            dropout: share of the sines' arguments set to zero in training, below 1.

        Raises:
            UsageError: a parameter out of its range.
        """
        super().__init__()
        _check_counts(width=width, hidden=hidden, layers=layers)
        fits = 1 <= degrees <= LARGEST_DEGREES
        _check("degrees", degrees, f"from 1 to {LARGEST_DEGREES}", fits)
        _check("first_frequency", first_frequency, "above 0", 0 < first_frequency < math.inf)
        _check("dropout", dropout, "at least 0 and below 1", 0 <= dropout < 1)
        self.degrees = degrees
        self.network = Siren(degrees**2, width, hidden, layers, first_frequency, dropout)

    def features(self, lonlat: Tensor) -> Tensor:
        """Return the harmonics (B, L²)."""
        return real_harmonics(lonlat, self.degrees)


Location = Literal["capsules", "fourier", "grid", "spherical-harmonics"]

LOCATION_ENCODERS: dict[str, type[nn.Module]] = {
    "capsules": Capsules,
    "fourier": Fourier,
    "grid": Grid,
    "spherical-harmonics": SphericalHarmonics,
}
"""Every location encoder by the name that a method's Config gives."""


def location_encoder(name: str, width: int, **config: Any) -> nn.Module:
    """Return a location encoder with random weights, drawn from torch's global generator.

    Args:
        name: a key of `LOCATION_ENCODERS`.
        width: D of the output.
        **config: the other arguments of its class; the defaults stand for those not given.

    Returns:
        A module from (B, 2) lon, lat in EPSG:4326 degrees, float64, to (B, width) float32.

    Raises:
        UsageError: an unknown name or parameter (with near misses), or a value out of its range.
    """
    if name not in LOCATION_ENCODERS:
        raise unknown("location encoder", name, LOCATION_ENCODERS)
    build = LOCATION_ENCODERS[name]
    known = [key for key in inspect.signature(build).parameters if key != "width"]
    for key in config:
        if key not in known:
            raise unknown(f"parameter of location encoder {name}", key, known)
    return build(width, **config)


def _geometric(least: float, most: float, count: int) -> Tensor:
    """Return numbers in geometric progression, (count,) float64, both ends included."""
    return torch.logspace(math.log(least), math.log(most), count, math.e, dtype=torch.float64)


def _two_layers(features: int, hidden: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, width))


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        _check(name, value, f"from 1 to {LARGEST_WIDTH}", 1 <= value <= LARGEST_WIDTH)


def _check(name: str, value: Any, wanted: str, holds: bool) -> None:
    if not holds:
        raise UsageError(f"{name}={value} does not fit: {name} is {wanted}")
