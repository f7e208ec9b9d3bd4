"""Files of an object store, listed and read by ranges: S3 and what answers like it, or a folder.

Over HTTP it is our own session that asks, not Arrow's S3 client: that one hides its retries, waits
through Ctrl-C, takes credentials from the environment and ends in errors of several lines. A range
is an ordinary GET, so what `Net` knows of time-outs, faults and proxies holds here too.
"""

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit
from xml.etree import ElementTree

from urbancli.errors import ServiceError, UrbanError, UsageError
from urbancli.net import Manners, Net

REGION = "us-west-2"

MANNERS = Manners(at_once=16)


@dataclass(frozen=True)
class Stored:
    """A file of a store: its key below the store's root, and its size in bytes."""

    key: str
    size: int


class Folder:
    """A local folder in the place of a store.

    Attributes:
        where: how it is called in a plan: without its path, which is this machine's business.
    """

    where = "local folder"

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.is_dir():
            raise UsageError(f"no folder {path}: URBAN_OVERTURE_URL names a folder or a URL")

    def folders(self) -> list[str]:
        """Return the names of the folders right below the root, sorted."""
        return sorted(path.name for path in self._path.iterdir() if path.is_dir())

    def files(self, below: str) -> list[Stored]:
        """Return every file below a folder, sorted by key."""
        found = [path for path in (self._path / below).rglob("*") if path.is_file()]
        return sorted(
            (Stored(p.relative_to(self._path).as_posix(), p.stat().st_size) for p in found),
            key=lambda stored: stored.key,
        )

    def read(self, key: str, start: int, length: int) -> bytes:
        """Return `length` bytes from `start` on."""
        with (self._path / key).open("rb") as file:
            file.seek(start)
            content = file.read(length)
        return content


class Bucket:
    """A bucket of S3, or of a server that speaks its REST form, read without credentials.

    Attributes:
        where: its URL, without user, password and query.
    """

    def __init__(self, url: str, net: Net) -> None:
        self._base, self._prefix, self.where = _address(url)
        self._net = net

    def folders(self) -> list[str]:
        """Return the names of the folders right below the root, sorted."""
        found: list[str] = []
        for page in self._pages(self._prefix, "/"):
            found += [_text(each, "Prefix") for each in _children(page, "CommonPrefixes")]
        return sorted(name[len(self._prefix) :].rstrip("/") for name in found)

    def files(self, below: str) -> list[Stored]:
        """Return every file below a folder, sorted by key."""
        found: list[Stored] = []
        for page in self._pages(f"{self._prefix}{below}/", ""):
            for each in _children(page, "Contents"):
                key = _text(each, "Key")[len(self._prefix) :]
                found.append(Stored(key, int(_text(each, "Size"))))
        return sorted(found, key=lambda stored: stored.key)

    def read(self, key: str, start: int, length: int) -> bytes:
        """Return `length` bytes from `start` on.

        Raises:
            ServiceError: the store does not give them.
        """

        def whole(body: bytes) -> None:
            if len(body) != length:
                raise ValueError(f"{len(body)} bytes of {length}")

        body = self._net.get(
            f"{self._base}/{quote(self._prefix + key, safe='/=~')}",
            headers={
                "Range": f"bytes={start}-{start + length - 1}",
                "Accept-Encoding": "identity",
            },
            manners=MANNERS,
            check=whole,
        )
        return body

    def _pages(self, prefix: str, delimiter: str) -> list[Any]:
        """Return the pages of a listing (ListObjectsV2)."""
        asked = {"list-type": "2", "prefix": prefix}
        if delimiter:
            asked["delimiter"] = delimiter
        pages, token = [], ""
        while True:
            more = {"continuation-token": token} if token else {}
            url = f"{self._base}/?{urlencode({**asked, **more})}"
            body = self._net.get(url, manners=MANNERS, check=_is_listing)
            pages.append(ElementTree.fromstring(body))
            before, token = token, _text(pages[-1], "NextContinuationToken")
            if not token:
                return pages
            if token == before:
                raise ServiceError(f"{self.where} lists the same page again: try it later")


Store = Folder | Bucket


def open_store(url: str, net: Net) -> Store:
    """Return the store at an s3 or http(s) URL, or of a local folder.

    Args:
        url: `s3://bucket/prefix`, with `?region=` and `?endpoint_override=host:port&scheme=http`
            as Arrow writes them; an http(s) URL `https://host/bucket/prefix`; or a folder.
        net: how a server is asked.

    Raises:
        UsageError: it is none of these.
    """
    if re.match(r"(s3|https?)://", url):
        return Bucket(url, net)
    if "://" in url and not url.startswith("file://"):
        raise UsageError(
            f"'{url.split('://', 1)[0]}://…' is no store we can read: give an s3 or https URL, "
            "or a folder"
        )
    return Folder(Path(url.removeprefix("file://")))


class RangeFile(io.RawIOBase):
    """A stored file as Arrow reads it: every read is one range."""

    def __init__(self, store: Store, stored: Stored) -> None:
        super().__init__()
        self._store = store
        self._stored = stored
        self._position = 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be read anywhere."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position; nothing is read."""
        base = (0, self._position, self._stored.size)[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Return up to `size` bytes from the position on."""
        rest = max(0, self._stored.size - self._position)
        length = rest if size is None or size < 0 else min(size, rest)
        if not length:
            return b""
        content = self._store.read(self._stored.key, self._position, length)
        self._position += len(content)
        return content


def _address(url: str) -> tuple[str, str, str]:
    """Return (URL of the bucket, prefix of keys, how both are called) of a store's URL."""
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise UsageError("URBAN_OVERTURE_URL holds a user or password: the store is read openly")
    path = parts.path.strip("/")
    if parts.scheme == "s3":
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        region, bucket = query.get("region", REGION), parts.netloc
        base = f"https://{bucket}.s3.{region}.amazonaws.com"
        if "endpoint_override" in query:
            base = f"{query.get('scheme', 'https')}://{query['endpoint_override']}/{bucket}"
        prefix = path
    elif ".s3." in parts.netloc:  # the bucket is the host's first label
        base, prefix = f"{parts.scheme}://{parts.netloc}", path
    else:
        bucket, _, prefix = path.partition("/")
        base = f"{parts.scheme}://{parts.netloc}/{bucket}"
    if not parts.netloc or not (path or parts.scheme == "s3"):
        raise UsageError(f"'{parts.scheme}://{parts.netloc}' names no bucket: add it to the URL")
    where = f"{parts.scheme}://{parts.netloc}/{path}".rstrip("/")
    return base, f"{prefix}/" if prefix else "", where


def _is_listing(body: bytes) -> None:
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError:
        raise ValueError("no XML") from None
    if not root.tag.endswith("ListBucketResult"):
        raise ValueError("no listing of a bucket")


def _children(element: Any, name: str) -> list[Any]:
    return [child for child in element if child.tag.rpartition("}")[2] == name]


def _text(element: Any, name: str) -> str:
    return next((child.text or "" for child in _children(element, name)), "")


def not_parquet(key: str) -> UrbanError:
    """Return the error for a stored file that does not hold what its name says."""
    return UrbanError(f"{key} is not a whole Parquet file: run the same command again later")
