"""Rasters of STAC assets: opened once, remote ones read in few requests, signed as they are opened.

A signed URL exists only here, while a raster is opened: it reaches no file, log or error.
"""

import contextlib
import logging
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from urbancli.errors import ServiceError, UrbanError
from urbancli.sources._items import Asset, Item, is_url

GDAL_REMOTE = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_VERSION": "2",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_TIMEOUT": "60",
    "VSI_CACHE": "TRUE",
    "VSI_CACHE_SIZE": "5000000",
}
"""What makes GDAL read COGs over HTTP with few requests, and give up in time."""

OPEN_MOST = 512
"""Rasters kept open by a thread; the one used longest ago is closed first."""


@contextlib.contextmanager
def gdal_environment() -> Iterator[None]:
    """Set how GDAL reads COGs, only on this thread and only what the user has not set."""
    import rasterio
    from rasterio.env import getenv, hasenv

    theirs = set(os.environ) | set(getenv() if hasenv() else {})
    with rasterio.Env(**{key: value for key, value in GDAL_REMOTE.items() if key not in theirs}):
        yield


class Rasters:
    """Rasters of assets, each opened once per thread: GDAL's handles must not cross threads."""

    def __init__(self, prepare: Callable[[Any], Any] = lambda dataset: dataset) -> None:
        self._prepare = prepare
        self._here = threading.local()

    def open(self, item: Item, asset: Asset) -> Any:
        """Return the open raster of an asset.

        A signature that has expired makes another URL, hence another raster.

        Raises:
            UrbanError: the file is no raster, or has no CRS.
            ServiceError: it cannot be read from where it lies, or not be signed.
        """
        import rasterio
        from rasterio.errors import RasterioError

        opened = vars(self._here).setdefault("opened", {})
        location = _signed(item, asset)
        if location not in opened:
            try:
                dataset = self._prepare(rasterio.open(location))
            except RasterioError:
                # GDAL's message holds the URL with its signature: it must not stay in the chain.
                raise unreadable(item, asset) from None
            if dataset.crs is None:
                raise UrbanError(f"{asset.href} of item {item.item_id} has no CRS: mend the file")
            opened[location] = dataset
        opened[location] = opened.pop(location)  # now the one used last
        while len(opened) > OPEN_MOST:
            opened.pop(next(iter(opened))).close()
        return opened[location]


def unreadable(item: Item, asset: Asset) -> UrbanError:
    """Return the error for an asset that cannot be opened or read."""
    if asset.is_local:
        return UrbanError(
            f"GDAL cannot read {asset.href} of item {item.item_id}: the file is missing, cut off "
            "or no raster; bring it anew"
        )
    return ServiceError(
        f"cannot read asset {asset.name} of item {item.item_id} ({asset.href}): try the same "
        "command again, finished blocks are kept"
    )


def _signed(item: Item, asset: Asset) -> str:
    """Return where an asset is read: Planetary Computer's storage wants a fresh signature."""
    host = urlsplit(asset.href).netloc if is_url(asset.href) else ""
    if not host.endswith(".blob.core.windows.net"):
        return asset.location
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # version 1.0 writes for pydantic 1
        import planetary_computer

    _keep_out_of_logs()
    try:
        return str(planetary_computer.sign(asset.href))
    except (OSError, ValueError):  # what requests raises is an OSError
        raise ServiceError(
            f"cannot get a token to read asset {asset.name} of item {item.item_id} on {host}: try "
            "again later"
        ) from None


class _Unsigned(logging.Filter):
    """Takes signatures out of what rasterio logs of the URLs it opens."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the record pass, its signatures and its traceback left out."""
        message = record.getMessage()
        if "sig=" in message or record.exc_info:
            record.msg, record.args = re.sub(r"sig=[^&'\"\s]+", "sig=…", message), ()
            record.exc_info = record.exc_text = None
        return True


_UNSIGNED = _Unsigned()


def _keep_out_of_logs() -> None:
    """Filter each logger of rasterio: a filter on their parent would not hold for them."""
    import rasterio.vrt  # noqa: F401 — so that its logger is there already

    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] == "rasterio":
            logging.getLogger(name).addFilter(_UNSIGNED)
