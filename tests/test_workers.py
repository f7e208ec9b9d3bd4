"""How blocks are handed out to those who read them."""

import pytest

from urbancli.grid import Block
from urbancli.workers import Stretches

BLOCKS = [Block(32643, 300, column, 0) for column in range(50)]


@pytest.mark.parametrize("readers", [1, 2, 7, 50, 64])
@pytest.mark.parametrize("blocks", [BLOCKS, BLOCKS[:3], []])
def test_every_block_is_read_once_whoever_is_slow(blocks: list[Block], readers: int) -> None:
    """The first reader takes one block while the others take all they can."""
    stretches = Stretches(blocks, readers)
    taken = [stretches.next(0)]
    for reader in [*range(1, readers), 0]:
        while (block := stretches.next(reader)) is not None:
            taken.append(block)
    read = [block for block in taken if block is not None]
    assert sorted(read, key=lambda block: block.column) == blocks


def test_a_reader_takes_neighbours() -> None:
    stretches = Stretches(BLOCKS, 2)
    first, second = ([stretches.next(reader) for _ in range(25)] for reader in (0, 1))
    assert first + second == BLOCKS


def test_who_is_done_takes_the_far_half_of_what_is_left() -> None:
    stretches = Stretches(BLOCKS[:20], 2)
    for _ in range(10):
        stretches.next(1)
    stretches.next(0)
    assert stretches.next(1) == BLOCKS[5], "of 1 to 9 the first keeps 1 to 4"
    assert stretches.next(0) == BLOCKS[1]
