"""What a lock holds, and its file."""

import dataclasses
import importlib.metadata
import json
import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import shapely

from urbancli.bench.comparison import IDENTITY
from urbancli.bench.external import files_of
from urbancli.bench.run import BenchOptions, BenchResult
from urbancli.bench.seeds import JOINT
from urbancli.city import synthetic_marks
from urbancli.demo.files import recipe_of
from urbancli.errors import UrbanError
from urbancli.runs import Run, open_run
from urbancli.workspace import (
    SCHEMA_VERSION,
    Workspace,
    open_parquet,
    read_json,
    sha256,
    write_text,
)

PACKAGES = (
    "urbancli", "torch", "numpy", "scipy", "scikit-learn", "pyarrow", "shapely", "pyproj",
    "rasterio", "safetensors",
)  # fmt: skip
"""Whose versions a lock tells."""

SCORE = ("value", "low", "high")
COUNTS = ("n", "groups", "too_few")

COLUMNS = ("run", *IDENTITY, "folds", "task_version", "split_sha256", *SCORE, *COUNTS)
"""What a lock keeps of a row."""

WEIGHTS = "model.safetensors"

CITY_PINS = {"files", "recipe", "fetch", "inputs"}
RUN_PINS = {
    "city", "method", "method_sha256", "source", "preset", "seed", "overrides", "without",
    "precision", "encoders", "hold_out", "data", "weights_sha256",
}  # fmt: skip
"""What a lock says of each city and run, at the least."""

TABLES = ("versions", "cities", "runs", "bench")

OPTION_OF = {
    "osm": "--osm {0}",
    "pois": "--pois {0}",
    "imagery": "--imagery {1}={0}",
    "photos": "--streetview {0}",
}
"""How a layer's own file is given to `urban fetch`, by the name of its source."""


def lock_file(result: Path) -> Path:
    """Return the path of a result's lock."""
    return result.with_name(f"{result.stem}.lock.json")


def write_lock(workspace: Workspace, options: BenchOptions, result: BenchResult) -> Path:
    """Write the lock of a result, whole or not at all, and return its path.

    Args:
        workspace: where the result was made, unchanged since.
        options: what was asked.
        result: of `bench`.

    Raises:
        UrbanError: a run is no more what it was.
    """
    joint = (row["run"] for row in result.rows if row["run"])
    names = dict.fromkeys(name for one in joint for name in one.split(JOINT))
    cities = dict.fromkeys([*options.cities, *(one.rpartition("=")[2] for one in options.stale)])
    tasks = {(row["city"], row["task"]) for row in result.rows}
    content = {
        "schema_version": SCHEMA_VERSION,
        "result": result.path.stem,
        "versions": versions(),
        "cities": {key: _city_pin(workspace, key, tasks) for key in cities},
        "runs": {name: _run_pin(workspace, open_run(workspace, name)) for name in names},
        "bench": _bench_pin(workspace, options),
    }
    path = lock_file(result.path)
    write_text(path, _text(content, result.rows))
    return path


def _text(content: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a lock as JSON; of the rows each stands in one line."""
    head = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    lines = [json.dumps([row[c] for c in COLUMNS], ensure_ascii=False) for row in rows]
    columns = json.dumps(COLUMNS)
    body = ",\n    ".join(lines)
    return f'{head[:-2]},\n  "columns": {columns},\n  "rows": [\n    {body}\n  ]\n}}\n'


def read_lock(path: Path) -> dict[str, Any]:
    """Return a lock; its rows as dicts.

    Raises:
        UrbanError: there is none, or it is not whole, or of another schema version.
    """
    try:
        content = read_json(path)
    except UrbanError as err:
        # What `read_json` advises is for files that are easily made anew.
        why = str(err).partition(";")[0].partition(": run the")[0]
        raise UrbanError(
            f"{why}: a lock ends in .lock.json and lies beside its rows; take it from who made it"
        ) from err
    whole = all(isinstance(content.get(name), dict) for name in TABLES)
    columns, rows = content.pop("columns", None) or [], content.get("rows") or []
    whole = whole and isinstance(columns, list) and isinstance(rows, list) and len(rows) > 0
    # A city whose checksums are not there would be scored unchecked.
    whole = whole and set(map(str, content["bench"].get("cities", ()))) <= set(content["cities"])
    if not whole or not all(isinstance(r, list) and len(r) == len(columns) for r in rows):
        raise UrbanError(f"{path} is no lock of a result: `urban bench` writes one beside its rows")
    if lacking := sorted(set(COLUMNS) - set(columns)):
        raise UrbanError(
            f"{path} lacks the columns {', '.join(lacking)}: another urban wrote it, use that one"
        )
    content["rows"] = [dict(zip(columns, row, strict=True)) for row in rows]
    if torn := _torn(content):
        raise UrbanError(f"{path} is no whole lock, {torn}: take it anew from who made it")
    return content


def _torn(content: Mapping[str, Any]) -> str:
    """Return what a lock lacks, in one clause; or nothing."""
    for table, keys in (("cities", CITY_PINS), ("runs", RUN_PINS)):
        for name, pin in content[table].items():
            lacking = sorted(keys - set(pin)) if isinstance(pin, dict) else sorted(keys)
            if lacking:
                return f"{table}.{name} lacks {', '.join(lacking)}"
    for field in dataclasses.fields(BenchOptions):
        value, usual = content["bench"].get(field.name), getattr(BenchOptions, field.name, ())
        kind = list if isinstance(usual, tuple) else type(usual)
        if field.name in content["bench"] and usual is not None and not isinstance(value, kind):
            return f"bench.{field.name} is no {kind.__name__}"
    for name in ("value", "low", "high"):
        if any(isinstance(row.get(name), str | list | dict) for row in content["rows"]):
            return f"a row's {name} is no number"
    return ""


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that scores depend on."""
    found = {"python": platform.python_version()}
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}


def _bench_pin(workspace: Workspace, options: BenchOptions) -> dict[str, Any]:
    """Return the options of a benchmark, JSON-able; files as `external_text` takes them."""
    content = dataclasses.asdict(options)
    del content["runs"]
    content["embeddings"] = [_external_pin(workspace, text) for text in options.embeddings]
    return content


# --- cities ----------------------------------------------------------------------------------


def _city_pin(workspace: Workspace, key: str, tasks: set[tuple[str, str]]) -> dict[str, Any]:
    """Return the files that scores of a city depend on, and how they can be had."""
    listed = workspace.listed_files(key)
    labels = {f"labels/{task}.parquet" for city, task in tasks if city == key}
    files = {
        name: entry["sha256"]
        for name, entry in sorted(listed.items())
        if name == "places.parquet" or name.startswith("layers/") or name in labels
    }
    lock = read_json(workspace.lock_file(key))
    origin = lock["city"].get("origin")
    recipe = recipe_of(workspace.inputs_dir(key)) if origin == "synthetic" else None
    return {
        "files": files,
        "recipe": None if recipe is None else dataclasses.asdict(recipe),
        "fetch": _fetch_command(key, lock, labels),
        "inputs": dict(sorted(_inputs(lock))),
        **synthetic_marks(origin),
    }


def _fetch_command(key: str, lock: Mapping[str, Any], labels: set[str]) -> str:
    """Return the `urban fetch` that brings what a city's lock pins, with the names of its files."""
    words, area = [f"urban fetch --city {key}"], lock["city"]
    if area.get("origin") == "synthetic":
        return words[0]
    if area.get("origin") != "table":
        box = (f"{side:.7f}".rstrip("0") for side in shapely.from_wkt(area["area"]).bounds)
        words.append(f"--bbox {','.join(box)}")
    for layer, plan in sorted(lock["layers"].items()):
        local = OPTION_OF.get(plan.get("source", _source_of(layer)))
        files = [one["file"] for one in plan.get("inputs", [])]
        if local and files:
            words += [local.format(shlex.quote(name), layer) for name in files]
        elif str(plan.get("catalogue", "")).endswith("catalog.json"):
            words.append(f"--stac {layer}={plan['catalogue']}")
        else:
            words.append(f"--layer {layer}")
    for name, spec in sorted(lock["labels"].items()):
        if f"labels/{name}.parquet" in labels:
            radius = f"@{spec['radius_m']:g}m" if spec.get("radius_m") else ""
            per = "/km2" if spec.get("per_km2") else ""
            what = shlex.quote(f"{name}={spec['file']}:{spec['column']}{per}{radius}")
            words.append(f"--label {what}")
    return " ".join(words)


def _source_of(layer: str) -> str:
    """Return the source of a layer whose plan does not name it: those of entities."""
    return {"entities": "osm", "pois": "pois"}.get(layer, "")


def _inputs(lock: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (name, SHA-256) of the user's own files that a city was made from."""
    entries = [one for plan in lock["layers"].values() for one in plan.get("inputs", [])]
    entries += list(lock["labels"].values())
    return [(one["file"], one["sha256"]) for one in entries]


# --- runs ------------------------------------------------------------------------------------


def _run_pin(workspace: Workspace, run: Run) -> dict[str, Any]:
    """Return all that `urban train` needs to make a run again, and what it then was."""
    facts = run.facts
    own = run.folder / "method.py"
    return {
        "city": run.city,
        "method": run.method,
        "method_sha256": facts["method_sha256"],
        "source": own.read_text(encoding="utf-8") if facts["own_method"] else None,
        "preset": run.preset,
        "seed": run.seed,
        "overrides": facts["overrides"],
        "without": facts["without"],
        "precision": facts["precision"],
        "missing": facts.get("missing", 0.0),
        "chunk": facts.get("chunk", 0),
        "encoders": [
            f"{modality}={one}"
            for modality, titles in facts["encoders"].items()
            for one in titles.split(" + ")
        ],
        "hold_out": run.hold_out and _hold_out_pin(workspace, run.city, run.hold_out),
        "data": {name: facts["data"][name] for name in ("places", "encoders")},
        "weights_sha256": facts["files"][WEIGHTS]["sha256"],
    }


def _hold_out_pin(workspace: Workspace, city: str, held: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run held out, and how its split file is made, where that is still there."""
    folder = workspace.split_file(city, held["label"], 0).parent
    made: dict[str, Any] = {"kind": None, "seed": None, "folds": None}
    for path in sorted(folder.glob(f"{city}-{held['label']}-s*.parquet")):
        if sha256(path) == held["sha256"]:
            facts = open_parquet(path)[1]
            made = {"kind": facts["kind"], "seed": facts["seed"], "folds": facts["folds_wanted"]}
    return {"label": held["label"], "fold": held["fold"], **made}


# --- files of embeddings ---------------------------------------------------------------------


def _external_pin(workspace: Workspace, text: str) -> dict[str, Any]:
    option, files = files_of(text)
    named = {path: portable(workspace, path) for path in files}
    companion = None if option.companion is None else named[option.companion]
    return {
        "name": option.name,
        "file": portable(workspace, option.path),
        "key": option.key,
        "companion": companion,
        "units": option.units,
        "files": {named[path]: sha256(path) for path in files},
    }


def external_text(workspace: Workspace, pin: Mapping[str, Any]) -> str:
    """Return the option that names a pinned file of embeddings, below the workspace."""
    tail = f":key={pin['key']}" if pin["key"] else ""
    tail = f":units={pin['units']}" if pin["units"] else tail
    tail = f":{workspace.root / pin['companion']}" if pin["companion"] else tail
    return f"{pin['name']}={workspace.root / pin['file']}{tail}"


def portable(workspace: Workspace, path: Path) -> str:
    """Return a path from the workspace; of a file that lies elsewhere only its name."""
    root = workspace.root.resolve()
    whole = path.resolve()
    return whole.relative_to(root).as_posix() if whole.is_relative_to(root) else whole.name
