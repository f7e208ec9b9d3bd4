"""SIREN, the network with sines for activations that SatCLIP puts behind its harmonics."""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class Siren(nn.Module):
    """Sine layers and a linear one (Sitzmann et al. 2020), as SatCLIP has them.

    x ← sin(w (W x + c)) per layer, w = `first_frequency` in the first and 1 in the others, with
    dropout of W x + c before its sine in training; then a linear layer. Initial W and c are uniform
    within ±1/n in the first layer and ±√(6/n) in the others, the last one included, n being the
    width of the layer's input.
    """

    def __init__(
        self,
        features: int,
        width: int,
        hidden: int = 256,
        layers: int = 2,
        first_frequency: float = 30.0,
        dropout: float = 0.5,
    ) -> None:
        """Draw the weights.

        Args:
            features: width of the input.
            width: of the output.
            hidden: of the sine layers.
            layers: sine layers, at least 1.
            first_frequency: w of the first sine.
            dropout: share of the pre-activations set to zero in training.
        """
        super().__init__()
        widths = [features, *[hidden] * layers, width]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(widths))
        for number, layer in enumerate(self.layers):
            bound = math.sqrt(6 / widths[number]) if number else 1 / features
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound)
        self.first_frequency = first_frequency
        self.dropout = dropout

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, width) of (B, features)."""
        hidden = features
        for number, layer in enumerate(self.layers[:-1]):
            linear = functional.dropout(layer(hidden), self.dropout, self.training)
            hidden = torch.sin(linear if number else self.first_frequency * linear)
        found: Tensor = self.layers[-1](hidden)
        return found
