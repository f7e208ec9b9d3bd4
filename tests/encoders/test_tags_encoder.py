"""Tags by sentence encoder, by counts and by hashes, against loops over entities and tags."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from tests.encoders.tiny_texts import save_sentence_model
from urbancli.encoders import entities, tagcounts, tags
from urbancli.encoders._hashing import hash_words, text_grams
from urbancli.encoders._texts import SentenceModel
from urbancli.encoders._weights import find
from urbancli.encoding import choose, encode_cached, fit_encoders
from urbancli.errors import UsageError
from urbancli.workspace import geometries

SHAPES: list[tuple[Any, dict[str, str]]] = [
    (shapely.box(20, 30, 60, 50), {"building": "yes"}),
    (shapely.LineString([(10, 100), (850, 100)]), {"highway": "primary", "name": "High Street"}),
    (shapely.Point(450, 450), {"amenity": "cafe", "source": "survey"}),
    (shapely.Point(310, 450), {"tiger:reviewed": "no", "created_by": "x"}),
    (
        shapely.Polygon([(650, 350), (690, 370), (680, 390), (640, 370)]),
        {"building": "house", "import": "a", "source:date": "b", "yh:TYPE": "c", "a:b": "d"},
    ),
    (shapely.box(330, 330, 340, 350), {"building": "yes"}),
    (shapely.box(350, 330, 360, 350), {"building": "house"}),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pooling = {"pooling_mode_cls_token": True}
    return save_sentence_model(tmp_path_factory.mktemp("model") / "bert", pooling)


@pytest.fixture
def town(tiny: Callable[..., Any]) -> Any:
    """(builder, city, its 6 tiles)."""
    builder = tiny(3, 2)
    builder.entities("entities", [shape for shape, _ in SHAPES], [tag for _, tag in SHAPES])
    return builder, *builder.open()


def inside(city: Any, places: Any) -> list[list[int]]:
    """Which of SHAPES touch each place's square, in the order of the layer."""
    table = city.entities("entities")
    number = [int(name.removeprefix("way/")) for name in table.column("entity_id").to_pylist()]
    metres = city.grid.project_geometry(geometries(table))
    touched = [np.flatnonzero(shapely.intersects(metres, box)) for box in places.boxes()]
    return [[number[row] for row in rows.tolist()] for rows in touched]


# --- by sentence encoder ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        (SHAPES[1][1], ["highway=primary", "name=High Street"]),
        (SHAPES[2][1], ["amenity=cafe"]),
        (SHAPES[3][1], []),
        (SHAPES[4][1], ["building=house", "a:b=d"]),
        ({"resource": "x", "tiger": "y"}, ["resource=x", "tiger=y"]),
    ],
)
def test_texts_of_tags(given: dict[str, str], texts: list[str]) -> None:
    assert tags.tag_texts(given) == texts


def test_an_entity_is_the_sum_of_its_tags_vectors(town: Any, folder: Path) -> None:
    _, city, places = town
    tokens = tags.Encoder(model=str(folder)).encode(city, "entities", places, {})
    one = {
        text: SentenceModel(find(str(folder))).vectors([text])[0]
        for _, tag in SHAPES
        for text in tags.tag_texts(tag)
    }
    rows = [row for own in inside(city, places) for row in own]
    for value, row in zip(tokens.values, rows, strict=True):
        wanted = sum((one[text] for text in tags.tag_texts(SHAPES[row][1])), np.zeros(32))
        np.testing.assert_allclose(value, wanted, atol=5e-6)
    assert tokens.values.dtype == np.float32 and tokens.bag and tokens.present.all()
    empty = tokens.values[rows.index(3)]
    assert (empty == 0).all(), "nothing but editing: no text, as in GeoJEPA"


def test_where_and_which_as_of_the_encoder_entities(town: Any, folder: Path) -> None:
    builder, city, tiles = town
    points = builder.points([(500, 250), (40, 60), (-1, 60), (2000, 2000)])
    for places in (tiles, points):
        usual = entities.Encoder().encode(city, "entities", places, {})
        plain = tags.Encoder(model=str(folder)).encode(city, "entities", places, {})
        for name in ("offsets", "positions", "present"):
            np.testing.assert_array_equal(getattr(plain, name), getattr(usual, name))
        both = tags.Encoder(model=str(folder), shape=True).encode(city, "entities", places, {})
        np.testing.assert_array_equal(both.values[:, :32], plain.values)
        np.testing.assert_array_equal(both.values[:, 32:], usual.values[:, 128:])
        assert both.values.shape[1] == 32 + tags.SHAPE_WIDTH


def test_widths_are_told_of_the_default_model() -> None:
    assert tags.Encoder().width("entities") == 384
    assert tags.Encoder(shape=True).width("entities") == 384 + 55
    assert tags.Encoder(model="org/other").width("entities") is None


def test_a_city_of_no_such_entities(tiny: Callable[..., Any], folder: Path) -> None:
    builder = tiny(2, 1)
    builder.entities("entities", [shapely.Point(5, 5)], [{"amenity": "cafe"}])
    city, places = builder.open()
    for shape, width in ((False, 32), (True, 87)):
        encoder = tags.Encoder(model=str(folder), shape=shape)
        tokens = encoder.encode(city, "buildings", places, {})
        assert tokens.values.shape == (0, width) and tokens.present.all()


# --- without weights -------------------------------------------------------------------------

PAIRS = {
    0: ["building", "building=yes"],
    1: ["highway", "highway=primary", "name"],
    2: ["amenity", "amenity=cafe"],
    3: [],
    4: ["building", "building=house", "a:b", "a:b=d"],
    5: ["building", "building=yes"],
    6: ["building", "building=house"],
}
"""The words of each entity of SHAPES: no value of a name, nothing of the editing."""


def vocabulary(state: Any) -> list[str]:
    return state["vocabulary"].tobytes().decode().split("\0")


def test_counts_of_the_most_frequent_words(town: Any) -> None:
    _, city, places = town
    encoder = tagcounts.Encoder(size=4)
    state = encoder.fit(city, "entities", places, 0)
    have: Counter[str] = Counter()
    for rows in inside(city, places):
        have.update({word for row in rows for word in PAIRS[row]})
    ranked = sorted(have, key=lambda word: (-have[word], word))
    assert vocabulary(state) == ranked[:4]
    # In three tiles each, the street crosses them: before the two values of buildings.
    assert ranked[:4] == ["building", "highway", "highway=primary", "name"]
    found = encoder.encode(city, "entities", places, state)
    wanted = [
        [*(sum(PAIRS[row].count(word) for row in rows) for word in ranked[:4]), len(rows)]
        for rows in inside(city, places)
    ]
    np.testing.assert_allclose(np.expm1(found.values), wanted, atol=1e-5)
    assert not found.bag and found.values.dtype == np.float32
    assert max(row[0] for row in wanted) == 2, "two buildings in one tile"


def test_places_decide_what_is_frequent_not_entities(tiny: Callable[..., Any]) -> None:
    builder = tiny(2, 1)
    spots = [shapely.Point(x, 50) for x in (10, 20, 30, 40, 310, 50)]
    benches = [{"amenity": "bench"}] * 4
    builder.entities("entities", spots, [*benches, {"shop": "x"}, {"shop": "x"}])
    city, places = builder.open()
    state = tagcounts.Encoder(size=2).fit(city, "entities", places, 0)
    assert vocabulary(state) == ["shop", "shop=x"]


def test_a_vocabulary_is_of_the_fitted_places_alone(town: Any) -> None:
    builder, city, places = town
    encoder = tagcounts.Encoder()
    first = places.take((builder.offsets(places) == [0, 0]).all(axis=1))
    state = encoder.fit(city, "entities", first, 0)
    assert vocabulary(state) == ["building", "building=yes", "highway", "highway=primary", "name"]
    found = encoder.encode(city, "entities", places, state)
    assert found.values.shape == (6, 6)
    cafe = (builder.offsets(places) == [1, 1]).all(axis=1)
    np.testing.assert_allclose(np.expm1(found.values[cafe]), [[2, 1, 0, 0, 0, 4]], atol=1e-5)


def test_hashed_words_and_grams(town: Any) -> None:
    builder, city, tiles = town
    points = builder.points([(500, 250), (-1, 60), (40, 60)])
    encoder = tagcounts.Encoder(words="hashed", size=32)
    assert encoder.fit(city, "entities", tiles, 0) == {} and encoder.width("entities") == 33
    for places in (tiles, points):
        found = encoder.encode(city, "entities", places, {})
        wanted = np.zeros((len(places), 33))
        for number, rows in enumerate(inside(city, places)):
            for row in rows:
                # Of each tag also the grams of its longer word: a name's key, else key=value.
                longer = [w for w in PAIRS[row] if "=" in w or w == "name"]
                grams = [gram for word in longer for gram in text_grams(word)]
                for word in [*PAIRS[row], *grams]:
                    column, sign = hash_words([word], 32)
                    wanted[number, column[0]] += sign[0]
            wanted[number, 32] = len(rows)
        wanted = np.sign(wanted) * np.log1p(np.abs(wanted))
        np.testing.assert_allclose(found.values, wanted[found.present], atol=1e-6)
    assert found.present.tolist() == [True, False, True]


@pytest.mark.parametrize("words", ["frequent", "hashed"])
def test_a_city_without_entities_counts_none(tiny: Callable[..., Any], words: Any) -> None:
    builder = tiny(2, 1)
    builder.entities("entities", [shapely.Point(5, 5)], [{"amenity": "cafe"}])
    city, places = builder.open()
    encoder = tagcounts.Encoder(words=words, size=8)
    state = encoder.fit(city, "buildings", places, 0)
    found = encoder.encode(city, "buildings", places, state)
    assert found.present.all() and (found.values == 0).all()
    assert found.values.shape == (2, 1 if words == "frequent" else 9)


def test_a_vocabulary_serves_another_city(tiny: Callable[..., Any], town: Any) -> None:
    _, city, places = town
    chosen = choose(["entities=tagcounts,size=6"])["entities"]
    state, mark = fit_encoders(city, "entities", places, chosen)
    loaded, _ = fit_encoders(city, "entities", places, chosen)
    np.testing.assert_array_equal(loaded["vocabulary"], state["vocabulary"])
    builder = tiny(2, 1, key="other")
    builder.entities(
        "entities",
        [shapely.Point(5, 5), shapely.Point(6, 6)],
        [{"building": "yes"}, {"landuse": "grass"}],
    )
    other, elsewhere = builder.open()
    found = encode_cached(other, "entities", elsewhere, chosen, state, mark)
    words = vocabulary(state)
    wanted = np.zeros((2, 7))
    wanted[0, [words.index("building"), words.index("building=yes")]] = 1
    wanted[0, 6] = 2
    np.testing.assert_allclose(np.expm1(found.values), wanted, atol=1e-6)


@pytest.mark.parametrize("setting", ["size=0", "size=65537"])
def test_settings_out_of_range(setting: str) -> None:
    with pytest.raises(UsageError, match=setting):
        choose([f"entities=tagcounts,{setting}"])
