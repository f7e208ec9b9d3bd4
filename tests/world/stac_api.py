"""A real STAC API server, `rustac serve`, over the items of a catalogue of files."""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

STARTS_WITHIN_S = 30.0


def moved_catalogue(catalogue: Path, folder: Path, href: Callable[[Path], str]) -> list[Path]:
    """Write the collections and items of a static catalogue as an API holds them.

    Args:
        catalogue: its `catalog.json`.
        folder: where to.
        href: gives the new URL of an asset's file.

    Returns:
        The files: one per collection, one of all items.
    """
    import pystac

    root = pystac.Catalog.from_file(str(catalogue))
    written = []
    items: list[dict[str, Any]] = []
    folder.mkdir(parents=True, exist_ok=True)
    for collection in root.get_collections():
        document = collection.to_dict(include_self_link=False, transform_hrefs=False)
        written.append(folder / f"{collection.id}.json")
        written[-1].write_text(json.dumps({**document, "links": []}))
        for item in collection.get_items():
            item.make_asset_hrefs_absolute()
            found = item.to_dict(include_self_link=False, transform_hrefs=False)
            for asset in found["assets"].values():
                asset["href"] = href(Path(asset["href"].removeprefix("file://")))
            items.append({**found, "links": [], "collection": collection.id})
    written.append(folder / "items.json")
    written[-1].write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return written


@contextlib.contextmanager
def stac_api(files: list[Path], public: str, *more: str) -> Iterator[str]:
    """Run the server; give the URL where it listens.

    Args:
        files: collections and items.
        public: the URL that its links name, where clients find it.
        more: options of the server.
    """
    program = Path(sys.executable).parent / "rustac"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Dies with this process, also where that is killed.
    leash = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    arguments = [*leash, str(program), "serve", "--addr", public, "--bind", f"127.0.0.1:{port}"]
    with subprocess.Popen(
        [*arguments, *more, *map(str, files)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(process, url)
            yield url
        finally:
            process.kill()


def _wait(process: "subprocess.Popen[bytes]", url: str) -> None:
    """Wait until the server answers.

    Raises:
        RuntimeError: it ended, or does not answer in time.
    """
    until = time.monotonic() + STARTS_WITHIN_S
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < until:
        if process.poll() is not None:
            said = process.stderr.read().decode() if process.stderr else ""
            raise RuntimeError(f"rustac serve ended: {said}")
        try:
            with opener.open(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    raise RuntimeError("rustac serve does not answer")
