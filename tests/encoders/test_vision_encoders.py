"""Published image encoders, with randomly initialised models saved to a folder.

What comes out is compared with `transformers`, called directly on pixels that this file prepares by
itself.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from urbancli.encoders import _vision, _weights
from urbancli.encoders._images import Images
from urbancli.encoders._vision_windows import VisionEncoder
from urbancli.encoding import encode_cached, encoder_of, fit_encoders, load_encoder
from urbancli.errors import UrbanError, UsageError
from urbancli.grid import Places
from urbancli.layers import CityLayers

Build = Callable[..., Any]

SIDE, PATCH = 32, 8
ACROSS = SIDE // PATCH

SMALL = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "image_size": SIDE, "patch_size": PATCH,
}  # fmt: skip

BANDS = ("b2", "b0", "b1")
"""Not in the layer's order."""

NAMES = ("clip", "mae", "dino", "dino3", "vit")

ENCODER_OF = {"dino3": "dino"}


def build(name: str) -> Any:
    """Return a tiny random model."""
    import torch
    import transformers as hf

    torch.manual_seed(7)
    if name == "clip":
        eyes = hf.CLIPVisionConfig(**SMALL, projection_dim=12).to_dict()
        words = hf.CLIPTextConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
            vocab_size=9, projection_dim=12, bos_token_id=1, eos_token_id=2,
        ).to_dict()  # fmt: skip
        return hf.CLIPModel(hf.CLIPConfig(vision_config=eyes, text_config=words, projection_dim=12))
    if name == "mae":
        return hf.ViTMAEForPreTraining(
            hf.ViTMAEConfig(
                **SMALL, decoder_hidden_size=8, decoder_num_hidden_layers=1,
                decoder_num_attention_heads=1, decoder_intermediate_size=8,
            )
        )  # fmt: skip
    if name == "dino":
        return hf.Dinov2Model(hf.Dinov2Config(**SMALL))
    if name == "dino3":
        return hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**SMALL, num_register_tokens=3))
    return hf.ViTModel(hf.ViTConfig(**SMALL))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    _weights.hush()
    root = tmp_path_factory.mktemp("models")
    for name in NAMES:
        build(name).save_pretrained(root / name)
    return {name: root / name for name in NAMES}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URBAN_CACHE", str(tmp_path / "cache"))


def layer(bands: int = 3, height: int = 60, width: int = 90) -> npt.NDArray[np.uint16]:
    """Return a mosaic of reflectance, some of it above the white of 3,000."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 4000, (bands, height, width)).astype(np.uint16)


@pytest.fixture
def town(tiny: Build) -> tuple[CityLayers, Places]:
    """3 × 2 tiles with pixels of 15 m: a window of 600 m is 40 pixels, one of 480 m is 32."""
    builder = tiny(3, 2)
    builder.pixels("sentinel2", layer(3, 40, 60))
    city, places = builder.open()
    return city, places


def made(name: str, folder: Path, **settings: Any) -> VisionEncoder:
    more = {"bands": BANDS, "window_m": 600.0, "batch": 1, **settings}
    overrides = [
        f"{key}={','.join(value) if isinstance(value, tuple) else value}"
        for key, value in more.items()
    ]
    chosen = load_encoder(ENCODER_OF.get(name, name), [f"model={folder}", *overrides])
    assert isinstance(chosen.encoder, VisionEncoder)
    return chosen.encoder


def pixels_of(
    city: CityLayers, places: Places, number: int, constants: Any, window_m: float = 600.0
) -> Any:
    """Return the input (1, 3, SIDE, SIDE) of a place's square: what the docstrings say."""
    import torch

    samples, valid = city.pixels("sentinel2").window(places.x[number], places.y[number], window_m)
    samples = samples[[2, 0, 1]].astype(np.float32)
    for band in samples:
        band[~valid] = band[valid].mean(dtype=np.float64)
    image = torch.from_numpy(np.clip(samples / np.float32(3000), 0, 1))[None]
    if image.shape[-1] != SIDE:
        image = torch.nn.functional.interpolate(
            image, (SIDE, SIDE), mode="bicubic", align_corners=False, antialias=True
        )
    image = image.clip(0, 1)
    mean, std = (torch.tensor(part)[:, None, None] for part in constants)
    return (image - mean) / std


def direct(name: str, folder: Path, pixels: Any) -> tuple[Any, Any]:
    """Return the global vector (d,) and patches (P, d) as transformers gives them."""
    import torch
    import transformers as hf

    with torch.inference_mode():
        if name == "clip":
            model = hf.CLIPVisionModelWithProjection.from_pretrained(folder).eval()
            out = model(pixel_values=pixels)
            parts = model.vision_model.post_layernorm(out.last_hidden_state[0, 1:])
            return out.image_embeds[0].numpy(), model.visual_projection(parts).numpy()
        if name == "mae":
            model = hf.ViTMAEModel.from_pretrained(folder, mask_ratio=0.0).eval()
            noise = torch.linspace(0, 1, ACROSS**2)[None]
            out = model(pixel_values=pixels, noise=noise)
        else:
            kinds = {"dino": "Dinov2Model", "dino3": "DINOv3ViTModel", "vit": "ViTModel"}
            out = getattr(hf, kinds[name]).from_pretrained(folder).eval()(pixel_values=pixels)
    hidden = out.last_hidden_state[0].numpy()
    assert len(hidden) == 1 + (3 if name == "dino3" else 0) + ACROSS**2
    return hidden[0], hidden[-(ACROSS**2) :]


CONSTANTS = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "vit": ((0.5,) * 3, (0.5,) * 3),
}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("window_m", [600.0, 480.0], ids=["resized", "as it is"])
def test_tokens_are_bit_for_bit_those_of_transformers(
    name: str, window_m: float, folders: dict[str, Path], town: tuple[CityLayers, Places]
) -> None:
    city, places = town
    settings = {"window_m": window_m}
    found = {
        kind: made(name, folders[name], tokens=kind, **settings).encode(
            city, "sentinel2", places, {}
        )
        for kind in ("cls", "mean", "patches", "all")
    }
    assert found["cls"].values.dtype == np.float32
    for number in range(len(places)):
        constants = CONSTANTS.get(name, IMAGENET)
        whole, parts = direct(
            name, folders[name], pixels_of(city, places, number, constants, window_m)
        )
        np.testing.assert_array_equal(found["cls"].values[number], whole)
        np.testing.assert_array_equal(found["patches"].take([number]).values, parts)
        np.testing.assert_array_equal(found["all"].take([number]).values, [whole, *parts])
        np.testing.assert_allclose(found["mean"].values[number], parts.mean(axis=0), atol=1e-6)


def test_clip_is_projected_as_its_own_image_features_are(
    folders: dict[str, Path], town: tuple[CityLayers, Places]
) -> None:
    import torch
    import transformers as hf

    city, places = town
    tokens = made("clip", folders["clip"]).encode(city, "sentinel2", places, {})
    whole = hf.CLIPModel.from_pretrained(folders["clip"]).eval()
    with torch.inference_mode():
        pixels = pixels_of(city, places, 0, CONSTANTS["clip"])
        wanted = whole.get_image_features(pixel_values=pixels).pooler_output
    np.testing.assert_array_equal(tokens.values[0], wanted[0].numpy())


def test_patches_of_mae_come_in_their_order(
    folders: dict[str, Path], town: tuple[CityLayers, Places]
) -> None:
    import torch
    import transformers as hf

    city, places = town
    tokens = made("mae", folders["mae"], tokens="patches").encode(city, "sentinel2", places, {})
    model = hf.ViTMAEModel.from_pretrained(folders["mae"], mask_ratio=0.0).eval()
    with torch.inference_mode():
        out = model(pixel_values=pixels_of(city, places, 0, IMAGENET))  # shuffled at random
    back = out.ids_restore[0].numpy()
    assert (back != np.arange(ACROSS**2)).any()
    shuffled = out.last_hidden_state[0, 1:].numpy()
    np.testing.assert_allclose(tokens.take([0]).values, shuffled[back], atol=2e-6)


@pytest.mark.parametrize("window_m", [600.0, 900.0])
def test_positions_are_the_corners_of_patches(
    folders: dict[str, Path], town: tuple[CityLayers, Places], window_m: float
) -> None:
    city, places = town
    encoder = made("vit", folders["vit"], tokens="all", window_m=window_m)
    tokens = encoder.encode(city, "sentinel2", places, {})
    side = window_m / 300
    west = south = 0.5 - side / 2
    wanted = [[west, south, west + side, south, west + side, south + side, west, south + side]]
    step = side / ACROSS
    for row in range(ACROSS):
        for column in range(ACROSS):
            left, right = west + column * step, west + (column + 1) * step
            low, high = south + side - (row + 1) * step, south + side - row * step
            wanted.append([left, low, right, low, right, high, left, high])
    np.testing.assert_allclose(tokens.take([1]).positions, wanted, atol=1e-6)


def test_the_first_patch_is_the_north_west_one(folders: dict[str, Path], tiny: Build) -> None:
    samples = np.full((3, 20, 20), 1000, np.uint16)
    plain, other = tiny(1, 1), tiny(1, 1, key="other")
    plain.pixels("sentinel2", samples)
    samples[:, :2, :2] = 3000
    other.pixels("sentinel2", samples)
    found = []
    for builder in (plain, other):
        city, places = builder.open()
        encoder = made("vit", folders["vit"], tokens="patches", window_m=300.0)
        vision = encoder.opened()
        image, _ = city.pixels("sentinel2").window(places.x[0], places.y[0], 300.0)
        pixels = vision.pixels(_vision.scaled_images(image[None], 0.0, 3000.0))
        patches = vision.module.embeddings.patch_embeddings(pixels)[0].numpy()
        corner = encoder.encode(city, "sentinel2", places, {}).positions[0]
        found.append(patches)
    changed = np.flatnonzero((found[0] != found[1]).any(axis=1))
    assert changed[0] == 0
    assert not {ACROSS - 1, ACROSS**2 - ACROSS, ACROSS**2 - 1} & set(changed.tolist())
    np.testing.assert_allclose(corner[6:], [0, 1])  # the north-west corner of the tile


# --- what is read ----------------------------------------------------------------------------


def test_pixels_that_are_not_valid_get_the_mean_and_few_valid_ones_make_a_place_absent(
    folders: dict[str, Path], tiny: Build
) -> None:
    builder = tiny(3, 1)
    valid = np.ones((20, 60), bool)
    valid[:, :20] = False  # all of the first tile
    valid[3:7, 23:30] = False  # some of the second
    valid[:11, 40:] = False  # most of the third
    builder.pixels("sentinel2", layer(3, 20, 60), valid)
    city, places = builder.open()
    tokens = made("vit", folders["vit"], window_m=300.0).encode(city, "sentinel2", places, {})
    west = builder.offsets(places)[:, 0]
    np.testing.assert_array_equal(tokens.present, west == 1)
    number = int(np.flatnonzero(tokens.present)[0])
    pixels = pixels_of(city, places, number, CONSTANTS["vit"], 300.0)
    np.testing.assert_array_equal(tokens.values[0], direct("vit", folders["vit"], pixels)[0])
    for kind in ("patches", "all", "mean"):
        other = made("vit", folders["vit"], window_m=300.0, tokens=kind)
        np.testing.assert_array_equal(
            other.encode(city, "sentinel2", places, {}).present, tokens.present
        )
        nowhere = other.encode(city, "sentinel2", places.take(np.flatnonzero(west == 0)), {})
        assert not nowhere.present.any()
        assert len(nowhere.values) == 0


def test_a_block_of_absent_places_has_the_width_of_the_others(
    folders: dict[str, Path], tiny: Build
) -> None:
    builder = tiny(2, 1)
    valid = np.ones((20, 40), bool)
    valid[:, :20] = False
    builder.pixels("sentinel2", layer(3, 20, 40), valid)
    city, places = builder.open()
    for kind in ("cls", "patches"):
        encoder = made("vit", folders["vit"], window_m=300.0, tokens=kind)
        widths = {
            encoder.encode(city, "sentinel2", places.take([n]), {}).values.shape[1]
            for n in range(2)
        }
        assert widths == {16}


def test_missing_bands_and_other_numbers_of_them_are_refused(
    folders: dict[str, Path], town: tuple[CityLayers, Places]
) -> None:
    city, places = town
    with pytest.raises(
        UsageError, match=r"sentinel2 has no band B04, it has b0, b1, b2: set bands=b0,b1,b2 "
    ):
        made("vit", folders["vit"], bands=("b0", "b1", "red")).encode(city, "sentinel2", places, {})
    with pytest.raises(UsageError, match=r"takes 3 bands, not 2 \(b0, b1\): set bands=…"):
        made("vit", folders["vit"], bands=("b0", "b1")).encode(city, "sentinel2", places, {})


class Named(Images):
    """Images with bands of these names."""

    def __init__(self, bands: tuple[str, ...], dtype: str) -> None:
        self.bands, self.dtype = bands, np.dtype(dtype)

    def windows(self, places: Places, window_m: float) -> Any:
        raise NotImplementedError


def test_bands_go_by_colour_in_any_layer() -> None:
    encoder = load_encoder("vit", ["bands=red,green,blue,nir"]).encoder
    assert isinstance(encoder, VisionEncoder)
    sentinel2 = Named(("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08"), "uint16")
    assert encoder._pick(sentinel2, "sentinel2") == [3, 2, 1, 7]
    assert encoder._pick(Named(("red", "green", "blue", "nir"), "uint8"), "naip") == [0, 1, 2, 3]
    nameless = Named(("band1", "band2", "band3", "band4"), "uint8")
    assert encoder._pick(nameless, "naip") == [0, 1, 2, 3]
    own = load_encoder("vit", ["bands=band4,red,band2"]).encoder
    assert isinstance(own, VisionEncoder)
    assert own._pick(nameless, "naip") == [3, 0, 1]
    with pytest.raises(UsageError, match=r"set bands=band1,band2,band3 \(those that are band4"):
        own._pick(Named(("band1", "band2", "band3"), "uint8"), "naip")
    with pytest.raises(UsageError, match="sentinel2 has no band B02, B03, B04, B08, it has band1"):
        encoder._pick(nameless, "sentinel2")
    ours = load_encoder("ssl4eo").encoder
    assert isinstance(ours, VisionEncoder)
    all_of = (*(f"B{n:02}" for n in range(1, 9)), "B8A", "B09", "B11", "B12")
    wanted = [*range(10), -1, 10, 11]
    assert ours._pick(Named(all_of, "uint16"), "sentinel2") == wanted
    with pytest.raises(UsageError, match="no band B01"):
        ours._pick(Named(all_of[1:], "uint16"), "sentinel2")


def test_white_is_the_layers_own_unless_set() -> None:
    encoder = load_encoder("vit").encoder
    assert isinstance(encoder, VisionEncoder)
    assert encoder._high(Named((), "uint16"), "sentinel2") == 3000
    assert encoder._high(Named((), "uint8"), "naip") == 255
    with pytest.raises(UsageError, match="naip has samples of uint16: say which value is white"):
        encoder._high(Named((), "uint16"), "naip")


@pytest.mark.parametrize(
    "setting",
    [
        "batch=0", "batch=100000000000", "window_m=-1", "window_m=1", "window_m=9.9",
        "window_m=1e7", "low=5,high=5", "tokens=some", "precision=int8",
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(setting: str) -> None:
    with pytest.raises(UsageError, match="does not fit"):
        load_encoder("vit", setting.split(","))


def test_windows_smaller_than_a_pixel_are_refused(folders: dict[str, Path], tiny: Build) -> None:
    builder = tiny(2, 2)
    builder.pixels("sentinel2", np.zeros((3, 4, 4), np.uint16))
    city, places = builder.open()
    with pytest.raises(UrbanError, match="pixels of 150 m are too coarse for windows of 60 m: "):
        made("vit", folders["vit"], window_m=60.0).encode(city, "sentinel2", places, {})


def test_scaling_is_as_set(folders: dict[str, Path], town: tuple[CityLayers, Places]) -> None:
    city, places = town
    usual, same, other = (
        made("vit", folders["vit"], **more).encode(city, "sentinel2", places, {}).values
        for more in ({}, {"high": 3000}, {"low": 500, "high": 2000})
    )
    np.testing.assert_array_equal(usual, same)
    assert (usual != other).any()


# --- the model's own preprocessing -----------------------------------------------------------


def test_the_preprocessor_of_the_model_decides(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "dino"
    folder.mkdir()
    for file in folders["dino"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    says = {
        "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 2,
        "crop_size": {"height": 16, "width": 16}, "size": {"shortest_edge": 18},
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(says))
    vision = made("dino", folder).opened()
    assert (vision.side_px, vision.patch_px, vision.resampling) == (16, 8, "bilinear")
    assert vision.constants == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    (folder / "preprocessor_config.json").write_text('{"do_normalize": false, "size": 24}')
    assert made("dino", folder).opened().constants == ((0.0,) * 3, (1.0,) * 3)
    assert made("dino", folder).opened().side_px == 24


@pytest.mark.parametrize("name", ["clip", "dino"])
@pytest.mark.parametrize(
    ("says", "told"),
    [
        ({"image_mean": None}, "image_mean is None, not a list"),
        ({"image_mean": ["a", "b", "c"]}, "could not convert"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std is"),
        ({"image_mean": [0.5, 0.5]}, "its means are of 2 bands"),
        ({"resample": [3]}, "unhashable"),
    ],
)
def test_a_preprocessor_that_makes_no_sense_is_told_on_one_line(
    folders: dict[str, Path], tmp_path: Path, name: str, says: dict[str, Any], told: str
) -> None:
    folder = shutil.copytree(folders[name], tmp_path / name)
    (folder / "preprocessor_config.json").write_text(json.dumps(says))
    with pytest.raises(UrbanError, match=f"{told}.*: mend its preprocessor_config") as raised:
        made(name, folder).opened()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("size", [{"longest_edge": 224}, {"height": "x"}, [[]], -8, "224"])
def test_a_size_that_is_no_side_is_told(
    folders: dict[str, Path], tmp_path: Path, size: Any
) -> None:
    folder = shutil.copytree(folders["dino"], tmp_path / "dino")
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": size}))
    with pytest.raises(UrbanError, match=r"is no side of a square.*: mend its preprocessor_config"):
        made("dino", folder).opened()


@pytest.mark.parametrize("name", ["clip", "vit"])
def test_another_number_of_bands_is_told_before_the_model_is_loaded(
    folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    folder = shutil.copytree(folders[name], tmp_path / name)
    (folder / "model.safetensors").write_bytes(b"cannot be loaded")
    with pytest.raises(UsageError, match=r"takes 3 bands, not 1 \(red\): set bands="):
        made(name, folder, bands=("red",)).opened()


def test_photos_are_cut_to_their_middle_square(folders: dict[str, Path]) -> None:
    import torch

    rng = np.random.default_rng(1)
    photos = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((32, 50, 3), (40, 32, 3))]
    vision = made("clip", folders["clip"]).opened()
    found = vision.embed_photos(photos, batch=1)
    for photo, vector in zip((photos[0][:, 9:41], photos[1][4:36]), found, strict=True):
        image = torch.from_numpy(photo.transpose(2, 0, 1) / np.float32(255))[None]
        mean, std = (torch.tensor(part)[:, None, None] for part in CONSTANTS["clip"])
        wanted = direct("clip", folders["clip"], (image - mean) / std)[0]
        np.testing.assert_array_equal(vector, wanted)
    np.testing.assert_allclose(vision.embed_photos(photos), found, atol=1e-6)


# --- batches, precision, caches --------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_place_hardly_depends_on_its_batch(
    name: str, folders: dict[str, Path], town: tuple[CityLayers, Places]
) -> None:
    city, places = town
    alone, some, whole = (
        made(name, folders[name], batch=batch).encode(city, "sentinel2", places, {}).values
        for batch in (1, 4, 64)
    )
    np.testing.assert_allclose(alone, whole, atol=3e-6)
    np.testing.assert_allclose(some, whole, atol=3e-6)
    last = made(name, folders[name]).encode(city, "sentinel2", places.take([5, 2]), {})
    np.testing.assert_array_equal(last.values, alone[[5, 2]])


def test_bf16_is_close(folders: dict[str, Path], town: tuple[CityLayers, Places]) -> None:
    city, places = town
    exact, rough = (
        made("vit", folders["vit"], precision=precision)
        .encode(city, "sentinel2", places, {})
        .values
        for precision in ("float32", "bf16")
    )
    assert rough.dtype == np.float32
    assert 0 < np.abs(exact - rough).max() < 0.05 * np.abs(exact).max()


def test_a_run_finds_its_encoder_again_and_no_file_tells_a_path(
    folders: dict[str, Path], town: tuple[CityLayers, Places], tmp_path: Path
) -> None:
    city, places = town
    chosen = load_encoder("vit", [f"model={folders['vit']}", "bands=b0,b1,b2", "window_m=600"])
    facts = json.loads(json.dumps(chosen.facts("sentinel2")))
    assert facts["window_m"] == 600
    assert facts["config"]["model"].startswith("vit@sha256:")
    again = encoder_of(facts)
    assert again.facts("sentinel2") == chosen.facts("sentinel2")
    marks = [fit_encoders(city, "sentinel2", places, (one,)) for one in (chosen, again)]
    assert marks[0] == marks[1]
    first = encode_cached(city, "sentinel2", places, (chosen,), *marks[0])
    folders_made = sorted((tmp_path / "data/tiny/tokens").iterdir())
    second = encode_cached(city, "sentinel2", places, (again,), *marks[1])
    assert sorted((tmp_path / "data/tiny/tokens").iterdir()) == folders_made
    np.testing.assert_array_equal(first.values, second.values)
    for path in (tmp_path / "data").rglob("*"):
        assert path.is_dir() or str(folders["vit"].parent).encode() not in path.read_bytes()
    assert str(folders["vit"].parent) not in json.dumps(facts) + chosen.title


def test_other_weights_or_settings_make_another_fingerprint(
    folders: dict[str, Path], town: tuple[CityLayers, Places], tmp_path: Path
) -> None:
    city, places = town
    folder = tmp_path / "vit"
    marks = set()
    for seed in (7, 8):
        import torch
        from transformers import ViTConfig, ViTModel

        torch.manual_seed(seed)
        ViTModel(ViTConfig(**SMALL)).save_pretrained(folder)
        for more in ([], ["tokens=mean"], ["high=2000"]):
            chosen = load_encoder("vit", [f"model={folder}", *more])
            marks.add(fit_encoders(city, "sentinel2", places, (chosen,))[1])
    assert len(marks) == 6


def test_maps_of_three_sizes_are_concatenated_or_one_bag(
    folders: dict[str, Path], tiny: Build
) -> None:
    import shapely

    builder = tiny(2, 1)
    builder.entities("entities", [shapely.box(50, 50, 200, 250)], [{"building": "yes"}])
    city, places = builder.open()
    found = {
        kind: made("mae", folders["mae"], tokens=kind, bands=("red", "green", "blue"), window_m=0)
        for kind in ("mean", "patches")
    }
    assert found["mean"].reach_m("basemap") == 1200
    mean = found["mean"].encode(city, "basemap", places, {})
    bag = found["patches"].encode(city, "basemap", places, {})
    assert mean.values.shape == (len(places), 3 * 16)
    assert (np.diff(bag.offsets) == 3 * ACROSS**2).all()
    parts = bag.values.reshape(len(places), 3, ACROSS**2, 16).mean(axis=2)
    np.testing.assert_allclose(mean.values, parts.reshape(len(places), -1), atol=1e-6)
    sizes = bag.positions[:: ACROSS**2, 2] - bag.positions[:: ACROSS**2, 0]
    np.testing.assert_allclose(sizes[:3] * 300 * ACROSS, [300, 600, 1200], rtol=1e-5)


def test_the_width_of_the_default_model_is_known_beforehand() -> None:
    for name, width in (("clip", 768), ("mae", 768), ("dino", 768), ("vit", 768), ("ssl4eo", 384)):
        encoder = load_encoder(name).encoder
        assert {encoder.width(m) for m in encoder.modalities if m != "basemap"} == {width}
        assert encoder.licence
    assert load_encoder("mae").encoder.width("basemap") == 2304
    assert load_encoder("mae", ["model=org/other"]).encoder.width("naip") is None


# --- SSL4EO-S12 ------------------------------------------------------------------------------


def timm_names(model: Any) -> dict[str, Any]:
    """Return the tensors of transformers' ViT under timm's names, by hand."""
    import torch

    old = model.state_dict()
    new = {
        "cls_token": old["embeddings.cls_token"],
        "pos_embed": old["embeddings.position_embeddings"],
        "patch_embed.proj.weight": old["embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": old["embeddings.patch_embeddings.projection.bias"],
        "norm.weight": old["layernorm.weight"],
        "norm.bias": old["layernorm.bias"],
    }
    for number in range(model.config.num_hidden_layers):
        at = f"layers.{number}"
        for end in ("weight", "bias"):
            three = [old[f"{at}.attention.{which}_proj.{end}"] for which in "qkv"]
            new[f"blocks.{number}.attn.qkv.{end}"] = torch.cat(three)
            for theirs, ours in (
                ("attn.proj", "attention.o_proj"), ("norm1", "layernorm_before"),
                ("norm2", "layernorm_after"), ("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2"),
            ):  # fmt: skip
                new[f"blocks.{number}.{theirs}.{end}"] = old[f"{at}.{ours}.{end}"]
    return {name: tensor.clone() for name, tensor in new.items()}


@pytest.fixture
def thirteen(tmp_path: Path) -> tuple[Path, Path]:
    """Return a ViT of 13 channels as transformers and as timm save it."""
    import torch
    from safetensors.torch import save_file
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(3)
    wide = {**SMALL, "hidden_size": 128, "num_channels": 13, "layer_norm_eps": 1e-6}
    model = ViTModel(ViTConfig(**wide), add_pooling_layer=False)
    _weights.hush()
    model.save_pretrained(tmp_path / "ours")
    (tmp_path / "timm").mkdir()
    save_file(timm_names(model), tmp_path / "timm/model.safetensors")
    return tmp_path / "ours", tmp_path / "timm"


def test_ssl4eo_divides_by_10000_and_has_no_cirrus(
    thirteen: tuple[Path, Path], tiny: Build
) -> None:
    import torch
    import transformers as hf

    builder = tiny(2, 1)
    builder.pixels("sentinel2", layer(12, 32, 64))
    city, places = builder.open()
    bands = (*(f"b{n}" for n in range(10)), "B10", "b10", "b11")
    settings = {"bands": bands, "window_m": 300.0}
    found = [
        made("ssl4eo", folder, **settings).encode(city, "sentinel2", places, {})
        for folder in thirteen
    ]
    np.testing.assert_array_equal(found[0].values, found[1].values)
    model = hf.ViTModel.from_pretrained(thirteen[0], add_pooling_layer=False).eval()
    for number in range(2):
        samples, _ = city.pixels("sentinel2").window(places.x[number], places.y[number], 300.0)
        whole = np.insert(samples.astype(np.float32) / np.float32(10000), 10, 0, axis=0)
        with torch.inference_mode():
            wanted = model(torch.from_numpy(whole)[None]).last_hidden_state[0, 0]
        np.testing.assert_array_equal(found[0].values[number], wanted.numpy())


def test_ssl4eo_of_other_files_says_what_it_wants(
    thirteen: tuple[Path, Path], tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    with pytest.raises(
        UrbanError, match=r"published as a pickle only .* --encoder sentinel2=ssl4eo"
    ):
        load_encoder("ssl4eo").encoder.weights()
    tensors = load_file(thirteen[1] / "model.safetensors")
    for change in ("norm.weight", "blocks.1.attn.qkv.bias", "patch_embed.proj.weight"):
        save_file(
            {name: value for name, value in tensors.items() if name != change},
            thirteen[1] / "model.safetensors",
        )
        with pytest.raises(UrbanError, match="neither a ViT of transformers nor one of timm"):
            made("ssl4eo", thirteen[1]).opened()
    save_file({**tensors, "surplus": tensors["cls_token"]}, thirteen[1] / "model.safetensors")
    with pytest.raises(UrbanError, match="neither a ViT of transformers nor one of timm"):
        made("ssl4eo", thirteen[1]).opened()


def test_ssl4eo_of_strange_tensors_says_what_it_wants(
    thirteen: tuple[Path, Path], tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(thirteen[1] / "model.safetensors")
    narrow = np.zeros((32, 13, PATCH, PATCH), np.float32)
    for number, (change, told) in enumerate([
        ({"patch_embed.proj.weight": narrow}, "its width of 32 is no multiple of 64"),
        ({"pos_embed": np.zeros(17, np.float32)}, "IndexError"),
        ({"patch_embed.proj.weight": np.zeros((128, 13, 0, 0), np.float32)}, "ZeroDivisionError"),
    ]):  # fmt: skip
        folder = tmp_path / str(number)
        folder.mkdir()
        save_file({**tensors, **change}, folder / "model.safetensors")
        with pytest.raises(UrbanError, match=f"nor one of timm .*{told}.*: give SSL4EO") as raised:
            made("ssl4eo", folder).opened()
        assert "\n" not in str(raised.value)
