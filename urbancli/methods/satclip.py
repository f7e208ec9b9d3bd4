"""SatCLIP (Klemmer et al. 2023, arXiv 2311.17179): a location encoder against one imagery.

The case of two modalities of `_anchored`: the symmetric CLIP loss between places and the features
of their satellite pictures, spherical harmonics through a SIREN, a learned temperature from 0.07.
The embedding is the location's.

Deviations: the frozen picture encoder is this workspace's, z-scored over the training places, and
not a ViT of SSL4EO or a ResNet of MoCo; places of one city and not of the world, where harmonics
are nearly flat (L = 40 resolves about 222 km), so that `small` has the `fourier` encoder instead,
and is not SatCLIP as published; optimiser and schedule are those of `melt`, to be compared with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from urbancli.errors import UrbanError, unknown
from urbancli.methods._anchored import AnchoredConfig, AnchoredMethod, Direction
from urbancli.methods.base import PRESETS, Width


@dataclass(frozen=True)
class Config(AnchoredConfig):
    """Parameters of SatCLIP; the defaults are the `paper` preset."""

    direction: Direction = "symmetric"
    modality: str = "sentinel2"

    @classmethod
    def preset(cls, name: str) -> "Config":
        """Return `paper`, or `small`, for two cores and one city."""
        if name == "paper":
            return cls()
        if name == "small":
            return cls(width=192, location="fourier", epochs=40, batch_size=256, lr=1e-3)
        raise unknown("preset", name, PRESETS)


class Method(AnchoredMethod):
    """SatCLIP over coordinates and one other modality, by default Sentinel-2."""

    config: Config

    def targets_of(self, widths: Mapping[str, Width]) -> tuple[str, ...]:
        """Return the one modality.

        Raises:
            UrbanError: it is not there.
        """
        wanted = self.config.modality
        if wanted not in widths or wanted == "coords":
            there = ", ".join(name for name in widths if name != "coords") or "none"
            raise UrbanError(
                f"satclip compares places with {wanted}, which is not there: fetch it, or give "
                f"--set modality=… with one of: {there}"
            )
        return (wanted,)
