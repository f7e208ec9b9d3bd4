"""`urban export` as a user calls it."""

from pathlib import Path

import pyogrio
import pytest
import rasterio

from tests.cli.conftest import Town, Urban


@pytest.mark.parametrize(
    ("layer", "to", "name"),
    [
        ("naip", "cog", "synthetic-town-naip.tif"),
        ("pois", "gpkg", "synthetic-town-pois.gpkg"),
        ("cover", "csv", "synthetic-town-cover.csv"),
    ],
)
def test_a_layer_lands_in_the_current_folder(
    town: Town,
    urban: Urban,
    layer: str,
    to: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # where a file goes that --out does not name
    asked = ["-w", town.workspace, "export", "--city", "Synthetic Town"]
    done = urban(*asked, "--layer", layer, "--to", to)
    assert (done.code, done.out) == (0, f"{name}\n"), done.err
    if to == "cog":
        rasterio.open(name).close()
    else:
        assert len(pyogrio.read_dataframe(name)) > 10
    again = urban(*asked, "--layer", layer, "--to", to)
    assert again.code == 2 and "--force" in again.err
    assert urban(*asked, "--layer", layer, "--to", to, "--force").code == 0
    extra = {f"{name}.attribution.txt"} if to == "csv" else set()
    assert {path.name for path in tmp_path.iterdir()} == {name} | extra


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--layer", "entities", "--to", "cog"], "'entities' is a table, it cannot be cog"),
        (["--layer", "nape", "--to", "cog"], "unknown layer 'nape': did you mean naip"),
        (["--layer", "naip", "--to", "png"], "unknown format 'png'"),
        (["--layer", "pois", "--to", "csv", "--out", "{w}/data/x.csv"], "which urban keeps itself"),
        (["--layer", "pois", "--to", "csv", "--out", "{w}"], "is a folder"),
    ],
)
def test_mistakes_are_one_line(town: Town, urban: Urban, arguments: list[str], line: str) -> None:
    named = [text.replace("{w}", str(town.workspace)) for text in arguments]
    done = urban("-w", town.workspace, "export", "--city", "synthetic-town", *named)
    assert done.code == 2 and line in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not Path("synthetic-town-entities").exists()
