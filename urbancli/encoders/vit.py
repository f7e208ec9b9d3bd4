"""Any vision transformer that `transformers` reads as ViT, DeiT or MSN, of any number of bands."""

from dataclasses import dataclass
from typing import ClassVar

from urbancli.encoders._vision_windows import VisionEncoder


@dataclass(frozen=True)
class Encoder(VisionEncoder):
    """A ViT on imagery or the map; see `_vision_windows` for its settings.

    A model of other than three bands needs `bands=…`; its preprocessor_config.json may name
    `image_mean` and `image_std` of each, else 0.5 stands for all.
    """

    kinds: ClassVar[tuple[str, ...]] = ("vit", "deit", "vit_msn")
    licence: ClassVar[str] = "Apache-2.0"
    default_width: ClassVar[int | None] = 768
    model: str = "google/vit-base-patch16-224-in21k"
