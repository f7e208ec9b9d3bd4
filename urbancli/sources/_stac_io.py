"""pystac and pystac-client over our own session: asked again, kept for `--offline`."""

import json
from typing import Any
from urllib.parse import urlencode

from urbancli.net import Net, is_json
from urbancli.sources._items import is_url


def api_io(net: Net) -> Any:
    """Return what pystac-client asks a STAC API with."""
    from pystac_client.stac_api_io import StacApiIO

    class ApiIO(StacApiIO):
        def request(
            self,
            href: str,
            method: str | None = None,
            headers: dict[str, str] | None = None,
            parameters: dict[str, Any] | None = None,
        ) -> str:
            if method == "POST":
                # The order of its keys is that of the search: the same for the same city.
                body = json.dumps(parameters or {}).encode()
                told = {"Content-Type": "application/json", **(headers or {})}
                return _text(net, "POST", href, body=body, headers=told)
            if parameters:
                joint = "&" if "?" in href else "?"
                href += joint + urlencode(parameters, doseq=True)
            return _text(net, "GET", href, headers=headers or {})

    return ApiIO(max_retries=None)


def file_io(net: Net) -> Any:
    """Return what pystac reads the documents of a static catalogue with, from disk or a server."""
    from pystac.stac_io import DefaultStacIO

    class FileIO(DefaultStacIO):
        def read_text_from_href(self, href: str) -> str:
            return _text(net, "GET", href) if is_url(href) else super().read_text_from_href(href)

    return FileIO()


def _text(net: Net, method: str, href: str, **more: Any) -> str:
    return net.ask(method, href, check=is_json, keep=True, **more).decode()
