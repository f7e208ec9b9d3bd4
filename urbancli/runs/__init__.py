"""Runs: one method trained on one city, as a folder that any machine can open.

A run is `config.json`, `encoders.safetensors` (what the frozen encoders learnt),
`prepared.safetensors` (the statistics the method took before training), `model.safetensors`,
`curves.parquet`, `embeddings.parquet` (the city's tiles), `cost.json` (seconds, peak memory; not
the same twice) and `run.json`, written last: it exists, so the run is whole.
"""

from urbancli.runs.creation import RunOptions, create_run
from urbancli.runs.hold_out import HoldOut, held_out_places, parse_hold_out
from urbancli.runs.invariance import assert_invariant
from urbancli.runs.run import Run, open_run

__all__ = [
    "HoldOut",
    "Run",
    "RunOptions",
    "assert_invariant",
    "create_run",
    "held_out_places",
    "open_run",
    "parse_hold_out",
]
