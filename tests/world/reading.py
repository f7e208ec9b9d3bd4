"""Reads blocks of a city and nothing else: what reading them costs who has read nothing yet.

`python -m tests.world.reading CATALOGUE BBOX FOLDER LAYER=BLOCK,BLOCK…`
"""

import sys
from pathlib import Path

from urbancli import plugins
from urbancli.city import find_city, parse_box
from urbancli.grid import Grid, tiles_of
from urbancli.net import Net
from urbancli.workers import Threads

WORKERS = 1


def main(catalogue: str, bbox: str, folder: str, *asked: str) -> None:
    """Read the blocks and throw them away."""
    city = find_city("town", parse_box(bbox))
    places = tiles_of(city.area, Grid(city.epsg))
    for each in asked:
        layer, _, names = each.partition("=")
        source = plugins.load("sources", layer).Source(catalogue, net=Net(Path(folder)))
        source.plan(places)
        blocks = [b for b in source.blocks(places) if b.block_id in names.split(",")]
        for _, error in Threads(WORKERS).run(source, blocks, lambda block, table: None):
            assert error is None, error


if __name__ == "__main__":
    main(*sys.argv[1:])
