"""The one door of the test world: an HTTP/1.1 server that logs, delays and spoils what it answers.

Everything that a fetch asks goes through here: paths to the services behind it, and, as a proxy
(`http_proxy`), hosts that do not exist on this machine, e.g. Planetary Computer's storage.
"""

import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "proxy-connection"}


@dataclass(frozen=True)
class Request:
    """What was asked.

    Attributes:
        method: GET, HEAD or POST.
        host: the server's name; empty where a path was asked of the door itself.
        path: below the place where the service is mounted, without query.
        query: its parameters, each once.
        headers: names in lower case.
        body: of a POST.
    """

    method: str
    host: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What is answered; `cut`: only half of the body follows its `Content-Length`."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False


Service = Callable[[Request], Answer]


@dataclass(frozen=True)
class Logged:
    """A request that was answered.

    Attributes:
        number: in order of arrival, from 0.
        service: where it is mounted.
        method: see `Request`.
        path: with host, without query.
        range: first and last byte asked for, None for the whole.
        status: answered.
        sent: bytes of body.
        fault: kind of what was done to it, or nothing.
        began: seconds, of `time.monotonic`.
        ended: when the answer was sent, or nobody took it any more.
    """

    number: int
    service: str
    method: str
    path: str
    range: tuple[int, int] | None
    status: int
    sent: int
    fault: str
    began: float
    ended: float


class Spoiler(Protocol):
    """Decides what is done to an answer."""

    def spoil(
        self, service: str, request: Request, answer: Callable[[], Answer]
    ) -> tuple[Answer, str]:
        """Return what is answered, and the kind of fault that it is, or nothing."""


class Door(ThreadingHTTPServer):
    """Services on one port of loopback, by prefix of the path or by end of the host's name.

    Attributes:
        url: of the door.
        latency_s: seconds that every answer waits.
        spoiler: what spoils answers; None: nothing does.
        log: every request that was answered, in the order of their ends.
        most_at_once: the most requests of one service that were being answered at a time.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.latency_s = 0.0
        self.spoiler: Spoiler | None = None
        self.log: list[Logged] = []
        self.most_at_once: dict[str, int] = {}
        self._paths: dict[str, Service] = {}
        self._hosts: dict[str, Service] = {}
        self._now: dict[str, int] = {}
        self._count = 0
        self._lock = threading.Lock()

    def mount(self, path: str, service: Service) -> str:
        """Answer paths below `path` (`/name`) by a service; return its URL.

        A service at `/` gets what no other does.
        """
        self._paths[path] = service
        return self.url + path

    def mount_host(self, end: str, service: Service) -> None:
        """Answer hosts whose names end so by a service, for clients that have us as their proxy."""
        self._hosts[end] = service

    def __enter__(self) -> "Door":
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def settled(self, wait_s: float = 5.0) -> list[Logged]:
        """Return the log once nothing is being answered any more: a client has its last byte before
        the log has the line."""
        until = time.monotonic() + wait_s
        while any(self._now.values()) and time.monotonic() < until:
            time.sleep(0.001)
        return self.log

    def of(self, service: str) -> list[Logged]:
        """Return the log of one service."""
        return [each for each in list(self.log) if each.service == service]

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet where a client has gone: it was killed, or would not wait any longer."""
        import sys

        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def find(self, host: str, path: str) -> tuple[str, Service, str]:
        """Return the name of the service that answers, the service, and the path below it."""
        for name, service in self._hosts.items():
            if host.endswith(name):
                return name, service, path
        for name, service in sorted(self._paths.items(), reverse=True):  # "/" comes last
            if not host and f"{path}/".startswith(f"{name.rstrip('/')}/"):
                return name, service, path.removeprefix(name.rstrip("/")) or "/"
        return "", _nothing_here, path

    def begin(self, service: str) -> int:
        """Count a request in; return its number."""
        with self._lock:
            self._count += 1
            self._now[service] = self._now.get(service, 0) + 1
            self.most_at_once[service] = max(self.most_at_once.get(service, 0), self._now[service])
            return self._count - 1

    def end(self, logged: Logged) -> None:
        """Count a request out."""
        with self._lock:
            self._now[logged.service] -= 1
            self.log.append(logged)


class _Handler(BaseHTTPRequestHandler):
    server: Door
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        began = time.monotonic()
        split = urlsplit(self.path)
        name, service, below = self.server.find(split.hostname or "", split.path)
        number = self.server.begin(name)
        status, sent, fault = 0, 0, ""
        try:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            query = {key: values[0] for key, values in parse_qs(split.query).items()}
            headers = {key.lower(): value for key, value in self.headers.items()}
            request = Request(self.command, split.hostname or "", below, query, headers, body)
            time.sleep(self.server.latency_s)
            spoiler = self.server.spoiler
            if spoiler is None:
                answer = service(request)
            else:
                answer, fault = spoiler.spoil(name, request, lambda: service(request))
            status = answer.status
            sent = self._send(answer)
        finally:
            path = (split.hostname or "") + split.path
            self.server.end(
                Logged(number, name, self.command, path, _range(self.headers.get("Range")),
                       status, sent, fault, began, time.monotonic())
            )  # fmt: skip

    do_POST = do_HEAD = do_GET

    def _send(self, answer: Answer) -> int:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if "Content-Length" not in answer.headers:  # that of a HEAD says what a GET would bring
            self.send_header("Content-Length", str(len(answer.body)))
        if answer.cut:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return 0
        body = answer.body[: len(answer.body) // 2] if answer.cut else answer.body
        self.wfile.write(body)
        if answer.cut:
            self.close_connection = True
        return len(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def forward(url: str) -> Service:
    """Return a service that asks another server."""

    def ask(request: Request) -> Answer:
        query = urllib.parse.urlencode(request.query)
        passed = {k: v for k, v in request.headers.items() if k not in HOP_BY_HOP | {"host"}}
        onward = urllib.request.Request(
            url.rstrip("/") + request.path + (f"?{query}" if query else ""),
            data=request.body if request.method == "POST" else None,
            headers=passed,
            method=request.method,
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(onward, timeout=60) as answer:
                return Answer(answer.status, answer.read(), _end_to_end(answer.headers))
        except urllib.error.HTTPError as err:
            with err:
                return Answer(err.code, err.read(), _end_to_end(err.headers))

    return ask


def _end_to_end(headers: Mapping[str, str]) -> dict[str, str]:
    dropped = HOP_BY_HOP | {"server", "date"}
    return {key: value for key, value in headers.items() if key.lower() not in dropped}


def _nothing_here(request: Request) -> Answer:
    return Answer(404, b"no such service in the test world")


def _range(text: str | None) -> tuple[int, int] | None:
    if not text:
        return None
    first, _, last = text.removeprefix("bytes=").partition("-")
    return int(first or 0), int(last or 1 << 62)


def bytes_of(logged: Iterator[Logged] | list[Logged]) -> dict[str, set[tuple[int, int]]]:
    """Return the ranges [first, last] that whole answers sent of each path."""
    sent: dict[str, set[tuple[int, int]]] = {}
    for each in logged:
        if each.fault or each.status not in {200, 206} or not each.sent:
            continue
        first = each.range[0] if each.range else 0
        sent.setdefault(each.path, set()).add((first, first + each.sent - 1))
    return sent
