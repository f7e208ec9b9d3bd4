"""What the plain contrastive baselines share: every modality is a view of its place.

Of every modality pooled, z-scored features go through Linear, LayerNorm, GELU, Linear, coordinates
through a location encoder: h_m. One projector for all, LayerNorm, GELU, Linear, gives what the
objective compares. The embedding of a place is the mean of h_m over the modalities that it has,
zero where it has none.
"""

from abc import abstractmethod
from collections.abc import Mapping
from itertools import combinations
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from urbancli.errors import UrbanError
from urbancli.methods.base import Method, Representations, Stage, Width, one_stage, place_encoder
from urbancli.nn.fusion import mean_of_present
from urbancli.nn.scores import Scores
from urbancli.tokens import Batch, Tokens


class ViewsMethod(Method):
    """Base of methods whose views are modalities.

    Args:
        config: with `width`, `projection`, `location` and what `check_training` knows.
        widths: modality → widths of its tokens.

    Raises:
        UrbanError: fewer than two modalities.
    """

    pooled_only: ClassVar[bool] = True

    def __init__(self, config: Any, widths: Mapping[str, Width]) -> None:
        super().__init__(config, widths)
        if len(widths) < 2:
            raise UrbanError(
                f"modalities are compared with each other, and there is only "
                f"{', '.join(widths) or 'none'}: fetch more with --imagery, --osm or --pois, or "
                "name fewer in --without"
            )
        self.width = config.width
        self.scores = Scores({name: width.pooled for name, width in widths.items()})
        self.encoders = nn.ModuleDict(
            {name: self._encoder(name, width.pooled) for name, width in widths.items()}
        )
        self.projector = nn.Sequential(
            nn.LayerNorm(self.width), nn.GELU(), nn.Linear(self.width, config.projection)
        )

    def _encoder(self, name: str, raw_width: int) -> nn.Module:
        if name == "coords":
            return place_encoder(self.config)
        return nn.Sequential(
            nn.Linear(raw_width, self.width), nn.LayerNorm(self.width), nn.GELU(),
            nn.Linear(self.width, self.width),
        )  # fmt: skip

    def prepare(self, tokens: Mapping[str, Tokens], index: Any) -> None:
        """Take mean and standard deviation of every pooled feature over the training places."""
        self.scores.fit(tokens, index)

    def stages(self) -> list[Stage]:
        """Return the one stage, with one optimiser over everything."""
        return one_stage("views", self)

    def views(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return modality → h (B, D), whatever where it is absent, and → presence (B,)."""
        found, present = {}, {}
        for name, part in batch.modalities.items():
            read = part.pooled[:, :2] if name == "coords" else self.scores(name, part)
            found[name], present[name] = self.encoders[name](read).float(), part.present
        return found, present

    def represent(self, batch: Batch, stage: str, generator: torch.Generator) -> Representations:
        """Return each modality's projection (B, P) and its presence (B,), `present/…`."""
        found, present = self.views(batch)
        return {
            **{name: self.projector(view) for name, view in found.items()},
            **{f"present/{name}": mask for name, mask in present.items()},
        }

    def objective(self, representations: Representations, optimiser: str) -> dict[str, Tensor]:
        """Return the mean of `compare` over the pairs of modalities, on places that have both."""
        names = [name for name in self.modalities if name in representations]
        losses = []
        for one, other in combinations(names, 2):
            both = representations[f"present/{one}"] & representations[f"present/{other}"]
            losses.append(self.compare(representations[one][both], representations[other][both]))
        return {"views": torch.stack(losses).mean()}

    @abstractmethod
    def compare(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the loss of the projections (N, P) of two modalities of the same places."""

    def embed(self, batch: Batch) -> Tensor:
        """Return the mean (B, width) of the modalities that a place has."""
        found, present = self.views(batch)
        return mean_of_present([*found.values()], [*present.values()])
