"""Making a run: what it will be, its tokens, its training, its files."""

import dataclasses
import importlib.metadata
import resource
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from urbancli import __version__
from urbancli.city import slug
from urbancli.configs import check_range
from urbancli.embeddings import write_embeddings
from urbancli.encoders.base import State
from urbancli.encoding import Choice, choose, encode_cached, fit_encoders, reach_of, unusual
from urbancli.errors import UrbanError, UsageError, unknown
from urbancli.grid import Places
from urbancli.layers import CityLayers, expand_modalities
from urbancli.methods.base import (
    Method,
    Width,
    code_of,
    configure,
    load_method,
    parameters_of,
    pool_once,
)
from urbancli.runs.hold_out import HoldOut, held_out_places
from urbancli.runs.run import (
    Run,
    build_method,
    damage,
    list_files,
    make_run,
    open_run,
    places_fingerprint,
)
from urbancli.spoiling import Spoiling, thinned
from urbancli.tensors import write_tensors
from urbancli.tokens import Tokens
from urbancli.training import (
    PRECISIONS,
    EpochReport,
    History,
    Progress,
    TrainOptions,
    pick_device,
    train,
)
from urbancli.workspace import (
    Workspace,
    atomic_path,
    fingerprint,
    read_json,
    read_table,
    sha256,
    sweep,
    write_json,
    write_table,
)

ENCODER_SEED = 0
"""Frozen encoders are the same whatever a run's seed: all methods see equal tokens."""

Bar = Callable[[str, int, int], None]
"""Told (what, done, total)."""


def _ignore(*_: Any) -> None:
    return None


@dataclass(frozen=True)
class RunOptions:
    """How a method is trained on a city.

    Attributes:
        preset: of the method's Config.
        seed: of weights, batches and masks.
        overrides: `key=value` on the Config.
        without: modalities (or groups) that the method is trained without.
        device: auto, cpu or cuda.
        precision: float32 or bf16.
        resume: whether to go on from a checkpoint of this very run.
        hold_out: see `held_out_places`.
        checkpoint_s: least seconds between checkpoints; they come at the end of an epoch.
        encoders: what is not the default of a modality, as `encoding.choose` takes it.
        missing: share of the pairs of place and modality, coordinates apart, that training does not
            see, drawn once by `seed`; a place keeps at least one modality. Embeddings see them.
        chunk: places of a batch that are represented at a time, 0 for all; see `TrainOptions`.

    Raises:
        UsageError: a seed that torch's generators cannot take, or an unknown device or precision.
        UrbanError: no GPU where one is asked for.
    """

    preset: str = "small"
    seed: int = 0
    overrides: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    device: str = "auto"
    precision: str = "float32"
    resume: bool = True
    hold_out: HoldOut | None = None
    checkpoint_s: float = 10.0
    encoders: tuple[str, ...] = ()
    missing: float = 0.0
    chunk: int = 0

    def __post_init__(self) -> None:
        fits = 0 <= self.missing < 1
        check_range("missing", self.missing, "at least 0 and below 1", fits)
        fits = self.chunk == 0 or self.chunk >= 2
        check_range("chunk", self.chunk, "at least 2, or 0 for the whole batch", fits)
        if not 0 <= self.seed < 1 << 63:
            raise UsageError(f"seed {self.seed} is out of range: give one from 0 to 2**63 - 1")
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        pick_device(self.device)


# --- what a run will be ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """All that is settled before the first layer is read; `index` are the training places."""

    name: str
    module: ModuleType
    config: Any
    places: Places
    index: npt.NDArray[np.int64]
    encoders: Choice
    facts: dict[str, Any]


def _plan(city: CityLayers, method_name: str, options: RunOptions) -> _Plan:
    module = load_method(method_name)
    own, code = method_name.endswith(".py"), code_of(module)
    # Files of one name, or named as a method of the package, are told apart by their content.
    method = f"{slug(Path(method_name).stem)[:40]}-{code[:8]}" if own else method_name
    config = configure(module.Config, options.preset, options.overrides)
    choice = choose(options.encoders, city.views())
    modalities, without = _modalities(city, module, method, choice, options.without)
    encoders = {name: choice[name] for name in modalities}
    places = city.tiles()
    held_out, hold_out = np.zeros(len(places), dtype=bool), None
    if options.hold_out is not None:
        path, fold = options.hold_out
        window_m = max(reach_of(encoders[name], name) for name in modalities)
        held_out = held_out_places(path, fold, places, window_m)
        label = read_table(path, ["fold"])[1]["label"]
        hold_out = {"sha256": sha256(path), "label": label, "fold": fold}
    facts = {
        "method": f"./{method}" if own else method,
        "method_sha256": code,
        "own_method": own,
        "preset": options.preset,
        "city": city.key,
        **city.marks(),
        "seed": options.seed,
        "overrides": sorted(options.overrides),
        "without": without,
        "precision": options.precision,
        "missing": options.missing,
        "chunk": options.chunk,
        "encoders": unusual(encoders, city.views()),
        "config": dataclasses.asdict(config),
        "modalities": list(modalities),
        "pretraining": "inductive" if hold_out else "transductive",
        "hold_out": hold_out,
        "places": len(places),
        "held_out_places": int(held_out.sum()),
        "data": {
            "places": places_fingerprint(places),
            "layers": {modality: city.checksum(modality) for modality in modalities},
            "encoders": {
                modality: [chosen.facts(modality) for chosen in encoders[modality]]
                for modality in modalities
            },
        },
    }
    special = [facts["overrides"], without, hold_out, options.precision]
    special += [facts["encoders"]] if facts["encoders"] else []
    special += [{k: facts[k]} for k in ("missing", "chunk") if facts[k]]
    name = f"{method}-{city.key}-{options.preset}-s{options.seed}"
    if special != [[], [], None, "float32"]:
        name += f"-{fingerprint(special)[:8]}"
    facts["fingerprint"] = fingerprint(facts)
    index = np.flatnonzero(~held_out)
    return _Plan(name, module, config, places, index, encoders, facts)


def _modalities(
    city: CityLayers, module: ModuleType, method: str, choice: Choice, without: Iterable[str]
) -> tuple[tuple[str, ...], list[str]]:
    """Return the modalities to train with, and those of the city that are left out."""
    have = [name for name in city.modalities() if name in choice]
    gone = [name for name in have if name in expand_modalities(without)]
    kept = tuple(name for name in have if name not in gone)
    missing = [name for name in module.Method.inputs or () if name not in kept]
    if missing or not kept:
        raise UrbanError(
            f"{method} reads {', '.join(missing) or 'some modality'}, which is not there to train "
            f"on in '{city.key}': fetch it, or leave it out of --without"
        )
    return kept, gone


# --- training --------------------------------------------------------------------------------


def create_run(
    workspace: Workspace,
    city: CityLayers,
    method_name: str,
    options: RunOptions,
    progress: Bar = _ignore,
    say: Callable[[str], None] = _ignore,
) -> Run:
    """Return the run of a method on a city: kept if it is there, else resumed or trained.

    Args:
        workspace: where `runs/` lies.
        city: a fetched city.
        method_name: a method of the package, or the path of a user's own Python file.
        options: how.
        progress: told (what, done, total).
        say: given one line about what a user should know.

    Raises:
        UsageError: an unknown method, preset, parameter, modality or fold.
        UrbanError: too few modalities or places, or the training diverged.
    """
    plan = _plan(city, method_name, options)
    for name in city.modalities():
        if name not in (*plan.encoders, *plan.facts["without"], *city.views()):
            say(f"{name} is not read: choose an encoder of it with --encoder {name}=…")
    folder = workspace.run_dir(plan.name)
    sweep(folder)
    if (folder / "run.json").exists():
        fault = _fault(folder, plan)
        if not fault:
            say(f"{plan.name} is already trained")
            (folder / "checkpoint.safetensors").unlink(missing_ok=True)
            return open_run(workspace, plan.name)
        say(f"{plan.name} {fault}: training it anew")
        (folder / "run.json").unlink()
    if plan.facts["hold_out"]:
        held = plan.facts["held_out_places"]
        say(f"{held:,} of {len(plan.places):,} places are held out of pre-training")
    if plan.facts["own_method"]:
        with atomic_path(folder / "method.py") as temporary:
            temporary.write_bytes(Path(str(plan.module.__file__)).read_bytes())
    states, tokens = _encode(city, plan, progress)
    _write_states(folder / "encoders.safetensors", states)
    method, history = _train(folder, plan, tokens, options, Progress(say, _report(progress)))
    write_tensors(folder / "model.safetensors", method.state_dict(), {})
    write_json(folder / "config.json", {"config": plan.facts["config"]})
    write_table(folder / "curves.parquet", _curves(history), {"run": plan.name, **city.marks()})
    write_json(folder / "cost.json", _cost(history, pick_device(options.device)))
    facts = {**plan.facts, **_result(method, history, tokens)}
    values, present = make_run(folder, facts).embed(city, plan.places)
    about = {key: facts[key] for key in ("method", "preset", "city", "seed", "pretraining")}
    about |= {"run": plan.name, "drop": [], **city.marks()}
    write_embeddings(folder / "embeddings.parquet", plan.places, values, present, about)
    write_json(folder / "run.json", {**facts, "files": list_files(folder)})
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return open_run(workspace, plan.name)


def other_run(workspace: Workspace, city: CityLayers, method_name: str, options: RunOptions) -> str:
    """Return whether `create_run` would train over a finished run, in one clause; or ""."""
    plan = _plan(city, method_name, options)
    folder = workspace.run_dir(plan.name)
    fault = _fault(folder, plan) if (folder / "run.json").exists() else ""
    return fault and f"{plan.name} {fault}"


def _fault(folder: Path, plan: _Plan) -> str:
    """Return why a finished run is not the planned one, or not whole, in one clause; or ""."""
    try:
        facts = read_json(folder / "run.json")
    except UrbanError:
        return "has a broken run.json"
    if facts.get("fingerprint") != plan.facts["fingerprint"]:
        return "was trained with other settings, code or data"
    fault = damage(folder, facts)
    return f"is not whole, {fault}" if fault else ""


def _report(progress: Bar) -> Callable[[EpochReport], None]:
    return lambda epoch: progress(f"train ({epoch.stage})", epoch.epoch, epoch.epochs)


def _encode(
    city: CityLayers, plan: _Plan, progress: Bar
) -> tuple[dict[str, tuple[State, str]], dict[str, Tokens]]:
    """Return every modality's encoder state, fitted on the training places, and all tokens."""
    training = plan.places.take(plan.index)
    names = plan.facts["modalities"]
    states, tokens = {}, {}
    for number, modality in enumerate(names):
        progress("encode", number, len(names))
        encoders = plan.encoders[modality]
        states[modality] = fit_encoders(city, modality, training, encoders, ENCODER_SEED)
        tokens[modality] = encode_cached(city, modality, plan.places, encoders, *states[modality])
    progress("encode", len(names), len(names))
    return states, tokens


def _train(
    folder: Path, plan: _Plan, tokens: Mapping[str, Tokens], options: RunOptions, progress: Progress
) -> tuple[Method, History]:
    import torch

    widths = {name: _width(part) for name, part in tokens.items()}
    method = build_method(plan.module, plan.config, widths, options.seed)
    tokens = thinned(
        pool_once(method, tokens),
        plan.places.place_id,
        Spoiling(rate=options.missing, seed=options.seed),
    )
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method.prepare(tokens, plan.index)
    prepared = {
        name: value
        for name, value in method.state_dict().items()
        if not torch.equal(value, before[name])
    }
    write_tensors(folder / "prepared.safetensors", prepared, {})
    checkpoint = folder / "checkpoint.safetensors"
    if not options.resume:
        checkpoint.unlink(missing_ok=True)
    how = TrainOptions(
        options.seed, options.device, options.precision, options.checkpoint_s, options.chunk
    )
    key = fingerprint([plan.facts["fingerprint"], pick_device(options.device)])
    history = train(method, tokens, plan.index, how, checkpoint, key, progress)
    return method.cpu(), history


def _width(tokens: Tokens) -> Width:
    return Width(int(tokens.values.shape[1]), tokens.pooled_width)


# --- files -----------------------------------------------------------------------------------


def _result(method: Method, history: History, tokens: Mapping[str, Tokens]) -> dict[str, Any]:
    """Return what `run.json` says beside the plan."""
    packages = ("torch", "numpy", "safetensors")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "widths": {name: dataclasses.astuple(_width(part)) for name, part in tokens.items()},
        "width": method.width,
        "inputs": list(method.inputs or method.modalities),
        "parameters": sum(parameter.numel() for parameter in parameters_of(method)),
        "epochs": {stage.name: stage.epochs for stage in method.stages()},
        "steps": history.steps,
        "places_seen": history.places_seen,
        "versions": {"urbancli": __version__, **versions},
    }


def _cost(history: History, device: str) -> dict[str, Any]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_mb = peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    return {"seconds": round(history.seconds, 3), "peak_mb": round(peak_mb, 1), "device": device}


def _write_states(path: Path, states: Mapping[str, tuple[State, str]]) -> None:
    import torch

    tensors = {
        f"{modality}/{key}": torch.from_numpy(np.array(value, order="C"))
        for modality, (state, _) in states.items()
        for key, value in state.items()
    }
    write_tensors(path, tensors, {"fingerprints": {name: key for name, (_, key) in states.items()}})


def _curves(history: History) -> pa.Table:
    """Return the curves as a table: stage, epoch, quantity, value."""
    names = ("stage", "epoch", "quantity", "value")
    kinds = (pa.string(), pa.int64(), pa.string(), pa.float64())
    columns = [[row[number] for row in history.curves] for number in range(4)]
    return pa.table({n: pa.array(c, k) for n, c, k in zip(names, columns, kinds, strict=True)})
