"""Tokens and batches: equal to plain loops, gathered without a second copy, dropped by a mask."""

import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from urbancli.errors import UrbanError
from urbancli.token_files import load_tokens
from urbancli.tokens import Tokens, make_batch, single_tokens

KINDS = ("float16", "float32", "float64")


def bags(rng: np.random.Generator, size: int, width: int, kind: str = "float16") -> Tokens:
    """Bags of 0 to 6 tokens; every fifth place is absent, of the others some are empty."""
    present = np.arange(size) % 5 != 3
    counts = np.where(present, rng.integers(0, 7, size), 0)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    values = rng.normal(size=(offsets[-1], width)).astype(kind)
    return Tokens(values, offsets, rng.random((offsets[-1], 8), np.float32), present, bag=True)


def singles(rng: np.random.Generator, size: int, width: int, kind: str = "float16") -> Tokens:
    present = np.arange(size) % 5 != 3
    return single_tokens(rng.normal(size=(size, width)).astype(kind), present)


def naive_place(tokens: Tokens, place: int) -> np.ndarray:
    return np.array(
        [tokens.values[row] for row in range(tokens.offsets[place], tokens.offsets[place + 1])]
    ).reshape(-1, tokens.values.shape[1])


def naive_pooled(tokens: Tokens, place: int) -> np.ndarray:
    """The formula of `Tokens.pooled`, for one place, in float64."""
    own = naive_place(tokens, place).astype(np.float64)
    if not tokens.bag:
        return own.sum(axis=0)
    total = own.sum(axis=0)
    mean = total / max(len(own), 1)
    return np.r_[mean, np.sign(total) * np.log1p(np.abs(total)), np.log1p(len(own))]


def assert_batch(tokens: Tokens, index: np.ndarray) -> None:
    """What a batch of the places at an index holds is what a loop over them finds."""
    part = make_batch({"m": tokens}, index).modalities["m"]
    wide = np.float64 if tokens.values.dtype == np.float64 else np.float32
    assert part.values.numpy().dtype == wide
    assert part.pooled.numpy().dtype == (np.float32 if tokens.bag else wide)
    assert part.offsets.dtype == torch.int64 and part.present.dtype == torch.bool
    for number, place in enumerate(index):
        mine = slice(part.offsets[number], part.offsets[number + 1])
        begin, end = tokens.offsets[place], tokens.offsets[place + 1]
        np.testing.assert_array_equal(part.values[mine], naive_place(tokens, place).astype(wide))
        np.testing.assert_array_equal(part.positions[mine], tokens.positions[begin:end])
        assert bool(part.present[number]) == tokens.present[place]
        np.testing.assert_allclose(
            part.pooled[number], naive_pooled(tokens, place), rtol=1e-6, atol=1e-6
        )
    assert part.offsets[-1] == len(part.values) == len(part.positions)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [bags, singles])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), size=st.integers(1, 40), asked=st.integers(0, 60))
def test_a_batch_is_what_a_loop_over_its_places_finds(
    make, kind: str, seed: int, size: int, asked: int
) -> None:
    rng = np.random.default_rng(seed)
    tokens = make(rng, size, int(rng.integers(1, 9)), kind)
    index = rng.integers(0, size, asked)  # unordered, with repeats
    assert_batch(tokens, index)
    taken = tokens.take(index)
    assert taken.values.dtype == tokens.values.dtype, "kept until the batch"
    np.testing.assert_array_equal(
        taken.values, np.concatenate([naive_place(tokens, p) for p in index] or [taken.values])
    )
    # Pooled before or after: the same bits.
    np.testing.assert_array_equal(taken.pooled(), tokens.pooled()[index])
    np.testing.assert_array_equal(
        make_batch({"m": tokens}, index).modalities["m"].pooled, taken.pooled()
    )


@pytest.mark.parametrize("make", [bags, singles])
def test_large_tokens_cross_every_block_of_the_gather(make) -> None:
    """Rows wider and bags larger than the scratch, so that all its edges are met."""
    rng = np.random.default_rng(0)
    tokens = make(rng, 300, 3000, "float16")
    assert_batch(tokens, rng.permutation(300))
    one_large = Tokens(
        rng.normal(size=(5000, 300)).astype(np.float32),
        np.array([0, 1, 1, 4999, 5000]),
        np.zeros((5000, 0), np.float32),
        np.ones(4, dtype=bool),
        bag=True,
    )
    assert_batch(one_large, np.array([2, 0, 1, 2, 3]))


def test_pooling_many_places_at_a_time_changes_no_bit() -> None:
    """Scores of older runs stay: the sums are those of one `reduceat` over all tokens."""
    tokens = bags(np.random.default_rng(1), 5000, 183, "float32")
    counts = np.diff(tokens.offsets)
    sums = np.zeros((5000, 183))
    starts = tokens.offsets[:-1][counts > 0]
    sums[counts > 0] = np.add.reduceat(tokens.values.astype(np.float64), starts, axis=0)
    mean = sums / np.maximum(counts, 1)[:, None]
    logs = np.sign(sums) * np.log1p(np.abs(sums))
    wanted = np.concatenate([mean, logs, np.log1p(counts)[:, None]], axis=1).astype(np.float32)
    np.testing.assert_array_equal(tokens.pooled(), wanted)


def test_nothing_at_all_is_a_batch_too() -> None:
    rng = np.random.default_rng(0)
    for tokens in (bags(rng, 5, 4), singles(rng, 5, 4)):
        absent = tokens.take([3, 3])
        assert len(absent.values) == 0 and not absent.present.any()
        assert_batch(absent, np.array([1, 0]))
        assert_batch(tokens, np.array([], dtype=np.int64))
        assert not absent.pooled().any()


@pytest.mark.parametrize("index", [[5], [-1], [0, 7, 2]])
def test_a_place_that_is_not_there_is_not_the_nearest_one(index: list[int]) -> None:
    for tokens in (bags(np.random.default_rng(0), 5, 4), single_tokens(np.ones((5, 2)))):
        with pytest.raises(IndexError):
            tokens.take(index)
        with pytest.raises(IndexError):
            make_batch({"m": tokens}, index)


def test_dropping_takes_the_name_away_and_leaves_the_rest() -> None:
    rng = np.random.default_rng(0)
    batch = make_batch({"a": bags(rng, 9, 3), "b": singles(rng, 9, 4)}, np.arange(4))
    left = batch.drop(["a", "unheard of"])
    assert list(left.modalities) == ["b"] and left.size == 4
    assert left.modalities["b"] is batch.modalities["b"], "not a value is touched"
    assert list(batch.modalities) == ["a", "b"]
    with pytest.raises(UrbanError, match="dropping a, b leaves no modality"):
        batch.drop(["b", "a"])


def test_what_is_dropped_in_some_places_is_gone_there_and_untouched_elsewhere() -> None:
    rng = np.random.default_rng(0)
    tokens = {"a": bags(rng, 30, 3), "b": singles(rng, 30, 4), "c": singles(rng, 30, 2)}
    index, hole = rng.permutation(30)[:20], rng.random(20) < 0.4
    batch = make_batch(tokens, index)
    before = {name: (part.values.clone(), part.present.clone())
              for name, part in batch.modalities.items()}  # fmt: skip
    left = batch.drop(["c"], {"a": hole, "b": ~hole, "c": hole, "unheard of": hole})
    assert list(left.modalities) == ["a", "b"] and left.size == 20
    for name, gone in (("a", hole), ("b", ~hole)):
        part, whole = left.modalities[name], tokens[name]
        # The same as if the encoder had known nothing of these places.
        lists = [np.empty((0, whole.values.shape[1])) if lost else naive_place(whole, place)
                 for place, lost in zip(index, gone, strict=True)]  # fmt: skip
        np.testing.assert_array_equal(part.values.numpy(), np.concatenate(lists))
        assert part.offsets.tolist() == [0, *np.cumsum([len(own) for own in lists])]
        assert part.positions.shape == (len(part.values), whole.positions.shape[1])
        assert np.array_equal(part.present.numpy(), whole.present[index] & ~gone)
        wanted = np.where(gone[:, None], 0, whole.take(index).pooled())
        np.testing.assert_array_equal(part.pooled.numpy(), wanted.astype(part.pooled.numpy().dtype))
        assert torch.equal(batch.modalities[name].values, before[name][0])
        assert torch.equal(batch.modalities[name].present, before[name][1])


@pytest.mark.parametrize("size", [1, 3, 20, 99])
def test_parts_of_a_batch_are_batches_of_its_parts(size: int) -> None:
    rng = np.random.default_rng(0)
    tokens = {"a": bags(rng, 30, 3), "b": singles(rng, 30, 4)}
    index = rng.permutation(30)[:20]
    batch = make_batch(tokens, index)
    for start in range(0, 20, size):
        part, wanted = batch.take(start, start + size), make_batch(tokens, index[start:][:size])
        assert part.size == wanted.size
        for name, one in part.modalities.items():
            other = wanted.modalities[name]
            for field in ("values", "offsets", "positions", "present", "pooled"):
                assert torch.equal(getattr(one, field), getattr(other, field)), (name, field)


@pytest.mark.parametrize("make", [bags, singles])
def test_tokens_without_places_are_those_of_places_that_lack_them(make) -> None:
    rng = np.random.default_rng(0)
    whole, gone = make(rng, 30, 3), rng.random(30) < 0.4
    left = whole.without(gone)
    assert np.array_equal(left.present, whole.present & ~gone) and len(left) == 30
    index = np.arange(30)
    one = make_batch({"m": left}, index).modalities["m"]
    other = make_batch({"m": whole}, index).drop((), {"m": gone}).modalities["m"]
    for field in ("values", "offsets", "positions", "present", "pooled"):
        assert torch.equal(getattr(one, field), getattr(other, field)), field


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_batch_on_a_gpu_is_the_one_on_the_processor() -> None:
    rng = np.random.default_rng(0)
    tokens = {f"{make.__name__} {kind}": make(rng, 500, 64, kind) for kind in KINDS
              for make in (bags, singles)}  # fmt: skip
    index = rng.integers(0, 500, 300)
    wanted, found = make_batch(tokens, index), make_batch(tokens, index, "cuda")
    for name, part in wanted.modalities.items():
        for field in ("values", "offsets", "positions", "present", "pooled"):
            here, there = getattr(part, field), getattr(found.modalities[name], field)
            assert there.is_cuda and torch.equal(there.cpu(), here), (name, field)


# --- what a batch costs ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 MiB of float16 in a sparse file, one token for each of 65,536 places, and as a bag."""
    folder = tmp_path_factory.mktemp("large")
    size, width = 65_536, 512
    for name, bag in (("single", False), ("bag", True)):
        empty = Tokens(
            np.zeros((0, width), np.float16), np.arange(1), np.zeros((0, 2), np.float32),
            np.zeros(0, dtype=bool), bag,
        )  # fmt: skip
        empty.save(folder / name, {})
        values = np.lib.format.open_memmap(
            folder / name / "values.npy", "w+", np.float16, (size, width)
        )
        values[::1000] = np.arange(size, dtype=np.float16)[::1000, None] % 7
        np.save(folder / name / "offsets.npy", np.arange(size + 1))
        np.save(folder / name / "positions.npy", np.zeros((size, 2), np.float32))
        np.save(folder / name / "present.npy", np.ones(size, dtype=bool))
    return folder


@pytest.mark.parametrize("name", ["single", "bag"])
def test_a_batch_copies_itself_and_nothing_more(large: Path, name: str) -> None:
    tokens = load_tokens(large / name)
    index = np.random.default_rng(0).integers(0, len(tokens), 16_384)
    make_batch({"m": tokens}, index[:2])  # what is imported and cached is not counted
    tracemalloc.start()
    part = make_batch({"m": tokens}, index).modalities["m"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert part.values.dtype == torch.float32
    size = part.values.nbytes + part.positions.nbytes
    # The scratch of 1 MiB and a few integers per place beside it; 48 MiB were it copied once more.
    assert size < peak < size + (3 << 20)
    if name == "single":
        assert part.pooled.data_ptr() == part.values.data_ptr(), "pooled is the token itself"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", ["single", "bag"])
def test_a_batch_touches_only_its_own_pages(large: Path, name: str) -> None:
    file = large / name / "values.npy"
    tokens = load_tokens(large / name)
    before = mapped_kib(file)
    batch = make_batch({"m": tokens}, np.arange(0, 65_536, 16_384))
    # Of 64 MiB; a fault maps what lies around it too, usually 64 KiB, 2 MiB where pages are huge.
    assert 0 < mapped_kib(file) - before <= 16 * 1024
    assert batch.size == 4


def mapped_kib(path: Path) -> int:
    """Return how much of a file is in the page tables of this process, KiB."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split(maxsplit=1)[0]
        if not first.endswith(":"):
            ours = line.endswith(str(path))
        elif ours and first == "Rss:":
            total += int(line.split()[1])
    return total


def test_stores_of_several_cities_and_modalities_stay_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cities = {}
    for city in ("delhi", "york"):
        made = {"entities": bags(rng, 50, 6), "naip": singles(rng, 50, 5)}
        for name, tokens in made.items():
            tokens.save(tmp_path / city / name, {})
        cities[city] = (made, {name: load_tokens(tmp_path / city / name) for name in made})
    for _ in range(3):
        for made, loaded in cities.values():
            index = rng.integers(0, 50, 20)
            found, wanted = make_batch(loaded, index), make_batch(made, index)
            for name, part in wanted.modalities.items():
                other = found.modalities[name]
                assert torch.equal(other.values, part.values)
                assert torch.equal(other.pooled, part.pooled)
                assert torch.equal(other.present, part.present)
