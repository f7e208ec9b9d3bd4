"""DINOv2 (Oquab et al. 2023, arXiv 2304.07193) and DINOv3 (Siméoni et al. 2025, arXiv 2508.10104).

With or without registers, which are no tokens of ours. DINOv3's weights are given only to those who
accept their terms; DINOv2's are the default.
"""

from dataclasses import dataclass
from typing import ClassVar

from urbancli.encoders._vision_windows import VisionEncoder


@dataclass(frozen=True)
class Encoder(VisionEncoder):
    """DINO on imagery or the map; see `_vision_windows` for its settings.

    The input has the side that its preprocessor crops to (224), which is smaller than the images
    that its positions were trained for; the model interpolates them.
    """

    kinds: ClassVar[tuple[str, ...]] = ("dinov2", "dinov2_with_registers", "dinov3_vit")
    licence: ClassVar[str] = "Apache-2.0"
    default_width: ClassVar[int | None] = 768
    model: str = "facebook/dinov2-base"
