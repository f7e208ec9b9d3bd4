"""Rasters of STAC assets: opened once, remote ones read in few requests, again on faults.

GDAL asks again by itself after a status that says so. All else that can go wrong on the way (a body
cut off or of something else, a signature that expired, a 404 that is throttling) shows as an error
of opening or decoding, and often stays in GDAL's caches. So `Rasters.read` closes the raster, makes
GDAL forget it, signs anew and reads again, a bounded number of times.

What is noticed: every change of deflated samples (they carry a checksum; so do most COGs: those of
Planetary Computer and Earth Search), nearly every one of LZW and ZSTD (whole wrong ranges always,
a single flipped bit not), and none of samples that are not compressed.

A signed URL exists only here, while a raster is opened: it reaches no file, log or error.
"""

import contextlib
import logging
import os
import random
import re
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from urbancli.errors import ServiceError, UrbanError, UsageError
from urbancli.net import Net, OfflineError
from urbancli.sources._items import Asset
from urbancli.sources._signing import TOKENS

GDAL_REMOTE: dict[str, str | int] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_VERSION": "2",
    # The header of a COG of 11,000² pixels with its tables of tiles, in one request.
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    # A transfer that stalls is given up; a slow one goes on.
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_TIMEOUT": "300",
    "GDAL_HTTP_LOW_SPEED_TIME": "30",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "100",
    "GDAL_HTTP_MAX_RETRY": "5",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_RETRY_CODES": "408,425,429,500,502,503,504",
    # What all threads share of the files they have open …
    "CPL_VSIL_CURL_CACHE_SIZE": "67108864",
    # … and what each open file keeps for itself: little more than its header, for they are many.
    "VSI_CACHE": "TRUE",
    "VSI_CACHE_SIZE": "65536",
    # Bytes of decoded blocks: by default a share of the machine's memory, which a large city fills.
    "GDAL_CACHEMAX": 64 << 20,
}
"""What makes GDAL read COGs over HTTP with few requests, and ask again or give up in time."""

FORGET = {
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/http:/vsis3/:/vsigs/:/vsiaz/",
    "GDAL_HTTP_MAX_RETRY": "0",
    "GDAL_HTTP_TIMEOUT": "0.001",
}
"""What makes GDAL drop what it has cached of a URL, as a handle opened under it is closed. Nothing
is to be asked on that occasion, hence the time-out."""

OPEN_MOST = 512
"""Rasters kept open that nobody reads, about."""

ATTEMPTS = 15
"""How often an asset is read before it cannot be."""

BELIEVED = 5
"""How often in all a missing or refused file, or one of another kind, is told before it is so."""

FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 8.0

DEFINITE = re.compile(r"(?:code|status)\D{0,3}(40[0134]|410)\b")
"""What GDAL says where a file is missing or refused."""

Result = TypeVar("Result")


@contextlib.contextmanager
def gdal_environment(**more: str) -> Iterator[None]:
    """Set how GDAL reads COGs, only on this thread and only what the user has not set.

    Args:
        more: settings of ours that count in any case.
    """
    import rasterio
    from rasterio.env import getenv, hasenv

    theirs = set(os.environ) | set(getenv() if hasenv() else {})
    ours = {key: value for key, value in GDAL_REMOTE.items() if key not in theirs}
    with rasterio.Env(**{**ours, **more}):
        yield


def unchanged(dataset: Any) -> Any:
    return dataset


class Rasters:
    """Rasters of assets, kept open: of each as many as threads have read it at the same time.

    A handle of GDAL may go from thread to thread, but must not be used by two at once: who reads
    takes it out and puts it back. So the tables of a file are asked for once and not once a thread.
    It can be pickled: another process opens its own.

    Args:
        net: how tokens are asked for, and whether anything is.
        prepare: makes of a raster just opened the one to read; a function of a module.
    """

    def __init__(self, net: Net, prepare: Callable[[Any], Any] = unchanged) -> None:
        # Here, on one thread: rasterio's modules import each other, and two threads that begin
        # with different ones find them half made.
        import rasterio.vrt  # noqa: F401

        self._net = net
        self._prepare = prepare
        self._idle: OrderedDict[str, list[_Opened]] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs: no open rasters."""
        return {"net": self._net, "prepare": self._prepare}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start anew in another process."""
        self.__init__(**state)  # type: ignore[misc]

    def read(self, asset: Asset, use: Callable[[Any], Result]) -> Result:
        """Return what `use` makes of an asset's open raster, read again where that may help.

        Args:
            asset: local, or a URL.
            use: reads the raster; called again after a fault, so it must change nothing.

        Raises:
            UrbanError: the file is no raster, has no CRS, or what `use` raises of it.
            OfflineError: offline, and it is a URL.
            ServiceError: it cannot be read from where it lies, or not be signed.
            UsageError: where tokens are asked for is no URL.
        """
        if not asset.is_local and self._net.offline:
            raise OfflineError(
                f"offline, and asset {asset.name} of item {asset.item_id} is not here: go online "
                "to read it"
            )
        wait, definite = FIRST_WAIT_S, 0
        for attempt in range(ATTEMPTS):
            try:
                return self._once(asset, use)
            except (ServiceError, UsageError):
                raise  # there is no token, for which the session has asked often enough
            except UrbanError as err:
                definite += not isinstance(err, _FaultError) or err.definite
                if asset.is_local or definite >= BELIEVED or attempt + 1 == ATTEMPTS:
                    raise (unreadable(asset) if isinstance(err, _FaultError) else err) from None
            time.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(2 * wait, LONGEST_WAIT_S)
        raise AssertionError("an attempt returns or raises")

    def _once(self, asset: Asset, use: Callable[[Any], Result]) -> Result:
        """Open an asset if it is not open, and use it; what fails is closed and forgotten.

        Raises:
            _FaultError: GDAL cannot open or read it.
            UrbanError: as `use`, or `TOKENS.sign`.
        """
        from pyproj.exceptions import ProjError
        from rasterio._err import CPLE_BaseError
        from rasterio.errors import RasterioError

        _keep_quiet()
        there = self._taken(asset) or _Opened(*TOKENS.sign(asset, self._net))
        try:
            with gdal_environment():
                found = use(there.dataset or self._open(asset, there))
        except (RasterioError, CPLE_BaseError) as err:
            # GDAL's message holds the URL with its signature: it must not stay in the chain.
            fault = _FaultError(bool(DEFINITE.search(_chain(err))))
        except (ProjError, ValueError):
            if asset.is_local:
                raise
            fault = _FaultError(False)  # a broken header makes nonsense of any number of a raster
        except UrbanError:
            _forget(asset, there, refused=False)
            raise
        else:
            self._put_back(asset, there)
            return found
        _forget(asset, there, refused=fault.definite)
        raise fault

    def _open(self, asset: Asset, there: "_Opened") -> Any:
        """Open a raster and return it.

        Raises:
            UrbanError: it does not say where it lies.
        """
        import rasterio

        there.dataset = self._prepare(rasterio.open(there.location))
        if there.dataset.crs is None or there.dataset.transform.is_identity:
            raise UrbanError(
                f"{asset.href} of item {asset.item_id} has no CRS or no place: mend the file"
            )
        return there.dataset

    def _taken(self, asset: Asset) -> "_Opened | None":
        """Take out an open raster of an asset that nobody reads and whose signature still holds."""
        with self._lock:
            idle = self._idle.get(asset.location, [])
            while idle:
                there = idle.pop()
                if time.monotonic() < there.until:
                    return there
                there.close()
        return None

    def _put_back(self, asset: Asset, there: "_Opened") -> None:
        """Let others have a raster; of too many, those of the asset used longest ago are closed."""
        with self._lock:
            self._idle.setdefault(asset.location, []).append(there)
            self._idle.move_to_end(asset.location)
            while sum(map(len, self._idle.values())) > OPEN_MOST:
                for old in self._idle.popitem(last=False)[1]:
                    old.close()


@dataclass
class _Opened:
    """A raster that is open on one thread.

    Attributes:
        location: as it was opened, perhaps signed.
        until: the `time.monotonic` from which on its signature is not used.
        dataset: None where it could not be opened.
    """

    location: str = field(repr=False)
    until: float
    dataset: Any = None

    def close(self) -> None:
        """Close it, if it is open; of a broken one that may fail."""
        if self.dataset is not None:
            with contextlib.suppress(Exception):
                self.dataset.close()


def _forget(asset: Asset, there: _Opened, refused: bool) -> None:
    """Close a raster, and make GDAL drop what it keeps of its URL.

    Args:
        asset: that could not be read.
        there: its raster.
        refused: whether it is to be signed anew.
    """
    import rasterio

    there.close()
    if asset.is_local:
        return
    if refused:
        TOKENS.refused(asset, there.location)
    with gdal_environment(**FORGET), contextlib.suppress(Exception):
        rasterio.open(there.location).close()


class _FaultError(UrbanError):
    """GDAL could not open or read an asset; what it said is not told.

    Attributes:
        definite: whether it said that the file is missing or refused.
    """

    def __init__(self, definite: bool) -> None:
        super().__init__("unreadable")
        self.definite = definite


def unreadable(asset: Asset) -> UrbanError:
    """Return the error for an asset that cannot be opened or read."""
    if asset.is_local:
        return UrbanError(
            f"GDAL cannot read {asset.href} of item {asset.item_id}: the file is missing, cut off "
            "or no raster; bring it anew"
        )
    proxied = {"http_proxy", "https_proxy", "all_proxy", "gdal_http_proxy"}
    through = " through the proxy" if proxied & {name.lower() for name in os.environ} else ""
    return ServiceError(
        f"cannot read asset {asset.name} of item {asset.item_id} ({asset.href}){through}: try the "
        "same command again, finished blocks are kept"
    )


def _chain(err: BaseException | None) -> str:
    """Return what an error and its causes say."""
    said = []
    while err is not None:
        said.append(str(err))
        err = err.__cause__ or err.__context__
    return " ".join(said)


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


def _keep_quiet() -> None:
    """Filter each logger of rasterio: a filter on their parent would not hold for them.

    And let it not warn of rasters without a place, which are refused or opened again.
    """
    import rasterio.vrt  # noqa: F401 — so that its logger is there already
    from rasterio.errors import NotGeoreferencedWarning

    warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] == "rasterio":
            logging.getLogger(name).addFilter(_UNSIGNED)
