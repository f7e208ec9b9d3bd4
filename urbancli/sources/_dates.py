"""Scenes of one overpass as one picture of a date, and which dates of a city are read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import Any, Generic, TypeVar

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from urbancli.grid import Block, Places
from urbancli.sources._items import Item, Pinned, share_seen, union
from urbancli.sources._scenes import around

YEAR = timedelta(days=365)

Scene = TypeVar("Scene", Item, Pinned)


@dataclass(frozen=True)
class Date(Generic[Scene]):
    """The scenes of one overpass, which together are one picture.

    Attributes:
        day: of the local sun.
        items: of a pixel the first valid one wins.
        footprint: EPSG:4326.
    """

    day: str
    items: tuple[Scene, ...]
    footprint: BaseGeometry


def by_date(
    items: Sequence[Item], places: Places, apart: Callable[[Item], Any] = lambda item: None
) -> list[Date[Item]]:
    """Group scenes by the day of the local sun: an overpass never falls on its midnight.

    Args:
        items: in any order; within a date they are ordered by id.
        places: of the city.
        apart: gives what else scenes of one date have in common.
    """
    lon, _ = places.lonlat()
    shift = timedelta(hours=float(lon[0]) / 15)
    groups: dict[Any, list[Item]] = {}
    for item in sorted(items, key=lambda item: item.item_id):
        day = (item.acquired + shift).date().isoformat()
        groups.setdefault((day, apart(item)), []).append(item)
    return [Date(day, tuple(group), union(group)) for (day, _), group in groups.items()]


def dates_of(
    items: Sequence[Pinned], apart: Callable[[Pinned], Any] = lambda item: None
) -> list[Date[Pinned]]:
    """Return the dates of a plan, whose items of a date follow each other."""
    dates = []
    for (day, _), group in groupby(items, key=lambda item: (item.said["date"], apart(item))):
        pinned = tuple(group)
        dates.append(Date(day, pinned, union(pinned)))
    return dates


def near(dates: Sequence[Date[Pinned]], block: Block) -> list[Date[Pinned]]:
    """Return the dates, in their order, whose scenes touch a block."""
    # A footprint's edges are chords on the globe: up to 500 m beside those of its raster.
    area = around(block, 1000.0)
    return [date for date in dates if shapely.intersects(date.footprint, area)]


def choose(dates: Sequence[Date[Item]], places: Places, most: int) -> list[Date[Item]]:
    """Return the first dates such that each tile has at least `most`, where there are.

    A date is left out where every tile that it shows most of has enough: a city between two orbits
    gets its dates from both.

    Args:
        dates: the best first.
        places: of the city.
        most: dates that a tile needs.
    """
    count = np.zeros(len(places), dtype=np.int64)
    chosen = []
    for date in dates:
        seen = share_seen(date.footprint, places) > 0.5
        if (count[seen] < most).any():
            chosen.append(date)
            count += seen
    return chosen


def is_year(items: Sequence[Item], places: Places) -> bool:
    """Return whether older items are not needed: a year is whole and covers the city.

    Args:
        items: newest first.
        places: of the city.
    """
    if items[0].acquired - items[-1].acquired <= YEAR:
        return False
    recent = [item for item in items if items[0].acquired - item.acquired <= YEAR]
    return bool((share_seen(union(recent), places) > 0.5).all())


def last_year(items: Sequence[Item], places: Places) -> list[Item]:
    """Return the items of the twelve months up to the newest, or all if those cover more.

    Args:
        items: by time.
        places: of the city.
    """
    recent = [item for item in items if items[-1].acquired - item.acquired <= YEAR]
    if not recent:
        return []
    seen, ever = (share_seen(union(group), places) > 0.5 for group in (recent, items))
    return recent if (seen == ever).all() else list(items)
