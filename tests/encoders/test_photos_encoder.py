"""Photos through CLIP-type models: which photos of a place, their vectors, broken ones, circles."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import shapely
from PIL import Image

from urbancli.encoders import photos
from urbancli.encoders._weights import find
from urbancli.encoding import choose, encode_cached, fit_encoders
from urbancli.errors import UrbanError, UsageError
from urbancli.sources._streetview import STREETVIEW_SCHEMA
from urbancli.workspace import geo_table, write_table

Shot = tuple[str, float, float, bytes, bool]
"""Id, metres east and north of the city's south-west corner, JPEG, whether a panorama."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of random weights for photos of 32 pixels."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        image_size=32, patch_size=8, projection_dim=24,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("model") / "clip"
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(path)
    return path


def jpeg(seed: int, width: int = 32, height: int = 32) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return jpeg_of(noise)


def jpeg_of(pixels: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


def directly(folder: Path, image: bytes) -> npt.NDArray[np.float32]:
    """The vector of transformers of a photo that has the size of the model's input."""
    import torch
    import transformers

    pixels = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))
    model = transformers.CLIPVisionModelWithProjection.from_pretrained(folder).eval()
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    scaled = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
    with torch.no_grad():
        vector: npt.NDArray[np.float32] = model((scaled - mean)[None] / std).image_embeds[0].numpy()
    return vector


def town(tiny: Callable[..., Any], shots: list[Shot], **more: Any) -> Any:
    """(builder, city, its 3 × 2 tiles) with a layer of photos, ten to a row group."""
    builder = tiny(3, 2, **more)
    at = np.array([shot[1:3] for shot in shots]).reshape(-1, 2) + builder.corner()
    lon, lat = builder.grid.unproject(*at.T)
    facts: dict[str, Any] = {
        "photo_id": [shot[0] for shot in shots],
        "lon": lon.tolist(),
        "lat": lat.tolist(),
        "image": [shot[3] for shot in shots],
        "panorama": [shot[4] for shot in shots],
    }
    columns = {
        field.name: pa.array(facts.get(field.name, [None] * len(shots)), field.type)
        for field in STREETVIEW_SCHEMA
        if field.name not in {"bbox", "geometry"}
    }
    points = np.asarray(shapely.points(lon, lat), dtype=object)
    table = geo_table(columns, points).select(STREETVIEW_SCHEMA.names)
    write_table(builder.workspace.layer_file(builder.key, "streetview"), table, {}, rows=10)
    return builder, *builder.open()


# --- which photos ----------------------------------------------------------------------------


def test_a_photo_alone_is_bit_equal_to_transformers(tiny: Callable[..., Any], folder: Path) -> None:
    image = jpeg(1)
    _, city, places = town(tiny, [("a", 400, 100, image, False)])
    found = photos.Encoder(model=str(folder)).encode(city, "streetview", places, {})
    assert found.present.sum() == 1 and not found.bag
    np.testing.assert_array_equal(found.values[0], directly(folder, image))


def test_the_nearest_of_the_square_and_ties(tiny: Callable[..., Any], folder: Path) -> None:
    rng = np.random.default_rng(3)
    shots: list[Shot] = [
        (f"p{n:02d}", *rng.uniform(0, (900, 600)).tolist(), jpeg(n), False) for n in range(30)
    ]
    # As far as each other from the centre of the tile (0, 0), and the nearest there.
    shots += [("z", 150, 151, jpeg(90), False), ("y", 151, 150, jpeg(91), False)]
    builder, city, tiles = town(tiny, shots)
    points = builder.points([(150, 150), (300, 300), (20, 590), (600.0, 100)])
    vector = {shot[0]: directly(folder, shot[3]) for shot in shots}
    for places, window_m, count in ((tiles, 300.0, 3), (points, 420.0, 2), (points, 90.0, 4)):
        encoder = photos.Encoder(model=str(folder), window_m=window_m, photos=count, tokens="bag")
        found = encoder.encode(city, "streetview", places, {})
        spot = np.column_stack([places.x, places.y]) - builder.corner()
        for number, (x, y) in enumerate(spot):
            near = [
                (round(float(np.hypot(e - x, n - y)), 3), name, e, n)
                for name, e, n, _, _ in shots
                if -window_m / 2 <= e - x < window_m / 2 and -window_m / 2 <= n - y < window_m / 2
            ]
            near = sorted(near)[:count]
            part = slice(found.offsets[number], found.offsets[number + 1])
            assert found.present[number] == bool(near)
            wanted = np.array([vector[name] for _, name, _, _ in near]).reshape(-1, 24)
            np.testing.assert_allclose(found.values[part], wanted, atol=1e-5)
            box = [[(e - x) / 300 + 0.5, (n - y) / 300 + 0.5] * 4 for _, _, e, n in near]
            np.testing.assert_allclose(
                found.positions[part], np.array(box).reshape(-1, 8), atol=1e-5
            )
    near_centre = sorted(s[0] for s in shots if s[0] in "yz")
    found = photos.Encoder(model=str(folder), photos=1, tokens="bag", window_m=4.0).encode(
        city, "streetview", builder.points([(150, 150)]), {}
    )
    np.testing.assert_allclose(found.values, [vector[near_centre[0]]], atol=1e-5)


def test_the_mean_of_a_places_photos(tiny: Callable[..., Any], folder: Path) -> None:
    shots: list[Shot] = [(f"p{n}", 50 + n, 50, jpeg(n), False) for n in range(6)]
    builder, city, places = town(tiny, shots)
    found = photos.Encoder(model=str(folder)).encode(city, "streetview", places, {})
    corner = (builder.offsets(places) == 0).all(axis=1)
    assert found.present.tolist() == corner.tolist()
    # The nearest to (150, 150) are the four farthest east.
    wanted = np.mean([directly(folder, jpeg(n)) for n in (5, 4, 3, 2)], axis=0)
    np.testing.assert_allclose(found.values, [wanted], atol=1e-5)


def test_west_and_south_sides_count(tiny: Callable[..., Any], folder: Path) -> None:
    spots = {"w": (75, 150), "e": (225, 150), "s": (150, 75), "n": (150, 225)}
    shots: list[Shot] = [(k, *at, jpeg(n), False) for n, (k, at) in enumerate(spots.items())]
    builder, city, _ = town(tiny, shots)
    place = builder.points([(150, 150)])
    ids = np.array(list(spots))
    at = np.array(list(spots.values())) + np.array([place.x[0], place.y[0]]) - 150.0
    _, photo = photos.nearest(at, ids, place, 150.0, 4)
    assert ids[photo].tolist() == ["s", "w"]
    found = photos.Encoder(model=str(folder), window_m=151.0, tokens="bag")
    assert len(found.encode(city, "streetview", place, {}).values) == 4


# --- each once, broken ones ------------------------------------------------------------------


def test_each_photo_is_decoded_once(tiny: Callable[..., Any], folder: Path) -> None:
    shots: list[Shot] = [(f"p{n:02d}", 30 * n + 1, 300, jpeg(100 + n), False) for n in range(25)]
    _, city, tiles = town(tiny, shots)
    embedded = photos.Embedded(city, "streetview", find(str(folder)), "float32")
    rows = np.array([0, 3, 11, 24])
    ids = city_ids(city)
    first, whole = embedded.vectors(rows, ids[rows])
    assert embedded.decoded == 4 and whole.all()
    more = np.array([3, 4, 24])
    second, _ = embedded.vectors(more, ids[more])
    assert embedded.decoded == 5, "two of them were known"
    np.testing.assert_array_equal(second[[0, 2]], first[[1, 3]])
    again = photos.Embedded(city, "streetview", find(str(folder)), "float32")
    np.testing.assert_array_equal(again.vectors(rows, ids[rows])[0], first)
    assert again.decoded == 0, "the next block of places"
    # All tiles see all photos: 150 pairs.
    encoder = photos.Encoder(model=str(folder), window_m=2000.0, photos=25, tokens="bag")
    tokens = encoder.encode(city, "streetview", tiles, {})
    assert len(tokens.values) == 150 and len(np.unique(tokens.values, axis=0)) == 25


def city_ids(city: Any) -> npt.NDArray[np.str_]:
    from urbancli.workspace import read_table

    table, _ = read_table(city.workspace.layer_file(city.key, "streetview"), ["photo_id"])
    return table.column("photo_id").to_numpy(zero_copy_only=False).astype(str)


def test_what_is_remembered_is_bounded(
    tiny: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photos, "MEMORY_BYTES", 2 * 24 * 4)
    shots: list[Shot] = [(f"p{n}", 10 * n, 10, jpeg(200 + n), False) for n in range(5)]
    _, city, _ = town(tiny, shots)
    embedded = photos.Embedded(city, "streetview", find(str(folder)), "float32")
    ids = city_ids(city)
    first, _ = embedded.vectors(np.arange(5), ids)
    np.testing.assert_allclose(embedded.vectors(np.arange(5), ids)[0], first, atol=1e-6)
    assert embedded.decoded == 5 + 3


def test_broken_photos_are_missing_and_told(
    tiny: Callable[..., Any], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = jpeg(7)
    shots: list[Shot] = [
        ("cut", 150, 150, whole[:200], False),
        ("text", 160, 150, b"no photo", True),
        ("whole", 170, 150, whole, False),
        ("alone", 450, 150, b"", False),
    ]
    builder, city, places = town(tiny, shots)
    wanted = directly(folder, whole)
    for tokens in ("mean", "bag"):
        encoder = photos.Encoder(model=str(folder), tokens=tokens)  # type: ignore[arg-type]
        found = encoder.encode(city, "streetview", places, {})
        assert found.present.tolist() == (builder.offsets(places) == 0).all(axis=1).tolist()
        np.testing.assert_allclose(found.values, [wanted], atol=1e-6)
    (told,) = caplog.messages  # once: what is remembered is not told again
    assert told.startswith("3 of 4 photos cannot be decoded")


def test_a_block_without_any_photo_has_the_same_width(
    tiny: Callable[..., Any], folder: Path
) -> None:
    builder, city, _ = town(tiny, [("a", 10, 10, jpeg(1), False)])
    places = builder.points([(800, 500), (-50, -200)])
    for tokens, positions in (("mean", 0), ("bag", 8)):
        encoder = photos.Encoder(model=str(folder), tokens=tokens)  # type: ignore[arg-type]
        found = encoder.encode(city, "streetview", places, {})
        assert not found.present.any()
        assert found.values.shape == (0, 24) and found.positions.shape == (0, positions)


def test_other_models_of_images_serve(tiny: Callable[..., Any], tmp_path: Path) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        image_size=32, patch_size=8,
    )  # fmt: skip
    transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "vit")
    _, city, places = town(tiny, [("a", 400, 100, jpeg(1), False)])
    encoder = photos.Encoder(model=str(tmp_path / "vit"))
    assert encoder.encode(city, "streetview", places, {}).values.shape == (1, 16)


# --- panoramas -------------------------------------------------------------------------------


def sphere(height: int, width: int) -> npt.NDArray[np.float64]:
    """Directions (H, W, 3) that an equirectangular picture shows: right, up, ahead."""
    longitude = ((np.arange(width) + 0.5) / width - 0.5) * 2 * np.pi
    latitude = (0.5 - (np.arange(height) + 0.5) / height) * np.pi
    east, up = np.meshgrid(longitude, latitude)
    return np.dstack([np.sin(east) * np.cos(up), np.sin(up), np.cos(east) * np.cos(up)])


def test_level_views_look_where_a_camera_would() -> None:
    picture = np.rint(127.5 + 127.5 * sphere(256, 512)).astype(np.uint8)
    found = photos.level_views(picture)
    assert [view.shape for view in found] == [(128, 128, 3)] * 4
    u = (np.arange(128) + 0.5) / 64 - 1
    across, down = np.meshgrid(u, u)
    ahead = np.ones_like(across)
    for quarter, view in enumerate(found):
        turn = np.pi / 2 * quarter
        right = across * np.cos(turn) + ahead * np.sin(turn)
        front = ahead * np.cos(turn) - across * np.sin(turn)
        wanted = np.dstack([right, -down, front])
        wanted /= np.linalg.norm(wanted, axis=2, keepdims=True)
        np.testing.assert_allclose(view, 127.5 + 127.5 * wanted, atol=2)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (16, 64), (40, 64)])
def test_small_and_flat_panoramas(height: int, width: int) -> None:
    picture = np.full((height, width, 3), 77, np.uint8)
    found = photos.level_views(picture)
    assert len(found) == 4 and all((view == 77).all() and view.size for view in found)


def test_a_panorama_is_the_mean_of_its_views(tiny: Callable[..., Any], folder: Path) -> None:
    image = jpeg(5, 256, 128)
    _, city, places = town(
        tiny, [("round", 400, 100, image, True), ("b", 401, 100, jpeg(2), False)]
    )
    found = photos.Encoder(model=str(folder), tokens="bag").encode(city, "streetview", places, {})
    from urbancli.encoders._vision import KINDS, open_vision

    seen = photos.views(image, panorama=True)
    alone = open_vision(find(str(folder)), tuple(KINDS)).embed_photos(seen)
    wanted = [directly(folder, jpeg(2)), alone.mean(axis=0)]
    assert np.abs(alone[0] - alone[2]).max() > 1e-3
    np.testing.assert_allclose(found.values, wanted, atol=1e-5)


# --- as a user -------------------------------------------------------------------------------


def test_chosen_by_name(
    tiny: Callable[..., Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("URBAN_CACHE", str(tmp_path / "cache"))
    shots: list[Shot] = [(f"p{n:02d}", 30 * n + 1, 200, jpeg(n), False) for n in range(20)]
    _, city, places = town(tiny, shots)
    chosen = choose([f"streetview=photos:{folder},photos=2"])["streetview"]
    facts = chosen[0].facts("streetview")
    assert facts["window_m"] == 300 and str(folder) not in str(facts)
    state, mark = fit_encoders(city, "streetview", places, chosen)
    tokens = encode_cached(city, "streetview", places, chosen, state, mark)
    assert tokens.present.sum() == 2 and tokens.values.shape == (2, 24)


def test_a_city_without_photos_is_told(tiny: Callable[..., Any], folder: Path) -> None:
    builder = tiny(3, 2)
    builder.entities("entities", [shapely.Point(5, 5)], [{"amenity": "cafe"}])
    city, places = builder.open()
    with pytest.raises(UrbanError, match="no layer 'streetview': run `urban fetch"):
        photos.Encoder(model=str(folder)).encode(city, "streetview", places, {})


@pytest.mark.parametrize("setting", ["photos=0", "window_m=-1", "window_m=1e300", "tokens=all"])
def test_settings_out_of_range(setting: str) -> None:
    with pytest.raises(UsageError, match=setting.partition("=")[0]):
        choose([f"streetview=photos,{setting}"])
