"""Asking a service: every way in which an answer can fail, against a server on loopback."""

import contextlib
import email.utils
import json
import pickle
import socket
import ssl
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from urbancli import net as net_module
from urbancli.errors import ServiceError, UrbanError, UsageError
from urbancli.net import (
    DAY_S,
    Budget,
    BusyError,
    Manners,
    Net,
    OfflineError,
    RefusedError,
    endpoint,
    is_json,
    retry_after,
)

GOOD = b'{"answer": 42}'
NOW = 1_700_000_000
QUICK = Manners(attempts=3, connect_s=2.0, answer_s=0.5, pause_s=0.05)

Step = Callable[[BaseHTTPRequestHandler], None]
"""Answers one request."""


def says(status: int, body: bytes = b"", **headers: str) -> Step:
    """Return a step that answers wholly."""

    def step(request: BaseHTTPRequestHandler) -> None:
        request.send_response_only(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return step


def breaks(sent: bytes, stall_s: float = 0.0) -> Step:
    """Return a step that promises a good answer and gives only part of it."""

    def step(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(GOOD)))
        request.end_headers()
        request.wfile.write(sent)
        request.wfile.flush()
        time.sleep(stall_s)
        request.close_connection = True

    return step


def late(request: BaseHTTPRequestHandler) -> None:
    """Answer after the time-out."""
    time.sleep(0.8)
    with contextlib.suppress(OSError):
        says(200, GOOD)(request)


def silent(request: BaseHTTPRequestHandler) -> None:
    """Close the connection without a word."""
    request.close_connection = True


class Server:
    """A server that goes through steps and then answers well.

    Attributes:
        steps: how the next requests are answered.
        times: when requests came.
        agents: their User-Agent.
        most: under way together, at most.
        connections: that were begun.
        hold_s: how long each takes.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.times: list[float] = []
        self.agents: list[str | None] = []
        self.bodies: list[bytes] = []
        self.most = self._now = self.connections = 0
        self.hold_s = 0.0
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                owner.serve(self)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self) -> tuple[socket.socket, object]:
                owner.connections += 1
                return super().get_request()

            def handle_error(self, *_: object) -> None:
                """A client that went away, or no TLS: both are meant."""

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self._thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))
        self._thread.start()

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            self.times.append(time.monotonic())
            self.agents.append(request.headers["User-Agent"])
            self.bodies.append(request.rfile.read(int(request.headers.get("Content-Length", 0))))
            step = self.steps.pop(0) if self.steps else says(200, GOOD)
        try:
            time.sleep(self.hold_s)
            step(request)
        finally:
            with self._lock:
                self._now -= 1

    def stop(self) -> None:
        self.http.shutdown()
        self._thread.join()
        self.http.server_close()


@pytest.fixture
def server(socket_enabled: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(net_module, "FIRST_WAIT_S", 0.01)
    for name in (
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    started = Server()
    yield started
    started.stop()


@pytest.fixture
def net(tmp_path: Path) -> Net:
    return Net(cache=tmp_path / "cache")


PASSING = {
    "429, seconds": says(429, Retry_After="0"),
    "429, a date": says(
        429, Date=email.utils.formatdate(NOW, usegmt=True),
        Retry_After=email.utils.formatdate(NOW - 3, usegmt=True),
    ),
    "429, no word": says(429),
    "503": says(503, b"down"),
    "504": says(504),
    "408": says(408),
    "500": says(500),
    "late": late,
    "cut": breaks(GOOD[:5]),
    "stalls": breaks(GOOD[:5], stall_s=0.8),
    "silent": silent,
    "wrong content": says(200, b"<html>Sign in to the hotel</html>"),
    "not packed as told": says(200, b"plain", Content_Encoding="gzip"),
}  # fmt: skip


@pytest.mark.parametrize("kind", PASSING)
def test_what_may_go_away_is_asked_again(server: Server, net: Net, kind: str) -> None:
    server.steps = [PASSING[kind]]
    body = net.ask("POST", f"{server.url}/x", body=b"q", manners=QUICK, check=is_json, keep=True)
    assert body == GOOD
    assert server.bodies == [b"q", b"q"]
    assert all(str(agent).startswith("urban/") for agent in server.agents)


LASTING = {
    "429": (says(429), "answers 429", 429),
    "503": (says(503), "answers 503", 503),
    "late": (late, "does not answer in time", 0),
    "cut": (breaks(GOOD[:5]), "breaks off in the middle", 0),
    "stalls": (breaks(GOOD[:5], 0.8), "stops in the middle", 0),
    "silent": (silent, "cannot be reached", 0),
    "wrong content": (says(200, b"[]"), "something else than was asked for (no JSON object)", 0),
}


@pytest.mark.parametrize("kind", LASTING)
def test_what_does_not_go_away_is_one_line(server: Server, net: Net, kind: str) -> None:
    step, said, status = LASTING[kind]
    server.steps = [step] * 5
    with pytest.raises(ServiceError) as caught:
        net.get(f"{server.url}/x?sig=hidden", manners=QUICK, check=is_json, keep=True)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert getattr(caught.value, "status", 0) == status
    assert len(server.times) == QUICK.attempts
    with pytest.raises(OfflineError):  # and nothing bad was kept
        _offline(net).get(f"{server.url}/x?sig=hidden", keep=True)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 501])
def test_a_refusal_is_final_and_tells_its_status(server: Server, net: Net, status: int) -> None:
    server.steps = [says(status)] * 2
    with pytest.raises(RefusedError, match=f"answers {status}") as caught:
        net.get(server.url, manners=QUICK)
    assert caught.value.status == status and len(server.times) == 1
    assert pickle.loads(pickle.dumps(caught.value)).status == status


# --- waiting ----------------------------------------------------------------------------------


def _gaps(server: Server) -> list[float]:
    return [after - before for before, after in zip(server.times, server.times[1:], strict=False)]


def test_retry_after_is_obeyed(server: Server, net: Net) -> None:
    date = {
        "Date": email.utils.formatdate(NOW, usegmt=True),
        "Retry_After": email.utils.formatdate(NOW + 1, usegmt=True),
    }
    server.steps = [says(503, Retry_After="1"), says(429, **date)]
    net.get(server.url, manners=QUICK)
    assert len(server.times) == 3
    assert all(gap >= 1.0 for gap in _gaps(server))


def test_a_wait_that_is_too_long_is_a_refusal(server: Server, net: Net) -> None:
    server.steps = [says(429, Retry_After="3600")]
    with pytest.raises(ServiceError, match="wants a pause of 3600 s"):
        net.get(server.url, manners=QUICK)
    assert len(server.times) == 1


def test_a_busy_service_gets_its_pause_and_twice_as_long_after_each_more(
    server: Server, net: Net
) -> None:
    manners = Manners(attempts=5, pause_s=0.15, busy=frozenset({429, 504}), longest_wait_s=0.4)
    server.steps = [says(504), says(503), says(200, b"busy"), says(429)]

    def check(body: bytes) -> None:
        if body == b"busy":
            raise BusyError("too busy")

    net.get(server.url, manners=manners, check=check)
    gaps = _gaps(server)
    assert gaps[0] >= 0.15 and gaps[2] >= 0.3 and gaps[3] >= 0.4


def test_clients_do_not_come_back_together(
    server: Server, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(net_module, "FIRST_WAIT_S", 0.1)
    gaps = []
    for _ in range(10):
        server.steps, server.times = [says(503)], []
        net.get(server.url, manners=QUICK)
        gaps += _gaps(server)
    assert min(gaps) >= 0.05 and max(gaps) - min(gaps) > 0.015


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": " 7 "}, 7.0),
        ({}, 0.0),
        ({"Retry-After": "soon"}, 0.0),
        ({"Retry-After": "-5"}, 0.0),
        ({"Retry-After": "Tue, 14 Nov 2023 22:13:25 GMT", "Date": "Tue, 14 Nov 2023 22:13:20 GMT"},
         5.0),
        ({"Retry-After": "Tue, 14 Nov 2023 22:13:25 GMT"}, 0.0),  # past by our clock
    ],
)  # fmt: skip
def test_retry_after(headers: dict[str, str], seconds: float) -> None:
    assert retry_after(headers) == seconds


# --- ways that are closed ---------------------------------------------------------------------


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_nobody_there(server: Server, net: Net) -> None:
    with pytest.raises(ServiceError, match="cannot be reached: try the same command again"):
        net.get(f"http://127.0.0.1:{_free_port()}/", manners=QUICK)


def test_a_proxy_that_is_not_there(
    server: Server, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:hidden@127.0.0.1:{_free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(ServiceError, match=r"through the proxy \(HTTP_PROXY") as caught:
        net.get(f"{server.url}/x", manners=QUICK)
    _holds_no_secret(caught.value)
    assert not server.times


def test_a_certificate_that_is_not_trusted(server: Server, net: Net, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=127.0.0.1", "-keyout", key, "-out", certificate],
        capture_output=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with pytest.raises(ServiceError, match="breaks off as it is asked over https"):
        net.get(server.url.replace("http", "https"), manners=QUICK)
    before = server.connections
    server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    with pytest.raises(ServiceError, match=r"not trusted \(REQUESTS_CA_BUNDLE"):
        net.get(server.url.replace("http", "https"), manners=QUICK)
    assert server.connections == before + 1 and not server.times


def test_redirections_without_end(server: Server, net: Net) -> None:
    server.steps = [says(302, Location="/x?sig=hidden")] * 200
    with pytest.raises(ServiceError, match="from one address to another"):
        net.get(server.url, manners=Manners(attempts=1))


@pytest.mark.parametrize(
    "url", ["http://[::1", "ftp://host/x", "http://", "nonsense", "http://a:b/"]
)
def test_no_url(net: Net, url: str) -> None:
    with pytest.raises(UsageError, match="URL"):
        net.get(url)


# --- secrets ----------------------------------------------------------------------------------


def _holds_no_secret(err: BaseException) -> None:
    told = "".join(traceback.format_exception(err)) + repr(err)
    assert "hidden" not in told, told


@pytest.mark.parametrize("kind", [*LASTING, "refusal", "header", "host", "nobody"])
def test_no_secret_is_told(
    server: Server, net: Net, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    url = server.url.replace("//", "//me:hidden@") + "/path?token=hidden"
    headers = {"Authorization": "Bearer hidden"}
    if kind == "refusal":
        server.steps = [says(403, b"hidden")]
    elif kind == "header":
        headers = {"Authorization": "hidden\nagain"}
    elif kind == "host":
        url = "http://me:hidden@[::1/?token=hidden"
    elif kind == "nobody":
        url = f"http://me:hidden@127.0.0.1:{_free_port()}/?token=hidden"
    else:
        server.steps = [LASTING[kind][0]] * 5
    with pytest.raises(UrbanError) as caught:
        net.get(url, headers=headers, manners=QUICK, check=is_json, keep=True)
    _holds_no_secret(caught.value)
    assert "hidden" not in caplog.text
    kept = net._cache.rglob("*") if net._cache.exists() else []
    assert not any("hidden" in path.name for path in kept)


def test_a_variable_without_a_url_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URBAN_STAC_URL", "me:hidden@host/stac")
    with pytest.raises(UsageError, match="URBAN_STAC_URL holds no URL") as caught:
        endpoint("stac")
    _holds_no_secret(caught.value)


# --- kept answers -----------------------------------------------------------------------------


def _offline(net: Net) -> Net:
    return Net(cache=net._cache, offline=True)


def test_offline_gives_what_was_kept_and_asks_nobody(server: Server, net: Net) -> None:
    url = f"{server.url}/kept"
    net.get(url, keep=True)
    net.ask("POST", url, body=b"not kept")
    asked = len(server.times)
    assert _offline(net).get(url, keep=True) == GOOD
    for body, keep in ((b"not kept", True), (b"never asked", True), (None, False)):
        with pytest.raises(OfflineError, match="offline, and no answer of http"):
            _offline(net).ask("POST" if body else "GET", url, body=body, keep=keep)
    assert len(server.times) == asked


def test_a_kept_answer_that_is_damaged_does_not_count(server: Server, net: Net) -> None:
    net.get(server.url, keep=True, check=is_json)
    (kept,) = (path for path in net._cache.rglob("*") if path.is_file())
    kept.write_bytes(b"{")
    with pytest.raises(OfflineError):
        _offline(net).get(server.url, keep=True, check=is_json)


def test_threads_may_keep_the_same_answer(server: Server, net: Net) -> None:
    with ThreadPoolExecutor(8) as pool:
        bodies = list(pool.map(lambda _: net.get(server.url, keep=True), range(24)))
    assert set(bodies) == {GOOD}
    assert _offline(net).get(server.url, keep=True) == GOOD


# --- how many, how much -----------------------------------------------------------------------


def test_the_gate_holds_over_threads(server: Server, net: Net) -> None:
    server.hold_s = 0.03
    manners = Manners(at_once=3)
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda _: net.get(server.url, manners=manners), range(18)))
    assert server.most == 3 and len(server.times) == 18


def test_it_can_be_pickled(server: Server, net: Net) -> None:
    net.get(server.url, manners=Manners(alone=True), keep=True)
    other = pickle.loads(pickle.dumps(net))
    assert other.get(server.url) == GOOD and other._cache == net._cache
    assert pickle.loads(pickle.dumps(_offline(net))).get(server.url, keep=True) == GOOD


def _daily(requests: int, bytes: int) -> Manners:
    return Manners(
        attempts=2, pause_s=0.0, alone=True, daily=Budget(requests, bytes, "ask a friend")
    )


def test_a_day_s_requests_are_counted_over_processes_and_attempts(server: Server, net: Net) -> None:
    manners = _daily(4, 10**6)
    server.steps = [says(503)]
    net.get(server.url, manners=manners)  # two attempts
    again = Net(cache=net._cache)
    again.get(server.url, manners=manners)
    again.get(server.url, manners=manners)
    with pytest.raises(ServiceError, match=r"4 answers and 0 MB today.*ask a friend"):
        again.get(server.url, manners=manners)
    assert len(server.times) == 4
    again.get(server.url)  # who has no budget is not held


def test_a_day_s_bytes_are_counted_and_forgotten_the_next_day(server: Server, net: Net) -> None:
    manners = _daily(100, 2 * len(GOOD) - 1)
    net.get(server.url, manners=manners)
    net.get(server.url, manners=manners)
    with pytest.raises(ServiceError, match="ask a friend"):
        net.get(server.url, manners=manners)
    (count,) = net._cache.rglob("*.json")
    spent = json.loads(count.read_text())
    assert spent == {"bytes": 2 * len(GOOD), "day": int(time.time() // DAY_S), "requests": 2}
    count.write_text(json.dumps({**spent, "day": spent["day"] - 1}))
    net.get(server.url, manners=manners)
    count.write_text("{torn")
    net.get(server.url, manners=manners)


def test_a_cache_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    net = Net(cache=tmp_path / "file")
    for more in ({"keep": True}, {"manners": Manners(alone=True)}):
        with pytest.raises(UrbanError, match="cannot write"):
            net.get(server.url, **more)
