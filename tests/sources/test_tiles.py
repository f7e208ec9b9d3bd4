"""The rows of pixel layers, cut of whole blocks."""

import pickle

import numpy as np
import pytest

from urbancli.grid import BLOCK_TILES, Grid
from urbancli.hilbert import hilbert_index
from urbancli.sources._tiles import WantedTiles, tile_part
from urbancli.workspace import geometries

GRID = Grid(32643)
SIDE = 3


@pytest.fixture
def cells() -> np.ndarray:
    """Return a third of the tiles of forty blocks, south and north of the equator."""
    columns, rows = np.meshgrid(np.arange(-7, 41), np.arange(-20, 31))
    every = np.column_stack([columns.ravel(), rows.ravel()])
    return every[np.random.default_rng(1).random(len(every)) < 1 / 3]


def test_rows_are_the_tiles_one_by_one(cells: np.ndarray) -> None:
    tiles = WantedTiles(GRID, cells)
    assert tiles.blocks == GRID.blocks(cells)
    assert len(tiles.blocks) > 32, "more than are made at once"
    random = np.random.default_rng(2)
    seen = []
    for block in tiles.blocks:
        samples = random.integers(0, 1000, (2, BLOCK_TILES * SIDE, BLOCK_TILES * SIDE), np.uint16)
        valid = random.random(samples.shape[1:]) < 0.3
        table = tiles.rows(block, samples, valid)
        assert set(table.column("block").to_pylist()) <= {block.block_id}
        for row, shape in zip(table.to_pylist(), geometries(table), strict=True):
            part = tile_part(row["place_id"], SIDE)
            assert row["pixels"] == samples[:, *part].astype("<u2").tobytes()
            assert row["valid_fraction"] == valid[part].mean() > 0
            own, column, north = GRID, *map(int, row["place_id"].split("_")[2:])
            assert shape == own.unproject_geometry(own.tile_boxes(np.array([[column, north]])))[0]
            seen.append((column, north))
    assert 0.9 * len(cells) < len(seen) == len(set(seen))
    assert set(seen) <= set(map(tuple, cells.tolist()))


def test_the_order_of_rows_is_the_blocks_own(cells: np.ndarray) -> None:
    """Whatever else was asked for: a tile keeps its place among the others."""
    some, every = WantedTiles(GRID, cells), WantedTiles(GRID, GRID.halo(cells, 300.0))
    samples = np.ones((1, BLOCK_TILES * SIDE, BLOCK_TILES * SIDE), np.uint8)
    whole = np.ones(samples.shape[1:], bool)
    for block in some.blocks[::7]:
        few, many = (
            tiles.rows(block, samples, whole).column("place_id").to_pylist()
            for tiles in (some, every)
        )
        assert few == [place for place in many if place in set(few)]
        numbers = np.array([place.split("_")[2:] for place in many], dtype=np.int64) % BLOCK_TILES
        assert (np.diff(hilbert_index(*numbers.T, bits=3)) > 0).all()


def test_another_process_takes_no_cache_and_gives_the_same(cells: np.ndarray) -> None:
    tiles = WantedTiles(GRID, cells)
    samples = np.ones((1, BLOCK_TILES * SIDE, BLOCK_TILES * SIDE), np.uint8)
    block, whole = tiles.blocks[3], np.ones(samples.shape[1:], bool)
    before = len(pickle.dumps(tiles))
    table = tiles.rows(block, samples, whole)
    sent = pickle.dumps(tiles)
    assert len(sent) == before
    assert pickle.loads(sent).rows(block, samples, whole).equals(table)
