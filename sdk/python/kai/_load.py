"""A version's code, from its entry: the agent's class."""

from __future__ import annotations

import importlib.util
import os
import sys

from kai._agent import Agent
from kai._modules import Modules, tell_versions_apart

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Type


class Code:
    def __init__(self, root: str, path: str, entry: str) -> None:
        self.root = root
        self._path = path
        self._entry = entry  # as messages name it
        self.modules = Modules(root, os.path.dirname(path))

    @classmethod
    def own(cls, entry: str) -> Code:
        """The entry that the runner was started for; inside the sandbox, in the package's root."""
        path, root = os.path.abspath(entry), os.getcwd()
        is_root = root != "/" and path.startswith(os.path.join(root, ""))
        return cls(root if is_root else os.path.dirname(path), path, entry)

    @classmethod
    def beside(cls, root: str, entry: str) -> Code:
        """Another version, beside the one that serves."""
        tell_versions_apart()
        return cls(os.path.abspath(root), os.path.abspath(os.path.join(root, entry)), entry)

    def load(self) -> Type[Agent]:
        """The modules are active while they are imported; the first version's stay so."""
        with self.modules.importing():
            return _find_agent(_load_module(self._path), self._entry)


def _find_agent(module: ModuleType, entry: str) -> Type[Agent]:
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
    name = os.path.splitext(os.path.basename(path))[0]
    if name in sys.modules:  # an entry named json.py does not take the place of what the SDK uses
        name = f"agent_{name}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python source file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
