"""Rasters on the tiles' own grid: read as stored, with the pixels that a warp would give."""

import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.errors import RasterioIOError
from rasterio.transform import from_origin

from urbancli.errors import UrbanError
from urbancli.grid import Block, Grid, Places
from urbancli.sources import _pixels, imagery
from urbancli.sources._pixels import OnGrid, valid_pixels, warped
from urbancli.sources._stored import Box, StoredBlocks, joined
from urbancli.sources.imagery import Source

GRID = Grid(32643)
BLOCK = Block(32643, 300, 306, 1319)
LEFT, _, _, TOP = BLOCK.bounds


@contextmanager
def _raster(samples: Any, east: float, south: float, **profile: Any) -> Iterator[Any]:
    """Open a raster that begins (east, south) pixels of 10 m from the block's corner."""
    defaults = {
        "driver": "GTiff",
        "count": samples.shape[0],
        "height": samples.shape[1],
        "width": samples.shape[2],
        "dtype": samples.dtype.name,
        "crs": "EPSG:32643",
        "transform": from_origin(LEFT + east * 10, TOP - south * 10, 10, 10),
    }
    with rasterio.MemoryFile() as memory:
        with memory.open(**{**defaults, **profile}) as dataset:
            dataset.write(samples)
        with memory.open() as dataset:
            yield dataset


def _both(dataset: Any, nodata: float | None, patch: pytest.MonkeyPatch) -> list[Any]:
    """Return (samples, valid, whether as stored) as warped reads them, and as GDAL warps them."""
    seen = []
    for stored in (True, False):
        with patch.context() as without:
            if not stored:
                without.setattr(_pixels, "_on_grid", lambda *_: None)
            with warped(dataset, BLOCK, 10.0, nodata=nodata) as warp:
                valid = valid_pixels(warp)
                bands = list(dataset.indexes)
                seen.append((warp.read(bands), valid, isinstance(warp, OnGrid)))
    return seen


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(["uint8", "uint16", "int16", "float32"]),
    bands=st.integers(1, 4),
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    begin=st.tuples(st.integers(-310, 250), st.integers(-310, 250)),
    nodata=st.sampled_from([None, 0, 7]),
    given_nodata=st.sampled_from([None, 0]),
    holes=st.sampled_from(["none", "all bands", "one band"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_pixels_and_validity_are_those_of_a_warp(
    dtype: str,
    bands: int,
    size: tuple[int, int],
    begin: tuple[int, int],
    nodata: int | None,
    given_nodata: int | None,
    holes: str,
    seed: int,
) -> None:
    generator = np.random.default_rng(seed)
    samples = generator.integers(1, 250, (bands, *size)).astype(dtype)
    where = generator.random(size) < 0.3
    samples[: {"none": 0, "one band": 1}.get(holes, bands), where] = nodata or 0
    extra = {"photometric": "MINISBLACK", "alpha": "NO"} if dtype == "uint8" else {}
    with (
        _raster(samples, *begin, nodata=nodata, **extra) as dataset,
        pytest.MonkeyPatch.context() as patch,
    ):
        (read, valid, stored), (expected, known, _) = _both(dataset, given_nodata, patch)
    np.testing.assert_array_equal(valid, known)
    np.testing.assert_array_equal(read[:, valid], expected[:, known])
    if given_nodata is not None:
        np.testing.assert_array_equal(read, expected)
    assert stored == (dtype != "float32")


def test_which_rasters_are_read_as_stored() -> None:
    samples = np.full((4, 300, 300), 9, dtype=np.uint8)
    some = {"photometric": "RGB", "alpha": "NO"}
    odd = from_origin(LEFT + 5, TOP, 10, 10)
    drifting = from_origin(LEFT, TOP, 10.0001, 10)
    turned = rasterio.Affine(10, 0.01, LEFT, 0, -10, TOP)
    for profile, expected in [
        (some, True),
        (some | {"alpha": "YES"}, False),
        (some | {"crs": "EPSG:32644"}, False),
        (some | {"transform": odd}, False),
        (some | {"transform": drifting}, False),
        (some | {"transform": turned}, False),
        (some | {"transform": from_origin(LEFT, TOP, 5, 5)}, False),
    ]:
        with _raster(samples, 0, 0, **profile) as dataset, warped(dataset, BLOCK, 10.0) as warp:
            assert isinstance(warp, OnGrid) == expected, profile


# --- stored blocks -------------------------------------------------------------------------------


class Counting:
    """A dataset that notes what is read of it, and breaks down when told to.

    Attributes:
        windows: corners of the stored blocks that were decoded.
        reads: how many windows they came in.
        breaks: whether it does.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset, self.windows, self.reads, self.breaks = dataset, [], 0, False
        self.lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dataset, name)

    def read(self, bands: Any, window: Any, out: Any) -> None:
        """Read as the dataset does."""
        with self.lock:
            end = window.col_off + window.width, window.row_off + window.height
            self.reads += 1
            self.windows += [(x, y) for x in range(window.col_off, end[0], 512)
                             for y in range(window.row_off, end[1], 512)]  # fmt: skip
            if self.breaks:
                raise RasterioIOError("cut off")
            self.dataset.read(bands, window=window, out=out)


@contextmanager
def _large() -> Iterator[tuple[Any, Counting]]:
    samples = np.random.default_rng(3).integers(0, 60_000, (2, 1300, 1700)).astype(np.uint16)
    tiling = {"tiled": True, "blockxsize": 512, "blockysize": 512}
    with _raster(samples, 0, 0, **tiling) as dataset:
        yield samples, Counting(dataset)


def _boxes(side: int) -> list[Box]:
    return [
        Box(x, y, min(x + side, 1700), min(y + side, 1300))
        for y in range(0, 1300, side)
        for x in range(0, 1700, side)
    ]


@pytest.mark.parametrize("side", [240, 700])
def test_each_stored_block_is_decoded_once_on_any_number_of_threads(side: int) -> None:
    with _large() as (samples, dataset):
        blocks = StoredBlocks()

        def read(box: Box) -> None:
            into = np.zeros(box.shape(2), dtype=np.uint16)
            blocks.read("a", dataset, [1, 2], box, into)
            np.testing.assert_array_equal(
                into, samples[:, box.top : box.bottom, box.left : box.right]
            )

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(read, _boxes(side)))
        assert sorted(dataset.windows) == [(x, y) for x in (0, 512, 1024, 1536)
                                           for y in (0, 512, 1024)]  # fmt: skip


def test_stored_blocks_beside_each_other_are_asked_for_at_once() -> None:
    with _large() as (samples, dataset):
        box = Box(0, 0, 1500, 1300)  # three by three: two columns for it alone, one shared
        into = np.zeros(box.shape(2), dtype=np.uint16)
        StoredBlocks().read("a", dataset, [1, 2], box, into)
        np.testing.assert_array_equal(into, samples[:, :, :1500])
        assert (len(dataset.windows), dataset.reads) == (9, 2)


@given(st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5))))
def test_joined_boxes_cover_the_parts_and_no_more(cells: set[tuple[int, int]]) -> None:
    found = [
        (x, y)
        for box in joined([Box(7 * x, 5 * y, 7 * x + 7, 5 * y + 5) for x, y in cells])
        for x in range(box.left // 7, box.right // 7)
        for y in range(box.top // 5, box.bottom // 5)
    ]
    assert sorted(found) == sorted(cells)


def test_no_more_than_the_bound_is_kept() -> None:
    with _large() as (_, dataset):
        blocks = StoredBlocks(most_bytes=3 * 2 * 2 * 512 * 512)
        for box in _boxes(240):
            into = np.zeros(box.shape(2), dtype=np.uint16)
            blocks.read("a", dataset, [1, 2], box, into)
            kept = [future.result().nbytes for future in blocks._kept.values()]
            assert sum(kept) == blocks._bytes <= 3 * 2 * 2 * 512 * 512
        assert len(dataset.windows) > 12, "what was let go is read again"


def test_a_block_that_cannot_be_read_fails_for_all_who_wait_and_is_tried_again() -> None:
    with _large() as (samples, dataset):
        blocks = StoredBlocks()
        box = Box(500, 500, 600, 600)
        into = np.zeros(box.shape(2), dtype=np.uint16)
        dataset.breaks = True
        with ThreadPoolExecutor(2) as pool:
            failed = [pool.submit(blocks.read, "a", dataset, [1, 2], box, into) for _ in "ab"]
        assert all(isinstance(each.exception(), RasterioIOError) for each in failed)
        dataset.breaks = False
        blocks.read("a", dataset, [1, 2], box, into)
        np.testing.assert_array_equal(into, samples[:, 500:600, 500:600])


# --- the source ----------------------------------------------------------------------------------


def _places() -> Places:
    cells = np.array([[c, r] for r in range(10551, 10559) for c in range(2448, 2456)])
    x, y = ((cells + 0.5) * 300).T
    ids = np.array([GRID.tile_id(*cell) for cell in cells.tolist()], dtype=object)
    return Places(GRID, ids, "tile", x, y, np.ones(len(cells)))


def _files(folder: Path, count: int = 3) -> list[Path]:
    """Write neighbours that overlap, the second in another zone's CRS."""
    paths = []
    generator = np.random.default_rng(5)
    for number in range(count):
        samples = generator.integers(1, 200, (2, 500, 500)).astype(np.uint16)
        path = folder / f"{number}.tif"
        left, top = 2440 * 300 + number * 3000, 10562 * 300 - number * 2000
        crs = "EPSG:32643"
        if number == 1:
            crs = "EPSG:32644"
            lon, lat = GRID.unproject(left, top)
            left, top = (float(v) for v in Grid(32644).project(lon, lat))
        with rasterio.open(
            path, "w", driver="GTiff", count=2, width=500, height=500, dtype="uint16", crs=crs,
            transform=from_origin(left, top, 10, 10), nodata=0,
        ) as dataset:  # fmt: skip
            dataset.write(samples)
        paths.append(path)
    return paths


def test_threads_and_an_unpickled_copy_read_the_same(tmp_path: Path) -> None:
    source, places = Source("sentinel2", _files(tmp_path)), _places()
    source.plan(places)
    blocks = source.blocks(places)
    assert len(blocks) > 4
    expected = [source.read(block) for block in blocks]
    assert sum(table.num_rows for table in expected) > 100
    copy = pickle.loads(pickle.dumps(source))
    with ThreadPoolExecutor(4) as pool:
        for reader in (source, copy):
            for table, one in zip(pool.map(reader.read, blocks), expected, strict=True):
                assert table.equals(one)


def test_more_files_than_may_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, places = Source("sentinel2", _files(tmp_path)), _places()
    source.plan(places)
    expected = [source.read(block) for block in source.blocks(places)]
    monkeypatch.setattr(imagery, "OPEN_MOST", 1)
    fresh = pickle.loads(pickle.dumps(source))
    assert all(
        fresh.read(block).equals(one)
        for block, one in zip(source.blocks(places), expected, strict=True)
    )
    assert len(fresh._here.opened) == 1


def test_only_files_near_a_block_are_opened(tmp_path: Path) -> None:
    source, places = Source("sentinel2", _files(tmp_path)), _places()
    source.plan(places)
    near = {block.block_id: source._near(block) for block in source.blocks(places)}
    assert set(map(tuple, near.values())) > {(0, 1, 2)}
    for block in source.blocks(places):
        without = set(range(3)) - set(near[block.block_id])
        for number in without:
            with warped(source._dataset(number), block, 10.0) as warp:
                assert not valid_pixels(warp).any()


def test_a_damaged_file_is_said_in_one_line(tmp_path: Path) -> None:
    (path,) = _files(tmp_path, 1)
    source, places = Source("sentinel2", [path]), _places()
    source.plan(places)
    path.write_bytes(path.read_bytes()[:200_000])
    with pytest.raises(UrbanError, match="cut off or damaged") as error:
        for block in source.blocks(places):
            source.read(block)
    assert "\n" not in str(error.value)
