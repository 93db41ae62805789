"""The entry module → the agent's class."""

from __future__ import annotations

import importlib.util
import os
import sys

from kai._agent import Agent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Type


def load_agent_class(entry: str) -> Type[Agent]:
    module = _load_module(os.path.abspath(entry))
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Agent) and value.__module__ == module.__name__
    ]
    # A class that another one of them derives from is a base, not the agent.
    bases = {base for cls in found for base in cls.__mro__[1:]}
    leaves = [cls for cls in dict.fromkeys(found) if cls not in bases]
    if len(leaves) == 1:
        return leaves[0]
    names = ", ".join(cls.__name__ for cls in leaves) or "none"
    raise TypeError(f"{entry} must define one subclass of kai.Agent; found: {names}")


def _load_module(path: str) -> ModuleType:
    directory, file = os.path.split(path)
    sys.path.insert(0, directory)  # the agent's own modules, as `python3 main.py` would
    name = os.path.splitext(file)[0]
    if name in sys.modules:  # an entry named json.py does not take the place of what the SDK uses
        name = f"agent_{name}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python source file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
