"""The scripts of examples/, as modules."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

EXAMPLES = Path(__file__).parents[1] / "examples"


def script(name: str) -> ModuleType:
    """A script by its path, such as `train_lite/measure`; it may import its neighbours."""
    folder, _, module = name.rpartition("/")
    sys.path.insert(0, str(EXAMPLES / folder))
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(str(EXAMPLES / folder))
