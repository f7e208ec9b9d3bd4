"""The house rules of STYLE.md, enforced: imports point one way, who may import what, sizes."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "urbancli"

ORDER = [
    "errors", "configs", "plugins", "hilbert", "workspace", "tensors", "net", "vector", "city",
    "grid", "layers", "sources", "labels", "demo", "lock", "licences", "workers", "planning",
    "compaction", "description", "fetching", "validation", "exporting", "tokens", "token_files",
    "encoders", "encoding", "spoiling", "nn", "methods", "embeddings", "gradient_cache", "training",
    "runs", "bench", "project", "reproduction", "report", "cli", "__main__",
]  # fmt: skip
"""The parts of the house; a file imports only from parts before its own, and from its own."""

OUTSIDE = {
    "typer": {"cli"},
    "requests": {"net"},
    "osmium": {"sources", "demo"},
    "osmnx": {"city"},
    "rasterio": {"sources", "labels", "demo", "exporting", "encoders", "bench.external"},
    "pystac": {"sources", "demo"},
    "pystac_client": {"sources"},
    "planetary_computer": {"sources"},
    "distributed": {"workers"},
    "PIL": {"sources", "encoders"},
    "transformers": {"encoders"},
    "huggingface_hub": {"encoders"},
    "matplotlib": {"report"},
    "rich": {"cli", "report"},
    "torch": {
        "tokens",
        "encoders",
        "encoding",
        "nn",
        "methods",
        "tensors",
        "gradient_cache",
        "training",
        "runs",
        "bench.probes",
    },
    "sklearn": {"bench.probes"},
}
"""Who may import a package from outside."""

TORCH_AT_TOP = {"nn", "methods", "tensors", "gradient_cache", "training"}
"""Where torch may be imported at module level; elsewhere inside functions."""

LIGHT = {"geopandas", "osmnx", "sklearn", "osmium", "rasterio", "transformers", "torch"}
"""Costly packages that no module imports at its top, torch where allowed apart."""

FILES = sorted(PACKAGE.rglob("*.py"))


def _part(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    if relative.parts[:2] in {("bench", "probes"), ("bench", "external")}:
        return ".".join(relative.parts[:2])
    return relative.parts[0].removesuffix(".py")


def _imports(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Yield (dotted name, whether at module level and at run time)."""

    def walk(node: ast.AST, top: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            checking = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if isinstance(child, ast.Import):
                yield from ((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                name = child.module or ""
                yield name, top
                if name == "urbancli":
                    yield from ((f"urbancli.{alias.name}", top) for alias in child.names)
            yield from walk(child, top and not inside and not checking)

    yield from walk(tree, True)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        return
    part = _part(path).split(".")[0]
    assert part in ORDER, f"{part} has no place in the house: add it to ORDER and say where"
    allowed = set(ORDER[: ORDER.index(part) + 1])
    for name, _ in _imports(ast.parse(path.read_text())):
        if name.startswith("urbancli."):
            assert name.split(".")[1] in {*allowed, "__version__"}, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_who_may_import_what(path: Path) -> None:
    part = _part(path)
    for name, top in _imports(ast.parse(path.read_text())):
        package = name.split(".")[0]
        if package in OUTSIDE:
            assert part in OUTSIDE[package], f"{path.name} imports {package}"
        if top and package in LIGHT:
            assert package == "torch" and part in TORCH_AT_TOP, f"{path.name}: {package} at its top"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_is_one_thing(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
    assert path.stem not in {"utils", "helpers", "common", "manager", "misc"}


def test_no_pickle_and_no_clock_in_the_package() -> None:
    for path in FILES:
        for name, _ in _imports(ast.parse(path.read_text())):
            assert name.split(".")[0] not in {"pickle", "joblib", "dill", "socket"}, path.name
        assert "torch.load(" not in path.read_text(), path.name
        assert "datetime.now" not in path.read_text(), path.name


def test_the_command_line_starts_without_the_heavy_packages() -> None:
    script = (
        "import sys, urbancli.cli as cli; cli._application(); "
        "print(sorted({'torch','geopandas','osmnx','sklearn','pandas','pyarrow','numpy','rasterio',"
        "'osmium','scipy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
