"""Files over HTTP as blob storage serves them: byte ranges, ETags, and signatures that expire."""

import hashlib
import hmac
import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlencode

from tests.world.front import Answer, Request

MARK = "TheSecretOfTheTestWorld"
"""Stands in every signature: found in any file, log or error, it has leaked."""


class Signatures:
    """Shared access signatures of containers, valid for some seconds.

    Attributes:
        lifetime_s: of a token, seconds.
        issued: how many were given out.
    """

    def __init__(self, lifetime_s: float = 3600.0) -> None:
        self.lifetime_s = lifetime_s
        self.issued = 0
        self._lock = threading.Lock()

    def tokens(self, request: Request) -> Answer:
        """Answer `/{account}/{container}` in the form of Planetary Computer's token endpoint."""
        parts = request.path.strip("/").split("/")
        if len(parts) != 2 or not all(parts):
            return Answer(404, b'{"detail":"Not Found"}', {"Content-Type": "application/json"})
        with self._lock:
            self.issued += 1
        until = _text(time.time() + self.lifetime_s)
        query = urlencode({"se": until, "sp": "r", "sig": _signature(*parts, until)})
        body = json.dumps({"msft:expiry": until, "token": query}).encode()
        return Answer(200, body, {"Content-Type": "application/json"})

    def refused(self, request: Request, account: str, container: str) -> str:
        """Return why a request must not read a container, or nothing."""
        until, signature = request.query.get("se", ""), request.query.get("sig", "")
        if not hmac.compare_digest(signature, _signature(account, container, until)):
            return "Signature did not match"
        if until <= _text(time.time()):
            return "Signature not valid in the specified time frame"
        return ""


class Files:
    """A folder over HTTP.

    Args:
        folder: what is served.
        signatures: that are wanted of who reads `{account}.HOST/{container}/…`; None: of nobody.
    """

    def __init__(self, folder: Path, signatures: Signatures | None = None) -> None:
        self._folder = folder
        self._signatures = signatures

    def __call__(self, request: Request) -> Answer:
        """Answer GET and HEAD, whole or a range."""
        path = unquote(request.path).lstrip("/")
        if self._signatures is not None:
            container, _, path = path.partition("/")
            account = request.host.partition(".")[0]
            if why := self._signatures.refused(request, account, container):
                body = f"<Error><Code>AuthenticationFailed</Code><Message>{why}</Message></Error>"
                return Answer(403, body.encode(), {"Content-Type": "application/xml"})
        file = (self._folder / path).resolve()
        if not file.is_file() or not file.is_relative_to(self._folder.resolve()):
            return Answer(404, b"The specified blob does not exist.")
        return _served(file, request.headers.get("range"), request.method == "HEAD")


def _served(file: Path, asked: str | None, head: bool) -> Answer:
    size = file.stat().st_size
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": f'"{hashlib.sha256(f"{file.name}{size}".encode()).hexdigest()[:16]}"',
        "Content-Type": "application/octet-stream",
    }
    if head:
        return Answer(200, b"", {**headers, "Content-Length": str(size)})
    with file.open("rb") as stream:
        if not asked:
            return Answer(200, stream.read(), headers)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start = int(first) if first else max(0, size - int(last))
        stop = min(int(last) + 1, size) if first and last else size
        if start >= stop:
            return Answer(416, b"", {"Content-Range": f"bytes */{size}"})
        stream.seek(start)
        body = stream.read(stop - start)
    return Answer(206, body, {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"})


def _text(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _signature(account: str, container: str, until: str) -> str:
    what = f"{account}\n{container}\n{until}".encode()
    return MARK + hmac.new(b"test world", what, "sha256").hexdigest()
