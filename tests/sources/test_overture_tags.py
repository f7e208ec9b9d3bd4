"""Overture's places and buildings in OSM's words, read from a local folder."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.world.overture_release import RELEASE, SOUTH, WEST, city, near, table_of, write_release
from urbancli.layers import entity_view, poi_category
from urbancli.licences import known_licences
from urbancli.sources import overture_buildings, overture_places
from urbancli.sources.overture_places import category_table, osm_tags


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.setenv("URBAN_OVERTURE_URL", str(tmp_path / "release"))
    return write_release(tmp_path / "release", RELEASE, WEST, SOUTH)


def test_places_speak_as_osm_does(release: list[dict[str, Any]], tmp_path: Path) -> None:
    source, places = overture_places.Source(save_in=tmp_path / "in"), city()
    source.plan(places)
    table, facts = table_of(source, places), source.facts(pa.table({}))
    given = {row["id"]: row for row in release if row["type"] == "place"}
    brute = {name: given[name] for name in near(release, "place", places)}
    closed = {n for n, row in brute.items() if row["operating_status"] != "open"}
    lakes = {n for n, r in brute.items() if r["taxonomy"]["primary"] == "lake"} - closed
    kinds = {
        "italian_restaurant": {"amenity": "restaurant", "cuisine": "italian"},
        "tatar_restaurant": {"amenity": "restaurant"},
        "florist": {"shop": "florist"},
        "quantum_bureau": {"office": "company"},
    }
    rows = table.to_pylist()
    for row in rows:
        raw = brute[row["entity_id"].removeprefix("poi/")]
        expected = dict(kinds[raw["taxonomy"]["primary"]])
        if raw["names"]:
            expected["name"] = raw["names"]["primary"]
        if raw["brand"]:
            expected |= {"brand": "Brand", "brand:wikidata": "Q1"}
        if raw["websites"]:
            expected["website"] = raw["websites"][0]
        assert dict(row["tags"]) == expected
        assert row["geometry"] == raw["geometry"]
    assert entity_view(table, "pois").num_rows == table.num_rows
    assert facts["counted"] == len(brute)
    assert facts["closed"] == len(closed) > 0
    assert facts["no_point_of_interest"] == len(lakes) > 0
    assert facts["kept"] + facts["outside"] == len(brute) - len(closed) - len(lakes)
    assert facts["kept"] == len(rows) > facts["halo"] > 0
    told = [each["dataset"] for row in brute.values() for each in row["sources"]]
    assert facts["datasets"] == {name: told.count(name) for name in ("Foursquare", "meta")}
    assert facts["unmapped"] == {"count": 0, "ids": [], "places": 0}
    assert source.licence == "CDLA-Permissive-2.0 AND Apache-2.0"
    assert known_licences(source.licence)
    assert RELEASE in source.attribution and "meta" in source.attribution


def test_what_the_table_does_not_know_is_counted(
    release: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {n: t for n, t in category_table().items() if n != "services_and_business"}
    monkeypatch.setattr(overture_places, "category_table", lambda: known)
    source, places = overture_places.Source(save_in=tmp_path / "in"), city()
    source.plan(places)
    table = table_of(source, places)
    unmapped = source.facts(pa.table({}))["unmapped"]
    assert unmapped["ids"] == ["quantum_bureau"] and unmapped["places"] > 0
    named = [dict(tags).get("category") for tags in table.column("tags").to_pylist()]
    assert named.count("quantum_bureau") > 0
    assert set(named) == {None, "quantum_bureau"}


def test_the_table_of_categories() -> None:
    """Every row begins with a kind or is no point of interest; what is most frequent is there."""
    table = category_table()
    assert len(table) > 900
    no_kind = {name for name, tags in table.items() if poi_category(tags) is None}
    for name, tags in table.items():
        kind = poi_category(tags)
        assert kind is None or kind == "=".join(next(iter(tags.items()))), name
        assert all(key and value for key, value in tags.items()), name
    assert {"lake", "river", "mountain", "airport", "train_station", "apartment"} <= no_kind
    assert len(no_kind) < 50
    frequent = (
        "restaurant professional_service beauty_salon shopping hotel historic_site grocery_store "
        "clothing_store automotive_repair christian_place_of_worship social_or_community_service "
        "party_and_event_planning real_estate_service cafe school bar hair_salon spa coffee_shop "
        "real_estate_agent health_care gas_station auto_dealer gym government_office pharmacy bank "
        "bakery dental_clinic park hospital convenience_store furniture_store education atm "
        "elementary_school fast_food_restaurant pizza_restaurant religious_organization barber "
        "flowers_and_gifts_store travel_service bank_or_credit_union college_university "
        "doctors_office japanese_restaurant building_or_construction_service lodging supermarket"
    )
    assert set(frequent.split()) <= table.keys()
    assert osm_tags(["unheard_of", "sushi_restaurant"]) == {
        "amenity": "restaurant", "cuisine": "sushi"
    }  # fmt: skip
    assert osm_tags(["unheard_of"]) is None and osm_tags([]) is None


def test_buildings_speak_as_osm_does(release: list[dict[str, Any]], tmp_path: Path) -> None:
    source, places = overture_buildings.Source(save_in=tmp_path / "in"), city()
    source.plan(places)
    given = {row["id"]: row for row in release if row["type"] == "building"}
    table = table_of(source, places)
    seen = set()
    for row in table.to_pylist():
        raw = given[row["entity_id"].removeprefix("building/")]
        kinds = {"house": "house", "library": "public"}
        broad = {"residential": "residential", "agricultural": "farm_auxiliary", None: "yes"}
        expected = {"building": kinds.get(raw["class"]) or broad[raw["subtype"]]}
        expected["roof:shape"] = "gabled"
        if raw["names"]:
            expected["name"] = "Hall"
        if raw["num_floors"]:
            expected["building:levels"] = str(raw["num_floors"])
            expected["height"] = {1: "3.5", 2: "7", 3: "10.5"}[raw["num_floors"]]
        if raw["is_underground"]:
            expected["location"] = "underground"
        assert dict(row["tags"]) == expected
        seen.add(expected["building"])
    assert seen == {"house", "public", "residential", "farm_auxiliary", "yes"}
    assert entity_view(table, "buildings").num_rows == table.num_rows
    facts = source.facts(pa.table({}))
    assert facts["kept"] + facts["outside"] == facts["counted"]
    assert facts["with_levels"] == facts["with_height"] > 0
