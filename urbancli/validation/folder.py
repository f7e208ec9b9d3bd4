"""Checks of a city's folder as a whole: manifest, lock and what is written beside the data."""

import json
from pathlib import Path
from typing import Any

from urbancli.description import attribution, attribution_file, item, item_file, item_text
from urbancli.errors import UrbanError
from urbancli.lock import layer_fingerprint
from urbancli.validation.city import City
from urbancli.validation.findings import Findings
from urbancli.workspace import Workspace, open_parquet, sha256

CACHES = ("tokens", ".staging")
"""Folders of a city that are no part of its data: deleted, they are made again."""

LOCK = ".fetching"


def check_manifest(workspace: Workspace, key: str, findings: Findings) -> dict[str, str]:
    """Compare the manifest with the files; return the checksums found, by path in the folder."""
    path, folder = workspace.manifest_file(key), workspace.city_dir(key)
    again = f"run the same `urban fetch --city {key}` again"
    try:
        listed = workspace.listed_files(key)
    except UrbanError as err:
        findings.fault(path, str(err).split(": ")[0], f"delete it and {again}")
        return {}
    findings.seen(path)
    found: dict[str, str] = {}
    for name, entry in sorted(listed.items()):
        file = folder / name
        if not file.is_file():
            findings.fault(file, "it is listed in the manifest and missing", again)
            continue
        found[name] = sha256(file)
        if found[name] != entry["sha256"] or file.stat().st_size != entry.get("bytes"):
            findings.fault(
                file, "its checksum is not the manifest's: it has changed", f"delete it and {again}"
            )
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder)
        if file.is_dir() or inside.parts[0] in CACHES or inside.name in {LOCK, "manifest.json"}:
            continue
        if inside.as_posix() not in listed:
            findings.fault(
                file, "it is not listed in the manifest", f"delete or move it, or {again}"
            )
    if any((folder / ".staging").glob("*")):
        findings.note(folder, f"a fetch did not end, its blocks wait in .staging: {again}")
    return found


def check_lock(city: City) -> None:
    """Compare the lock with what the files say they were made from."""
    path = city.workspace.lock_file(city.key)
    city.findings.seen(path)
    kinds = {"layers": "provenance", "labels": "source"}
    names = {"layers": city.workspace.layers, "labels": city.workspace.labels}
    for kind, fact in kinds.items():
        there, locked = set(names[kind](city.key)), city.lock.get(kind, {})
        for name in sorted(set(locked) - there):
            file = city.folder / kind / f"{name}.parquet"
            city.findings.fault(file, "the lock names it and it is missing", city.again(file))
        for name in sorted(there):
            file = city.folder / kind / f"{name}.parquet"
            facts = _facts(file)
            if facts is None:
                continue
            if locked.get(name) != facts.get(fact):
                city.findings.fault(file, "the lock says it was made otherwise", city.again(file))
            elif kind == "layers":
                _check_fingerprint(city, file, name, facts)


def _check_fingerprint(city: City, file: Path, layer: str, facts: dict[str, Any]) -> None:
    mark = layer_fingerprint(city.lock["city"], layer, facts["provenance"])
    if facts.get("plan_fingerprint") != mark:
        city.findings.fault(file, "it was made for another area or plan", city.again(file))
    if gaps := facts["provenance"].get("gaps"):
        city.findings.note(file, f"{len(gaps):,} blocks could not be read and are missing")


def _facts(path: Path) -> dict[str, Any] | None:
    try:
        file, facts = open_parquet(path)
    except (UrbanError, ValueError):
        return None  # its own check says so
    file.close()
    return facts


def check_description(city: City, checksums: dict[str, str]) -> None:
    """Compare Items and ATTRIBUTION.md with what the files say.

    Args:
        city: under check.
        checksums: found of its files, by path in the folder.
    """
    again = f"run the same `urban fetch --city {city.key}` again"
    right: dict[Path, str] = {}
    try:
        for layer in city.workspace.layers(city.key):
            known = checksums.get(f"layers/{layer}.parquet")
            path = item_file(city.workspace, city.key, layer)
            right[path] = item_text(item(city.workspace, city.key, layer, known))
        right[attribution_file(city.workspace, city.key)] = attribution(city.workspace, city.key)
    except (UrbanError, KeyError, ValueError, TypeError):
        return  # a layer that cannot be described is at fault itself
    for path, text in right.items():
        if not path.is_file():
            city.findings.fault(path, "it is missing", again)
            continue
        city.findings.seen(path)
        if path.read_bytes() != text.encode():
            differs = _difference(path.read_bytes(), text) if path.suffix == ".json" else "text"
            city.findings.fault(path, f"it does not agree with the data: {differs}", again)


def _difference(found: bytes, right: str) -> str:
    """Return the names of what differs between an Item and what it should be."""
    try:
        there, wanted = _flat(json.loads(found)), _flat(json.loads(right))
    except ValueError:
        return "it is no JSON"
    names = [name for name in {**wanted, **there} if there.get(name) != wanted.get(name)]
    return ", ".join(names[:5]) or "layout"


def _flat(document: Any) -> dict[str, Any]:
    """Return an Item's members, those of `properties` and of its asset beside them."""
    if not isinstance(document, dict):
        return {"document": document}
    inner = {**document.get("properties", {}), **document.get("assets", {}).get("data", {})}
    return {**{k: v for k, v in document.items() if k not in {"properties", "assets"}}, **inner}
