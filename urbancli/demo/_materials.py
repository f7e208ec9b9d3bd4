"""What ground, plants and roofs look like from above: the spectra, and what the factors do to them.

Every number here is ours: plausible surface reflectances, after the general shapes that spectral
libraries show (red edge of plants, rising soils, black water), fixed for all scenes.
"""

import numpy as np
import numpy.typing as npt

from urbancli.demo.factors import SHARED

Single = npt.NDArray[np.float32]

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
"""The bands of a Sentinel-2 item, in the order of every spectrum here."""

SHORT_WAVE = ("B11", "B12")
"""The bands that moisture darkens."""

NAIP_BANDS = ("B04", "B03", "B02", "B08")
"""Red, green, blue and near infrared, in NAIP's order."""

_REGION = (0, 0, 1, 2, 2, 3, 3, 3, 3, 3, 4, 4)
"""Of each band: 0 blue, 1 green, 2 red, 3 near infrared, 4 short-wave infrared."""

GROUPS = ("water", "plants", "soil", "asphalt", "paving", "roof")
"""Materials that a factor changes alike."""

# name: (group, speckle, 100 × reflectance in BANDS). Speckle: deviation of log brightness
# between neighbouring pixels of 2.5 m.
_TABLE: dict[str, tuple[str, float, str]] = {
    "water": ("water", 0.02, "3.4 3.4 3.8 2.6 2.2 1.7 1.6 1.4 1.3 1.2 0.8 0.6"),
    "pool": ("water", 0.02, "22 26 27 11 7 4 3.5 3 2.5 2 1.0 0.8"),
    "lawn": ("plants", 0.05, "3.6 4.5 8.8 5.6 12 33 40 42 43 43 20 10"),
    "grass": ("plants", 0.08, "3.8 4.8 8.6 7.4 13 27 32 34 35 35 24 14"),
    "hay": ("plants", 0.08, "5.6 7.2 11.2 12.8 17 24 27 29 31 31 32 22"),
    "wheat": ("plants", 0.05, "6.0 7.8 12.2 14.6 18 23 26 28 30 30 33 24"),
    "maize": ("plants", 0.07, "2.6 3.2 7.0 4.0 10 33 42 44 45 45 19 9"),
    "beet": ("plants", 0.06, "2.9 3.6 8.4 4.4 12 38 47 49 50 50 20 9"),
    "canopy": ("plants", 0.17, "1.9 2.3 4.6 2.7 7.4 25 32 34 35 35 15 6.6"),
    "crown": ("plants", 0.12, "2.1 2.6 5.2 3.0 8.2 26 33 35 36 36 16 7"),
    "scrub": ("plants", 0.16, "2.8 3.4 6.2 4.6 9.6 22 27 29 30 30 18 9"),
    "turf": ("plants", 0.03, "3.4 4.2 10.4 5.4 12 30 36 38 39 39 21 11"),
    "soil": ("soil", 0.06, "7.0 8.6 11.6 14.4 16.6 19 21 23 24 25 33 29"),
    "plough": ("soil", 0.06, "5.0 6.4 9.0 11.8 13.6 15 17 18 19 20 28 25"),
    "sand": ("soil", 0.05, "12 15 20 25 27 29 30 32 33 34 41 38"),
    "ballast": ("soil", 0.08, "8.0 8.8 10 11 11.6 12.4 13 13.6 14 14.4 18 17"),
    "clay": ("soil", 0.03, "6 7.0 9.4 20 23 26 28 29 30 31 36 32"),
    "asphalt": ("asphalt", 0.05, "7.2 8.0 8.9 9.5 9.9 10.3 10.7 11.1 11.4 11.7 13.4 12.6"),
    "yard": ("asphalt", 0.08, "8.8 9.8 11 11.8 12.4 12.9 13.4 13.9 14.2 14.5 16.6 15.6"),
    "pavement": ("paving", 0.05, "11 12.4 13.6 14.6 15.2 15.8 16.4 17 17.4 17.6 20 19"),
    "paving": ("paving", 0.06, "14 16.6 19 20.6 21.6 22.4 23.2 24 24.6 25 28.6 27"),
    "roof_tiles": ("roof", 0.06, "6.0 6.8 9.6 19 22 25 27 28 29 29 35 31"),
    "slate": ("roof", 0.04, "8.4 9.2 9.9 10.2 10.4 10.8 11.2 11.6 11.9 12.1 14 13.4"),
    "metal": ("roof", 0.04, "31 34 36 37 37.5 38 38.4 38.8 39 39 38 36"),
    "tar_paper": ("roof", 0.05, "5.6 6.0 6.4 6.7 6.9 7.1 7.3 7.5 7.6 7.7 8.4 8.2"),
    "concrete": ("roof", 0.05, "20 23 26 27.5 28.4 29.2 30 30.8 31.2 31.6 35 33"),
    "gravel": ("roof", 0.07, "14 16 18.2 19.8 20.6 21.4 22 22.8 23.2 23.6 27 26"),
    "green_roof": ("plants", 0.07, "4.2 5.2 8.8 7.6 12.6 22 26 28 29 29 24 15"),
    "copper": ("roof", 0.04, "14 18 21 13 12 12 12.4 13 13.4 13.6 17 15"),
    "glass": ("roof", 0.05, "13 14 14 12 11.4 11 10.8 10.6 10.4 10.2 9 8"),
    "wood": ("roof", 0.06, "5.4 6.8 9.2 12 14 17 19.6 21 22 23 28 23"),
    "car": ("roof", 0.60, "16 17 17 17 17 17 17 17 17 17 15 14"),
}

MATERIALS = tuple(_TABLE)

CODE = {name: code for code, name in enumerate(MATERIALS)}
"""Number of a material, as in rasters of materials."""

SPECTRA: Single = np.array(
    [[float(value) / 100 for value in row[2].split()] for row in _TABLE.values()], dtype=np.float32
).T.copy()
"""Reflectance, (12 bands, materials)."""

GROUP = np.array([GROUPS.index(row[0]) for row in _TABLE.values()], dtype=np.uint8)
"""Index into GROUPS, (materials,)."""

SPECKLE: Single = np.array([row[1] for row in _TABLE.values()], dtype=np.float32)
"""Deviation of log brightness, (materials,)."""

MOISTURE_DEPTH = 0.30
"""Log reflectance that short-wave bands lose per unit of moisture."""

SUNLESS = np.array([0.56, 0.50, 0.44, 0.40, 0.36], dtype=np.float32)
"""Brightness of shadow as a share of sunlit ground, by region of the spectrum: the sky is blue."""

# factor → group → change of log reflectance per unit in blue, green, red, near and short-wave
# infrared. Each factor points in a direction of its own, so that four bands tell them apart.
_EFFECTS: dict[str, dict[str, tuple[float, float, float, float, float]]] = {
    # Vigour of plants.
    "greenery": {
        "plants": (-0.05, -0.015, -0.085, 0.085, -0.025),
        "soil": (-0.02, 0.01, -0.05, 0.05, -0.015),
    },
    # Watered and mown: saturated green. Clean roofs and pavements.
    "affluence": {
        "plants": (0.0, 0.085, -0.015, 0.0, -0.04),
        "soil": (0.0, 0.05, 0.0, 0.0, 0.0),
        "asphalt": (0.015, 0.035, 0.015, 0.015, 0.015),
        "roof": (0.065, 0.085, 0.065, 0.065, 0.065),
    },
    # Worn asphalt is pale, old roofs are rusty and mossy, old swards full of bare stalks.
    "age": {
        "plants": (-0.01, 0.0, 0.085, 0.0, 0.025),
        "soil": (-0.02, 0.0, 0.07, 0.02, 0.02),
        "asphalt": (0.06, 0.08, 0.105, 0.1, 0.1),
        "paving": (-0.03, 0.0, 0.04, 0.02, 0.02),
        "roof": (-0.075, -0.02, 0.07, 0.03, 0.01),
    },
    # The haze of the centre is blue, on everything; its pavements are light.
    "centrality": {
        "water": (0.07, 0.025, 0.0, 0.0, 0.0),
        "plants": (0.1, 0.02, 0.0, -0.015, 0.0),
        "soil": (0.08, 0.02, 0.0, 0.0, 0.0),
        "asphalt": (0.08, 0.025, 0.0, 0.0, 0.0),
        "paving": (0.12, 0.08, 0.06, 0.06, 0.05),
        "roof": (0.07, 0.02, 0.0, 0.0, 0.0),
    },
    # The more is built, the less sky is seen from the ground: all bands darken.
    "density": {
        "plants": (-0.05, -0.06, -0.06, -0.07, -0.06),
        "soil": (-0.06, -0.06, -0.06, -0.06, -0.06),
        "asphalt": (-0.07, -0.07, -0.07, -0.07, -0.07),
        "paving": (-0.06, -0.06, -0.06, -0.06, -0.06),
        "roof": (-0.025, -0.025, -0.025, -0.025, -0.025),
    },
}


def bounded(factor: npt.ArrayLike) -> Single:
    """Return a factor without extremes, within ±2 and steepest at 0: no scene saturates."""
    return np.asarray(2 * np.tanh(np.asarray(factor) / 2), dtype=np.float32)


def group_gains(fields: dict[str, Single], band: int) -> Single:
    """Return what multiplies a band's reflectance, for each group in sun and then in shadow.

    Args:
        fields: bounded factors, each (cells,): the shared ones and `moisture`.
        band: index into BANDS.

    Returns:
        (2 × groups, cells): sunlit groups in the order of GROUPS, then the shaded ones.
    """
    region = _REGION[band]
    logs = np.zeros((len(GROUPS), len(fields["moisture"])), dtype=np.float32)
    for factor in SHARED:
        for group, effect in _EFFECTS[factor].items():
            if effect[region]:
                logs[GROUPS.index(group)] += np.float32(effect[region]) * fields[factor]
    if BANDS[band] in SHORT_WAVE:
        logs[1:] -= np.float32(MOISTURE_DEPTH) * fields["moisture"]  # all but water
    sunlit = np.exp(logs)
    return np.concatenate([sunlit, sunlit * SUNLESS[region]])


# mosaic → material → (share before any factor, log odds per unit of factors).
_MOSAICS: dict[str, dict[str, tuple[float, dict[str, float]]]] = {
    "garden": {
        "lawn": (0.30, {"affluence": 0.9}),
        "grass": (0.26, {"greenery": 0.5}),
        "crown": (0.10, {"greenery": 0.9}),
        "soil": (0.10, {"greenery": -0.5, "affluence": -0.6}),
        "paving": (0.16, {"centrality": 0.9}),
        "yard": (0.08, {"density": 0.6}),
    },
    "court": {
        "lawn": (0.14, {"affluence": 0.9}),
        "grass": (0.12, {"greenery": 0.6}),
        "crown": (0.08, {"greenery": 0.9}),
        "soil": (0.06, {"affluence": -0.6}),
        "paving": (0.34, {"centrality": 0.9}),
        "yard": (0.26, {"density": 0.5}),
    },
    "works": {
        "lawn": (0.08, {"affluence": 0.9}),
        "grass": (0.12, {"greenery": 0.7}),
        "scrub": (0.06, {"greenery": 0.8}),
        "soil": (0.12, {"affluence": -0.5}),
        "paving": (0.26, {"centrality": 0.9}),
        "yard": (0.36, {"density": 0.5}),
    },
    "park": {
        "lawn": (0.32, {"affluence": 0.9}),
        "grass": (0.34, {}),
        "crown": (0.20, {"greenery": 0.9}),
        "soil": (0.07, {"affluence": -0.4}),
        "paving": (0.07, {"centrality": 0.9}),
        "hay": (0.06, {"age": 0.8}),
    },
    "meadow": {
        "lawn": (0.10, {"affluence": 0.9}),
        "grass": (0.50, {}),
        "scrub": (0.12, {"greenery": 0.9}),
        "hay": (0.24, {"age": 0.6}),
        "soil": (0.05, {"greenery": -0.5}),
        "paving": (0.02, {"centrality": 0.9}),
    },
    "forest": {
        "canopy": (0.82, {"greenery": 0.4}),
        "scrub": (0.10, {"age": 0.6}),
        "lawn": (0.03, {"affluence": 0.8}),
        "grass": (0.04, {}),
        "soil": (0.01, {"centrality": 0.5}),
    },
}

MOSAICS = tuple(_MOSAICS)

PARTS = 6
"""Materials in a mosaic at most."""

MOSAIC_PARTS = np.array(
    [
        [CODE[name] for name in parts] + [CODE[list(parts)[-1]]] * (PARTS - len(parts))
        for parts in _MOSAICS.values()
    ],
    dtype=np.uint8,
)
"""Materials of each mosaic, (mosaics, PARTS), the last repeated where there are fewer."""


def mosaic_edges(fields: dict[str, Single]) -> Single:
    """Return the cumulated shares of each mosaic's parts, (mosaics, PARTS − 1, cells).

    Part k covers where a uniform random number lies between edges k − 1 and k.

    Args:
        fields: bounded shared factors, each (cells,).
    """
    cells = len(fields["density"])
    edges = np.ones((len(_MOSAICS), PARTS - 1, cells), dtype=np.float32)
    for mosaic, parts in enumerate(_MOSAICS.values()):
        odds = np.zeros((len(parts), cells), dtype=np.float32)
        for part, (share, slopes) in enumerate(parts.values()):
            odds[part] = np.log(share)
            for factor, slope in slopes.items():
                odds[part] += np.float32(slope) * fields[factor]
        shares = np.exp(odds)
        shares /= shares.sum(axis=0)
        edges[mosaic, : len(parts) - 1] = np.cumsum(shares, axis=0)[: len(parts) - 1]
    return edges
