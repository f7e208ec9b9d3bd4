"""The folder is the registry: a source, encoder, method, label or task is one new file.

Its file name is its name on the command line. Names starting with `_`, and `base`, are shared code.
"""

import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

from urbancli.errors import UsageError, unknown


def names(folder: str) -> list[str]:
    """Return the sorted names in a plugin folder, e.g. `names("methods")`; imports none of them."""
    package = importlib.import_module(f"urbancli.{folder}")
    return sorted(
        module.name
        for module in pkgutil.iter_modules(package.__path__)
        if not module.name.startswith("_") and module.name != "base"
    )


def load(folder: str, name: str) -> ModuleType:
    """Return the module of a plugin by its name, or of the user's own `./mine.py`.

    Raises:
        UsageError: no such name (with near misses), or the file cannot be found.
    """
    if name.endswith(".py"):
        return _load_file(Path(name))
    if name not in names(folder):
        raise unknown(folder.rstrip("s").rsplit(".", 1)[-1], name, names(folder))
    return importlib.import_module(f"urbancli.{folder}.{name}")


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"no file '{path}': give the path of a Python file, or a known name")
    spec = importlib.util.spec_from_file_location(f"urban_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"'{path}' is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module
