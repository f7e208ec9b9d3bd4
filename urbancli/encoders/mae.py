"""Masked autoencoder, ViT-B/16 (He et al. 2021, arXiv 2111.06377): the encoder, nothing masked.

UrbanFusion takes the mean of its patch tokens on maps of three zooms, from a copy further trained
on OSM tiles. That copy is not the default: give its folder. Patches come in their order; the
published encoder shuffles them at random.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from urbancli.encoders._vision_windows import VisionEncoder


@dataclass(frozen=True)
class Encoder(VisionEncoder):
    """MAE on imagery or the map; see `_vision_windows` for its settings.

    The mean of patches is the default: the CLS token of an MAE was never trained for anything.
    """

    kinds: ClassVar[tuple[str, ...]] = ("vit_mae",)
    licence: ClassVar[str] = "CC-BY-NC-4.0 (the authors' repository; Apache-2.0 on the hub's card)"
    default_width: ClassVar[int | None] = 768
    model: str = "facebook/vit-mae-base"
    tokens: Literal["cls", "mean", "patches", "all"] = "mean"
