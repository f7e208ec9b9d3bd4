"""Published models of vision: from images to vectors, of squares around places or of photos.

An image is scaled to 0 … 1 and clipped; resized whole to the model's input by torch's antialiased
interpolation (bicubic or bilinear, as the model's preprocessor says) and clipped again; then the
mean is subtracted and divided by the deviation that the model was trained with. Unlike the models'
own preprocessors it is not rounded to eight bits after resizing.

A value may differ in its last digits with the other images of its batch and with the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from urbancli.encoders import _weights
from urbancli.encoders._weights import Weights
from urbancli.errors import UrbanError, UsageError

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float32]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,), (0.5,))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

Constants = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation of each band after scaling to 0 … 1; one number stands for all bands."""

KINDS: dict[str, tuple[str, dict[str, Any], Constants]] = {
    "clip": ("CLIPVisionModelWithProjection", {}, CLIP),
    "clip_vision_model": ("CLIPVisionModelWithProjection", {}, CLIP),
    "vit": ("ViTModel", {"add_pooling_layer": False}, HALF),
    "deit": ("DeiTModel", {"add_pooling_layer": False}, IMAGENET),
    "vit_msn": ("ViTMSNModel", {}, IMAGENET),
    "vit_mae": ("ViTMAEModel", {"mask_ratio": 0.0}, IMAGENET),
    "dinov2": ("Dinov2Model", {}, IMAGENET),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", {}, IMAGENET),
    "dinov3_vit": ("DINOv3ViTModel", {}, IMAGENET),
}
"""`model_type` → class in `transformers`, its arguments, and published constants, which count where
the model brings no preprocessor_config.json."""

RESAMPLING = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, in preprocessor_config.json."""


@dataclass(frozen=True)
class Vision:
    """A loaded model.

    Attributes:
        module: in evaluation mode, on `_weights.device()`.
        side_px: side of its input, pixels.
        patch_px: side of a patch, pixels.
        channels: bands of its input.
        constants: mean and deviation of each.
        resampling: how images are brought to its size.
    """

    module: Any
    side_px: int
    patch_px: int
    channels: int
    constants: Constants
    resampling: str = "bicubic"

    @property
    def width(self) -> int:
        """d, of its vectors."""
        if self.module.config.model_type.startswith("clip"):
            return int(self.module.visual_projection.out_features)
        return int(self.module.config.hidden_size)

    def pixels(self, scaled: "torch.Tensor") -> "torch.Tensor":
        """Return the input of the model (B, C, side_px, side_px) for images (B, C, H, W) in 0 … 1.

        Bands come as the model wants them, rows from the north. Images of its size are normalised
        in place.
        """
        import torch

        if scaled.shape[-2:] != (self.side_px, self.side_px):
            size = (self.side_px, self.side_px)
            scaled = torch.nn.functional.interpolate(
                scaled, size, mode=self.resampling, align_corners=False, antialias=True
            ).clamp_(0, 1)
        mean, std = (
            torch.tensor(part, dtype=torch.float32, device=scaled.device)[:, None, None]
            for part in self.constants
        )
        return scaled.sub_(mean).div_(std)

    def features(
        self, pixels: "torch.Tensor", precision: str = "float32"
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Return the global vector (B, d) and those of patches (B, P, d), float32, no gradients.

        Patches run from the north-west corner along rows. CLIP's are projected as its global vector
        is: layer norm, then the visual projection.

        Args:
            pixels: of `pixels`, on the module's device.
            precision: `float32`, or `bf16` for autocast.
        """
        import torch

        patches = (self.side_px // self.patch_px) ** 2
        kind, more = self.module.config.model_type, {}
        if kind == "vit_mae":  # it sorts patches by this noise, random if not given
            more["noise"] = torch.arange(patches, device=pixels.device).expand(len(pixels), -1)
        with (
            torch.inference_mode(),
            torch.autocast(pixels.device.type, torch.bfloat16, enabled=precision == "bf16"),
        ):
            out = self.module(pixel_values=pixels, **more)
            hidden = out.last_hidden_state
            whole, parts = hidden[:, 0], hidden[:, -patches:]  # between them lie registers
            if kind.startswith("clip"):
                whole = out.image_embeds
                parts = self.module.visual_projection(
                    self.module.vision_model.post_layernorm(parts)
                )
        return whole.float(), parts.float()

    def embed_photos(
        self, photos: Sequence[npt.NDArray[np.uint8]], precision: str = "float32", batch: int = 32
    ) -> Floats:
        """Return the global vectors (N, d) of photos (H, W, 3) in RGB, of any sizes.

        Of each the largest square in its middle is taken, as the models' own preprocessors do.
        """
        import torch

        found = []
        for start in range(0, len(photos), batch):
            squares = [
                self.pixels(scaled_images(_square(photo), 0.0, 255.0))
                for photo in photos[start : start + batch]
            ]
            found.append(self.features(torch.cat(squares), precision)[0].cpu().numpy())
        return np.concatenate(found) if found else np.zeros((0, self.width), np.float32)


def open_vision(
    weights: Weights,
    kinds: Sequence[str],
    constants: Constants | None = None,
    bands: Sequence[str] = (),
) -> Vision:
    """Return a model of images.

    Args:
        weights: from `_weights.find`.
        kinds: of `KINDS`, those that are wanted.
        constants: of models without preprocessor_config.json; default the kind's.
        bands: that it is to look at, where known: their number is compared with what its
            config.json says, before loading takes its seconds.

    Raises:
        UrbanError: see `_weights.load_model`; or its settings do not fit together.
        UsageError: it takes another number of bands.
    """
    facts = _weights.read_facts(weights)
    kind = str(facts.get("model_type", ""))
    said = facts.get("vision_config") if kind == "clip" else facts
    channels = said.get("num_channels") if isinstance(said, dict) else None
    if kind in kinds and bands and isinstance(channels, int) and channels != len(bands):
        raise UsageError(
            f"'{weights.folder}' takes {channels} bands, not {len(bands)} ({', '.join(bands)}): "
            "set bands=…"
        )
    name, more, usual = KINDS.get(kind, ("", {}, HALF))
    module = _weights.load_model(name, weights, kinds, **more)
    return vision_of(module, weights, constants or usual)


def vision_of(module: Any, weights: Weights, constants: Constants) -> Vision:
    """Return a loaded module with what its files say of its input; see `open_vision`."""
    said = _weights.read_facts(weights, "preprocessor_config.json")
    try:
        side, patch, channels, broad = _input(module.config, said, constants)
        mode = RESAMPLING.get(said.get("resample", 3), "bicubic")
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as err:
        raise UrbanError(
            f"what '{weights.folder}' says of its images is not understood "
            f"({_weights.reason(err)}): mend its preprocessor_config.json (image_mean, image_std, "
            "size, crop_size, resample) or config.json (image_size, patch_size, num_channels)"
        ) from err
    if side % patch or {len(part) for part in broad} != {channels}:
        raise UrbanError(
            f"'{weights.folder}' takes {channels} bands and {side} pixels in patches of {patch}, "
            f"its means are of {len(broad[0])} bands: mend its preprocessor_config.json "
            "(image_mean, image_std, size)"
        )
    return Vision(module, side, patch, channels, broad, mode)


def _input(
    config: Any, said: dict[str, Any], constants: Constants
) -> tuple[int, int, int, Constants]:
    """Return side and patch in pixels, the number of bands, mean and deviation of each."""
    side, patch = _side(config.image_size), _side(config.patch_size)
    if config.model_type.startswith("dino"):  # trained on larger images than it is used on
        side = _side(said.get("crop_size") or said.get("size") or side)
    channels = int(config.num_channels)
    named: dict[str, Any] = {"image_mean": [0.0], "image_std": [1.0]}
    if said.get("do_normalize", True):
        named = {key: said.get(key, usual) for key, usual in zip(named, constants, strict=True)}
    broad = []
    for key, part in named.items():
        if not isinstance(part, list | tuple):
            raise TypeError(f"{key} is {part}, not a list")
        numbers = tuple(map(float, part))
        if not np.isfinite(numbers).all() or (key == "image_std" and min(numbers, default=1) <= 0):
            raise ValueError(f"{key} is {part}")
        broad.append(numbers * channels if len(numbers) == 1 else numbers)
    return side, patch, channels, (broad[0], broad[1])


def scaled_images(stack: npt.NDArray[Any], low: float, high: float) -> "torch.Tensor":
    """Return images (B, C, H, W) scaled to 0 … 1 and clipped, float32 on the device.

    An array of float32 on the CPU is scaled in place: nothing is allocated.
    """
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(stack)).to(_weights.device(), torch.float32)
    return tensor.sub_(low).div_(high - low).clamp_(0, 1)


def _square(photo: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the middle square of a photo (H, W, 3), as (1, 3, S, S)."""
    height, width = photo.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return photo[top : top + side, left : left + side].transpose(2, 0, 1)[None]


def _side(size: Any) -> int:
    """Return one side of a square that a model's files give in one of several forms."""
    number = size
    if isinstance(size, dict):
        number = size.get("height") or size.get("shortest_edge")
    number = number[0] if isinstance(number, list | tuple) and number else number
    if not isinstance(number, int | float) or number < 1:
        raise ValueError(f"{size} is no side of a square")
    return int(number)
