"""Coordinates come as float64 degrees, longitude first."""

from collections.abc import Callable
from typing import Any

import numpy as np

from urbancli.encoding import choose, fit_encoders, load_encoder, reach_of
from urbancli.grid import Grid, point_places
from urbancli.layers import CityLayers
from urbancli.workspace import Workspace


def test_tiles_and_points_give_lon_lat(tiny: Callable[..., Any]) -> None:
    city, tiles = tiny(3, 2).open()
    lon, lat = np.array([77.2090001, 77.3]), np.array([28.6139002, 28.5])
    for places in (tiles, point_places(lon, lat, city.grid)):
        tokens = load_encoder("coords").encoder.encode(city, "coords", places, {})
        assert tokens.values.dtype == np.float64
        assert tokens.present.all() and not tokens.bag
        east, north = city.grid.project(*tokens.values.T)
        np.testing.assert_allclose(np.column_stack([east, north]), np.c_[places.x, places.y])
    np.testing.assert_allclose(tokens.values, np.column_stack([lon, lat]), atol=1e-10)


def test_a_city_needs_no_layer_and_no_state(tmp_path: Any) -> None:
    city = CityLayers(Workspace(tmp_path), "nowhere", Grid(32733))
    places = point_places([18.42], [-33.92], city.grid)
    state, _ = fit_encoders(city, "coords", places, choose()["coords"])
    tokens = load_encoder("coords").encoder.encode(city, "coords", places, state)
    np.testing.assert_allclose(tokens.values, [[18.42, -33.92]], atol=1e-10)
    assert reach_of(choose()["coords"], "coords") == 0
