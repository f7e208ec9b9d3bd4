"""Clouds over the city on two days, their shadows, and the scene classification that marks them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from urbancli.demo.recipe import Recipe

Single = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]

SIZE_M = 330.0
"""Length scale of clouds, metres."""

DRIFT_PX = 34
"""A shadow lies so many pixels of 10 m west and north of its cloud."""

COVERS = (0.10, 0.12)
"""Share of the area under cloud on each day; about as much lies in the shadows."""

CLOUD = np.array([56, 57, 58, 59, 60, 61, 61, 62, 62, 62, 40, 32], dtype=np.float32) / 100
"""Reflectance of a dense cloud in `_materials.BANDS`."""

SHADE = 0.55
"""Of the light, what a dense cloud's shadow takes."""

# Classes of the scene classification (SCL).
SHADOW, PLANTS, BARE, WATER, CLOUD_MEDIUM, CLOUD_HIGH, CIRRUS = 3, 4, 5, 6, 8, 9, 10


@dataclass(frozen=True)
class Sky:
    """One day's clouds.

    Attributes:
        cloud: (H, W) opacity in 0 … 1, pixels of 10 m, rows from the north.
        shadow: (H, W) share of its depth, 0 … 1.
    """

    cloud: Single
    shadow: Single

    def veil(self, clear: Single, band: int) -> Single:
        """Return a band's reflectance (H, W) under this sky."""
        shaded = clear * (1 - np.float32(SHADE) * self.shadow)
        return np.asarray(shaded + self.cloud * (CLOUD[band] - shaded), dtype=np.float32)

    def classes(self, plants: Single, water: Single) -> Bytes:
        """Return the scene classification at 20 m, (H / 2, W / 2).

        Every pixel that cloud or shadow touches is marked, and those around it: like the real one
        it sees blocks of 20 m.

        Args:
            plants: (H, W) share of plants at 10 m.
            water: (H, W) share of water.
        """
        from scipy.ndimage import maximum_filter

        cloud, shadow = (_blocks(layer).max(axis=(1, 3)) for layer in (self.cloud, self.shadow))
        wide_cloud, wide_shadow = (maximum_filter(layer, 3) for layer in (cloud, shadow))
        plants, water = (_blocks(layer).mean(axis=(1, 3)) for layer in (plants, water))
        scene = np.where(plants > 0.5, PLANTS, BARE)
        scene = np.where(water > 0.5, WATER, scene)
        scene = np.where(wide_shadow > 0, SHADOW, scene)
        scene = np.where(wide_cloud > 0, CIRRUS, scene)
        scene = np.where(cloud > 0.3, CLOUD_MEDIUM, scene)
        return np.where(cloud > 0.7, CLOUD_HIGH, scene).astype(np.uint8)


def skies(recipe: Recipe, side: int) -> list[Sky]:
    """Return two days' skies over a square of side × side pixels of 10 m.

    What cloud or shadow touches on the first day is clear on the second.
    """
    from scipy.ndimage import maximum_filter

    reach = side + DRIFT_PX  # clouds south-east of the square throw their shadows into it
    taken = np.zeros((reach, reach), dtype=bool)
    days = []
    for day, cover in enumerate(COVERS):
        field = _field(recipe, f"clouds {day}", reach)
        cloud = _dense(field, taken, cover)
        shadow = np.zeros_like(cloud)
        shadow[:-DRIFT_PX, :-DRIFT_PX] = cloud[DRIFT_PX:, DRIFT_PX:]
        touched = maximum_filter((cloud > 0) | (shadow > 0), 9)
        # Neither a cloud nor its shadow may come to lie where the day before was touched.
        taken |= touched
        taken[DRIFT_PX:, DRIFT_PX:] |= touched[:-DRIFT_PX, :-DRIFT_PX]
        days.append(Sky(cloud[:side, :side].copy(), shadow[:side, :side].copy()))
    return days


def _dense(field: Single, taken: Flags, cover: float) -> Single:
    """Return opacity: soft-edged where the field is highest, 0 where taken."""
    from scipy.ndimage import distance_transform_edt

    if taken.any():
        # The field sinks towards what is taken, so that clouds end there softly too.
        away = distance_transform_edt(~taken).astype(np.float32)
        field = field - np.where(taken, np.inf, 4 * np.exp(-away / 12)).astype(np.float32)
    edge = np.quantile(field, 1 - cover)
    rise = np.clip((field - edge) / np.float32(0.55), 0, 1)
    return np.asarray(rise * rise * (3 - 2 * rise), dtype=np.float32)


def _field(recipe: Recipe, name: str, side: int) -> Single:
    """Return smooth noise with finer detail on it, (side, side), unit variance."""
    from scipy.ndimage import gaussian_filter

    generator = recipe.generator(name)
    total = np.zeros((side, side), dtype=np.float32)
    for octave, weight in enumerate((1.0, 0.45, 0.2)):
        noise = generator.standard_normal((side, side), dtype=np.float32)
        layer = gaussian_filter(noise, SIZE_M / 10 / 2.4**octave, mode="wrap")
        total += np.float32(weight) * layer / layer.std()
    return np.asarray(total / total.std(), dtype=np.float32)


def _blocks(layer: Single) -> Single:
    """Return a view of an array in blocks of 2 × 2: (H / 2, 2, W / 2, 2)."""
    return layer.reshape(layer.shape[0] // 2, 2, layer.shape[1] // 2, 2)
