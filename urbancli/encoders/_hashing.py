"""Feature hashing of strings: an open vocabulary in a fixed width, the same on every machine.

Weinberger et al. 2009, "Feature hashing for large scale multitask learning": a word goes to column
h(word) with sign s(word), so that collisions cancel in expectation. Python's own `hash` is salted
per process, hence BLAKE2.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt


def hash_words(
    words: Sequence[str], width: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the columns in [0, width) and the signs ±1 of words, both shape (n,)."""
    digests = b"".join(hashlib.blake2b(word.encode(), digest_size=8).digest() for word in words)
    numbers = np.frombuffer(digests, dtype="<u8")
    columns = ((numbers >> np.uint64(1)) % np.uint64(width)).astype(np.int64)
    signs = 1.0 - 2.0 * (numbers & np.uint64(1)).astype(np.float64)
    return columns, signs


def hashed_bags(
    bags: Iterable[Iterable[str]], width: int, *, signed: bool = True
) -> npt.NDArray[np.float64]:
    """Return the sum of the hashed words of each bag, (bags, width).

    Args:
        bags: the words of each row; a word is hashed once however often it occurs.
        width: columns.
        signed: with signs ±1, or plain counts.
    """
    index: dict[str, int] = {}
    words: list[int] = []
    sizes: list[int] = []
    for bag in bags:
        before = len(words)
        words += [index.setdefault(word, len(index)) for word in bag]
        sizes.append(len(words) - before)
    columns, signs = hash_words(list(index), width)
    occurring = np.array(words, dtype=np.int64)
    cells = np.repeat(np.arange(len(sizes)), sizes) * width + columns[occurring]
    weights = signs[occurring] if signed else np.ones(len(words))
    sums = np.bincount(cells, weights, minlength=len(sizes) * width)
    return sums.astype(np.float64).reshape(len(sizes), width)


def text_grams(text: str, size: int = 3) -> list[str]:
    """Return the words of a text, case folded, and the character n-grams inside each word.

    Words are marked at both ends, so that `bar` in `barber` is not the word `bar`.
    """
    grams: list[str] = []
    for word in re.findall(r"\w+", text.casefold()):
        marked = f"<{word}>"
        grams.append(marked)
        if len(marked) > size:
            grams += [marked[start : start + size] for start in range(len(marked) - size + 1)]
    return grams
