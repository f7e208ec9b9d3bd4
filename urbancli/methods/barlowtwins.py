"""Barlow Twins between modalities (Zbontar et al. 2021, arXiv 2103.03230): no negatives.

Of every pair of modalities, over the places that have both, the correlations of the projections'
dimensions are pulled to the identity: a dimension agrees with itself and with no other. λ = 0.005
as published; here the loss is also divided by the number of dimensions, so that its size, and with
it the learning rate, does not depend on it.

Deviations: two views are two modalities and not two crops of a picture; AdamW, not LARS; one
projector without batch normalisation, of which an embedding would depend on its batch in training;
`_views` says how frozen features are read and averaged.
"""

from dataclasses import dataclass

from torch import Tensor

from urbancli.configs import check_range
from urbancli.errors import unknown
from urbancli.methods._views import ViewsMethod
from urbancli.methods.base import PRESETS, check_counts, check_training
from urbancli.nn.location import Location
from urbancli.nn.losses import barlow_twins


@dataclass(frozen=True)
class Config:
    """Parameters of Barlow Twins; the defaults are the `paper` preset."""

    width: int = 768
    projection: int = 2048
    location: Location = "capsules"
    capsule_frequencies: int = 256
    capsule_width: int = 1024
    redundancy: float = 0.005
    epochs: int = 100
    batch_size: int = 1024
    lr: float = 1e-4
    weight_decay: float = 0.01
    warmup: float = 0.05

    def __post_init__(self) -> None:
        check_training(self)
        check_counts(self, "width", "projection", "capsule_frequencies", "capsule_width")
        fits = 0 <= self.redundancy <= 1
        check_range("redundancy", self.redundancy, "0 to 1", fits)

    @classmethod
    def preset(cls, name: str) -> "Config":
        """Return `paper`, or `small`, for two cores."""
        if name == "paper":
            return cls()
        if name == "small":
            return cls(
                width=192, projection=512, capsule_frequencies=128, capsule_width=256, epochs=40,
                batch_size=256, lr=1e-3,
            )  # fmt: skip
        raise unknown("preset", name, PRESETS)


class Method(ViewsMethod):
    """Barlow Twins over any two or more modalities."""

    config: Config

    def compare(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the Barlow Twins loss of projections (N, P), per dimension."""
        return barlow_twins(first, second, self.config.redundancy) / first.shape[1]
