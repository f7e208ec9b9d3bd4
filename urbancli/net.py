"""Our one way to ask a service over HTTP: retries with jitter, time-outs, a cache for `--offline`.

What a service wants of its users (how many at once, how long after a refusal) is its `Manners`.
What is not over HTTP here: pystac-client (over this session), osmnx (geocoding only), and GDAL and
Arrow, which read ranges of files by themselves. No query of a URL reaches an error or a log: it
may hold a token.

Beside the cache lie the locks of services that want one question at a time from a machine, and the
counts of those that allow only so much a day.
"""

import contextlib
import email.utils
import fcntl
import hashlib
import json
import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from urbancli import __version__
from urbancli.errors import ServiceError, UrbanError, UsageError
from urbancli.workspace import atomic_path, write_text

USER_AGENT = f"urban/{__version__} (+https://pypi.org/project/urbancli)"

ENDPOINTS = {
    "stac": ("URBAN_STAC_URL", "https://planetarycomputer.microsoft.com/api/stac/v1"),
    "overpass": ("URBAN_OVERPASS_URL", "https://overpass-api.de/api/interpreter"),
    "nominatim": ("URBAN_NOMINATIM_URL", "https://nominatim.openstreetmap.org/"),
    "overture": ("URBAN_OVERTURE_URL", "s3://overturemaps-us-west-2/release"),
    "mapillary": ("URBAN_MAPILLARY_URL", "https://graph.mapillary.com"),
}
"""The services, each with the environment variable that names another."""

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that may go away by themselves."""

FIRST_WAIT_S = 0.5

DAY_S = 86_400

UNTRUSTED = "has a certificate that is not trusted (REQUESTS_CA_BUNDLE names your own)"

Check = Callable[[bytes], None]
"""Looks at a body; raises `ValueError` where it is not what was asked for."""


def cache_dir() -> Path:
    """Return where answers are kept over all workspaces: `URBAN_CACHE`, or the user's cache."""
    from platformdirs import user_cache_dir

    return Path(os.environ.get("URBAN_CACHE") or user_cache_dir("urban"))


def endpoint(name: str) -> str:
    """Return the URL of a service: of its environment variable, or the public one.

    Raises:
        UsageError: the variable holds no URL.
    """
    variable, public = ENDPOINTS[name]
    url = os.environ.get(variable) or public
    if name != "overture" and not url.startswith(("http://", "https://")):
        raise UsageError(f"{variable} holds no URL: write it as {public}")
    return url


class BusyError(ValueError):
    """What a `Check` raises of a body that says: not now. The service gets its pause."""


class RefusedError(ServiceError):
    """A service gave no whole and good answer."""


class OfflineError(ServiceError):
    """`--offline`, and the answer is in no cache."""


@dataclass(frozen=True)
class Budget:
    """How much a service allows in a day (UTC), counted over all processes of this machine.

    Attributes:
        requests: attempts included that failed.
        bytes: as they come over the wire.
        remedy: what to do once it is spent.
    """

    requests: int
    bytes: int
    remedy: str


@dataclass(frozen=True)
class Manners:
    """How a service wants to be asked.

    Attributes:
        attempts: how often one question is asked before it has failed.
        at_once: questions under way at a time, over all threads of this process.
        connect_s: seconds to connect.
        answer_s: seconds between two bytes.
        pause_s: seconds after the first status of `busy`, at least; twice as many after each more.
        longest_wait_s: between two attempts; a longer `Retry-After` is a refusal.
        busy: statuses that say: not now.
        alone: one question at a time over all processes of this machine.
        daily: how much is allowed in a day; counts only together with `alone`.
    """

    attempts: int = 6
    at_once: int = 8
    connect_s: float = 10.0
    answer_s: float = 60.0
    pause_s: float = 1.0
    longest_wait_s: float = 120.0
    busy: frozenset[int] = frozenset({429})
    alone: bool = False
    daily: Budget | None = None


class Net:
    """How every service of a fetch is asked; made once, handed to the sources.

    It can be pickled: a Dask worker makes its own connections.

    Args:
        cache: folder of kept answers, by default `cache_dir()`.
        offline: ask nobody: answers come from the cache, or not at all.
    """

    def __init__(self, cache: Path | None = None, offline: bool = False) -> None:
        self.offline = offline
        self._cache = cache or cache_dir()
        self._here = threading.local()
        self._gates: dict[tuple[str, int], threading.BoundedSemaphore] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs: neither connections nor locks."""
        return {"cache": self._cache, "offline": self.offline}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start anew in another process."""
        self.__init__(**state)  # type: ignore[misc]

    def get(self, url: str, **more: Any) -> bytes:
        """Return the body of a GET; see `ask`."""
        return self.ask("GET", url, **more)

    def ask(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        manners: Manners = Manners(),
        check: Check = lambda body: None,
        keep: bool = False,
    ) -> bytes:
        """Return the body of a whole answer, asking again where that may help.

        Args:
            method: GET or POST.
            url: where; its query is told nobody.
            body: of a POST.
            headers: beside our own.
            manners: of the service.
            check: of the body; an answer that does not pass is asked for again, and never kept.
            keep: whether the answer is kept for `--offline`.

        Raises:
            OfflineError: offline, and no answer was kept.
            ServiceError: refused, unreachable, or no whole and good answer in all attempts.
        """
        kept = self._cache / "http" / _name(method, url, body)
        if self.offline:
            return _kept(kept if keep else None, check, url)
        with self._gate(url, manners):
            found = self._insist(method, url, body, dict(headers or {}), (manners, check))
        if keep:
            try:
                with self._lock, atomic_path(kept) as temporary:
                    temporary.write_bytes(found)
            except UrbanError as err:
                raise UrbanError(f"{err} (URBAN_CACHE names another folder)") from err
        return found

    def _insist(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: dict[str, str],
        how: tuple[Manners, Check],
    ) -> bytes:
        manners, check = how
        said, status, pause = "", 0, manners.pause_s
        for attempt in range(manners.attempts):
            self._count(url, manners, requests=1)
            wait = min(FIRST_WAIT_S * 2**attempt, manners.longest_wait_s)
            wait *= random.uniform(0.5, 1.0)  # so that many clients do not come back together
            busy, status = False, 0
            try:
                answer = self._once(method, url, body, headers, manners)
                self._count(url, manners, bytes=answer.raw.tell())
                if answer.ok:
                    check(answer.content)
                    return bytes(answer.content)
                said, status = f"answers {answer.status_code}", answer.status_code
                if status not in AGAIN:
                    break
                busy = status in manners.busy
                asked = retry_after(answer.headers)
                wait = max(wait, asked + random.uniform(0.0, FIRST_WAIT_S)) if asked else wait
            except _FailedError as err:
                said = str(err)
                if said == UNTRUSTED:
                    break
            except ValueError as err:
                said = f"answers something else than was asked for ({_short(err)})"
                busy = isinstance(err, BusyError)
            if busy:
                wait, pause = max(wait, pause), min(2 * pause, manners.longest_wait_s)
            if wait > manners.longest_wait_s + FIRST_WAIT_S:
                said += f" and wants a pause of {wait:.0f} s"
                break
            if attempt + 1 < manners.attempts:
                time.sleep(wait)
        remedy = "try the same command again later"
        if 400 <= status < 500 and status not in AGAIN:
            remedy = "check its address and what it was asked"
        failed = RefusedError(f"{_public(url)} {said}: {remedy}")
        failed.status = status
        raise failed

    def _once(
        self, method: str, url: str, body: bytes | None, headers: dict[str, str], manners: Manners
    ) -> Any:
        """Return one whole answer of any status; what requests raises may hold a token: dropped."""
        import requests
        from urllib3.exceptions import ReadTimeoutError

        faults = requests.exceptions
        try:
            return self._session().request(
                method, url, data=body, headers=headers,
                timeout=(manners.connect_s, manners.answer_s),
            )  # fmt: skip
        except (faults.ProxyError, faults.InvalidProxyURL):
            said = "cannot be reached through the proxy (HTTP_PROXY, HTTPS_PROXY)"
        except faults.SSLError as err:
            untrusted = "CERTIFICATE_VERIFY_FAILED" in str(err)
            said = UNTRUSTED if untrusted else "breaks off as it is asked over https"
        except faults.Timeout:
            said = "does not answer in time"
        except (faults.ChunkedEncodingError, faults.ContentDecodingError):
            said = "breaks off in the middle of its answer"
        except faults.ConnectionError as err:
            slow = any(isinstance(each, ReadTimeoutError) for each in err.args)
            said = "stops in the middle of its answer" if slow else "cannot be reached"
        except faults.TooManyRedirects:
            said = "sends from one address to another without end"
        except faults.RequestException as err:
            what = "the token" if isinstance(err, faults.InvalidHeader) else "the URL"
            raise UsageError(f"'{_public(url)}' cannot be asked: check {what}") from None
        raise _FailedError(said)

    def _session(self) -> Any:
        """Return this thread's connections."""
        if not hasattr(self._here, "session"):
            import requests

            logging.getLogger("urllib3").setLevel(logging.ERROR)  # below, it tells whole URLs
            self._here.session = requests.Session()
            self._here.session.headers["User-Agent"] = USER_AGENT
        return self._here.session

    @contextlib.contextmanager
    def _gate(self, url: str, manners: Manners) -> Iterator[None]:
        """Let only so many questions to one host be under way; no URL without a host passes."""
        key = (_host(url), manners.at_once)
        with self._lock:
            gate = self._gates.setdefault(key, threading.BoundedSemaphore(manners.at_once))
        with gate, self._alone(url) if manners.alone else contextlib.nullcontext():
            yield

    @contextlib.contextmanager
    def _alone(self, url: str) -> Iterator[None]:
        """Wait until no other process of this machine asks the host; a killed one lets go."""
        path = self._cache / "hosts" / f"{_host(url)}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("ab")
        except OSError as err:
            why = f"cannot write {path}: {err.strerror or err}"
            raise UrbanError(f"{why}; URBAN_CACHE names another folder") from err
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _count(self, url: str, manners: Manners, requests: int = 0, bytes: int = 0) -> None:
        """Add to what was spent today, refusing a request beyond the budget; held by `_alone`."""
        if manners.daily is None or not manners.alone:
            return
        path, today = self._cache / "hosts" / f"{_host(url)}.json", int(time.time() // DAY_S)
        spent = {"day": today, "requests": 0, "bytes": 0}
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            found = json.loads(path.read_bytes())
            spent = found if found["day"] == today else spent
        daily = manners.daily
        if requests and not (spent["requests"] < daily.requests and spent["bytes"] < daily.bytes):
            raise ServiceError(
                f"{_public(url)} has given this machine {spent['requests']:,} answers and "
                f"{spent['bytes'] / 1e6:,.0f} MB today, which is what it allows: {daily.remedy}"
            )
        spent["requests"] += requests
        spent["bytes"] += bytes
        write_text(path, json.dumps(spent))


class _FailedError(Exception):
    """No answer."""


def _kept(path: Path | None, check: Check, url: str) -> bytes:
    """Return a kept answer that passes, or raise `OfflineError`."""
    with contextlib.suppress(OSError, ValueError):
        if path is not None:
            body = path.read_bytes()
            check(body)
            return body
    raise OfflineError(f"offline, and no answer of {_public(url)} is kept: go online once")


def json_body(content: Any) -> bytes:
    """Return the same bytes for the same content."""
    return json.dumps(content, sort_keys=True).encode()


def is_json(body: bytes) -> None:
    """Check that a body is a JSON object.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(json.loads(body), dict):
        raise ValueError("no JSON object")


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds that an answer asks to wait, 0 where it does not say.

    RFC 9110, 10.2.3: seconds, or a date, which is taken against the answer's own `Date`, or our
    clock where it has none.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    try:
        until = email.utils.parsedate_to_datetime(text)
        now = headers.get("Date")
        at = email.utils.parsedate_to_datetime(now).timestamp() if now else time.time()
        return max(0.0, until.timestamp() - at)
    except (ValueError, TypeError):
        return 0.0


def _name(method: str, url: str, body: bytes | None) -> str:
    return hashlib.sha256(b"\n".join([method.encode(), url.encode(), body or b""])).hexdigest()


def _host(url: str) -> str:
    """Return a file name for the host and port of a URL."""
    try:
        return re.sub(r"[^\w.-]", "_", urlsplit(url).netloc.rpartition("@")[2])
    except ValueError:  # not chained: it tells user and password
        raise UsageError("a URL to be asked has no valid host: check the URL") from None


def _public(url: str) -> str:
    """Return a URL without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _short(err: BaseException) -> str:
    said = " ".join(str(err).split())
    return said if len(said) <= 120 else said[:120] + "…"
