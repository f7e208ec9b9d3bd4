"""A small Overpass server over an OSM file: it runs the part of Overpass QL that is asked here.

Statements: `node|way|relation` with `["k"]`, `["k"="v"]`, `["k"!~"v"]`, a box, `(poly:"…")`,
`(id:…)`, `(w.set)` or `(br.set)`; unions; `._`, `.set`, `>`, `->.set`; one `out`. That holds our
own queries and those of osmnx. Anything else is answered 400, as Overpass does. As there, an
element counts as inside where a node, or a segment of a way, or such a member of a relation is.
"""

import gzip
import json
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import quoteattr

import numpy as np
import shapely

BASE = "2024-05-06T07:08:09Z"
KINDS = ("node", "way", "relation")
MEMBERS = {"n": "node", "w": "way", "r": "relation"}

Ids = dict[str, set[int]]
"""A set of Overpass QL: ids by kind."""


@dataclass(frozen=True)
class Fault:
    """An answer in place of the true one.

    Attributes:
        status: of HTTP.
        body: text; of XML with a `remark`, see `remark`.
        headers: beside the type.
        cut: how many bytes of the true answer are sent before the connection is closed, if any.
    """

    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0


def _head(base: str) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<osm version="0.6" generator="Overpass API">\n'
        "<note>The data included in this document is from www.openstreetmap.org. The data is made "
        f'available under ODbL.</note>\n<meta osm_base="{base}"/>\n\n'
    )


def remark(text: str) -> Fault:
    """Return the answer of a query that failed while it ran: 200, no elements, a remark."""
    return Fault(200, f"{_head(BASE)}<remark> {text} </remark>\n</osm>\n")


TIMED_OUT = remark('runtime error: Query timed out in "query" at line 1 after 181 seconds.')

BUSY_PAGE = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<html><body><p><strong style="color:#FF0000">Error'
    "</strong>: runtime error: open64: 0 Success /osm3s_osm_base Dispatcher_Client::"
    "request_read_and_idx::timeout. The server is probably too busy.</p></body></html>"
)


class OsmData:
    """The elements of an OSM file, as Overpass holds them."""

    def __init__(self, path: Path) -> None:
        import osmium

        self.tags: dict[str, dict[int, dict[str, str]]] = {kind: {} for kind in KINDS}
        self.nodes: dict[int, tuple[float, float]] = {}
        self.ways: dict[int, list[int]] = {}
        self.relations: dict[int, list[tuple[str, int, str]]] = {}
        for element in osmium.FileProcessor(str(path)):
            kind = MEMBERS[element.type_str()]
            if element.id in self.tags[kind]:
                continue
            self.tags[kind][element.id] = dict(element.tags)
            if kind == "node":
                self.nodes[element.id] = (element.location.lon, element.location.lat)
            elif kind == "way":
                self.ways[element.id] = [node.ref for node in element.nodes]
            else:
                self.relations[element.id] = [
                    (MEMBERS[m.type], m.ref, m.role) for m in element.members
                ]
        self._ids = {"node": np.array(list(self.nodes)), "way": np.array(list(self.ways))}
        points = shapely.points(np.reshape(list(self.nodes.values()), (-1, 2)))
        self._trees = {
            "node": shapely.STRtree(points),
            "way": shapely.STRtree([self._line(refs) for refs in self.ways.values()]),
        }

    def _line(self, refs: Sequence[int]) -> Any:
        places = [self.nodes[ref] for ref in refs if ref in self.nodes]
        return shapely.linestrings(places * 2 if len(places) == 1 else places) if places else None

    def inside(self, kind: str, area: Any) -> set[int]:
        """Return the ids of one kind in a polygon, EPSG:4326, lon lat."""
        if kind != "relation":
            return set(self._ids[kind][self._trees[kind].query(area, "intersects")].tolist())
        within = {each: self.inside(each, area) for each in ("node", "way")}
        return {
            osm_id for osm_id, members in self.relations.items()
            if any(ref in within.get(each, ()) for each, ref, _ in members)
        }  # fmt: skip

    def down(self, found: Ids) -> Ids:
        """Return what `>` gives: nodes of ways, members of relations, and nodes of those."""
        ways = {
            ref for osm_id in found["relation"] for kind, ref, _ in self.relations[osm_id]
            if kind == "way" and ref in self.ways
        }  # fmt: skip
        nodes = {
            ref for osm_id in found["relation"] for kind, ref, _ in self.relations[osm_id]
            if kind == "node" and ref in self.nodes
        }  # fmt: skip
        return {"node": nodes | self.corners(found["way"] | ways), "way": ways, "relation": set()}

    def parents(self, relations: set[int]) -> set[int]:
        """Return the relations that have any of these as a member."""
        return {
            osm_id for osm_id, members in self.relations.items()
            if any(kind == "relation" and ref in relations for kind, ref, _ in members)
        }  # fmt: skip

    def corners(self, ways: set[int]) -> set[int]:
        """Return the nodes of ways."""
        return {ref for way in ways for ref in self.ways[way] if ref in self.nodes}


FILTER = r"\[[\"']([^\"']+)[\"'](?:(=|!~)[\"']([^\"']+)[\"'])?\]"

FILTERS = r"(?:\[[^\]]+\])*"


class QueryError(Exception):
    """The query is none that this server knows."""


class Interpreter:
    """Runs one query."""

    def __init__(self, data: OsmData, query: str) -> None:
        self.data = data
        self.query = " ".join(query.split())
        self.sets: dict[str, Ids] = {"_": _nothing()}
        self.json = "[out:json]" in self.query
        self.boxes: list[tuple[float, float, float, float]] = []

    def run(self) -> Ids:
        """Return what the last `out` writes."""
        settings = re.match(r"(\[\w+:[^\]]*\]\s*)*;", self.query)
        body = self.query[settings.end() :] if settings else self.query
        statements = _split(body)
        if not statements or not re.fullmatch(r"out( body)?", statements[-1]):
            raise QueryError("no out")
        for statement in statements[:-1]:
            self._run(statement)
        return self.sets["_"]

    def _run(self, statement: str) -> Ids:
        statement, _, name = statement.partition("->.")
        statement = statement.strip()
        if statement.startswith("("):
            if not statement.endswith(")"):
                raise QueryError(statement)
            found = _nothing()
            for each in _split(statement[1:-1]):
                for kind, ids in self._run(each).items():
                    found[kind] |= ids
        elif statement.startswith("."):
            found = self.sets[statement[1:]]
        elif statement == ">":
            found = self.data.down(self.sets["_"])
        else:
            found = self._select(statement)
        self.sets[name or "_"] = found
        return found

    def _select(self, statement: str) -> Ids:
        found = re.fullmatch(rf"(node|way|relation)({FILTERS})\(([^)]*)\)({FILTERS})", statement)
        if not found:
            raise QueryError(statement)
        kind, before, where, after = found.groups()
        ids = self._where(kind, where)
        tags = self.data.tags[kind]
        for key, how, value in re.findall(FILTER, before + after):
            ids = {osm_id for osm_id in ids if _passes(tags[osm_id], key, how, value)}
        return _nothing() | {kind: ids}

    def _where(self, kind: str, where: str) -> set[int]:
        number = r"\s*(-?\d+(?:\.\d+)?)\s*"
        if box := re.fullmatch(",".join([number] * 4), where):
            south, west, north, east = map(float, box.groups())
            self.boxes.append((south, west, north, east))
            return self.data.inside(kind, shapely.box(west, south, east, north))
        if poly := re.fullmatch(r"poly:[\"']([-\d. ]+)[\"']", where):
            latlon = np.array([float(each) for each in poly[1].split()]).reshape(-1, 2)
            return self.data.inside(kind, shapely.Polygon(latlon[:, ::-1]))
        if re.fullmatch(r"id:[\d,]+", where):
            return {int(i) for i in where[3:].split(",")} & self.data.tags[kind].keys()
        if kind == "node" and (of := re.fullmatch(r"w(?:\.(\w+))?", where)):
            return self.data.corners(self.sets[of[1] or "_"]["way"])
        if kind == "relation" and (of := re.fullmatch(r"br(?:\.(\w+))?", where)):
            return self.data.parents(self.sets[of[1] or "_"]["relation"])
        raise QueryError(where)


def _passes(tags: dict[str, str], key: str, how: str, value: str) -> bool:
    if how == "!~":
        return not re.search(value, tags.get(key, ""))
    return key in tags and (not how or tags[key] == value)


def _nothing() -> Ids:
    return {kind: set() for kind in KINDS}


def _split(text: str) -> list[str]:
    """Return statements, cut at the semicolons outside brackets and quotes."""
    parts, depth, quote, start = [], 0, "", 0
    for index, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        elif sign in "([":
            depth += 1
        elif sign in ")]":
            depth -= 1
        elif sign == ";" and not depth:
            parts.append(text[start:index].strip())
            start = index + 1
    if text[start:].strip():
        raise QueryError(f"no semicolon after {text[start:]}")
    return [part for part in parts if part]


def as_xml(data: OsmData, found: Ids, base: str) -> str:
    """Return elements as `out body` of `[out:xml]` writes them."""
    lines = [_head(base)]
    for kind in KINDS:
        for osm_id in sorted(found[kind]):
            inner = []
            more = ""
            if kind == "node":
                lon, lat = data.nodes[osm_id]
                more = f' lat="{lat:.7f}" lon="{lon:.7f}"'
            elif kind == "way":
                inner = [f'<nd ref="{ref}"/>' for ref in data.ways[osm_id]]
            else:
                inner = [
                    f'<member type="{each}" ref="{ref}" role={quoteattr(role)}/>'
                    for each, ref, role in data.relations[osm_id]
                ]
            inner += [
                f"<tag k={quoteattr(k)} v={quoteattr(v)}/>"
                for k, v in data.tags[kind][osm_id].items()
            ]
            body = f">{''.join(inner)}</{kind}>" if inner else "/>"
            lines.append(f'<{kind} id="{osm_id}"{more}{body}\n')
    return "".join([*lines, "\n</osm>\n"])


def as_json(data: OsmData, found: Ids, base: str) -> str:
    """Return elements as `out` of `[out:json]` writes them."""
    elements = []
    for kind in KINDS:
        for osm_id in sorted(found[kind]):
            element: dict[str, Any] = {"type": kind, "id": osm_id}
            if kind == "node":
                lon, lat = data.nodes[osm_id]
                element |= {"lat": round(lat, 7), "lon": round(lon, 7)}
            elif kind == "way":
                element["nodes"] = data.ways[osm_id]
            else:
                element["members"] = [
                    {"type": each, "ref": ref, "role": role}
                    for each, ref, role in data.relations[osm_id]
                ]
            if tags := data.tags[kind][osm_id]:
                element["tags"] = tags
            elements.append(element)
    about = {"timestamp_osm_base": base, "copyright": "ODbL"}
    return json.dumps({"version": 0.6, "osm3s": about, "elements": elements})


class OverpassServer:
    """An Overpass server on loopback, port 0: `with OverpassServer(path) as server: server.url`.

    Attributes:
        url: of its interpreter, as `URBAN_OVERPASS_URL` wants it.
        root: what osmnx's `settings.overpass_url` wants.
        queries: every query so far.
        agents: the User-Agent of every request.
        times: when each request came, seconds of `time.monotonic`.
        most_at_once: requests that were under way together, at most.
        polled: requests to anything but the interpreter (`/api/status`).
        bytes_sent: of bodies, as they went over the wire.
        faults: answers in place of the true ones, used up one by one; None is a true one.
        largest: boxes of more square degrees are answered with `too_large`.
        base: the data's time stamp, told in every answer; a list is used up to its last.
        delay_s: each answer takes so long.
    """

    def __init__(self, path: Path, faults: Sequence[Fault | None] = ()) -> None:
        self.data = OsmData(path)
        self.faults = list(faults)
        self.largest, self.too_large = float("inf"), TIMED_OUT
        self.base = [BASE]
        self.delay_s = 0.0
        self.queries: list[str] = []
        self.agents: list[str] = []
        self.times: list[float] = []
        self.polled: list[str] = []
        self.most_at_once = self.bytes_sent = self._under_way = 0
        self._lock = threading.Lock()
        owner = self

        class _Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                owner._serve(self, parse_qs(body).get("data", [""])[0])

            def do_GET(self) -> None:
                owner._serve(self, parse_qs(urlsplit(self.path).query).get("data", [""])[0])

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self.root = f"http://127.0.0.1:{self._server.server_port}/api"
        self.url = f"{self.root}/interpreter"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )

    def __enter__(self) -> "OverpassServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _serve(self, request: BaseHTTPRequestHandler, query: str) -> None:
        if urlsplit(request.path).path != "/api/interpreter":
            self.polled.append(request.path)
            self._send(request, Fault(404, "no such place"))
            return
        with self._lock:
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
            self.queries.append(query)
            self.agents.append(request.headers["User-Agent"])
            self.times.append(time.monotonic())
            fault = self.faults.pop(0) if self.faults else None
            base = self.base.pop(0) if len(self.base) > 1 else self.base[0]
        try:
            time.sleep(self.delay_s)
            answer = self._answer(query, base) if fault is None or fault.cut else fault
            self._send(request, answer, fault.cut if fault else 0)
        finally:
            with self._lock:
                self._under_way -= 1

    def _answer(self, query: str, base: str) -> Fault:
        run = Interpreter(self.data, query)
        try:
            found = run.run()
        except (QueryError, KeyError) as err:
            return Fault(400, f"<html><body>parse error: {err}</body></html>")
        if any((n - s) * (e - w) > self.largest for s, w, n, e in run.boxes):
            return self.too_large
        return Fault(200, (as_json if run.json else as_xml)(self.data, found, base))

    def _send(self, request: BaseHTTPRequestHandler, answer: Fault, cut: int = 0) -> None:
        body = answer.body.encode()
        request.send_response(answer.status)
        if "gzip" in request.headers.get("Accept-Encoding", "") and not cut:
            body = gzip.compress(body, 6)
            request.send_header("Content-Encoding", "gzip")
        for name, value in answer.headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: cut or len(body)])
        self.bytes_sent += len(body)
        request.close_connection = bool(cut)
