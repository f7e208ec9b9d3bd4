"""MELT (arXiv 2606.20167): one location encoder against all modalities at once, unpaired.

As described: SatCLIP's location encoder against frozen encoders of several modalities, every sample
with its own location alone; a batch holds samples of all modalities, in an asymmetric NT-Xent of
each modality's samples against the locations of all. Batch 2048, learning rate 1e-4, 50 epochs.
The embedding is the location's; `melt-mm` reads the modalities too.

`_anchored` writes the objective out. Not published, and so our choice, each in the Config: the
direction (from modality to location), the candidates (all locations of the batch), one learned
temperature for all from 0.07, equal weights, linear heads, L = 40, width 256.

Deviations:
- The frozen features are this workspace's, z-scored over the training places, of whatever
  modalities it has, not Sentinel-2 patches, geotagged photos and Wikipedia's texts.
- A sample is a place, and each place stands for one of its modalities in a batch; an epoch is every
  place once, and not every sample of every modality.
- `small` has the city-scale `fourier` location encoder: harmonics are nearly flat in a city.
- AdamW with weight decay 0.01, 5 % warm-up, cosine to zero: not known.
"""

from dataclasses import dataclass

from urbancli.errors import unknown
from urbancli.methods._anchored import AnchoredConfig, AnchoredMethod
from urbancli.methods.base import PRESETS


@dataclass(frozen=True)
class Config(AnchoredConfig):
    """Parameters of MELT; the defaults are the `paper` preset."""

    @classmethod
    def preset(cls, name: str) -> "Config":
        """Return `paper`, or `small`, for two cores and one city."""
        if name == "paper":
            return cls()
        if name == "small":
            return cls(width=192, location="fourier", epochs=40, batch_size=256, lr=1e-3)
        raise unknown("preset", name, PRESETS)


class Method(AnchoredMethod):
    """MELT over coordinates and any other modalities."""

    config: Config
