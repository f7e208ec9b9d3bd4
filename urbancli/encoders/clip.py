"""CLIP's image encoder (Radford et al. 2021, arXiv 2103.00020), as UrbanFusion uses it on photos.

The global vector is the image feature AFTER the visual projection, 768 of ViT-L/14, not normalised.
"""

from dataclasses import dataclass
from typing import ClassVar

from urbancli.encoders._vision_windows import VisionEncoder


@dataclass(frozen=True)
class Encoder(VisionEncoder):
    """CLIP on imagery or the map; see `_vision_windows` for its settings."""

    kinds: ClassVar[tuple[str, ...]] = ("clip", "clip_vision_model")
    licence: ClassVar[str] = "MIT"
    default_width: ClassVar[int | None] = 768
    model: str = "openai/clip-vit-large-patch14"
