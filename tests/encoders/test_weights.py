"""Weights of published encoders: folders, portable names, and a hub that is or is not there.

The hub's client reads its settings as it is imported, so it is asked in processes of their own,
over a server on loopback that answers as the hub does.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from urbancli.encoders import _vision, _weights
from urbancli.errors import UrbanError, UsageError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URBAN_CACHE", str(tmp_path / "cache"))


def make_vit(folder: Path, seed: int = 0) -> Path:
    """Save a tiny ViT with random weights."""
    import torch
    from transformers import ViTConfig, ViTModel

    _weights.hush()
    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=16, patch_size=8,
    )  # fmt: skip
    ViTModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    return make_vit(tmp_path / "somewhere/my-vit")


# --- folders ---------------------------------------------------------------------------------


def test_a_folder_is_named_by_its_checksum_and_found_again(vit: Path) -> None:
    weights = _weights.find(str(vit))
    assert weights.folder == vit
    name = _weights.portable(str(vit))
    assert name == f"my-vit@sha256:{weights.sha256[:12]}"
    assert _weights.find(name) == weights
    assert _weights.portable(name) == name


def test_the_checksum_is_of_names_and_contents_of_the_files_read(vit: Path) -> None:
    plain = _weights.find(str(vit)).sha256
    lines = [
        f"{name} {hashlib.sha256((vit / name).read_bytes()).hexdigest()}\n"
        for name in ("config.json", "model.safetensors")
    ]
    assert plain == hashlib.sha256("".join(lines).encode()).hexdigest()
    (vit / "README.md").write_text("not read")
    assert _weights.find(str(vit)).sha256 == plain
    (vit / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3]}')
    assert _weights.find(str(vit)).sha256 != plain


def test_a_relative_folder_and_home_are_folders(vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(vit.parent)
    monkeypatch.setenv("HOME", str(vit.parent))
    name = _weights.portable("my-vit")
    assert _weights.portable("./my-vit") == _weights.portable("~/my-vit") == name
    monkeypatch.chdir(vit)
    assert _weights.portable(".") == name
    assert _weights.find(name).folder == vit


def test_a_moved_folder_is_found_once_it_was_given_again(vit: Path, tmp_path: Path) -> None:
    name = _weights.portable(str(vit))
    moved = tmp_path / "my-vit"
    shutil.move(vit, moved)
    with pytest.raises(UrbanError, match=f"'{name}' are gone from .*: bring them back, or give"):
        _weights.find(name)
    assert _weights.portable(str(moved)) == name
    assert _weights.find(name).folder == moved


def test_of_folders_with_equal_bytes_the_first_that_still_has_them_stays(
    vit: Path, tmp_path: Path
) -> None:
    name = _weights.portable(str(vit))
    copy = shutil.copytree(vit, tmp_path / "copy")
    assert _weights.portable(str(copy)).endswith(name.partition("@")[2])
    assert _weights.find(name).folder == vit
    make_vit(vit, seed=1)
    _weights.portable(str(copy))
    assert _weights.find(name).folder == copy, "the first has other bytes now"
    shutil.rmtree(vit)
    again = shutil.copytree(copy, tmp_path / "again")
    (copy / "model.safetensors").unlink()
    _weights.portable(str(again))
    assert _weights.find(name).folder == again


def test_a_folder_without_weights_is_not_kept_in_the_cache(vit: Path, tmp_path: Path) -> None:
    (vit / "model.safetensors").unlink()
    with pytest.raises(UrbanError, match=r"no model\.safetensors"):
        _weights.portable(str(vit))
    assert not (tmp_path / "cache").exists()


def test_a_name_of_changed_or_unknown_weights_says_so(
    vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = _weights.portable(str(vit))
    make_vit(vit, seed=1)
    with pytest.raises(UrbanError, match=f"'{name}' have changed in"):
        _weights.find(name)
    assert _weights.portable(str(vit)) != name
    monkeypatch.setenv("URBAN_CACHE", str(tmp_path / "other machine"))
    with pytest.raises(UrbanError, match=f"'{name}' are not known on this machine: give their"):
        _weights.find(name)


def test_a_cache_that_cannot_be_written_names_its_variable(
    vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("URBAN_CACHE", str(tmp_path / "file"))
    with pytest.raises(UrbanError, match=r"\(URBAN_CACHE names another folder\)"):
        _weights.portable(str(vit))


def test_pickles_are_no_weights(vit: Path) -> None:
    (vit / "model.safetensors").rename(vit / "pytorch_model.bin")
    with pytest.raises(UrbanError, match=r"no model\.safetensors in .*pickles .* never read"):
        _weights.find(str(vit))


@pytest.mark.parametrize("model", ["./nothing", "/no/such/folder", "a/b/c", "no such", "x@"])
def test_what_is_neither_folder_nor_id_is_refused(model: str) -> None:
    with pytest.raises(UsageError, match=r"no folder .*: give a folder of weights, or a hub id"):
        _weights.find(model)


# --- loading ---------------------------------------------------------------------------------


def test_models_are_loaded_once_and_anew_after_a_change(vit: Path) -> None:
    def load() -> object:
        more = {"add_pooling_layer": False}
        return _weights.load_model("ViTModel", _weights.find(str(vit)), ("vit",), **more)

    first = load()
    assert load() is first
    assert not first.training  # type: ignore[attr-defined]
    make_vit(vit, seed=1)
    assert load() is not first


def test_what_a_model_lacks_is_never_made_up(vit: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(vit / "model.safetensors")
    del tensors["layernorm.weight"]
    save_file(tensors, vit / "model.safetensors", {"format": "pt"})
    with pytest.raises(UrbanError, match=r"lacks 1 weights of ViTModel \(layernorm\.weight"):
        _weights.load_model("ViTModel", _weights.find(str(vit)), ("vit",), add_pooling_layer=False)


def test_other_and_broken_models_are_refused(vit: Path) -> None:
    with pytest.raises(UsageError, match="no model of type clip or dinov2 but 'vit': give other"):
        _weights.load_model("X", _weights.find(str(vit)), ("clip", "dinov2"))
    (vit / "model.safetensors").write_bytes(b"0" * 100)
    with pytest.raises(UrbanError, match=r"cannot load ViTModel of .*: bring the weights again"):
        _weights.load_model("ViTModel", _weights.find(str(vit)), ("vit",), add_pooling_layer=False)
    (vit / "config.json").write_text("{")
    with pytest.raises(UrbanError, match=r"cannot read .*config\.json: bring"):
        _weights.load_model("ViTModel", _weights.find(str(vit)), ("vit",))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"hidden_size": "x"}, "cannot load ViTModel of .*hidden_size.*: bring the weights again"),
        ({"num_attention_heads": 0}, "cannot load ViTModel of .*ZeroDivisionError"),
        ({"patch_size": 0}, "cannot load ViTModel of .*ZeroDivisionError"),
        ({"hidden_size": 32}, "its tensors have other shapes than its config.json says"),
        (None, "my-vit' has no config.json, which tells"),
    ],
)
def test_a_strange_config_is_told_on_one_line(
    vit: Path, change: dict[str, object] | None, told: str
) -> None:
    facts = json.loads((vit / "config.json").read_text())
    (vit / "config.json").write_text(json.dumps({**facts, **(change or {})}))
    if change is None:
        (vit / "config.json").unlink()
    with pytest.raises(UrbanError, match=told) as raised:
        _vision.open_vision(_weights.find(str(vit)), ("vit",))
    assert "\n" not in str(raised.value)
    assert "report" not in str(raised.value), "transformers' report is not shown"


def test_loading_prints_nothing(vit: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    logging.set_verbosity_warning()  # type: ignore[no-untyped-call]
    logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    _vision.open_vision(_weights.find(str(vit)), ("vit",))
    assert capfd.readouterr() == ("", "")


# --- the hub ---------------------------------------------------------------------------------


@dataclass
class Hub:
    """What a server on loopback answers, and what it was asked."""

    models: dict[str, dict[str, bytes]]
    url: str = ""
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        """Return status, body and headers, as the hub's API of models has them."""
        told = {"X-Repo-Commit": COMMIT}
        for model, files in self.models.items():
            if re.fullmatch(f"/api/models/{model}(/revision/(main|v1|{COMMIT}))?", path):
                body = {"id": model, "sha": COMMIT, "siblings": [{"rfilename": f} for f in files]}
                return 200, json.dumps(body).encode(), told
            if path.startswith(f"/api/models/{model}/revision/"):
                return 404, b"", {"X-Error-Code": "RevisionNotFound"}
            if path.startswith(f"/api/models/{model}/tree/"):
                tree = [
                    {"type": "file", "path": name, "size": len(body), "oid": _digest(body)}
                    for name, body in files.items()
                ]
                return 200, json.dumps(tree).encode(), told
            name = path.removeprefix(f"/{model}/resolve/").partition("/")[2]
            if path.startswith(f"/{model}/resolve/") and name in files:
                told["ETag"] = f'"{_digest(files[name])}"'
                return 200, files[name], told
        return 404, b"", {"X-Error-Code": "RepoNotFound"}


def _digest(body: bytes) -> str:
    return hashlib.sha1(body, usedforsecurity=False).hexdigest()


@contextlib.contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            hub.asked.append(path)
            status, body, headers = hub.answer(path)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


SCRIPT = """
import sys
from urbancli.encoders import _vision, _weights
from urbancli.errors import UrbanError
try:
    found = _weights.find(sys.argv[1])
    print(found.folder, found.sha256)
except UrbanError as err:
    print(err.exit_code, err)
"""

Ask = Callable[..., str]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Return `ask(model, url, **variables)`: what a process finds of a model, or its error."""

    def asked(model: str, url: str, **variables: str) -> str:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        environment = {
            **kept, "HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": url,
            "HF_TOKEN": "hf_secretsecret", "NO_PROXY": "127.0.0.1", **variables,
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-W", "error::UserWarning", "-c", SCRIPT, model],
            env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert "hf_secretsecret" not in done.stdout
        assert done.stdout.count("\n") == 1, "one line"
        return done.stdout.strip()

    return asked


@pytest.fixture
def hub(vit: Path, socket_enabled: None) -> Iterator[Hub]:
    files = {path.name: path.read_bytes() for path in vit.iterdir()}
    extra = {"pytorch_model.bin": b"pickle", "onnx/model.onnx": b"onnx", "vocab.txt": b"a\nb\n"}
    pickled = {"config.json": files["config.json"], "pytorch_model.bin": b"pickle"}
    with serving(Hub({"us/vit": {**files, **extra}, "us/pickled": pickled})) as served:
        yield served


def test_a_model_of_the_hub_is_downloaded_once_and_then_used_offline(
    hub: Hub, ask: Ask, vit: Path
) -> None:
    folder, checksum = ask("us/vit", hub.url).split()
    taken = sorted(path.name for path in Path(folder).iterdir())
    assert taken == ["config.json", "model.safetensors", "vocab.txt"], "never a pickle"
    assert not any("pytorch_model.bin" in path for path in hub.asked)
    (vit / "vocab.txt").write_bytes(b"a\nb\n")
    assert checksum == _weights.find(str(vit)).sha256, "the same files, the same checksum"
    before = len(hub.asked)
    assert ask("us/vit", hub.url) == f"{folder} {checksum}"
    assert ask("us/vit", "http://127.0.0.1:9", HF_HUB_OFFLINE="1") == f"{folder} {checksum}"
    assert len(hub.asked) == before


def test_a_revision_is_asked_for(hub: Hub, ask: Ask) -> None:
    assert ask("us/vit@v1", hub.url).endswith(ask("us/vit@" + COMMIT, hub.url))
    assert "/api/models/us/vit/revision/v1" in hub.asked
    assert ask("us/vit@v2", hub.url).startswith(
        "2 the hub has no public model 'us/vit' at revision 'v2': check the id"
    )


def test_a_model_of_pickles_alone_is_refused(hub: Hub, ask: Ask) -> None:
    said = ask("us/pickled", hub.url)
    assert said.startswith("1 'us/pickled' has no model.safetensors on the hub, and pickles are")
    assert not any("pytorch_model.bin" in path for path in hub.asked)


def test_a_model_that_the_hub_does_not_have(hub: Hub, ask: Ask) -> None:
    assert ask("us/no-vit", hub.url).startswith("2 the hub has no public model 'us/no-vit': check")


def test_what_may_have_been_meant_for_a_folder_is_told_to_be_none(hub: Hub, ask: Ask) -> None:
    for url in (hub.url, "http://127.0.0.1:9"):
        assert "there is no folder 'bad/empty' either" in ask("bad/empty", url)


@pytest.mark.parametrize("offline", ["0", "1"])
def test_a_hub_out_of_reach_fails_fast_with_its_remedy(ask: Ask, offline: str) -> None:
    start = time.monotonic()
    said = ask("us/vit", "http://127.0.0.1:9", HF_HUB_OFFLINE=offline)
    assert time.monotonic() - start < 20
    assert said.startswith("4 the weights 'us/vit' are not here, and the hub cannot be reached")
    assert "give a local folder of them, as --encoder satellite=clip:FOLDER does" in said
