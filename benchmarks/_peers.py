"""Outside judges of our files: geoparquet-io and DuckDB, from the extra `peers`."""

import shutil
import subprocess
import sys
from pathlib import Path


def duckdb_home(folder: Path) -> Path:
    """Return `folder` as a home in which DuckDB finds its spatial extension, without network."""
    import duckdb
    import duckdb_extension_spatial

    platform = duckdb.sql("PRAGMA platform").fetchone()
    version = f"v{duckdb.__version__}"
    package = Path(str(duckdb_extension_spatial.__file__)).parent
    target = folder / ".duckdb/extensions" / version / str(platform[0] if platform else "")
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(package / "extensions" / version / "spatial.duckdb_extension", target)
    return folder


def rows_elsewhere(path: Path, home: Path) -> tuple[int, int]:
    """Return the rows that GeoPandas and DuckDB, with its spatial extension, read of a file."""
    import duckdb
    import geopandas as gpd

    with duckdb.connect(config={"home_directory": str(home)}) as connection:
        connection.execute("LOAD spatial")
        found = connection.execute(
            "SELECT count(ST_GeometryType(geometry)) FROM read_parquet(?)", [str(path)]
        ).fetchone()
    return len(gpd.read_parquet(path)), int(found[0]) if found else 0


def gpio_check(path: Path, home: Path) -> str:
    """Return "" where `gpio check all` accepts a file, else what it says."""
    gpio = Path(sys.executable).parent / "gpio"
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [gpio, "check", "all", str(path)], capture_output=True, text=True, env=environment
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr
