"""OpenStreetMap from an Overpass server, under its usage policy, saved as a file and read as one.

The answer becomes one `.osm.gz` in the folder of inputs, which the reader of `osm` reads: one
schema by construction. It is the cache too: as long as it lies there, and the area and the server
are the same, nobody is asked. A killed fetch keeps the pieces it has and asks for the others.

The policy (https://dev.overpass-api.de/overpass-doc/en/preface/commons.html and the OSM wiki,
"Overpass API"): a User-Agent of our own, one request at a time, a pause after a refusal, under
10,000 requests and 1 GB a day.
"""

import gzip
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from urbancli.errors import ServiceError, UrbanError, UsageError
from urbancli.grid import Block, Places
from urbancli.net import Budget, Manners, Net, RefusedError, endpoint
from urbancli.sources._entities import HALO_M, Entities, EntitySource, count_and_list
from urbancli.sources._items import unsigned
from urbancli.sources._osm_file import stream_entities
from urbancli.sources._overpass_merge import base_of, merge, missing_ways
from urbancli.sources._overpass_query import (
    IDS_AT_ONCE,
    TIMEOUT_S,
    Question,
    TooMuchError,
    Ways,
    area_km2,
    boxes,
    check_answer,
)
from urbancli.sources.base import Estimate, pin, places_grid
from urbancli.workspace import (
    atomic_path,
    fingerprint,
    read_json,
    sha256,
    sweep,
    write_json,
    write_text,
)

PUBLIC_HOSTS = (
    "overpass-api.de", "overpass.kumi.systems", "overpass.private.coffee", "overpass.osm.ch",
    "overpass.osm.jp", "maps.mail.ru",
)  # fmt: skip
"""Servers that everybody shares."""

BYTES_PER_KM2 = 100_000
"""As they come over the wire: measured 64 kB in State College, 290 kB in central Manhattan."""

BYTES_A_DAY = 10**9

LARGE_KM2 = BYTES_A_DAY / BYTES_PER_KM2
"""A public server is not asked for more, the halo included: that is about a day's 1 GB."""

ADVISED_KM2 = LARGE_KM2 / 3
"""From here on a file is the better way: it takes minutes where the pieces take hours."""

REMEDY = "give a PBF by --osm FILE (extracts: download.geofabrik.de, extract.bbbike.org)"

PAUSE_VARIABLE = "URBAN_OVERPASS_PAUSE_S"

VERSION = 1
"""Raised whenever other elements are asked for."""


def overpass_manners(url: str) -> Manners:
    """Return how a server wants to be asked; `URBAN_OVERPASS_PAUSE_S` counts for one's own.

    Raises:
        UsageError: the variable holds no number of seconds.
    """
    pause, public = "30", is_public(url)
    if not public:
        pause = os.environ.get(PAUSE_VARIABLE) or pause
    try:
        pause_s = float(pause)
        if not 0 <= pause_s <= 3600:
            raise ValueError
    except ValueError as err:
        raise UsageError(
            f"{PAUSE_VARIABLE}='{pause}' is no number of seconds: set 0 to 3600"
        ) from err
    return Manners(
        attempts=5,
        at_once=1,
        answer_s=TIMEOUT_S + 60.0,
        pause_s=pause_s,
        longest_wait_s=max(600.0, pause_s),
        busy=frozenset({429, 504}),
        alone=True,
        daily=Budget(10_000, BYTES_A_DAY, f"go on tomorrow, or {REMEDY}") if public else None,
    )


def is_public(url: str) -> bool:
    """Return whether everybody shares a server, so that its usage policy binds."""
    host = urlsplit(url).hostname or ""
    return any(host == each or host.endswith(f".{each}") for each in PUBLIC_HOSTS)


class Source(EntitySource):
    """The entities of an Overpass server in a city's tiles and the halo around them.

    Whole are nodes, ways, and relations that are areas (`multipolygon`, `boundary`), but for those
    that lead far away (`left_out`: they lack more than 1,000 ways, as countries do; they are then
    counted as `broken` too). Other relations keep the members that lie in the area; those that
    lack some are counted as `incomplete`. Not found, as by osmnx, are areas that enclose the city
    with no border inside.

    Args:
        save_in: folder of the saved file, `overpass-….osm.gz`, and of pieces on their way to it.
        net: how to ask.
        url: of the interpreter, by default that of `URBAN_OVERPASS_URL` or the public one.
        manners: by default those of `overpass_manners`.
        refresh: ask anew where a saved file lies there.
    """

    layer = "entities"
    licence = "ODbL-1.0"
    attribution = "© OpenStreetMap contributors"

    def __init__(
        self,
        *,
        save_in: Path,
        net: Net | None = None,
        url: str | None = None,
        manners: Manners | None = None,
        refresh: bool = False,
    ) -> None:
        super().__init__(save_in / "overpass.osm.gz")
        self._net = net or Net()
        self._url = url or endpoint("overpass")
        self._where = unsigned(self._url).partition("?")[0]  # it may hold a key
        self._manners = manners or overpass_manners(self._url)
        self._save_in = save_in
        self._refresh = refresh
        self._about: dict[str, Any] = {}
        self._pinned: dict[str, Any] | None = None

    def asked(self) -> dict[str, Any]:
        """Return the server and how far around the tiles is asked for."""
        return {
            "source": "overpass", "endpoint": self._where, "halo_m": HALO_M, "version": VERSION,
        }  # fmt: skip

    def plan(self, places: Places) -> dict[str, Any]:
        """Ask for what is not saved, and return the pinned file, its pieces and their time stamps.

        Raises:
            ServiceError: the server refuses, cannot be reached, or its day's budget is spent.
            UrbanError: the area is too large for a public server, or there is nothing in it.
        """
        places_grid(places)
        self.path = self._file(places)
        self._about = self._saved() or self._fetch(places)
        return {**self._about, **super().plan(places)}

    def take(self, plan: dict[str, Any], places: Places) -> None:
        """Take a pinned plan; nothing is read or asked before `blocks`."""
        self._pinned = plan

    def blocks(self, places: Places) -> list[Block]:
        """Return the blocks of the city's tiles and of the halo around them.

        After `take`, the saved file is read here. Where it is gone the server is asked again.

        Raises:
            UrbanError: it is gone, and the server does not give the same any more.
        """
        if self._pinned is not None and not self._rows:
            plan = self.plan(places)
            if plan["inputs"] != self._pinned["inputs"]:
                was = self._pinned["inputs"][0]["file"]
                raise UrbanError(
                    f"the OSM data that were pinned ({was} as of {self._pinned['osm_base'][-1]}) "
                    f"are not in {self._save_in}, and {self._where} gives others now: put the file "
                    "back, or take the others by --refresh"
                )
        return super().blocks(places)

    def estimate(self, places: Places) -> Estimate:
        """Return what asking will cost; before or after `plan`, and without asking."""
        self.path = self._file(places)
        blocks = len(EntitySource.blocks(self, places))
        if self._saved():
            return Estimate(items=1, blocks=blocks, requests=0, bytes=0)
        size = round(area_km2(places) * BYTES_PER_KM2)
        return Estimate(items=1, blocks=blocks, requests=len(boxes(places)) + 1, bytes=size)

    def stream(self, facts: dict[str, Any]) -> Iterator[Entities]:
        """Yield the tagged elements of the saved file, and tell how they were got."""
        yield from stream_entities(self.path, facts)
        told = ("osm_base", "left_out", "advice")
        facts |= {name: self._about[name] for name in told if name in self._about}

    def _file(self, places: Places) -> Path:
        """Return where the answer for an area is saved."""
        mark = fingerprint([self.asked(), [str(box) for box in boxes(places)]])
        return self._save_in / f"overpass-{mark}.osm.gz"

    def _saved(self) -> dict[str, Any] | None:
        """Return what is known of the saved file, None where it is not whole or not wanted."""
        beside = self._beside()
        if self._refresh or not (self.path.is_file() and beside.is_file()):
            return None
        about = read_json(beside)
        if about.pop("sha256", "") != sha256(self.path):
            return None
        about.pop("schema_version")
        return about

    def _beside(self) -> Path:
        return self.path.with_name(self.path.name.replace(".osm.gz", ".json"))

    def _fetch(self, places: Places) -> dict[str, Any]:
        """Ask for all pieces that do not lie there, join them, and return what is known of them."""
        size = area_km2(places)
        if is_public(self._url) and size > LARGE_KM2:
            raise UrbanError(
                f"{size:,.0f} km² are too much for the public server {self._where}, which allows "
                f"1 GB a day (about {LARGE_KM2:,.0f} km²): {REMEDY}, or name a server of your own "
                "by URBAN_OVERPASS_URL"
            )
        folder = self.path.with_name(f".{self.path.name}.pieces")
        if self._refresh:
            shutil.rmtree(folder, ignore_errors=True)
        wanted: list[Question] = [*boxes(places)]
        found = self._bring_all(folder, wanted, 0)
        ways, left_out = missing_ways([path for _, path in found])
        batches: list[Question] = [
            Ways(tuple(ways[start : start + IDS_AT_ONCE]))
            for start in range(0, len(ways), IDS_AT_ONCE)
        ]
        found += self._bring_all(folder, batches, len(wanted))
        if not merge([path for _, path in found], self.path):
            self.path.unlink()
            raise UrbanError(
                f"{self._where} holds nothing in the city: does it hold another region only? Else "
                "check --bbox or --aoi"
            )
        times = [base_of(path) for _, path in found]
        about: dict[str, Any] = {
            "source": "overpass",
            "endpoint": self._where,
            "osm_base": [min(times), max(times)],
            "pieces": [
                {"asked": str(q), "osm_base": t} for (q, _), t in zip(found, times, strict=True)
            ],
            "member_ways": len(ways),
            "left_out": count_and_list(left_out),
        }
        if is_public(self._url) and size > ADVISED_KM2:
            about["advice"] = f"{size:,.0f} km² are much for a public server: next time {REMEDY}"
        write_json(self._beside(), {**about, "sha256": pin(self.path)["sha256"]})
        shutil.rmtree(folder, ignore_errors=True)
        sweep(self._save_in)
        return about

    def _bring_all(
        self, folder: Path, questions: list[Question], before: int
    ) -> list[tuple[Question, Path]]:
        found: list[tuple[Question, Path]] = []
        for done, question in enumerate(questions, before):
            self.progress(self.layer, done, before + len(questions))
            found += self._bring(folder, question)
        return found

    def _bring(
        self, folder: Path, question: Question, split: bool = False
    ) -> list[tuple[Question, Path]]:
        """Return the pieces of an answer, cut where the server cannot give it in one.

        Args:
            folder: of the pieces.
            question: what to ask.
            split: whether it is part of a question that the server left without an answer.
        """
        path = folder / f"{fingerprint(question.query)}.osm.gz"
        too_much = path.with_suffix(".too_much")
        if path.exists():
            return [(question, path)]
        parts = question.parts()
        if not too_much.exists():
            try:
                body = self._ask(question)
            except TooMuchError:
                if parts:  # the least may succeed another time
                    write_text(too_much, "")
            except RefusedError as err:
                if err.status != 504 or split or not parts:
                    raise
                return [each for part in parts for each in self._bring(folder, part, True)]
            else:
                with atomic_path(path) as temporary:
                    temporary.write_bytes(gzip.compress(body, 1, mtime=0))
                return [(question, path)]
        if not parts:
            raise ServiceError(
                f"{self._where} runs out of time or memory even for {question}: try again later, "
                f"or {REMEDY}"
            )
        return [each for part in parts for each in self._bring(folder, part)]

    def _ask(self, question: Question) -> bytes:
        return self._net.ask(
            "POST",
            self._url,
            body=urlencode({"data": question.query}).encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            manners=self._manners,
            check=check_answer,
        )
