"""What `--label` may look like."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from urbancli.errors import UsageError
from urbancli.labels.files import LabelSpec, parse_label


@pytest.mark.parametrize(
    ("tail", "column", "per_km2", "radius_m"),
    [
        ("", None, False, None),
        (":crime", "crime", False, None),
        (":crime/km2", "crime", True, None),
        (":lu5_*", "lu5_*", False, None),
        ("@640m", None, False, 640.0),
        (":class@12.5m", "class", False, 12.5),
        (":n/km2@.5m", "n", True, 0.5),
        (":addr:street", "addr:street", False, None),
        (":@version", "@version", False, None),
        (":a@b@5m", "a@b", False, 5.0),
        (":2", "2", False, None),
    ],
)
@pytest.mark.parametrize("file", ["f.csv", "odd:na@5m=e.csv", "d@2/f.csv"])
@pytest.mark.parametrize("exists", [True, False])
def test_the_parts_of_a_label(tmp_path, tail, column, per_km2, radius_m, file, exists) -> None:
    path = tmp_path / file
    if exists:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    elif file.startswith("odd") or tail in {":addr:street", ":@version", ":a@b@5m"}:
        return  # ambiguous by nature: only the message about the missing file hangs on it
    spec = parse_label(f"a_1={path}{tail}")
    assert spec == LabelSpec("a_1", path, column, per_km2, radius_m)


def test_the_longest_file_wins(tmp_path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "a:b").touch()
    assert parse_label(f"n={tmp_path}/a:b").path == tmp_path / "a:b"
    assert parse_label(f"n={tmp_path}/a:b:c").path == tmp_path / "a:b"
    assert parse_label(f"n={tmp_path}/a:c").column == "c"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("crime", "is not NAME=FILE"),
        ("crime=", "is not NAME=FILE"),
        ("Crime Rate=f.csv", "use only a-z, 0-9 and _"),
        ("=f.csv", "use only a-z, 0-9 and _"),
        ("n=f.csv:", "names no column"),
        ("n=f.csv:/km2", "names no column"),
        ("n=f.csv:*", "names no column"),
        ("n=f.csv:@640m", "names no column"),
        ("n=f.csv:lu_*/km2", "leave out /km2"),
        ("n=f.csv@640", "metres, e.g. @640m"),
        ("n=f.csv:c@640km", "metres, e.g. @640m"),
        ("n=f.csv:c@-5m", "metres, e.g. @640m"),
        ("n=f.csv:c@0m", "metres, e.g. @640m"),
        ("n=f.csv:c@", "metres, e.g. @640m"),
        ("n=f.csv:c@infm", "metres, e.g. @640m"),
        ("n=f.csv:c@nanm", "metres, e.g. @640m"),
        ("n=f.csv:c@1e3m", "metres, e.g. @640m"),
        ("n=f.csv:c@" + "9" * 400 + "m", "metres, e.g. @640m"),
    ],
)
def test_a_malformed_label_says_how_to_write_it(text, says, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for exists in (False, True):
        if exists:
            Path("f.csv").touch()
        with pytest.raises(UsageError, match=says) as caught:
            parse_label(text)
        assert "\n" not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab=:@/*km25. \\", max_size=30))
def test_any_text_is_a_label_or_a_usage_error(text) -> None:
    try:
        spec = parse_label(text)
    except UsageError:
        return
    assert spec.name and str(spec.path)
    assert spec.radius_m is None or spec.radius_m > 0


def test_a_radius_larger_than_a_city_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("")
    assert parse_label(f"x={tmp_path / 'p.csv'}@50000m").radius_m == 50_000
    with pytest.raises(UsageError, match="at most 50,000"):
        parse_label(f"x={tmp_path / 'p.csv'}@50001m")
