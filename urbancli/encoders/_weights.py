"""Published weights: from a `model` to a folder of files here, and a checksum of what is in it.

A `model` is an id on the Hugging Face hub (`openai/clip-vit-large-patch14`, or with a revision
`id@refs/pr/1`), a local folder, or the portable name of a local folder, `NAME@sha256:<12 hex>`:
files of a run hold that one, never a path. Which folder it was stands in the user's cache, on this
machine alone. A folder that exists is taken before an id of the same text.

Only safetensors are read, never pickles. What was downloaded once is used without asking the hub
again, so an id means the same here until its copy is deleted; a revision pins it everywhere.
"""

import functools
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urbancli.errors import ServiceError, UrbanError, UsageError
from urbancli.net import cache_dir
from urbancli.workspace import read_json, write_json

WEIGHT_FILES = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")

FILES = (
    "config.json", "preprocessor_config.json", "processor_config.json", *WEIGHT_FILES,
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model",
    "sentencepiece.bpe.model", "modules.json", "1_Pooling/config.json",
)  # fmt: skip
"""What is downloaded of a model, where it has it; and what its checksum covers."""

PORTABLE = re.compile(r"(?P<name>[^/]+)@sha256:(?P<short>[0-9a-f]{12})")

HUB_ID = re.compile(r"(?P<id>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?")

MISMATCHED = "You set `ignore_mismatched_sizes` to `False`"
"""How transformers' error begins where tensors have other shapes; it goes on to a report above it,
which `hush` keeps away."""

ANSWER_S = 10.0
"""How long the hub may take for its first answer."""

GIVE_FOLDER = "or give a local folder of them, as --encoder satellite=clip:FOLDER does"


@dataclass(frozen=True)
class Weights:
    """The files of a model.

    Attributes:
        folder: where they lie here, in the layout of `transformers.save_pretrained`.
        sha256: of the names and contents of those of `FILES` that are there.
    """

    folder: Path
    sha256: str


def find(model: str) -> Weights:
    """Return the files of a model, downloading them where they are not here yet.

    Args:
        model: an id on the hub, a folder, or a portable name, see the module.

    Raises:
        UsageError: it names no folder and no model.
        ServiceError: the hub cannot be reached and no copy is here.
        UrbanError: the folder lacks safetensors, or is not known on this machine (any more).
    """
    known = PORTABLE.fullmatch(model)
    if known:
        return _registered(model, known["short"])
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _weights(folder.absolute())
    hub = HUB_ID.fullmatch(model)
    if hub is None or model.startswith("."):
        raise UsageError(f"no folder '{model}': give a folder of weights, or a hub id as org/name")
    return _weights(_downloaded(hub["id"], hub["revision"]))


def portable(model: str) -> str:
    """Return how files name a model: a folder by its name and checksum, all else as it is.

    Which folder that is on this machine is kept in the user's cache: of folders with the same bytes
    the first that still has them.

    Raises:
        UrbanError: the folder holds no weights, or the user's cache cannot be written.
    """
    folder = Path(model).expanduser()
    if PORTABLE.fullmatch(model) or not folder.is_dir():
        return model
    weights = _weights(folder.absolute())
    short = weights.sha256[:12]
    path = _register(short)
    try:
        # Of folders with the same bytes the first stays: a copy that goes away takes no name along.
        if not _still_holds(path, short):
            write_json(path, {"folder": str(weights.folder)})
    except UrbanError as err:
        raise UrbanError(f"{err} (URBAN_CACHE names another folder)") from err
    return f"{weights.folder.resolve().name.replace('@', '_')}@sha256:{short}"


def read_facts(weights: Weights, name: str = "config.json") -> dict[str, Any]:
    """Return a JSON file of a model; empty where it has none of that name.

    Raises:
        UrbanError: it cannot be read.
    """
    path = weights.folder / name
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as err:
        raise UrbanError(f"cannot read {path}: bring the model's folder again") from err
    return found if isinstance(found, dict) else {}


def load_model(name: str, weights: Weights, kinds: Sequence[str], **more: Any) -> Any:
    """Return a model in evaluation mode on `device()`; the last few loaded are kept.

    Args:
        name: of its class in `transformers`, e.g. `CLIPVisionModelWithProjection`.
        weights: from `find`.
        kinds: the `model_type` that its config.json may name.
        more: hashable arguments of the class.

    Raises:
        UrbanError: the files are of another kind of model, broken, or lack some of its weights:
            `transformers` would make those up at random.
    """
    if not (weights.folder / "config.json").exists():
        raise UsageError(
            f"{_said(weights)} has no config.json, which tells the model's type: bring it beside "
            "the weights"
        )
    kind = read_facts(weights).get("model_type", "")
    if kind not in kinds:
        raise UsageError(
            f"config.json of {_said(weights)} names no model of type {' or '.join(kinds)} but "
            f"'{kind}': give other weights, or the encoder of that type (`urban list encoders`)"
        )
    return _loaded(name, weights, tuple(sorted(more.items())))


def device() -> str:
    """Return the torch device that encoders run on: cuda where there is one, else cpu."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def hush() -> None:
    """Keep transformers and the hub from writing bars and warnings to stderr."""
    from huggingface_hub.utils.tqdm import disable_progress_bars
    from transformers.utils import logging

    disable_progress_bars()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def reason(err: Exception) -> str:
    """Return what another library's error says, on one line and not too long."""
    said = " ".join(str(err).split())
    if said.startswith(MISMATCHED):
        return "its tensors have other shapes than its config.json says"
    return f"{type(err).__name__}: {said}"[:200] if said else type(err).__name__


@functools.lru_cache(maxsize=2)
def _loaded(name: str, weights: Weights, more: tuple[tuple[str, Any], ...]) -> Any:
    import transformers

    hush()
    try:
        model, report = getattr(transformers, name).from_pretrained(
            weights.folder, local_files_only=True, use_safetensors=True,
            output_loading_info=True, **dict(more),
        )  # fmt: skip
    except Exception as err:  # transformers lets through whatever a strange setting runs into
        raise UrbanError(
            f"cannot load {name} of {_said(weights)} ({reason(err)}): bring the weights again"
        ) from err
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise UrbanError(
            f"{_said(weights)} lacks {len(missing)} weights of {name} ({missing[0]}, …): "
            "give the weights of such a model"
        )
    return model.eval().requires_grad_(False).to(device())


def _said(weights: Weights) -> str:
    return f"'{weights.folder}'"


def _weights(folder: Path) -> Weights:
    """Return the weights in a folder."""
    paths = sorted({path for pattern in FILES for path in folder.glob(pattern)})
    if not any(path.suffix == ".safetensors" for path in paths):
        raise UrbanError(
            f"no model.safetensors in '{folder}', and pickles (.bin, .pt) are never read: "
            "bring the weights as safetensors"
        )
    stamps = [(path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return Weights(folder, _checksum(folder, tuple(stamps)))


@functools.lru_cache(maxsize=16)
def _checksum(folder: Path, stamps: tuple[tuple[Path, int, int], ...]) -> str:
    whole = hashlib.sha256()
    for path, _, _ in stamps:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.relative_to(folder).as_posix()} {digest}\n".encode())
    return whole.hexdigest()


def _register(short: str) -> Path:
    return cache_dir() / "weights" / f"{short}.json"


def _still_holds(path: Path, short: str) -> bool:
    """Return whether the folder that a file of the cache names has the weights of a checksum."""
    folder = Path(str(read_json(path).get("folder"))) if path.exists() else None
    if folder is None or not folder.is_dir():
        return False
    try:
        return _weights(folder).sha256.startswith(short)
    except UrbanError:
        return False


def _registered(model: str, short: str) -> Weights:
    """Return the weights of a portable name."""
    path = _register(short)
    remedy = "give their folder once, as `urban encode --encoder MODALITY=ENCODER:FOLDER` does"
    if not path.exists():
        raise UrbanError(f"the weights '{model}' are not known on this machine: {remedy}")
    folder = Path(str(read_json(path).get("folder")))
    weights = _weights(folder) if folder.is_dir() else None
    if weights is None or not weights.sha256.startswith(short):
        what = "are gone from" if weights is None else "have changed in"
        raise UrbanError(f"the weights '{model}' {what} '{folder}': bring them back, or {remedy}")
    return weights


@functools.lru_cache(maxsize=16)
def _downloaded(hub_id: str, revision: str | None) -> Path:
    """Return the folder of a model of the hub: the copy here, else a new one."""
    import huggingface_hub
    from huggingface_hub import errors
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    ask = functools.partial(
        huggingface_hub.snapshot_download, hub_id, revision=revision, allow_patterns=list(FILES)
    )
    named = f"'{hub_id}'" + (f" at revision '{revision}'" if revision else "")
    try:
        folder = Path(ask(local_files_only=True))
        if (folder / "config.json").exists() and any(folder.glob("*.safetensors")):
            return folder
    except (errors.LocalEntryNotFoundError, OSError):
        pass  # no whole copy is here
    except ValueError as err:
        raise UsageError(f"{named} is no id of a model on the hub: write it as org/name") from err
    try:
        # snapshot_download waits without end for a hub that takes the question and never answers.
        huggingface_hub.HfApi().model_info(hub_id, revision=revision, timeout=ANSWER_S)
        folder = Path(ask())
    except errors.GatedRepoError as err:
        raise ServiceError(
            f"the hub gives the weights {named} only to those who accepted their terms: accept "
            f"them at huggingface.co/{hub_id} and set HF_TOKEN, {GIVE_FOLDER}"
        ) from err
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as err:
        raise UsageError(
            f"the hub has no public model {named}: check the id (HF_TOKEN for a private one; there "
            f"is no folder '{hub_id}' either), {GIVE_FOLDER}"
        ) from err
    except Exception as err:  # of whatever HTTP library the hub's client uses
        raise ServiceError(
            f"the weights {named} are not here, and the hub cannot be reached for them "
            f"({type(err).__name__}; there is no folder '{hub_id}' either): go online once "
            f"(HTTPS_PROXY, HF_ENDPOINT), {GIVE_FOLDER}"
        ) from err
    if not any(folder.glob("*.safetensors")):
        raise UrbanError(
            f"{named} has no model.safetensors on the hub, and pickles are never read: give a "
            f"revision that has (often {hub_id}@refs/pr/1), {GIVE_FOLDER}"
        )
    return folder
