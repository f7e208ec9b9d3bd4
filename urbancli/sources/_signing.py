"""Tokens of Planetary Computer's storage: asked for as a file is opened, never written anywhere.

The endpoint and the user's key are those of the package planetary_computer (`PC_SDK_SAS_URL`,
`PC_SDK_SUBSCRIPTION_KEY`); it is asked over our own session, because that package waits without
end and takes any body. A token is used until a minute, or half its life, before it expires.
"""

import contextlib
import functools
import json
import os
import threading
import time
import warnings
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlparse

from urbancli.errors import ServiceError, UsageError
from urbancli.net import Net, OfflineError
from urbancli.sources._items import Asset, blob_host

MARGIN_S = 60.0
"""So long before its expiry a token is not used any more, where it lives longer than twice that."""

SHARED_S = 4.0
"""So long a failure to get a token is that of all who want it: less than the engine's first pause,
after which the service is to be asked again."""

PUBLIC_HOST = "ai4edatasetspublicassets.blob.core.windows.net"


@dataclass(frozen=True)
class _Token:
    sas: Any = field(repr=False)
    until: float
    """`time.monotonic` from which on it is not used."""


class Tokens:
    """The tokens of this process, by container."""

    def __init__(self) -> None:
        self._found: dict[str, _Token] = {}
        self._failed: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()

    def sign(self, asset: Asset, net: Net) -> tuple[str, float]:
        """Return where an asset is read, with a signature in Planetary Computer's storage.

        Returns:
            The URL or path, and the `time.monotonic` from which on it is not to be used.

        Raises:
            ServiceError: no token is to be had.
            UsageError: the settings of planetary_computer name no endpoint that can be asked.
        """
        host = blob_host(asset.href)
        if not host or host == PUBLIC_HOST:
            return asset.location, float("inf")
        with self._lock:  # one thread asks, the others then find its answer
            token = self._token(_endpoint(asset.href), asset, net)
        return str(token.sas.sign(asset.href).href), token.until

    def _token(self, where: str, asset: Asset, net: Net) -> _Token:
        """Return the token of a container, asked for if there is none and none just failed."""
        token = self._found.get(where)
        if token is not None and time.monotonic() < token.until:
            return token
        until, why = self._failed.get(where, (0.0, ""))
        if time.monotonic() >= until:
            try:
                token = self._found[where] = _asked(where, net)
                return token
            except OfflineError:
                raise
            except ServiceError as err:
                # What the session says names the endpoint and a status, never the token.
                why = str(err)
                self._failed[where] = (time.monotonic() + SHARED_S, why)
        raise ServiceError(
            f"cannot get a token to read asset {asset.name} of item {asset.item_id} ({why}"
            f"{_remedies()})"
        ) from None

    def refused(self, asset: Asset, location: str) -> None:
        """Let the next asset of a container have another token, if `location` has the one kept."""
        with self._lock:
            where = _endpoint(asset.href) if blob_host(asset.href) else ""
            token = self._found.get(where)
            if token is not None and location == token.sas.sign(asset.href).href:
                del self._found[where]


TOKENS = Tokens()
"""Of this process: a token serves all its threads and sources."""


def _asked(where: str, net: Net) -> _Token:
    sas, settings = _package()
    key = settings.get().subscription_key
    headers = {"Ocp-Apim-Subscription-Key": key} if key else {}
    try:
        body = net.get(where, headers=headers, check=lambda body: _check(sas, body))
    except UsageError as err:
        raise UsageError(f"{err} (PC_SDK_SAS_URL, PC_SDK_SUBSCRIPTION_KEY)") from None
    token = _token(sas, body)
    left = token.ttl()
    return _Token(token, time.monotonic() + left - min(MARGIN_S, left / 2))


def _remedies() -> str:
    """Return which settings of planetary_computer may be why no token is to be had."""
    _, settings = _package()
    ours = "; PC_SDK_SAS_URL names this service" if os.environ.get("PC_SDK_SAS_URL") else ""
    key = settings.get().subscription_key
    return ours + ("" if key else "; some collections want a key, PC_SDK_SUBSCRIPTION_KEY")


def _token(sas: Any, body: bytes) -> Any:
    """Return the token of an answer; it ends with what it says itself, `se`, if that is sooner."""
    token = sas.SASToken(**json.loads(body))
    for said in parse_qs(token.token).get("se", []):
        with contextlib.suppress(ValueError, TypeError):
            token.expiry = min(token.expiry, datetime.fromisoformat(said))
    return token


def _check(sas: Any, body: bytes) -> None:
    """Raise `ValueError` where a body holds no token that is still good, telling nothing of it."""
    try:
        good = _token(sas, body).ttl() > 0
    except (ValueError, TypeError):
        good = False
    if not good:
        raise ValueError("no token that is still good")


def _endpoint(href: str) -> str:
    """Return where the token of a URL's container is asked for.

    Raises:
        UsageError: the settings of planetary_computer name no URL.
    """
    from planetary_computer.settings import DEFAULT_SAS_TOKEN_ENDPOINT

    sas, settings = _package()
    account, container = sas.parse_blob_url(urlparse(href))
    url = settings.get().sas_url.rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"PC_SDK_SAS_URL holds no URL: write it as {DEFAULT_SAS_TOKEN_ENDPOINT}")
    return f"{url}/{account}/{container}"


@functools.cache
def _package() -> tuple[Any, Any]:
    """Return planetary_computer's tokens, and the class of its settings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # version 1.0 writes for pydantic 1
        from planetary_computer import sas
        from planetary_computer.settings import Settings
    return sas, Settings
