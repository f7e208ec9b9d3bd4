"""A given share of answers goes wrong, in each of seven ways as often as in any other.

What happens to a request is drawn from the seed, the request itself and how often it was asked:
neither the order in which threads ask nor the time changes it.
"""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable

from tests.world.front import Answer, Request

KINDS = (
    "too many", "unavailable", "late", "cut", "wrong content", "expired", "hidden",
)  # fmt: skip
"""429 with `Retry-After`; 503; an answer later than clients wait; less body than was announced;
200 with a page for people, or a range of wrong bytes; 403 of an expired signature; 404 that is
throttling."""

PAGE = b"<!DOCTYPE html><html><title>Sign in</title><p>This network wants you to sign in.</html>\n"

EXPIRED = (
    b'<?xml version="1.0" encoding="utf-8"?><Error><Code>AuthenticationFailed</Code><Message>'
    b"Signature not valid in the specified time frame</Message></Error>"
)


class Faults:
    """Spoils a share of a door's answers.

    Attributes:
        done: how often each kind was done, by (service, kind).

    Args:
        seed: of all draws.
        share: of requests that fail.
        storage: the service that reads signatures: the only one where they expire, and where
            throttling hides files.
        late_s: seconds that a late answer takes; more than the clients' time-outs.
        spared: (service, kind) that is not done.
    """

    def __init__(
        self,
        seed: int,
        share: float = 0.2,
        storage: str = "",
        late_s: float = 3.0,
        spared: frozenset[tuple[str, str]] = frozenset(),
    ) -> None:
        self.done: Counter[tuple[str, str]] = Counter()
        self._seed = seed
        self._share = share
        self._storage = storage
        self._late_s = late_s
        self._spared = spared
        self._asked: Counter[tuple[str, ...]] = Counter()
        self._lock = threading.Lock()

    def spoil(
        self, service: str, request: Request, answer: Callable[[], Answer]
    ) -> tuple[Answer, str]:
        """Return what is answered, and which kind of fault it is, or nothing."""
        kind, draw = self._draw(service, request)
        if not kind:
            return answer(), ""
        with self._lock:
            self.done[service, kind] += 1
        return self._spoilt(kind, draw, request, answer), kind

    def _draw(self, service: str, request: Request) -> tuple[str, int]:
        """Return the kind of fault of a request, or nothing, and 32 random bits."""
        text = request.headers.get("range", "") + hashlib.sha256(request.body).hexdigest()
        key = (service, request.method, request.host + request.path, text)
        with self._lock:
            self._asked[key] += 1
            times = self._asked[key]
        digest = hashlib.sha256(repr((self._seed, key, times)).encode()).digest()
        draws = [int.from_bytes(digest[at : at + 4], "big") for at in (0, 4, 8)]
        signed = {"expired", "hidden"} if service != self._storage else set()
        kinds = [k for k in KINDS if k not in signed and (service, k) not in self._spared]
        if draws[0] >= self._share * 2**32:
            return "", 0
        return kinds[draws[1] % len(kinds)], draws[2]

    def _spoilt(
        self, kind: str, draw: int, request: Request, answer: Callable[[], Answer]
    ) -> Answer:
        if kind == "too many":
            return Answer(429, b"", {"Retry-After": str(draw % 2)})
        if kind == "unavailable":
            return Answer(503, b"upstream connect error")
        if kind == "expired":
            return Answer(403, EXPIRED, {"Content-Type": "application/xml"})
        if kind == "hidden":
            return Answer(404, b"The specified resource does not exist.")
        if kind == "late":
            time.sleep(self._late_s)
            return answer()
        if kind == "cut":
            whole = answer()
            return Answer(whole.status, whole.body or PAGE, whole.headers, cut=True)
        if request.headers.get("range") and draw % 2:
            return _wrong_bytes(answer(), draw)
        return Answer(200, PAGE, {"Content-Type": "text/html"})


def _wrong_bytes(whole: Answer, draw: int) -> Answer:
    """Return an answer of the same length whose bytes are others: of somebody else's file."""
    stream = hashlib.shake_256(draw.to_bytes(4, "big")).digest(len(whole.body))
    return Answer(whole.status, stream, whole.headers)
