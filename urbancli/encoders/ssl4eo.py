"""SSL4EO-S12's MoCo-v3 ViT-S/16 on 13 bands of Sentinel-2 (Wang et al. 2023, arXiv 2211.07044).

UrbanFusion's encoder of satellite images: 384 numbers, the CLS token. From the authors' repository
(zhu-xlab/SSL4EO-S12) and TorchGeo: bands B01 … B8A, B09, B10, B11, B12; samples divided by 10,000,
no further normalisation; images of 264 × 264 (256 for TorchGeo's transforms) at 10 m, cropped to
224; 6 heads (MoCo-v3's own ViT-S has 12), layer norms with 1e-6.

Trained on top-of-atmosphere L1C. Our layer is L2A as UrbanFusion's, which has no B10 (cirrus): that
band is zero here, close to its mean in the training images (22 of 10,000). The default square of
2,240 m is 224 pixels of 10 m: the middle of UrbanFusion's 2,560 m, that is what the crop leaves of
it, and nothing is resampled. The authors round reflectance to eight bits first; this does not.

The weights are published as pickles only, which are never read here. Whoever trusts one converts it
once, to a folder with one file: what torch's `load` with `weights_only=True` gives of it, saved by
`safetensors.torch.save_file` as FOLDER/model.safetensors. Names of timm's ViT are understood
(TorchGeo's file has them), and so is a folder that `transformers.ViTModel` of 13 channels was saved
to.
"""

import functools
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from urbancli.encoders import _vision, _weights
from urbancli.encoders._vision import Constants, Vision
from urbancli.encoders._vision_windows import VisionEncoder
from urbancli.encoders._weights import Weights
from urbancli.errors import UrbanError

PICKLED = "torchgeo/vit_small_patch16_224_sentinel2_all_moco"

HEAD_WIDTH = 64
"""Width of an attention head in timm's ViTs: 6 heads of 384."""

NORM_EPSILON = 1e-6

NAMES = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}

BLOCK_NAMES = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
"""timm's names → those of `transformers`' ViT; `attn.qkv` holds three in one."""

CONSTANTS: Constants = ((0.0,), (1.0,))


@dataclass(frozen=True)
class Encoder(VisionEncoder):
    """SSL4EO-S12 on Sentinel-2; see `_vision_windows` for its settings."""

    modalities: ClassVar[tuple[str, ...]] = ("sentinel2",)
    needs: ClassVar[str] = "12 bands of L2A; a folder of weights as safetensors"
    kinds: ClassVar[tuple[str, ...]] = ("vit",)
    licence: ClassVar[str] = "CC-BY-4.0"
    default_width: ClassVar[int | None] = 384
    constants: ClassVar[Constants | None] = CONSTANTS
    missing_bands: ClassVar[tuple[str, ...]] = ("B10",)
    model: str = PICKLED
    bands: tuple[str, ...] = (
        "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12",
    )  # fmt: skip
    high: float = 10000.0
    window_m: float = 2240.0

    def weights(self) -> str:
        """Return the SHA-256 of the model's files."""
        return self._found().sha256

    def opened(self) -> Vision:
        """Return the model, loaded, whichever names its weights have."""
        weights = self._found()
        if "model_type" in _weights.read_facts(weights):
            return _vision.open_vision(weights, self.kinds, self.constants, self.bands)
        return _vision.vision_of(_converted(weights), weights, CONSTANTS)

    def _found(self) -> Weights:
        if self.model == PICKLED:
            raise UrbanError(
                "SSL4EO-S12's weights are published as a pickle only (.pth), which is never read: "
                "save them once as FOLDER/model.safetensors (its help tells how: `python -m pydoc "
                "urbancli.encoders.ssl4eo`) and give --encoder sentinel2=ssl4eo:FOLDER"
            )
        return _weights.find(self.model)


@functools.lru_cache(maxsize=1)
def _converted(weights: Weights) -> Any:
    """Return `transformers.ViTModel` with the weights of timm's ViT, its form read off them.

    Raises:
        UrbanError: they are not those of such a model.
    """
    from safetensors.torch import load_file
    from transformers import ViTConfig, ViTModel

    _weights.hush()
    path = weights.folder / "model.safetensors"
    try:
        found = load_file(path)
        width, channels, patch, _ = found["patch_embed.proj.weight"].shape
        if width % HEAD_WIDTH:
            raise ValueError(f"its width of {width} is no multiple of {HEAD_WIDTH}")
        side = patch * round((found["pos_embed"].shape[1] - 1) ** 0.5)
        depth = len({name.split(".")[1] for name in found if name.startswith("blocks.")})
        config = ViTConfig(
            hidden_size=width, num_hidden_layers=depth, num_attention_heads=width // HEAD_WIDTH,
            intermediate_size=found["blocks.0.mlp.fc1.weight"].shape[0], num_channels=channels,
            image_size=side, patch_size=patch, layer_norm_eps=NORM_EPSILON,
        )  # fmt: skip
        renamed = {}
        for name, tensor in found.items():
            renamed.update(_renamed(name, tensor))
        maker: Any = ViTModel
        model, report = maker.from_pretrained(
            None, config=config, state_dict=renamed, add_pooling_layer=False,
            output_loading_info=True,
        )  # fmt: skip
        wrong = sorted({*report["missing_keys"], *report["unexpected_keys"]})
    except Exception as err:  # strange tensors fail anywhere in torch and transformers
        wrong = [_weights.reason(err)]
    if wrong:
        raise UrbanError(
            f"{path} holds neither a ViT of transformers nor one of timm ({wrong[0]}): give "
            "SSL4EO-S12's weights (`python -m pydoc urbancli.encoders.ssl4eo`)"
        )
    return model.eval().requires_grad_(False).to(_weights.device())


def _renamed(name: str, tensor: Any) -> dict[str, Any]:
    """Return a tensor of timm's ViT under the names of `transformers`; heads are left out."""
    if name.startswith(("head.", "fc_norm.")):
        return {}
    block = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", name)
    if block is None:
        stem, _, end = name.rpartition(".")
        return {NAMES[name]: tensor} if name in NAMES else {f"{NAMES[stem]}.{end}": tensor}
    number, part, end = block.groups()
    start = f"encoder.layer.{number}"
    if part == "attn.qkv":
        thirds = zip(("query", "key", "value"), tensor.chunk(3), strict=True)
        return {f"{start}.attention.attention.{which}.{end}": third for which, third in thirds}
    return {f"{start}.{BLOCK_NAMES[part]}.{end}": tensor}
