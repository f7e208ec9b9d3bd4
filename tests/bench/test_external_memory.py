"""Large files of embeddings, in a process of their own whose peak is read from the system."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

READ = """
import sys
import shapely
from external_inputs import label_of, units_of
from urbancli.bench.external import load_external, unit_values
import geopandas, pyarrow.parquet, rasterio, urbancli.bench.controls

units = units_of([shapely.box(x, y, x + 300, y + 300)
                  for x in range(0, 3000, 300) for y in range(0, 3000, 300)])
def status(what):  # of this process alone, where getrusage counts what forked it
    line = next(line for line in open("/proc/self/status") if line.startswith(what))
    return int(line.split()[1]) / 1024

before = status("VmRSS")
values, coverage = unit_values(load_external(sys.argv[1]), units, label_of(units))
assert coverage.missing == 0 and coverage.rows == int(sys.argv[2]), coverage
print(status("VmHWM") - before)
"""


def peak_mb(path: Path, rows: int) -> float:
    """Peak of reading a file and bringing it to 100 units, MB beside the imports."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path), str(rows)],
        capture_output=True, text=True, cwd=Path(__file__).parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.soak
@pytest.mark.parametrize("form", ["lists", "numbers", "csv"])
def test_a_large_table_needs_its_own_array_and_little_more(tmp_path, form) -> None:
    """150,000 × 768 in one row group: 1 M × 768 (3 GB) then stays within 6 GB."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq
    from external_inputs import lonlat_of

    rows, width = (150_000 if form != "csv" else 40_000), 768
    rng = np.random.default_rng(0)
    values = rng.random((rows, width), dtype=np.float32)
    lon, lat = lonlat_of(rng.uniform(0, 3000, (rows, 2)))
    columns = {"lon": lon, "lat": lat}
    if form == "lists":
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), width)
    else:
        columns |= {f"e{number}": values[:, number].round(4) for number in range(width)}
    path = tmp_path / ("x.csv" if form == "csv" else "x.parquet")
    if form == "csv":
        pyarrow.csv.write_csv(pa.table(columns), path)
    else:
        pq.write_table(pa.table(columns), path, row_group_size=rows)
    array_mb = rows * width * 4 / 1e6
    # What comes on top does not grow with the file: the parts in which it is read and summed.
    assert peak_mb(path, rows) < 1.2 * array_mb + 600


@pytest.mark.soak
def test_a_raster_is_never_held(tmp_path) -> None:
    """A raster of 1.2 GB is read in windows of 64 MB."""
    import rasterio
    from external_inputs import EAST, NORTH
    from rasterio.transform import from_origin
    from rasterio.windows import Window

    path, side, bands = tmp_path / "x.tif", 2176, 64
    with rasterio.open(
        path, "w", driver="GTiff", count=bands, height=side, width=side, dtype="float32",
        crs="EPSG:32618", transform=from_origin(EAST - 100, NORTH + 3100, 1.5, 1.5),
        tiled=True, blockxsize=128, blockysize=128, interleave="pixel",
    ) as file:  # fmt: skip
        block = np.random.default_rng(0).random((bands, 128, 128), dtype=np.float32)
        for row in range(0, side, 128):
            for column in range(0, side, 128):
                file.write(block, window=Window(column, row, 128, 128))
    assert path.stat().st_size > 1.2e9
    assert peak_mb(path, side * side) < 600
