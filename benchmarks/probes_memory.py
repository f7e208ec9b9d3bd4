"""Every probe on embeddings that fill the memory: a million units of 768 in at most 6 GB.

    python -m benchmarks.probes_memory [UNITS [WIDTH [PROBE ...]]]   (1000000 768 ridge logistic)

SYNTHETIC features (float32) are made in memory, in a process of their own for each probe: 3.07 GB
of the 6 are the features themselves. Ridge predicts 8 targets in 5 folds with the penalty chosen on
4 inner folds each, logistic 5 classes in one of these folds. `peak_gb` is the most that the process
ever held (VmHWM, the interpreter and its packages with it), `beyond_mb` what it held beside the
features, `met` whether every peak is at most 6 GB. The neural network needs no more, but hours;
gradient boosting copies the features of a fit, and neighbours of a million units take days.
"""

import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks._result import finish
from urbancli.bench.probes.base import load_probe, nested

BAR_GB = 6.0
TARGETS, CLASSES, FOLDS, GROUPS, FACTORS = 8, 5, 5, 200, 20
CHUNK = 50_000


def make(units: int, width: int) -> tuple[np.ndarray[Any, Any], ...]:
    """Return features (N, D) float32, targets (N, 8), classes (N,) and ranks of groups (N,)."""
    rng = np.random.default_rng(0)
    by_feature, by_target = rng.normal(size=(FACTORS, width)), rng.normal(size=(FACTORS, TARGETS))
    x = np.empty((units, width), dtype=np.float32)
    y, classes = np.empty((units, TARGETS)), np.empty(units, dtype=np.int64)
    for start in range(0, units, CHUNK):
        part = slice(start, min(start + CHUNK, units))
        factors = rng.normal(size=(part.stop - part.start, FACTORS))
        x[part] = factors.astype(np.float32) @ by_feature.astype(np.float32)
        x[part] += 2 * rng.standard_normal((len(factors), width), dtype=np.float32) + 3
        y[part] = factors @ by_target / 4 + rng.normal(size=(len(factors), TARGETS))
        classes[part] = (y[part, :CLASSES] + rng.gumbel(size=(len(factors), CLASSES))).argmax(1)
    return x, y, classes, np.arange(units) * GROUPS // units


def alone(probe: str, units: int, width: int) -> dict[str, Any]:
    """Return the peak and seconds of one probe in this process."""
    x, y, classes, groups = make(units, width)
    module = load_probe(probe)
    numbers = "regression" in module.KINDS
    member = groups * FOLDS // GROUPS
    # What takes minutes a fold is asked for one.
    used = range(FOLDS if probe == "ridge" else 1)
    folds = [nested(member != one, member == one, groups) for one in used]
    began = time.perf_counter()
    found = module.fit_predict_folds(x, y if numbers else classes, folds)
    seconds = time.perf_counter() - began
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    right = [
        np.mean((one.values - y[fold.testing]) ** 2) if numbers
        else np.mean(one.values == classes[fold.testing])
        for one, fold in zip(found, folds, strict=True)
    ]  # fmt: skip
    return {
        "folds": len(folds),
        "seconds": round(seconds, 1),
        "peak_gb": round(peak / 1e9, 3),
        "beyond_mb": round((peak - x.nbytes) / 1e6, 1),
        ("squared_error" if numbers else "accuracy"): round(float(np.mean(right)), 4),
    }


def measure(probe: str, units: int, width: int) -> dict[str, Any]:
    """Return the peak and seconds of one probe in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.probes_memory", str(units), str(width), probe, "-"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    given = sys.argv[1:]
    size = [int(text) for text in given[:2]] + [1_000_000, 768][len(given[:2]) :]
    if given[3:] == ["-"]:
        print(json.dumps(alone(given[2], *size)))
        sys.exit()
    results = {}
    for name in given[2:] or ["ridge", "logistic"]:
        results[name] = measure(name, *size)
        print(f"{name:12}{results[name]}")
    met = all(one["peak_gb"] <= BAR_GB for one in results.values())
    finish("probes_memory", {"units": size[0], "width": size[1], "probes": results, "met": met})
