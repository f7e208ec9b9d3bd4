"""What a fetch left: its rows, its files, and whether a secret is in any of them."""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.world.files import MARK
from urbancli.workspace import Workspace, sha256


def rows_of(workspace: Path, city: str) -> dict[str, str]:
    """Return layer → checksum of its rows, whatever their order and the file's metadata."""
    found = Workspace(workspace)
    return {name: _rows(found.layer_file(city, name)) for name in found.layers(city)}


def files_of(workspace: Path) -> dict[str, str]:
    """Return path → SHA-256 of every file with a final name."""
    return {
        path.relative_to(workspace).as_posix(): sha256(path)
        for path in sorted(workspace.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def leaks(*folders: Path) -> list[Path]:
    """Return the files below folders in which a signature of the test world stands."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if MARK in str(path) or MARK.encode() in _said(path)]


def _said(path: Path) -> bytes:
    """Return a file's bytes, and of a Parquet file what its packed columns say, too."""
    raw = path.read_bytes()
    if path.suffix != ".parquet":
        return raw
    table = pq.read_table(path)
    names = [name for name in table.column_names if name not in {"pixels", "valid"}]
    return raw + repr((table.schema.metadata, table.select(names).to_pylist())).encode()


def _rows(path: Path) -> str:
    table = pq.read_table(path)
    digest = hashlib.sha256(repr(table.column_names).encode())
    for row in table.sort_by(table.column_names[0]).to_pylist():
        for name, value in row.items():
            digest.update(_bytes(name, value))
    return digest.hexdigest()


def _bytes(name: str, value: Any) -> bytes:
    content = value if isinstance(value, bytes) else repr(value).encode()
    return f"{name}:{len(content)}:".encode() + content
