"""POIs as UrbanFusion's text, and texts through sentence encoders, against transformers itself."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from tests.encoders.tiny_texts import save_sentence_model
from urbancli.encoders import sentences
from urbancli.encoders._texts import SentenceModel, batches
from urbancli.encoders._weights import find
from urbancli.encoding import choose, encode_cached, encoder_of, fit_encoders
from urbancli.errors import UrbanError, UsageError

CLS = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "include_prompt": True}
MEAN = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}

POIS = [
    (shapely.Point(150, 150), {"amenity": "cafe", "name": "Blue Door"}),
    (shapely.Point(150, 190), {"amenity": "bench"}),
    (shapely.Point(150, 110), {"shop": "yes", "name": "Two\n words"}),
    (shapely.Point(450, 150), {"category": "leisure=horse_riding", "name": "Élan"}),
    (shapely.Point(351, 150), {"name": "kind unknown", "amenity": "no"}),
    (shapely.box(880, 560, 900, 580), {"amenity": "fast_food", "name": ""}),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sentence_model(tmp_path_factory.mktemp("model") / "bert", CLS)


def directly(
    folder: Path, texts: Sequence[str], pool: str = "cls", longest: int = 128
) -> npt.NDArray[np.float32]:
    """The vectors of transformers, all texts in one batch."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    batch = tokenizer(
        list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt"
    )
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    if pool == "cls":
        pooled = hidden[:, 0]
    else:
        pooled = torch.stack([
            own[mask.bool()].mean(dim=0)
            for own, mask in zip(hidden, batch["attention_mask"], strict=True)
        ])  # fmt: skip
    found: npt.NDArray[np.float32] = (pooled / pooled.norm(dim=1, keepdim=True)).numpy()
    return found


# --- the text --------------------------------------------------------------------------------


def test_the_text_has_the_form_of_the_paper() -> None:
    pois = [("Blue Door", "cafe", 12.4), ("unnamed", "bench", 99.5), ("X", "books", 100.5)]
    assert sentences.prompt(pois) == (
        "Nearby OSM points of interest are:\n"
        "Blue Door (type: cafe) with distance 12m,\n"
        "unnamed (type: bench) with distance 100m,\n"
        "X (type: books) with distance 100m,"
    )
    assert sentences.prompt([]) == "Nearby OSM points of interest are:"


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ({"amenity": "fast_food", "name": " A\tB\n"}, ("A B", "fast_food")),
        ({"shop": "yes"}, ("unnamed", "shop")),
        ({"name": "A"}, ("A", "unknown")),
        ({"amenity": "no", "tourism": "hotel", "name": ""}, ("unnamed", "hotel")),
        ({"category": "amenity=pub"}, ("unnamed", "pub")),
        ({"category": "wine bar"}, ("unnamed", "wine bar")),
    ],
)
def test_names_and_types(tags: dict[str, str], wanted: tuple[str, str]) -> None:
    assert sentences.named_kind(tags) == wanted


def city_of(tiny: Callable[..., Any], shapes: list[Any], layer: str = "pois") -> Any:
    builder = tiny(4, 2)
    builder.entities(layer, [shape for shape, _ in shapes], [tags for _, tags in shapes])
    return builder, *builder.open()


def test_texts_of_places(tiny: Callable[..., Any]) -> None:
    builder, city, _ = city_of(tiny, POIS)
    places = builder.points([(150, 150), (890, 370.2), (890, 369.5), (450, 150), (1100, 100)])
    found = sentences.texts(city.entities("pois"), places, 400, 15)
    header = "Nearby OSM points of interest are:"
    assert found[0].splitlines() == [
        header,
        "Blue Door (type: cafe) with distance 0m,",
        "unnamed (type: bench) with distance 40m,",
        "Two words (type: shop) with distance 40m,",
    ]
    assert found[1].splitlines() == [header, "unnamed (type: fast_food) with distance 200m,"]
    assert found[2] == header, "farther than 200 m"
    assert found[3].splitlines()[1:] == [
        "Élan (type: horse_riding) with distance 0m,",
        "kind unknown (type: unknown) with distance 99m,",
    ]
    assert found[4] == header


def test_no_more_than_the_nearest_and_ties_by_id(tiny: Callable[..., Any]) -> None:
    east = [(shapely.Point(150 + n, 150), {"shop": "x", "name": f"n{n}"}) for n in range(20)]
    same = [(shapely.Point(150, 30), {"shop": "x", "name": f"t{n}"}) for n in range(12)]
    builder, city, _ = city_of(tiny, [*east[::-1], *same])
    table = city.entities("pois")
    (text,) = sentences.texts(table, builder.points([(149, 150)]), 400, 15)
    wanted = [f"n{n} (type: x) with distance {n + 1}m," for n in range(15)]
    assert text.splitlines()[1:] == wanted
    (text,) = sentences.texts(table, builder.points([(150, 20)]), 100, 5)
    # Ids are way/20 … way/31, of the same number of digits.
    assert text.splitlines()[1:] == [f"t{n} (type: x) with distance 10m," for n in range(5)]
    turned = table.take(list(range(table.num_rows))[::-1])
    assert sentences.texts(turned, builder.points([(150, 20)]), 100, 5) == [text]


# --- the vectors -----------------------------------------------------------------------------


def test_one_place_is_bit_equal_to_transformers(tiny: Callable[..., Any], folder: Path) -> None:
    builder, city, _ = city_of(tiny, POIS)
    place = builder.points([(150, 150)])
    (text,) = sentences.texts(city.entities("pois"), place, 400, 15)
    encoder = sentences.Encoder(model=str(folder))
    found = encoder.encode(city, "pois", place, {})
    np.testing.assert_array_equal(found.values, directly(folder, [text]))
    assert found.values.dtype == np.float32 and not found.bag and found.present.all()


def test_places_are_vectors_of_their_texts(tiny: Callable[..., Any], folder: Path) -> None:
    _, city, tiles = city_of(tiny, POIS)
    encoder = sentences.Encoder(model=str(folder), window_m=600.0, nearest=3)
    found = encoder.encode(city, "pois", tiles, {})
    texts = sentences.texts(city.entities("pois"), tiles, 600, 3)
    assert len(set(texts)) > 4
    np.testing.assert_allclose(found.values, directly(folder, texts), atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(found.values, axis=1), 1, atol=1e-6)


def test_absent_and_empty_places(tiny: Callable[..., Any], folder: Path) -> None:
    builder, city, _ = city_of(tiny, POIS)
    places = builder.points([(-1, 150), (1100, 100), (1201, 599)])
    found = sentences.Encoder(model=str(folder)).encode(city, "pois", places, {})
    assert found.present.tolist() == [False, True, False]
    np.testing.assert_allclose(found.values, directly(folder, [sentences.HEADER]), atol=2e-6)
    nowhere = sentences.Encoder(model=str(folder)).encode(
        city, "pois", builder.points([(-1, 150)]), {}
    )
    assert nowhere.values.shape == (0, 32)


def test_a_city_without_pois_says_its_header(tiny: Callable[..., Any], folder: Path) -> None:
    _, city, tiles = city_of(tiny, [(shapely.box(0, 0, 9, 9), {"building": "yes"})], "entities")
    found = sentences.Encoder(model=str(folder)).encode(city, "pois", tiles, {})
    assert found.present.all() and len(np.unique(found.values, axis=0)) == 1


def test_repeated_texts_are_encoded_once(folder: Path) -> None:
    model = SentenceModel(find(str(folder)))
    texts = ["cafe", "name=a house", "cafe", "", "name=a house", "cafe"]
    found = model.vectors(texts)
    assert model.encoded == 3
    np.testing.assert_array_equal(found[[0, 1]], found[[2, 4]])
    np.testing.assert_allclose(found, directly(folder, texts), atol=2e-6)
    again = model.vectors(["highway=primary", "cafe"])
    assert model.encoded == 4, "remembered from before"
    np.testing.assert_array_equal(again[1], found[0])
    assert model.vectors([]).shape == (0, 32)


def test_what_is_remembered_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urbancli.encoders._texts.MEMORY_BYTES", 3 * 32 * 4)
    model = SentenceModel(find(str(folder)))
    texts = [f"name={n}" for n in range(9)]
    first = model.vectors(texts)
    np.testing.assert_allclose(model.vectors(texts[::-1])[::-1], first, atol=2e-6)
    assert model.encoded == 9 + 6, "the last three were remembered"


def test_many_lengths_in_several_batches(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urbancli.encoders._texts.BATCH_TOKENS", {"cpu": 64, "cuda": 64})
    texts = ["a" * (7 * n % 60) + f" {n}" for n in range(40)]
    model = SentenceModel(find(str(folder)))
    np.testing.assert_allclose(model.vectors(texts), directly(folder, texts), atol=2e-6)


def test_long_texts_are_cut_counted_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    short = save_sentence_model(tmp_path / "short", CLS, longest=16)
    model = SentenceModel(find(str(short)))
    texts = ["a " * 14, "a " * 15, "b " * 40, "cafe"]
    found = model.vectors(texts)
    assert model.longest == 16 and model.truncated == 2
    (told,) = caplog.messages
    assert told.startswith("2 of 4 texts are longer than the 16 tokens")
    np.testing.assert_allclose(found, directly(short, texts, longest=16), atol=2e-6)
    np.testing.assert_allclose(found[0], found[1], atol=2e-6)


@pytest.mark.parametrize("facts", [MEAN, {"pooling_mode": "mean"}])
def test_the_mean_of_tokens_where_the_folder_says_so(tmp_path: Path, facts: Any) -> None:
    mean = save_sentence_model(tmp_path / "mean", facts, pooler=False)
    texts = ["cafe", "name=a rather long house of interest", "x y"]
    found = SentenceModel(find(str(mean))).vectors(texts)
    np.testing.assert_allclose(found, directly(mean, texts, "mean"), atol=2e-6)
    assert np.abs(found - directly(mean, texts, "cls")).max() > 0.01


def test_the_setting_decides_over_the_folder(folder: Path, tiny: Callable[..., Any]) -> None:
    builder, city, _ = city_of(tiny, POIS)
    place = builder.points([(150, 150)])
    texts = sentences.texts(city.entities("pois"), place, 400, 15)
    found = sentences.Encoder(model=str(folder), pool="mean").encode(city, "pois", place, {})
    np.testing.assert_allclose(found.values, directly(folder, texts, "mean"), atol=2e-6)


@pytest.mark.parametrize(
    "facts", [None, {}, {"pooling_mode_max_tokens": True}, {**MEAN, "pooling_mode_cls_token": True}]
)
def test_a_folder_that_does_not_say_how_it_pools(tmp_path: Path, facts: Any) -> None:
    silent = save_sentence_model(tmp_path / "silent", facts)
    with pytest.raises(UsageError, match=r"silent.* pools .*pool=cls .*pool=mean") as raised:
        SentenceModel(find(str(silent)))
    assert "\n" not in str(raised.value)
    assert SentenceModel(find(str(silent)), "cls").vectors(["cafe"]).shape == (1, 32)


@pytest.mark.parametrize("mode", [["cls"], {"cls": True}, None, 3])
def test_a_pooling_of_another_type_is_not_known(tmp_path: Path, mode: Any) -> None:
    strange = save_sentence_model(tmp_path / "strange", {"pooling_mode": mode})
    with pytest.raises(UsageError, match=r"strange.* pools .*pool=cls .*pool=mean") as raised:
        SentenceModel(find(str(strange)))
    assert str(mode) in str(raised.value)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tokenizer_config.json", {"model_max_length": "a"}),
        ("tokenizer_config.json", {"model_max_length": -1}),
        ("tokenizer_config.json", {"model_max_length": [128]}),
        ("tokenizer_config.json", {"tokenizer_class": 5}),
        ("tokenizer.json", {"model": 7}),
        ("config.json", {"hidden_size": "x"}),
        ("config.json", {"num_attention_heads": 0}),
    ],
)
def test_strange_settings_are_told_on_one_line(
    tmp_path: Path, name: str, change: dict[str, Any]
) -> None:
    strange = save_sentence_model(tmp_path / "strange", CLS)
    facts = json.loads((strange / name).read_text())
    (strange / name).write_text(json.dumps({**facts, **change}))
    with pytest.raises(UrbanError, match=r"strange'.*: (mend|bring)") as raised:
        SentenceModel(find(str(strange)))
    assert "\n" not in str(raised.value)


def test_bfloat16_is_near_and_not_the_same(folder: Path) -> None:
    texts = ["cafe", "name=a house", "highway=primary"]
    weights = find(str(folder))
    exact = SentenceModel(weights).vectors(texts)
    rounded = SentenceModel(weights, precision="bf16").vectors(texts)
    assert rounded.dtype == np.float32
    np.testing.assert_allclose((rounded * exact).sum(axis=1), 1, atol=1e-2)
    assert (rounded != exact).any()


@pytest.mark.parametrize("kind", ["Roberta", "DistilBert", "MPNet", "ModernBert"])
def test_other_kinds_of_sentence_encoders(tmp_path: Path, folder: Path, kind: str) -> None:
    import torch
    import transformers

    config = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "dim": 32}
    config |= {"n_layers": 1, "n_heads": 4, "hidden_dim": 64, "intermediate_size": 64}
    known = {"vocab_size": 300, "max_position_embeddings": 40, "pad_token_id": 0}
    saved = save_sentence_model(tmp_path / "other", MEAN, longest=200)
    torch.manual_seed(1)
    made = getattr(transformers, f"{kind}Config")(**config, **known)
    model = getattr(transformers, f"{kind}Model")(made).eval()
    model.save_pretrained(saved)
    text = "cafe of interest"
    tokens = transformers.AutoTokenizer.from_pretrained(saved)(text, return_tensors="pt")
    with torch.no_grad():
        hidden = model(tokens["input_ids"], tokens["attention_mask"]).last_hidden_state[0]
    wanted = torch.nn.functional.normalize(hidden.mean(dim=0), dim=0).numpy()
    encoder = SentenceModel(find(str(saved)))
    np.testing.assert_allclose(encoder.vectors([text])[0], wanted, atol=1e-6)
    assert np.isfinite(encoder.vectors(["a " * 150])).all(), "as long as the model can read"
    assert encoder.longest <= 40 and encoder.truncated == 1


def test_other_models_and_broken_folders_are_told(tmp_path: Path, folder: Path) -> None:
    import transformers

    t5 = tmp_path / "t5"
    config = transformers.T5Config(d_model=8, d_ff=8, num_layers=1, num_heads=2, vocab_size=20)
    transformers.T5EncoderModel(config).save_pretrained(t5)
    with pytest.raises(UsageError, match="'t5'"):
        SentenceModel(find(str(t5)), "mean")
    bare = save_sentence_model(tmp_path / "bare", CLS)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (bare / name).unlink()
    with pytest.raises(UrbanError, match="tokenizer") as raised:
        SentenceModel(find(str(bare)))
    assert "\n" not in str(raised.value)


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 120))
def test_batches_hold_every_text_once_within_their_size(lengths: list[int], tokens: int) -> None:
    made = list(batches(lengths, tokens))
    assert sorted(number for batch in made for number in batch) == list(range(len(lengths)))
    in_order = [lengths[number] for batch in made for number in batch]
    assert in_order == sorted(lengths)
    for batch in made:
        assert len(batch) == 1 or len(batch) * max(lengths[n] for n in batch) <= tokens


# --- as a user -------------------------------------------------------------------------------


def test_chosen_by_name_and_kept_without_a_path(
    tiny: Callable[..., Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("URBAN_CACHE", str(tmp_path / "cache"))
    _, city, tiles = city_of(tiny, POIS)
    encoders = choose([f"pois=sentences:{folder},nearest=5"])["pois"]
    state, mark = fit_encoders(city, "pois", tiles, encoders)
    tokens = encode_cached(city, "pois", tiles, encoders, state, mark)
    facts = encoders[0].facts("pois")
    assert facts["window_m"] == 400 and facts["weights"] == find(str(folder)).sha256
    assert facts["config"]["model"].startswith("bert@sha256:")
    assert str(tmp_path) not in str(facts) and str(folder) not in str(facts)
    again = encoder_of(facts).encoder.encode(city, "pois", tiles, {})
    np.testing.assert_array_equal(again.values, tokens.values)


@pytest.mark.parametrize(
    "setting", ["nearest=0", "window_m=0", "window_m=1e300", "pool=max", "precision=int8"]
)
def test_settings_out_of_range(setting: str) -> None:
    with pytest.raises(UsageError, match=setting.partition("=")[0]):
        choose([f"pois=sentences,{setting}"])
