"""`urban fetch --streetview`: a user's own photos, from the command line to the table."""

from pathlib import Path

from PIL import Image

from tests.cli.conftest import Urban


def _photo(path: Path, lon: float, lat: float) -> None:
    """Write a JPEG with a position east and north of zero in its EXIF data."""
    exif = Image.Exif()
    gps = exif.get_ifd(0x8825)
    for key, value in ((2, lat), (4, lon)):
        degrees, rest = divmod(value, 1)
        minutes, rest = divmod(rest * 60, 1)
        gps[key - 1] = "N" if key == 2 else "E"
        gps[key] = (degrees, minutes, round(rest * 60, 3))
    Image.new("RGB", (64, 48), (90, 120, 30)).save(path, exif=exif)


def test_photos_become_a_layer_that_is_shown_and_whole(urban: Urban, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    _photo(folder / "a.jpg", 9.001, 50.001)
    _photo(folder / "b.jpg", 9.004, 50.002)
    _photo(folder / "far.jpg", 12.0, 51.0)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    workspace = tmp_path / "w"
    fetch = ["fetch", "--city", "town", "--bbox", "9.0,50.0,9.01,50.01", "--streetview", folder]
    done = urban("-w", workspace, *fetch)
    assert done.code == 0, done.err
    assert "photos" in done.out and "unreadable" in done.out
    (facts,) = urban("-w", workspace, *fetch, "--json").json()["layers"].values()
    assert (facts["photos"], facts["outside"], facts["unreadable"]["count"]) == (2, 1, 1)
    checked = urban("-w", workspace, "validate")
    assert checked.code == 0, checked.out
