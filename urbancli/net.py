"""Our one way to ask a service over HTTP: retries with jitter, time-outs, a cache for `--offline`.

What a service wants of its users (how many at once, how long after a refusal) is its `Manners`.
What is not over HTTP here: pystac-client (over this session), osmnx (geocoding only), and GDAL and
Arrow, which read ranges of files by themselves. No query of a URL reaches an error or a log: it
may hold a token.
"""

import contextlib
import email.utils
import hashlib
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from urbancli import __version__
from urbancli.errors import ServiceError, UsageError
from urbancli.workspace import atomic_path

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
    if name != "overture" and urlsplit(url).scheme not in {"http", "https"}:
        raise UsageError(f"{variable}='{url}' is no URL: write it as {public}")
    return url


@dataclass(frozen=True)
class Manners:
    """How a service wants to be asked.

    Attributes:
        attempts: how often one question is asked before it has failed.
        at_once: questions under way at a time, over all threads of this process.
        connect_s: seconds to connect.
        answer_s: seconds between two bytes.
        pause_s: seconds after a 429 that says no `Retry-After`, at least.
        longest_wait_s: between two attempts; a longer `Retry-After` is a refusal.
    """

    attempts: int = 6
    at_once: int = 8
    connect_s: float = 10.0
    answer_s: float = 60.0
    pause_s: float = 1.0
    longest_wait_s: float = 120.0


class OfflineError(ServiceError):
    """`--offline`, and the answer is in no cache."""


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
            if keep and kept.exists():
                return kept.read_bytes()
            raise OfflineError(f"offline, and no answer of {_public(url)} is kept: go online once")
        with self._gate(url, manners):
            found = self._insist(method, url, body, dict(headers or {}), (manners, check))
        if keep:
            with atomic_path(kept) as temporary:
                temporary.write_bytes(found)
        return found

    def _insist(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: dict[str, str],
        how: tuple[Manners, Check],
    ) -> bytes:
        import requests

        manners, check = how
        said = ""
        for attempt in range(manners.attempts):
            wait = min(FIRST_WAIT_S * 2**attempt, manners.longest_wait_s)
            wait *= random.uniform(0.5, 1.0)  # so that many clients do not come back together
            try:
                answer = self._session().request(
                    method, url, data=body, headers=headers,
                    timeout=(manners.connect_s, manners.answer_s),
                )  # fmt: skip
                if answer.ok:
                    check(answer.content)
                    return bytes(answer.content)
                said = f"answers {answer.status_code}"
                if answer.status_code not in AGAIN:
                    break
                if answer.status_code == 429:
                    wait = max(wait, manners.pause_s)
                wait = max(wait, retry_after(answer.headers))
            except requests.exceptions.ProxyError:
                said = "cannot be reached through the proxy (HTTP_PROXY, HTTPS_PROXY)"
            except requests.exceptions.SSLError:
                said = "has a certificate that is not trusted (REQUESTS_CA_BUNDLE names your own)"
                break
            except requests.exceptions.Timeout:
                said = "does not answer in time"
            except (requests.exceptions.ChunkedEncodingError,
                    requests.exceptions.ContentDecodingError):  # fmt: skip
                said = "breaks off in the middle of its answer"
            except requests.exceptions.ConnectionError:
                said = "cannot be reached"
            except requests.exceptions.RequestException as err:
                raise UsageError(f"'{_public(url)}' is no URL that can be asked") from err
            except ValueError as err:
                said = f"answers something else than was asked for ({_short(err)})"
            if wait > manners.longest_wait_s:
                said += f" and wants a pause of {wait:.0f} s"
                break
            if attempt + 1 < manners.attempts:
                time.sleep(wait)
        # Not chained: what requests says holds the URL with its query.
        raise ServiceError(f"{_public(url)} {said}: try the same command again later") from None

    def _session(self) -> Any:
        """Return this thread's connections."""
        if not hasattr(self._here, "session"):
            import requests

            self._here.session = requests.Session()
            self._here.session.headers["User-Agent"] = USER_AGENT
        return self._here.session

    @contextlib.contextmanager
    def _gate(self, url: str, manners: Manners) -> Iterator[None]:
        """Let only so many questions to one host be under way."""
        key = (urlsplit(url).netloc, manners.at_once)
        with self._lock:
            gate = self._gates.setdefault(key, threading.BoundedSemaphore(manners.at_once))
        with gate:
            yield


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

    RFC 9110, 10.2.3: seconds, or a date, which is taken against the answer's own `Date`.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    try:
        until = email.utils.parsedate_to_datetime(text)
        now = email.utils.parsedate_to_datetime(headers["Date"])
        return max(0.0, (until - now).total_seconds())
    except (ValueError, TypeError, KeyError):
        return 0.0


def _name(method: str, url: str, body: bytes | None) -> str:
    return hashlib.sha256(b"\n".join([method.encode(), url.encode(), body or b""])).hexdigest()


def _public(url: str) -> str:
    """Return a URL without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _short(err: BaseException) -> str:
    said = " ".join(str(err).split())
    return said if len(said) <= 120 else said[:120] + "…"
