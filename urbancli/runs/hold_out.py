"""Which places pre-training must not see, so that a fold's units are new to the method."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from urbancli.embeddings import align
from urbancli.errors import UrbanError, UsageError, unknown
from urbancli.grid import Places
from urbancli.workspace import geometries, read_table

HoldOut = tuple[Path, int]
"""A split file, and the fold whose units are kept out of pre-training."""


def parse_hold_out(text: str) -> HoldOut:
    """Return what `FILE` or `FILE:FOLD` names; without a fold it is fold 0.

    Raises:
        UsageError: no file is named.
    """
    path, colon, fold = text.rpartition(":")
    if not (colon and fold.isdecimal()):
        path, fold = text, "0"
    if not path.strip():
        raise UsageError(
            f"'{text}' names no split file: give FILE or FILE:FOLD, `urban bench` writes them "
            "into splits/"
        )
    return Path(path), int(fold)


def held_out_places(
    split_file: Path, fold: int, places: Places, window_m: float
) -> npt.NDArray[np.bool_]:
    """Return which places pre-training must not see: (N,) bool.

    Those with a part in a test unit of the fold, and those whose window overlaps a window of such
    a place. A window is the square of `window_m`, at least a tile, around a place's centre; squares
    that only share a border do not overlap.

    Args:
        split_file: units with their fold and footprint.
        fold: whose units are the test units.
        places: of the city.
        window_m: the largest window of the encoders, metres.

    Raises:
        UrbanError: no such file, or it is no split file.
        UsageError: it has no such fold.
    """
    from scipy.spatial import cKDTree

    table, facts = read_table(split_file)
    if not {"fold", "geometry"} <= set(table.column_names) or "label" not in facts:
        raise UrbanError(f"{split_file} is no split file: `urban bench --splits` writes them")
    folds = table.column("fold").to_numpy()
    if fold < 0 or fold not in folds:
        tested = np.unique(folds[folds >= 0])
        raise unknown("fold", str(fold), [str(number) for number in tested])
    weights = align(geometries(table)[folds == fold], places).weights
    touched = np.asarray(weights.sum(axis=0)).ravel() > 0
    if not touched.any():
        raise UrbanError(
            f"no unit of fold {fold} of {split_file} lies in the city: hold out a split of its own"
        )
    centres = np.column_stack([places.x, places.y])
    distance, _ = cKDTree(centres[touched]).query(centres, p=np.inf)
    return np.asarray(distance < max(window_m, places.grid.tile_m))
