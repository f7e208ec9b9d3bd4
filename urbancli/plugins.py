"""The folder is the registry: a source, encoder, method, label or task is one new file.

Its file name is its name on the command line, with - for _. Names starting with `_`, and `base`,
are shared code.
"""

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
import traceback
from pathlib import Path
from types import ModuleType

from urbancli.errors import UsageError, unknown


def names(folder: str) -> list[str]:
    """Return the sorted names in a plugin folder, e.g. `names("methods")`; imports none of them."""
    package = importlib.import_module(f"urbancli.{folder}")
    return sorted(
        module.name.replace("_", "-")
        for module in pkgutil.iter_modules(package.__path__)
        if not module.name.startswith("_") and module.name != "base"
    )


def load(folder: str, name: str) -> ModuleType:
    """Return the module of a plugin by its name, or of the user's own `./mine.py`.

    Raises:
        UsageError: no such name (with near misses), or the file cannot be found or run.
    """
    if name.endswith(".py"):
        return _load_file(Path(name))
    if name not in names(folder):
        raise unknown(folder.rstrip("s").rsplit(".", 1)[-1], name, names(folder))
    return importlib.import_module(f"urbancli.{folder}.{name.replace('-', '_')}")


def _load_file(path: Path) -> ModuleType:
    """Return the module of a user's file; what fails in it is told with its line.

    It is registered under its content, so that files of one name do not replace each other.
    """
    if not path.is_file():
        raise UsageError(f"no file '{path}': give the path of a Python file, or a known name")
    name = f"urban_user_{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"'{path}' is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as err:
        del sys.modules[name]
        what = " ".join(str(err).split())
        raise UsageError(
            f"{_place(path, err)}: {type(err).__name__}: {what}: mend the file"
        ) from err
    return module


def _place(path: Path, err: BaseException) -> str:
    """Return `file:line` of what failed: of the syntax error, or the file's own last frame."""
    if isinstance(err, SyntaxError) and err.filename and err.lineno:
        return f"{err.filename}:{err.lineno}"
    frames = traceback.extract_tb(err.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == path.absolute()]
    return f"{path}:{lines[-1]}" if lines else str(path)
