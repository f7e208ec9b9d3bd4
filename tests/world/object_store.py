"""A bucket of S3 over a folder: ListObjectsV2 in pages, and files by byte ranges, for everybody."""

from pathlib import Path
from xml.sax.saxutils import escape

from tests.world.files import Files
from tests.world.front import Answer, Request

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


class Bucket:
    """Answers as a bucket's address does, `/` for the listing and `/{key}` for a file.

    Args:
        folder: the bucket's files.
        page: keys in one page of a listing; S3 has 1000.
    """

    def __init__(self, folder: Path, page: int = 1000) -> None:
        self._folder = folder
        self._files = Files(folder)
        self._page = page

    def __call__(self, request: Request) -> Answer:
        """Answer a listing, or GET and HEAD of a file."""
        if request.path.strip("/"):
            answer = self._files(request)
            return _error(404, "NoSuchKey") if answer.status == 404 else answer
        if request.query.get("list-type") != "2":
            return _error(403, "AccessDenied")
        return self._listing(request.query.get("prefix", ""), request)

    def _listing(self, prefix: str, request: Request) -> Answer:
        delimiter = request.query.get("delimiter", "")
        keys = sorted(
            path.relative_to(self._folder).as_posix()
            for path in self._folder.rglob("*")
            if path.is_file()
        )
        found: dict[str, bool] = {}
        for key in keys:
            if key.startswith(prefix):
                head, cut, _ = (
                    key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
                )
                found[f"{prefix}{head}{delimiter}" if cut else key] = bool(cut)
        names = sorted(found)
        start = int(request.query.get("continuation-token", "0"))
        more = start + self._page < len(names)
        parts = [
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
            if found[name]
            else f"<Contents><Key>{escape(name)}</Key>"
            f"<Size>{(self._folder / name).stat().st_size}</Size></Contents>"
            for name in names[start : start + self._page]
        ]
        token = f"<NextContinuationToken>{start + self._page}</NextContinuationToken>" * more
        body = (
            f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="{NAMESPACE}">'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{''.join(parts)}"
            "</ListBucketResult>"
        )
        return Answer(200, body.encode(), {"Content-Type": "application/xml"})


def _error(status: int, code: str) -> Answer:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code></Error>'
    return Answer(status, body.encode(), {"Content-Type": "application/xml"})
