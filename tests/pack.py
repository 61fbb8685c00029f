"""The pack as ComfyUI imports it: the repository's root is a package.

Modules below nodes/ import from trainer/ relatively, which does not work when `nodes` is a top-level package. So the tests import
them as "pack.nodes...", once the root is known as the package "pack":

    from tests.pack import load
    folder_view = load("nodes.page.folder_view")
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

NAME = "pack"
ROOT = Path(__file__).parent.parent


def load(module: str) -> ModuleType:
    """Return a module of the pack by its dotted name below the root."""
    if NAME not in sys.modules:
        spec = importlib.util.spec_from_file_location(NAME, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
        package = sys.modules[NAME] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(package)
    return importlib.import_module(f"{NAME}.{module}")
