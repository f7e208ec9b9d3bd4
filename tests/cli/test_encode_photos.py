"""`urban encode` on a user's own photos: from a folder of JPEGs to vectors, without a network."""

from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Urban
from tests.cli.test_fetch_photos import _photo
from urbancli.token_files import load_tokens


def _save_model(folder: Path) -> Path:
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        image_size=32, patch_size=8, projection_dim=24,
    )  # fmt: skip
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return folder


def test_photos_become_tokens(
    urban: Urban, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("URBAN_CACHE", str(tmp_path / "cache"))
    folder, workspace = tmp_path / "photos", tmp_path / "w"
    folder.mkdir()
    _photo(folder / "a.jpg", 9.001, 50.001)
    _photo(folder / "b.jpg", 9.004, 50.002)
    fetch = ["fetch", "--city", "town", "--bbox", "9.0,50.0,9.01,50.01", "--streetview", folder]
    assert urban("-w", workspace, *fetch).code == 0
    model = _save_model(tmp_path / "clip")
    done = urban("-w", workspace, "encode", "--encoder", f"streetview=photos:{model}", "--json")
    assert done.code == 0, done.err
    (path,) = workspace.rglob("streetview-*/tokens.json")
    tokens = load_tokens(path.parent)
    assert tokens.present.sum() == 2 and tokens.values.shape == (2, 24)
    # Two photos of one colour: the same pixels, the same vector.
    np.testing.assert_allclose(tokens.values[0], tokens.values[1], atol=1e-6)
    assert str(tmp_path) not in done.out + path.read_text()
