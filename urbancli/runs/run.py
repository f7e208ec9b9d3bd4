"""A finished run: opening it, and embedding any places with it."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy.typing as npt

from urbancli.configs import restored
from urbancli.encoders.base import State
from urbancli.encoding import Choice, encode_cached, encoder_of
from urbancli.errors import UrbanError, UsageError, unknown
from urbancli.grid import Places
from urbancli.layers import CityLayers, open_city
from urbancli.methods.base import Method, Width, load_method
from urbancli.runs.embedding import Present, Reader, Values, count_flops, embed_places
from urbancli.spoiling import WHOLE, Spoiling, city_at
from urbancli.tensors import read_tensors
from urbancli.tokens import Tokens
from urbancli.workspace import Workspace, fingerprint, read_json, sha256

FILES = (
    "config.json", "encoders.safetensors", "prepared.safetensors", "model.safetensors",
    "curves.parquet", "embeddings.parquet", "method.py",
)  # fmt: skip
"""What `run.json` lists with sizes and checksums; `method.py` only where it is the user's own."""

OUTPUTS = ("curves.parquet", "embeddings.parquet")
"""Those of them that a run is not opened through: only their size is looked at then."""

KEYS = (
    "method", "city", "preset", "seed", "pretraining", "hold_out", "inputs", "parameters", "data",
    "files", "fingerprint", "modalities", "own_method", "overrides", "precision", "widths",
    "without", "encoders",
)  # fmt: skip
"""What `run.json` must say."""


@dataclass(frozen=True)
class Run:
    """A trained method with the frozen encoders it reads through.

    Attributes:
        folder: where it lies.
        facts: the content of `run.json`.
        name: its folder's name.
        method: name of the method.
        city: the city it was trained on.
        preset: of the method's Config.
        seed: of weights, batches and masks.
        pretraining: `inductive` where a fold was held out, else `transductive`.
        hold_out: `sha256` and `label` of the split file and the `fold` held out, or None.
        modalities: what `embed` reads.
        parameters: how many numbers were trained.
        seconds: wall time of training.
        peak_mb: peak memory of the process that trained, MiB.
    """

    folder: Path
    facts: dict[str, Any]
    name: str
    method: str
    city: str
    preset: str
    seed: int
    pretraining: str
    hold_out: dict[str, Any] | None
    modalities: tuple[str, ...]
    parameters: int
    seconds: float
    peak_mb: float

    def missing(self, city: CityLayers) -> tuple[str, ...]:
        """Return the modalities `embed` reads that a city lacks: it treats them as dropped."""
        have = city.modalities()
        return tuple(name for name in self.modalities if name not in have)

    def mismatch(self, city: CityLayers) -> str:
        """Return in one clause how a city's data are not those the run was trained on, or "".

        Of another city than the run's own only the frozen encoders are compared: its places and
        layers are other ones by intent. Layers that the run never saw may come and go.
        """
        data = self.facts["data"]
        have = city.modalities()
        for modality, every in data["encoders"].items():
            for facts in every:
                if fault := _encoder_fault(facts, modality):
                    return f"the encoder of {modality} {fault}"
        if city.key != self.city:
            return ""
        if places_fingerprint(city.tiles()) != data["places"]:
            return "the places have changed"
        for modality in self.facts["modalities"]:
            if modality not in have:
                return f"the layer {modality} is gone"
            if city.checksum(modality) != data["layers"][modality]:
                return f"its layer {modality} has changed"
        return ""

    def tokens(
        self,
        city: CityLayers,
        places: Places,
        stale: Iterable[tuple[str, str]] = (),
        names: Iterable[str] | None = None,
    ) -> dict[str, Tokens]:
        """Return the frozen features of places, from the city's cache where it holds them.

        Args:
            city: whose layers are read; a modality that it does not have is left out.
            places: of this city.
            stale: as of `Spoiling`: the layers of other cities that stand for some.
            names: modalities; default those that `embed` reads.

        Raises:
            UrbanError: a city that a stale layer is of has other tiles, or no such layer.
        """
        have, dates = city.modalities(), dict(stale)
        found = {}
        for name in self.modalities if names is None else names:
            if name in have:
                source = city_at(city, places, name, dates[name]) if name in dates else city
                encoders = self.encoders[name]
                found[name] = encode_cached(source, name, places, encoders, *self._states[name])
        return found

    def embed(
        self, city: CityLayers, places: Places, spoiling: Spoiling = WHOLE
    ) -> tuple[Values, Present]:
        """Return the embeddings of any places of a city, seen in training or not.

        Args:
            city: whose layers are read.
            places: N tiles or points of this city.
            spoiling: what is done to the modalities first.

        Returns:
            (N, D) in the order of `places`, and (N,) whether a place has any of the modalities
            left; where it has none its row is zero.

        Raises:
            UrbanError: no modality is left, or the spoiling does not fit the city.
        """
        return embed_places(self.trained, self.reader(city, places, spoiling), len(places))

    def embed_untrained(
        self, city: CityLayers, places: Places, spoiling: Spoiling = WHOLE
    ) -> tuple[Values, Present]:
        """Return what `embed` would have given before the first training step.

        The same Config, statistics and frozen features; the random weights of the run's seed.
        """
        return embed_places(self.untrained, self.reader(city, places, spoiling), len(places))

    def reader(self, city: CityLayers, places: Places, spoiling: Spoiling = WHOLE) -> Reader:
        """Return the tokens of places as `embed` reads them; its `spared` counts places.

        Raises:
            UrbanError: the city has nothing that is read, or the spoiling does not fit it.
        """
        tokens = self.tokens(city, places, spoiling.stale)
        if not tokens:
            raise UrbanError(
                f"'{city.key}' has none of {', '.join(self.modalities)}, which {self.name} reads: "
                f"run `urban fetch --city {city.key}` with them"
            )
        return Reader(self.trained, tokens, places, spoiling)

    @cached_property
    def flops(self) -> int | None:
        """Floating point operations to embed one place, see `count_flops`; None if not known.

        Of places of its own city, whose tokens must still be there to be had.
        """
        try:
            city = open_city(Workspace(self.folder.parents[1]), self.city)
            places = city.tiles()
            reader = self.reader(city, places)
        except UrbanError:
            return None
        return count_flops(self.trained, reader, len(places))

    @property
    def reach_m(self) -> float:
        """Side of the largest square that its encoders read, metres."""
        every = self.facts["data"]["encoders"].values()
        return max((facts["window_m"] for one in every for facts in one), default=0.0)

    @cached_property
    def encoders(self) -> Choice:
        """The encoders that it reads through."""
        every = self.facts["data"]["encoders"]
        return {name: tuple(map(encoder_of, facts)) for name, facts in every.items()}

    @cached_property
    def _states(self) -> dict[str, tuple[State, str]]:
        return read_states(self.folder / "encoders.safetensors")

    @cached_property
    def trained(self) -> Method:
        """The method with the weights it was trained to."""
        return self._method("model.safetensors")

    @cached_property
    def untrained(self) -> Method:
        """The method before its first training step."""
        return self._method("prepared.safetensors")

    def _method(self, file: str) -> Method:
        """Return the method with the weights of the seed, and on top of them those in a file."""
        own = self.folder / "method.py"
        module = load_method(str(own) if self.facts["own_method"] else self.method)
        config = restored(
            module.Config, read_json(self.folder / "config.json")["config"], "the method"
        )
        widths = {name: Width(*self.facts["widths"][name]) for name in self.facts["modalities"]}
        method = build_method(module, config, widths, self.seed)
        _, tensors = read_tensors(self.folder / file)
        random = {} if file == "model.safetensors" else method.state_dict()
        try:
            method.load_state_dict({**random, **tensors})
        except RuntimeError as err:
            raise UrbanError(
                f"{self.name} was trained with other code of '{self.method}': give its "
                "`urban train` again"
            ) from err
        return method.eval()


def _encoder_fault(facts: Mapping[str, Any], modality: str) -> str:
    """Return in one clause how an encoder is no more what a run says of it, or ""."""
    try:
        now = encoder_of(facts).facts(modality)
    except UrbanError as err:
        return f"cannot be had ({err})"
    # Settings added since have the values that they had before they were settings.
    then = {**facts, "config": now["config"]}
    return "" if fingerprint(now) == fingerprint(then) else "has changed"


def open_run(workspace: Workspace, name: str) -> Run:
    """Return a finished run.

    Raises:
        UsageError: there is none of this name, or it is not finished.
        UrbanError: a file of it is missing or has changed.
    """
    folder = workspace.run_dir(name)
    if name not in workspace.runs():
        if name and name == folder.name and folder.is_dir():
            raise UsageError(f"run '{name}' is not finished: give its `urban train` again")
        raise unknown("run", name, workspace.runs())
    facts = read_json(folder / "run.json")
    if fault := damage(folder, facts, OUTPUTS):
        raise UrbanError(f"run '{name}' is not whole, {fault}: give its `urban train` again")
    return make_run(folder, facts)


def list_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return name → size in bytes and SHA-256 of the files of a run that are there."""
    paths = [folder / name for name in FILES if (folder / name).exists()]
    return {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in paths}


def damage(folder: Path, facts: Mapping[str, Any], by_size: Collection[str] = ()) -> str:
    """Return in one clause what is wrong with the files of a run, or "".

    Args:
        folder: of the run.
        facts: the content of its `run.json`.
        by_size: files whose checksum is not compared, to save reading them.
    """
    if lacking := [key for key in KEYS if key not in facts]:
        return f"run.json lacks {', '.join(lacking)}"
    for name, listed in facts["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        same = path.stat().st_size == listed["bytes"]
        if not same or (name not in by_size and sha256(path) != listed["sha256"]):
            return f"{name} has changed"
    try:
        cost = read_json(folder / "cost.json")
    except UrbanError:
        return "cost.json is missing or broken"
    return "" if {"seconds", "peak_mb"} <= set(cost) else "cost.json is not complete"


def make_run(folder: Path, facts: dict[str, Any]) -> Run:
    """Return the run in a folder, given what `run.json` says or will say."""
    cost = read_json(folder / "cost.json")
    return Run(
        folder,
        facts,
        folder.name,
        facts["method"],
        facts["city"],
        facts["preset"],
        facts["seed"],
        facts["pretraining"],
        facts["hold_out"],
        tuple(facts["inputs"]),
        facts["parameters"],
        cost["seconds"],
        cost["peak_mb"],
    )


def places_fingerprint(places: Places) -> str:
    """Return what changes whenever the tiles of a city, or their order, change."""
    return fingerprint([places.grid.epsg, *places.place_id.tolist()])


def build_method(module: ModuleType, config: Any, widths: Mapping[str, Width], seed: int) -> Method:
    """Return a method with the random weights of a seed; torch's own generator stays as it was.

    Raises:
        UrbanError: it does not fit into memory.
    """
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            method: Method = module.Method(config, widths)
        except (MemoryError, RuntimeError) as err:
            if isinstance(err, RuntimeError) and "memory" not in str(err):
                raise
            raise UrbanError(
                "the model does not fit into memory: set smaller widths with --set"
            ) from err
    return method


def read_states(path: Path) -> dict[str, tuple[State, str]]:
    """Return modality → (state, fingerprint) of the frozen encoders of a run."""
    facts, tensors = read_tensors(path)
    states: dict[str, dict[str, npt.NDArray[Any]]] = {name: {} for name in facts["fingerprints"]}
    for name, value in tensors.items():
        modality, key = name.split("/", 1)
        states[modality][key] = value.numpy()
    return {name: (state, facts["fingerprints"][name]) for name, state in states.items()}
