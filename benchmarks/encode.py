"""Places/s of every encoder without weights on the demo city, against a plain copy of what it read.

    python -m benchmarks.encode [ROUNDS [WORKSPACE [TILES]]]      (default 3, a temporary one, 40)

Every encoder of the package whose settings name no model, with its default settings, on every
modality that it encodes and the demo city has: `encode` of all tiles, from the layer's file (warm)
to tokens in memory. It is fitted before (`fit_s`, once). Beside each, in turn, `copy`: all row
groups of the same file are read, of their columns the pixels or the geometries and tags, and the
buffers copied into new arrays once more.

`share` is the seconds of the copy over those of the encoding, both medians: 1 would be an encoder
as fast as reading. `ratio` is the worst share of a default encoder, `ratio_typical` the median of
all. An encoding that takes more than a minute is measured once. `coords` reads no layer: it has no
share. Encoders of published weights are left out and named (`left_out`): small
random models in their stead would not tell their places/s.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks._demo import demo_layers
from benchmarks._result import finish
from urbancli import plugins
from urbancli.encoders import _touching
from urbancli.encoding import DEFAULTS, Chosen, fit_encoders, load_encoder
from urbancli.layers import CityLayers, open_city

LONG_S = 60.0
"""An encoding longer than this is measured once."""

READ = ("pixels", "valid", "geometry", "tags")
"""Columns of layers that an encoder may read the values of."""


def clocked(work: Callable[[], Any]) -> float:
    """Return the seconds that something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def buffers(array: pa.ChunkedArray) -> list[pa.Buffer]:
    """Return the buffers of a column."""
    return [b for chunk in array.chunks for b in chunk.buffers() if b is not None]


def copy_layer(path: Path) -> int:
    """Read every row group of a layer, copy the buffers of its values, and return their bytes."""
    copied = 0
    with pq.ParquetFile(path) as file:
        columns = [name for name in READ if name in file.schema_arrow.names]
        # The outline of a tile is no pixel.
        columns = [n for n in columns if n != "geometry" or "pixels" not in columns]
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=columns)
            for name in columns:
                parts = [np.array(np.frombuffer(b, np.uint8)) for b in buffers(table.column(name))]
                copied += sum(part.nbytes for part in parts)
    return copied


def without_weights() -> tuple[dict[str, Chosen], list[str]]:
    """Return the encoders that load no weights, and the names of those that do."""
    all_of_them = {name: load_encoder(name) for name in plugins.names("encoders")}
    plain = {n: one for n, one in all_of_them.items() if "model" not in one.encoder.config()}
    return plain, sorted(set(all_of_them) - set(plain))


def measure(city: CityLayers, modality: str, chosen: Chosen, rounds: int) -> dict[str, Any]:
    """Return what encoding all tiles of a city costs, and copying what it read."""
    places = city.tiles()
    started = time.perf_counter()
    state, _ = fit_encoders(city, modality, places, (chosen,))
    fit_s = time.perf_counter() - started
    read = modality != "coords"
    layer = city.workspace.layer_file(city.key, city.source_layer(modality))
    found: dict[str, Any] = {"mb": None}

    def encode() -> None:
        fresh = open_city(city.workspace, city.key)
        _touching._layer.cache_clear()  # blocks of one encoding share the layer, rounds must not
        tokens = chosen.encoder.encode(fresh, modality, places, state)
        found.update(tokens=len(tokens.values), width=int(tokens.values.shape[1]))

    def copy() -> None:
        found.update(mb=round(copy_layer(layer) / 1e6, 1))

    seconds: list[float] = []
    copies: list[float] = []
    for number in range(rounds + 1):
        taken = clocked(encode)
        again = clocked(copy) if read else 0.0
        if number or taken > LONG_S:
            seconds.append(taken)
            copies.append(again)
        if taken > LONG_S:
            break
    encode_s = statistics.median(seconds)
    return {
        "encoder": chosen.title,
        "modality": modality,
        "default": DEFAULTS.get(modality) == chosen.name,
        "places_per_s": round(len(places) / encode_s, 1),
        "tokens_per_s": round(found["tokens"] / encode_s),
        "seconds": round(encode_s, 3),
        "fit_s": round(fit_s, 2),
        "copy_s": round(statistics.median(copies), 4) if read else None,
        "share": float(f"{statistics.median(copies) / encode_s:.3g}") if read else None,
        "rounds": len(seconds),
        **found,
    }


def main(rounds: int, folder: Path, tiles: int) -> None:
    """Measure all and print a table."""
    city = demo_layers(folder, tiles)
    encoders, left_out = without_weights()
    rows = []
    columns = ("places_per_s", "tokens_per_s", "seconds", "copy_s", "share", "mb", "fit_s")
    print(f"{'encoder':12}{'modality':12}" + "".join(f"{name:>14}" for name in columns))
    for chosen in encoders.values():
        for modality in city.modalities():
            if modality not in chosen.encoder.modalities:
                continue
            rows.append(measure(city, modality, chosen, rounds))
            shown = ["–" if rows[-1][name] is None else rows[-1][name] for name in columns]
            cells = "".join(f"{cell:>14}" for cell in shown)
            mark = "*" if rows[-1]["default"] else ""
            print(f"{chosen.title:12}{modality + mark:12}{cells}", flush=True)
    print(f"* the default; left out, as they load weights: {', '.join(left_out)}")
    shares = [(row["share"], row) for row in rows if row["share"] is not None]
    worst, row = min((one for one in shares if one[1]["default"]), key=lambda one: one[0])
    finish("encode", {
        "ratio": worst,
        "ratio_of": f"{row['encoder']} on {row['modality']}, the slowest default",
        "ratio_typical": float(f"{statistics.median(share for share, _ in shares):.3g}"),
        "encoders": rows,
        "left_out": left_out,
        "tiles": tiles,
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
    })  # fmt: skip


if __name__ == "__main__":
    arguments = sys.argv[1:]
    wanted = int(arguments[0]) if arguments else 3
    side = int(arguments[2]) if len(arguments) > 2 else 40
    if len(arguments) > 1:
        main(wanted, Path(arguments[1]), side)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(wanted, Path(temporary), side)
