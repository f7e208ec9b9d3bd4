"""STAC catalogues, searched once per city and collection.

A catalogue is an API (Planetary Computer, Earth Search, or any other) or a static `catalog.json`
with items beside it, here or on a server.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from urbancli.errors import ServiceError, UrbanError, UsageError
from urbancli.net import Net
from urbancli.sources._items import Item, asset_of, is_url, located, unsigned
from urbancli.sources._stac_io import api_io, file_io

PAGE_ITEMS = 1000

Period = tuple[datetime | None, datetime | None]
"""First and last second, either or both open."""

Enough = Callable[[Sequence[Item]], bool]
"""Told of the items so far, newest first; says whether older ones are not needed."""


class Catalogue:
    """A STAC API, or a static catalogue.

    Attributes:
        where: its URL without user and query, or the name of its file: what is pinned.
        is_local: whether it is a file here.

    Args:
        where: its URL or path.
        net: how it is asked.
    """

    def __init__(self, where: str, net: Net) -> None:
        self._net = net
        self.is_local = not is_url(where)
        self._href = str(_file_of(where)) if self.is_local else where
        self.where = unsigned(where) if is_url(where) else Path(self._href).name

    def locate(self, href: str) -> str:
        """Return where a file is read whose href is pinned."""
        return located(href, self._href)

    def search(
        self,
        collection: str,
        area: BaseGeometry,
        when: Period,
        enough: Enough = lambda items: False,
    ) -> list[Item]:
        """Return the items of a collection that touch an area, by time and id.

        Args:
            collection: its id.
            area: EPSG:4326, lon lat.
            when: first and last second, either or both open.
            enough: asked after each page of a service that answers newest first.

        Raises:
            UrbanError: it is no catalogue, an item is broken, or there is no such collection.
            ServiceError: the service refuses or cannot be reached.
        """
        with self._told():
            root = self._opened()
            if _is_api(root):
                found = self._search_api(root, collection, area, when, enough)
            else:
                found = [self._item(i.to_dict(transform_hrefs=False), i.get_self_href(), root)
                         for i in _walk(root, collection)]  # fmt: skip
            first, last = when
            kept = {
                item.item_id: item
                for item in found
                if item.collection == collection
                and (first is None or item.acquired >= first)
                and (last is None or item.acquired <= last)
                and shapely.intersects(item.footprint, area)
            }
            if not found:
                self._check_collection(root, collection)
        return sorted(kept.values(), key=lambda item: (item.acquired, item.item_id))

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what pystac and pystac-client raise into an error with a remedy."""
        import pystac
        from pystac_client.exceptions import APIError

        try:
            yield
        except APIError as err:
            status = getattr(err, "status_code", None)
            said = f"answers {status}" if status else "cannot be reached"
            raise ServiceError(
                f"the STAC service {self.where} {said} ({_one_line(err)}): try again later, or "
                "give another catalogue"
            ) from err
        except (
            pystac.STACError, pystac.STACTypeError, OSError, ValueError, LookupError, TypeError,
            AttributeError,
        ) as err:  # fmt: skip
            raise UrbanError(
                f"{self.where} is no STAC catalogue that can be read "
                f"({type(err).__name__}: {_one_line(err)}): give the URL of a STAC API, or a "
                "catalog.json and the items beside it"
            ) from err

    def _opened(self) -> Any:
        """Return the root: pystac-client's class for an API, pystac's for a static catalogue.

        Raises:
            UsageError: it is a collection of an API.
        """
        import pystac
        from pystac_client import Client

        if is_url(self._href):
            service = api_io(self._net)
            landing = service.read_json(self._href)
            if _searches(landing):
                return Client.open(self._href, stac_io=service)
            if landing.get("type") == "Collection" and _link(landing, "items"):
                api = unsigned(_link(landing, "root") or _link(landing, "parent") or "")
                raise UsageError(
                    f"{self.where} is the collection '{landing.get('id')}' of a STAC API: give the "
                    f"API itself{f', {api}' if api else ''}"
                )
        root = pystac.read_file(self._href, stac_io=file_io(self._net))
        if not isinstance(root, pystac.Catalog):
            raise ValueError(f"a STAC {type(root).__name__}")
        return root

    def _search_api(
        self,
        client: Any,
        collection: str,
        area: BaseGeometry,
        when: Period,
        enough: Enough,
    ) -> list[Item]:
        from pystac_client import ConformanceClasses

        sorts = client.conforms_to(ConformanceClasses.SORT)
        search = client.search(
            collections=[collection],
            intersects=shapely.geometry.mapping(area),
            datetime=list(when) if any(when) else None,
            limit=PAGE_ITEMS,
            sortby="-properties.datetime" if sorts else None,
        )
        found: list[Item] = []
        for page in search.pages_as_dicts():
            new = [self._item(feature, _link(feature, "self") or self._href, client)
                   for feature in page["features"]]  # fmt: skip
            if {item.item_id for item in new} <= {item.item_id for item in found}:
                raise ServiceError(
                    f"the STAC service {self.where} answers the same page again and again: give a "
                    "shorter time with --since and --until, or another catalogue"
                )
            found += new
            times = [item.acquired for item in found]
            if sorts and times == sorted(times, reverse=True) and enough(found):
                break
        return found

    def _check_collection(self, root: Any, collection: str) -> None:
        """Raise where nothing was found because the collection itself is not there."""
        ids = sorted(each.id for each in _collections(root))
        if collection not in ids:
            raise UsageError(
                f"{self.where} has no collection '{collection}': it has "
                f"{', '.join(ids[:12]) or 'none'}{', …' if len(ids) > 12 else ''}"
            )

    def _item(self, document: dict[str, Any], home: str, root: Any) -> Item:
        """Return an item of its JSON.

        Raises:
            UrbanError: it lacks what every item has.
        """
        try:
            properties = document["properties"]
            footprint = shapely.geometry.shape(document["geometry"])
            text = properties.get("datetime") or properties["start_datetime"]
            acquired = datetime.fromisoformat(text)
            hrefs = {name: asset["href"] for name, asset in document["assets"].items()}
            if footprint.is_empty or acquired.tzinfo is None:
                raise ValueError("geometry or time")
            if not all(isinstance(href, str) for href in hrefs.values()):
                raise ValueError("href of an asset")
        except (KeyError, ValueError, TypeError, AttributeError) as err:
            raise UrbanError(
                f"the item {document.get('id', '?')} in {self.where} is broken "
                f"({type(err).__name__}: {_one_line(err)}): mend or remove it"
            ) from err
        static = None if _is_api(root) else self._href
        return Item(
            str(document["id"]),
            str(document.get("collection")),
            acquired.astimezone(UTC),
            shapely.make_valid(footprint),
            properties,
            {
                name: asset_of(
                    (name, str(document["id"])), href, home, static, document["assets"][name]
                )
                for name, href in hrefs.items()
            },
        )


def _searches(landing: dict[str, Any]) -> bool:
    """Return whether a landing page is one of an API that can be searched."""
    return any("item-search" in str(each) for each in landing.get("conformsTo", []))


def _is_api(root: Any) -> bool:
    from pystac_client import Client

    return isinstance(root, Client)


def _collections(root: Any) -> Iterator[Any]:
    """Yield the collections of an API, or of a static catalogue, itself included."""
    import pystac

    if _is_api(root):
        yield from root.get_collections()
        return
    if isinstance(root, pystac.Collection):
        yield root
    for child in root.get_children():
        yield from _collections(child)


def _walk(catalogue: Any, collection: str) -> Iterator[Any]:
    """Yield the items of a collection, wherever in a static catalogue it is."""
    import pystac

    if isinstance(catalogue, pystac.Collection) and catalogue.id != collection:
        return
    for item in catalogue.get_items():
        if item.collection_id == collection:
            yield item
    for child in catalogue.get_children():
        yield from _walk(child, collection)


def _file_of(where: str) -> Path:
    path = Path(where.removeprefix("file://")).absolute()
    path = path / "catalog.json" if path.is_dir() else path
    if not path.is_file():
        raise UrbanError(
            f"no file {path}: give the URL of a STAC API, or the path of a catalog.json"
        )
    return path


def _link(document: dict[str, Any], relation: str) -> str | None:
    links = [link["href"] for link in document.get("links", []) if link.get("rel") == relation]
    return links[0] if links else None


def _one_line(err: BaseException) -> str:
    """Return what an exception says, short, on one line, queries of URLs left out."""
    said = re.sub(r"\?\S+", "?…", " ".join(str(err).split()))
    return said if len(said) <= 160 else said[:160] + "…"
