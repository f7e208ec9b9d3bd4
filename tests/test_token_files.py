"""Files of tokens: written block by block, whole or not at all, and refused when they are not."""

import json
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from urbancli.errors import UrbanError
from urbancli.token_files import load_tokens, write_tokens
from urbancli.tokens import ARRAYS, Tokens, single_tokens

SIZE, BLOCK = 23, 5
FACTS = {"modality": "made up", "state": "0"}

Encode = Callable[[int, int], Tokens]


def whole(bag: bool = True) -> Tokens:
    """23 places; none of the second block is present, the last block is short."""
    rng = np.random.default_rng(0)
    present = (np.arange(SIZE) % 4 != 1) & (np.arange(SIZE) // BLOCK != 1)
    if not bag:
        return single_tokens(rng.normal(size=(SIZE, 6)).astype(np.float16), present)
    counts = np.where(present, rng.integers(0, 4, SIZE), 0)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    values = rng.normal(size=(offsets[-1], 6)).astype(np.float32)
    return Tokens(values, offsets, rng.random((offsets[-1], 8), np.float32), present, bag=True)


def encoder_of(tokens: Tokens, asked: list[int] | None = None) -> Encode:
    def encode(start: int, stop: int) -> Tokens:
        if asked is not None:
            asked.append(start)
        return tokens.take(np.arange(start, stop))

    return encode


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def assert_equal(one: Tokens, two: Tokens) -> None:
    assert one.bag is two.bag
    for name in ARRAYS:
        first, second = getattr(one, name), getattr(two, name)
        assert first.dtype == second.dtype and first.shape == second.shape, name
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("bag", [True, False])
@pytest.mark.parametrize("block", [1, 5, 23, 4096])
def test_blocks_make_the_files_of_one_save(tmp_path: Path, bag: bool, block: int) -> None:
    tokens = whole(bag)
    tokens.save(tmp_path / "saved", FACTS)
    asked: list[int] = []
    made = write_tokens(tmp_path / "made", FACTS, SIZE, encoder_of(tokens, asked), block)
    assert asked == list(range(0, SIZE, block))
    assert_equal(made, tokens)
    assert isinstance(made.values, np.memmap)
    assert contents(tmp_path / "made") == contents(tmp_path / "saved")
    # What is there is not encoded again.
    again = write_tokens(tmp_path / "made", FACTS, SIZE, encoder_of(tokens, asked), block)
    assert len(asked) == len(range(0, SIZE, block))
    assert_equal(again, tokens)


@pytest.mark.parametrize("bag", [True, False])
def test_a_city_without_places_or_tokens_has_files(tmp_path: Path, bag: bool) -> None:
    nothing = whole(bag).take(np.arange(0))
    assert_equal(write_tokens(tmp_path / "a", FACTS, 0, encoder_of(nothing)), nothing)
    absent = whole(bag).take(np.full(7, 5))
    assert not absent.present.any()
    assert_equal(write_tokens(tmp_path / "b", FACTS, 7, encoder_of(absent), 3), absent)


def test_files_of_before_are_read_as_they_are(tmp_path: Path) -> None:
    """Plain .npy files and a `tokens.json`, as every version has written them."""
    tokens = whole()
    for name in ARRAYS:
        np.save(tmp_path / f"{name}.npy", getattr(tokens, name))
    facts = {"schema_version": 1, **FACTS, "bag": True}
    text = json.dumps(facts, indent=2, sort_keys=True) + "\n"
    (tmp_path / "tokens.json").write_text(text)
    assert_equal(load_tokens(tmp_path), tokens)
    tokens.save(tmp_path / "now", FACTS)
    for name in ("tokens.json", *(f"{name}.npy" for name in ARRAYS)):
        assert (tmp_path / "now" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_rows_lie_together_in_the_file(tmp_path: Path) -> None:
    """Of a file in Fortran order every batch would read all."""
    values = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(4, 3))
    tokens = single_tokens(values)
    columns = Tokens(values, tokens.offsets, tokens.positions, tokens.present, bag=False)
    columns.save(tmp_path, FACTS)
    loaded = load_tokens(tmp_path)
    assert loaded.values.flags.c_contiguous
    np.testing.assert_array_equal(loaded.values, values)
    # One that an older version wrote is read all the same.
    np.save(tmp_path / "values.npy", values)
    old = load_tokens(tmp_path)
    assert not old.values.flags.c_contiguous
    np.testing.assert_array_equal(old.take([3, 0]).values, values[[3, 0]])


def test_a_writer_holds_a_few_blocks_and_never_the_whole(tmp_path: Path) -> None:
    block, width = 1000, 256

    def encode(start: int, stop: int) -> Tokens:
        return single_tokens(np.full((stop - start, width), start % 1024, np.float16))

    encode(0, 1)
    tracemalloc.start()
    made = write_tokens(tmp_path, FACTS, 40 * block, encode, block)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert made.values.nbytes == 40 * block * width * 2
    assert peak < 10 * block * width * 2
    np.testing.assert_array_equal(made.values[::block, 0], np.arange(40) * block % 1024)


# --- crashes -----------------------------------------------------------------------------------

SCRIPT = """
import os, sys
from pathlib import Path
from tests.test_token_files import BLOCK, FACTS, SIZE, encoder_of, whole
from urbancli.token_files import write_tokens
def kill(event, args):
    if event == "os.rename" and Path(args[1]).name == sys.argv[2]:
        os.kill(os.getpid(), 9)
sys.addaudithook(kill)
write_tokens(Path(sys.argv[1]), FACTS, SIZE, encoder_of(whole()), BLOCK)
"""


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("000000000-000000005.npz", [0, 5, 10, 15, 20]),
        ("000000010-000000015.npz", [10, 15, 20]),
        ("values.npy", []),
        ("present.npy", []),
        ("tokens.json", []),
    ],
)
def test_a_killed_writer_goes_on_where_it_stopped(
    tmp_path: Path, name: str, left: list[int]
) -> None:
    folder = tmp_path / "tokens"
    killed = subprocess.run([sys.executable, "-c", SCRIPT, str(folder), name], check=False)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(UrbanError, match=r"no file .*tokens\.json"):
        load_tokens(folder)
    asked: list[int] = []
    made = write_tokens(folder, FACTS, SIZE, encoder_of(whole(), asked), BLOCK)
    assert asked == left
    assert_equal(made, whole())
    assert sorted(os.listdir(folder)) == sorted([*(f"{n}.npy" for n in ARRAYS), "tokens.json"])


def interrupted(start: int, stop: int) -> Tokens:
    if start == 10:
        raise KeyboardInterrupt
    return whole().take(np.arange(start, stop))


@pytest.mark.parametrize(("block", "left"), [(BLOCK, [10, 15, 20]), (8, [0, 8, 16])])
def test_an_interrupted_encoder_leaves_its_blocks_to_those_of_the_same_size(
    tmp_path: Path, block: int, left: list[int]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_tokens(tmp_path, FACTS, SIZE, interrupted, BLOCK)
    asked: list[int] = []
    assert_equal(write_tokens(tmp_path, FACTS, SIZE, encoder_of(whole(), asked), block), whole())
    assert asked == left
    assert not (tmp_path / "blocks").exists()


# --- files that are broken ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("left", [0.0, 0.3, 0.999])
def test_a_truncated_file_is_one_line_with_its_remedy(
    tmp_path: Path, name: str, left: float
) -> None:
    whole().save(tmp_path, FACTS)
    path = tmp_path / f"{name}.npy"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * left)])
    with pytest.raises(UrbanError, match=r"is broken: delete it and run") as caught:
        load_tokens(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ARRAYS)
def test_files_that_do_not_belong_together_are_refused(tmp_path: Path, name: str) -> None:
    whole().save(tmp_path, FACTS)
    other = whole().take(np.arange(20))
    np.save(tmp_path / f"{name}.npy", getattr(other, name))
    with pytest.raises(UrbanError, match="is broken"):
        load_tokens(tmp_path)
    (tmp_path / f"{name}.npy").unlink()
    with pytest.raises(UrbanError, match="is broken"):
        load_tokens(tmp_path)


def test_values_of_other_tokens_are_refused(tmp_path: Path) -> None:
    whole().save(tmp_path, FACTS)
    other = whole().take(np.arange(20))
    for name in ("values", "positions"):
        np.save(tmp_path / f"{name}.npy", getattr(other, name))
    with pytest.raises(UrbanError, match="is broken"):
        load_tokens(tmp_path)


def test_facts_that_lack_something_are_refused(tmp_path: Path) -> None:
    whole().save(tmp_path, FACTS)
    (tmp_path / "tokens.json").write_text('{"schema_version": 1}')
    with pytest.raises(UrbanError, match="is broken"):
        load_tokens(tmp_path)


@pytest.mark.parametrize("left", [0.0, 0.5, 0.999])
def test_a_truncated_block_is_named(tmp_path: Path, left: float) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_tokens(tmp_path, FACTS, SIZE, interrupted, BLOCK)
    path = tmp_path / "blocks/000000000-000000005.npz"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * left)])
    with pytest.raises(UrbanError, match=r"000000005\.npz is broken: delete it and run"):
        write_tokens(tmp_path, FACTS, SIZE, encoder_of(whole()), BLOCK)
    assert not (tmp_path / "tokens.json").exists()
    path.unlink()
    asked: list[int] = []
    assert_equal(write_tokens(tmp_path, FACTS, SIZE, encoder_of(whole(), asked), BLOCK), whole())
    assert asked == [0]


def _narrow(start: int, stop: int) -> Tokens:
    part = whole().take(np.arange(start, stop))
    values = part.values[:, :5] if start else part.values
    return Tokens(values, part.offsets, part.positions, part.present, part.bag)


def _wider_numbers(start: int, stop: int) -> Tokens:
    part = whole().take(np.arange(start, stop))
    values = part.values.astype(np.float64) if start else part.values
    return Tokens(values, part.offsets, part.positions, part.present, part.bag)


def _mixed(start: int, stop: int) -> Tokens:
    part = whole().take(np.arange(start, stop))
    return Tokens(part.values, part.offsets, part.positions, part.present, bag=start > 0)


def _too_many_values(start: int, stop: int) -> Tokens:
    part = whole().take(np.arange(start, stop))
    return Tokens(
        np.repeat(part.values, 2, axis=0), part.offsets, part.positions, part.present, part.bag
    )


def _too_few_places(start: int, stop: int) -> Tokens:
    return whole().take(np.arange(start, stop - 1))


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (_narrow, "differ in the form of their values"),
        (_wider_numbers, "differ in the form of their values"),
        (_mixed, "differ in the form"),
        (_too_many_values, "offsets that miss their values"),
        (_too_few_places, "4 places encoded, 5 asked for"),
    ],
)
def test_blocks_that_do_not_fit_are_a_bug_and_never_tokens(
    tmp_path: Path, encode: Encode, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_tokens(tmp_path, FACTS, SIZE, encode, BLOCK)
    assert not (tmp_path / "tokens.json").exists()


def test_an_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UrbanError, match="cannot write"):
        write_tokens(tmp_path / "file/below", FACTS, SIZE, encoder_of(whole()), BLOCK)


def test_two_processes_write_the_same_tokens_once(tmp_path: Path) -> None:
    """The second waits while the first is at its blocks, and then finds them whole."""
    script = (
        "import pathlib, sys, time\n"
        "import numpy as np\n"
        "from urbancli.token_files import write_tokens\n"
        "from urbancli.tokens import single_tokens\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "def encode(start, stop):\n"
        "    (folder.parent / f'began-{start}').open('a').write('x')\n"
        "    time.sleep(0.2)\n"
        "    return single_tokens(np.arange(start, stop, dtype=np.float32)[:, None])\n"
        "print(write_tokens(folder, {}, 40, encode, 10).values.sum())\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "tokens")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == ["780.0", "780.0"]
    began = sorted(tmp_path.glob("began-*"))
    assert [file.read_text() for file in began] == ["x"] * 4, "each block was encoded once"
    assert not (tmp_path / "tokens/blocks").exists()
