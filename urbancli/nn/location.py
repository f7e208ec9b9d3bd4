"""Location encoders: from a longitude and a latitude to a vector."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

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

    def __init__(self, width: int, sigmas: Sequence[float], frequencies: int, hidden: int) -> None:
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
