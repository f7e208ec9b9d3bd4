"""The table of a fetch: nothing is left out unsaid, and the counts add up to the rows."""

import re
from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest
import shapely

from urbancli.city import City, box_area
from urbancli.fetching import fetch
from urbancli.labels.files import parse_label
from urbancli.report.fetched import LABEL_LEFT_OUT, LEFT_OUT, _counts, _label, _layer, render
from urbancli.sources.osm import Source as Osm
from urbancli.sources.pois import Source as Pois
from urbancli.workspace import Workspace


@pytest.fixture
def summary(tmp_path: Path) -> dict[str, Any]:
    """A city of one full corner: 1 POI in, 1 out, 1 nowhere; entities, and odd polygons."""
    pois = tmp_path / "p.csv"
    pois.write_text("id,lat,lon\na,50.001,9.001\na,50.001,9.002\nb,10,9\nc,,\n")
    osm = tmp_path / "o.osm"
    osm.write_text(
        '<osm version="0.6"><node id="1" lat="50.001" lon="9.001"><tag k="shop" v="x"/></node>'
        '<node id="2" lat="50.001" lon="9.001"><tag k="source" v="x"/></node>'
        '<node id="3" lat="40" lon="9"><tag k="shop" v="x"/></node></osm>'
    )
    bow = shapely.Polygon([(9.0, 50.0), (9.01, 50.01), (9.01, 50.0), (9.0, 50.01)])
    shapes = [bow, shapely.box(9.0, 50.0, 9.01, 50.01), shapely.box(0, 0, 1, 1), None]
    frame = gpd.GeoDataFrame(
        {"s_a": [1.0, 2.0, 0.0, 1.0], "s_b": [1.0, 1.0, 1.0, 0.0], "n": [None, 1.0, 2.0, 3.0]},
        geometry=shapes, crs=4326,
    )  # fmt: skip
    frame.to_file(tmp_path / "l.gpkg")
    labels = [f"c={tmp_path / 'l.gpkg'}:s_*", f"n={tmp_path / 'l.gpkg'}:n"]
    city = City("town", box_area((9.0, 50.0, 9.03, 50.02)), 32632, "bbox")
    specs = [parse_label(label) for label in labels]
    return fetch(Workspace(tmp_path), city, [Osm(osm), Pois(pois)], specs)


def _numbers(text: str) -> int:
    return sum(int(number) for number in re.findall(r"\d+", text))


def test_what_was_read_less_what_was_left_out_is_there(summary: dict[str, Any]) -> None:
    files = [(facts, _layer(facts)) for facts in summary["layers"].values()]
    files += [(facts, _label(facts)) for facts in summary["labels"].values()]
    for facts, (what, left_out, _) in files:
        read = int(re.search(r"(\d+) read", what)[1])
        assert read - _numbers(left_out) == facts["rows_in_file"]
    assert {facts["rows_in_file"] for facts, _ in files} == {1, 2}


def test_all_that_happened_is_printed(
    summary: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    render(summary)
    printed = " ".join(capsys.readouterr().out.split())
    assert "% of the tiles hold any entity" in printed
    assert "extract of a part" in printed
    left = _counts(summary["labels"]["n"], LABEL_LEFT_OUT)
    assert left == "1 outside the city, 1 without geometry"
    assert _counts(summary["layers"]["entities"], LEFT_OUT) == (
        "1 outside the city, 1 with metadata tags only"
    )
    for words in ("without a value", "repaired", "tied", "made unique"):
        changed = [_label(facts)[2] for facts in summary["labels"].values()]
        changed += [_layer(facts)[2] for facts in summary["layers"].values()]
        assert any(words in text for text in changed), words


def test_layers_say_what_was_read_otherwise(
    summary: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    facts = {"bands": ["r"], "dtype": "uint8", "pixel_m": 10.0, "native_m": 9.0, "rows_in_file": 3}
    odd = {**facts, "mask_band": 4, "hidden_inputs": ["b.tif"]}
    render({**summary, "layers": {"sentinel2": odd, "naip": facts}})
    printed = " ".join(capsys.readouterr().out.split())
    assert "layers/sentinel2: band 4 is alpha" in printed
    assert "b.tif wholly under earlier files" in printed
    assert "layers/naip:" not in printed
