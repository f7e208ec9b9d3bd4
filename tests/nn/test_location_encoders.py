"""Every location encoder by name: the contract, and each against a loop over its formula."""

import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod, Transformer
from torch import Tensor

from urbancli.errors import UsageError
from urbancli.nn._siren import Siren
from urbancli.nn.location import (
    LOCATION_ENCODERS,
    Capsules,
    Fourier,
    Grid,
    Location,
    LocationEncoder,
    SphericalHarmonics,
    geocentric,
    icosahedron_axes,
    location_encoder,
)

NAMES = sorted(LOCATION_ENCODERS)
SMALL: dict[str, dict[str, Any]] = {
    "capsules": {"frequencies": 8, "hidden": 8},
    "fourier": {"hidden": 8},
    "grid": {"hidden": 8},
    "spherical-harmonics": {"degrees": 12, "hidden": 8},
}
PLACES = torch.tensor(
    [[77.2, 28.6], [77.203, 28.6], [-74.0, 40.75], [180.0, 0.0], [12.0, 90.0], [-12.0, -90.0]],
    dtype=torch.float64,
)
TO_GEOCENTRIC = Transformer.from_crs(4979, 4978, always_xy=True)
EARTH = Geod(ellps="WGS84")

anywhere = st.tuples(st.floats(-180, 180), st.floats(-90, 90))


def build(name: str, **config: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return location_encoder(name, 5, **{**SMALL[name], **config})


def moved(lonlat: Tensor, azimuth: float, metres: float) -> Tensor:
    """Return the places a distance further, along a direction in degrees from north."""
    lon, lat = lonlat.T.numpy()
    ahead = EARTH.fwd(lon, lat, np.full(len(lon), azimuth), np.full(len(lon), metres))
    return torch.from_numpy(np.column_stack(ahead[:2]))


# --- the contract ----------------------------------------------------------------------------


def test_the_encoders_of_the_issue_are_there() -> None:
    assert NAMES == ["capsules", "fourier", "grid", "spherical-harmonics"]
    kinds = [type(location_encoder(name, 4)) for name in NAMES]
    assert kinds == [Capsules, Fourier, Grid, SphericalHarmonics]


@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_returns_finite_float32_of_its_width_everywhere(name: str) -> None:
    encoder = build(name).eval()
    found = encoder(PLACES)
    assert found.shape == (6, 5) and found.dtype == torch.float32
    assert bool(torch.isfinite(found).all())
    assert encoder(PLACES[:0]).shape == (0, 5)


@pytest.mark.parametrize("name", NAMES)
def test_a_place_has_one_code_whatever_else_is_in_the_batch(name: str) -> None:
    encoder = build(name).eval()
    whole = encoder(PLACES)
    for index in range(len(PLACES)):
        alone = encoder(PLACES[index : index + 1])
        torch.testing.assert_close(alone[0], whole[index], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_trained_and_the_state_is_the_whole_encoder(name: str) -> None:
    encoder = build(name).eval()
    encoder(PLACES).square().sum().backward()
    for key, parameter in encoder.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()), key
    torch.manual_seed(1)
    other = location_encoder(name, 5, **SMALL[name]).eval()
    assert not torch.equal(other(PLACES), encoder(PLACES))
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(other(PLACES), encoder(PLACES))


@pytest.mark.parametrize("name", ["fourier", "grid", "spherical-harmonics"])
def test_autocast_does_not_round_a_place(name: str) -> None:
    encoder = build(name).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encoder(PLACES), encoder(PLACES))
        rounded = encoder(PLACES)
    assert rounded.dtype == torch.float32 and torch.equal(rounded, encoder(PLACES))


@pytest.mark.parametrize("name", ["fourier", "grid", "spherical-harmonics"])
@pytest.mark.parametrize("lat", [-60.0, 0.0, 65.0])
def test_the_antimeridian_is_no_seam(name: str, lat: float) -> None:
    encoder = build(name).eval()
    sides = torch.tensor([[-180.0, lat], [180.0, lat]], dtype=torch.float64)
    west, east = encoder(sides)
    torch.testing.assert_close(west, east, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("fourir", {}, "unknown location encoder 'fourir': did you mean fourier"),
        ("fourier", {"longest": 1.0}, "unknown parameter of location encoder fourier 'longest'"),
        ("fourier", {"width": 0}, "width=0 does not fit: width is from 1"),
        ("fourier", {"scales": 1}, "scales=1 does not fit: scales is 2 to"),
        ("fourier", {"shortest_m": math.nan}, "shortest_m=nan does not fit"),
        ("fourier", {"longest_m": 200.0}, "longest_m is above shortest_m=300"),
        ("grid", {"longest_deg": 720.0}, "longest_deg is above shortest_deg=0.0027, to 360"),
        ("grid", {"shortest_deg": 0.0}, "shortest_deg is at least 1e-5"),
        ("spherical-harmonics", {"degrees": 101}, "degrees is from 1 to 100"),
        ("spherical-harmonics", {"dropout": 1.0}, "dropout is at least 0 and below 1"),
        ("spherical-harmonics", {"layers": 0}, "layers is from 1"),
        ("spherical-harmonics", {"first_frequency": 0.0}, "first_frequency is above 0"),
    ],
)
def test_what_does_not_fit_is_told(name: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        location_encoder(name, config.pop("width", 4), **config)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_defaults_are_as_published() -> None:
    torch.manual_seed(0)
    named = location_encoder("capsules", 6)
    torch.manual_seed(0)
    written = Capsules(6, (1.0, 16.0, 256.0), 256, 1024)
    assert torch.equal(named(PLACES), written(PLACES))
    network = location_encoder("spherical-harmonics", 256).network
    assert isinstance(network, Siren)
    assert [tuple(layer.weight.shape) for layer in network.layers] == [
        (256, 1600), (256, 256), (256, 256),
    ]  # fmt: skip
    assert (network.first_frequency, network.dropout) == (30.0, 0.5)


# --- fourier ---------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(anywhere)
def test_the_geocentric_position_is_that_of_proj(place: tuple[float, float]) -> None:
    found = geocentric(torch.tensor([place], dtype=torch.float64))[0]
    assert found.tolist() == pytest.approx(TO_GEOCENTRIC.transform(*place, 0.0), abs=1e-6)


def test_the_axes_are_alike() -> None:
    cosines = icosahedron_axes() @ icosahedron_axes().T
    assert cosines.diagonal().tolist() == pytest.approx([1.0] * 6)
    apart = cosines[~torch.eye(6, dtype=torch.bool)].abs()
    assert apart.tolist() == pytest.approx([1 / math.sqrt(5)] * 30)


def test_fourier_features_are_waves_in_metres() -> None:
    encoder = Fourier(width=4, shortest_m=300.0, longest_m=50_000.0, scales=5)
    found = encoder.features(PLACES)
    wavelengths = [300.0 * (50_000 / 300) ** (number / 4) for number in range(5)]
    for place, (lon, lat) in enumerate(PLACES.tolist()):
        position = TO_GEOCENTRIC.transform(lon, lat, 0.0)
        column = 0
        for wavelength in wavelengths:
            for axis in icosahedron_axes().tolist():
                along = sum(k * p for k, p in zip(axis, position, strict=True))
                phase = 2 * math.pi * along / wavelength
                # PROJ and we agree on a position to some nanometres.
                assert float(found[place, column]) == pytest.approx(math.cos(phase), abs=1e-7)
                assert float(found[place, 30 + column]) == pytest.approx(math.sin(phase), abs=1e-7)
                column += 1


@settings(max_examples=50, deadline=None)
@given(anywhere, st.floats(0, 360))
def test_a_step_changes_the_code_alike_everywhere_and_in_every_direction(
    place: tuple[float, float], azimuth: float
) -> None:
    """Σ (2π/λ)² Σ_k (k·t)² = 2 Σ (2π/λ)², so 10 m weigh the same wherever one goes."""
    encoder = Fourier(width=4, shortest_m=1000.0)
    start = torch.tensor([place], dtype=torch.float64)
    change = encoder.features(moved(start, azimuth, 10.0)) - encoder.features(start)
    wavelengths = [1000.0 * 50 ** (number / 15) for number in range(16)]
    wanted = math.sqrt(2 * sum((2 * math.pi * 10 / wavelength) ** 2 for wavelength in wavelengths))
    assert float(change.norm()) == pytest.approx(wanted, rel=2e-3)


def learnt(name: str, lonlat: Tensor, field: Tensor, **config: Any) -> float:
    """Return R² of a network at places left out, after some steps on the first three quarters."""
    torch.manual_seed(0)
    encoder = location_encoder(name, 1, **config)
    assert isinstance(encoder, LocationEncoder)
    features = encoder.features(lonlat).float()
    count = len(lonlat) * 3 // 4
    optimiser = torch.optim.Adam(encoder.parameters(), lr=3e-3)
    for _ in range(150):
        optimiser.zero_grad()
        (encoder.network(features[:count])[:, 0] - field[:count]).square().mean().backward()
        optimiser.step()
    with torch.no_grad():
        error = encoder(lonlat[count:])[:, 0] - field[count:]
    return 1 - float(error.square().sum() / field[count:].square().sum())


def test_fourier_learns_a_field_of_kilometres_to_which_the_harmonics_are_blind() -> None:
    generator = np.random.default_rng(0)
    offsets = generator.uniform(-8_000, 8_000, (800, 2))
    lon, lat, _ = EARTH.fwd(
        np.full(800, 77.2), np.full(800, 28.6), np.degrees(np.arctan2(*offsets.T)),
        np.hypot(*offsets.T),
    )  # fmt: skip
    lonlat = torch.from_numpy(np.column_stack([lon, lat]))
    along, across = torch.from_numpy(offsets).float().T * 2 * math.pi / 8000
    field = torch.sin(along) * torch.cos(across)
    assert learnt("fourier", lonlat, field) > 0.7
    assert learnt("spherical-harmonics", lonlat, field, degrees=20, dropout=0.0) < 0.2


# --- grid ------------------------------------------------------------------------------------


def test_grid_features_are_whole_waves_of_longitude_and_of_latitude() -> None:
    encoder = Grid(width=4, shortest_deg=0.7, longest_deg=360.0, scales=4)
    found = encoder.features(PLACES)
    waves = [round(360 / (0.7 * (360 / 0.7) ** (number / 3))) for number in range(4)]
    assert waves == [514, 64, 8, 1]
    for place, angles in enumerate(PLACES.tolist()):
        phases = [math.radians(angle) * wave for angle in angles for wave in waves]
        wanted = [math.cos(phase) for phase in phases] + [math.sin(phase) for phase in phases]
        assert found[place].tolist() == pytest.approx(wanted, abs=1e-11)


# --- SIREN -----------------------------------------------------------------------------------


def test_siren_is_sines_of_linear_layers_and_a_linear_one() -> None:
    torch.manual_seed(0)
    siren = Siren(3, 2, hidden=4, layers=2).eval()
    features = torch.randn(5, 3)
    layers = [(layer.weight.tolist(), layer.bias.tolist()) for layer in siren.layers]
    for row, found in zip(features.tolist(), siren(features).tolist(), strict=True):
        values = row
        for number, (weight, bias) in enumerate(layers):
            linear = [
                sum(w * v for w, v in zip(line, values, strict=True)) + b
                for line, b in zip(weight, bias, strict=True)
            ]
            factor = 30.0 if number == 0 else 1.0
            values = linear if number == 2 else [math.sin(factor * value) for value in linear]
        assert found == pytest.approx(values, abs=1e-5)


def test_siren_starts_uniform_within_its_bounds() -> None:
    torch.manual_seed(0)
    siren = Siren(400, 200, hidden=300)
    bounds = [1 / 400, math.sqrt(6 / 300), math.sqrt(6 / 300)]
    for layer, bound in zip(siren.layers, bounds, strict=True):
        for parameter in layer.parameters():
            assert bound * 0.95 < float(parameter.detach().abs().max()) <= bound
        weight = layer.get_parameter("weight").detach()
        assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_dropout_stands_before_the_sines_and_in_training_only() -> None:
    torch.manual_seed(0)
    siren = Siren(3, 64, hidden=64, layers=1, dropout=0.5)
    # The sine of what was dropped is 0: with an identity behind it, so is the output.
    with torch.no_grad():
        siren.layers[1].get_parameter("weight").copy_(torch.eye(64))
        siren.layers[1].get_parameter("bias").zero_()
    features = torch.randn(200, 3)
    share = float((siren(features) == 0).float().mean())
    assert share == pytest.approx(0.5, abs=0.02)
    siren.eval()
    assert torch.equal(siren(features), siren(features)) and bool((siren(features) != 0).all())


def test_a_config_may_name_every_encoder_and_no_other() -> None:
    assert set(get_args(Location)) == set(LOCATION_ENCODERS)
