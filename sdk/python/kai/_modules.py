"""Which modules are whose, where two versions of the agent are in one process: their names are often the same, and
sys.modules and sys.path have room for one of them.

One version is active: sys.modules has its modules, and sys.path begins with its directory. That is the one that the
host talks to, and while a version is loaded, that one. What is guaranteed:

- A version's modules are imported for it alone, even where the same package was imported before. What is not below its
  root (the standard library, the SDK) is one for all.
- An `import` statement finds the modules of the version that it stands in, at any time and in any thread, also when
  that version is not active. (importlib.import_module does not say who asks: it finds those of the active one.)
"""

from __future__ import annotations

import builtins
import os
import sys
import threading
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any, Callable, Dict, Iterator, List, Optional

OWNER = "__kai_modules__"  # in the globals of a version's modules, once it has been put away


class Modules:
    """Those of one version, which are below its root."""

    def __init__(self, root: str, directory: str) -> None:
        """directory: where the entry is; its neighbours are imported by name, as `python3 main.py` would."""
        self._root = os.path.join(root, "")
        self._path: List[str] = [directory]
        self._put_away: Dict[str, ModuleType] = {}

    @contextmanager
    def importing(self) -> Iterator[None]:
        """Active for a while, and no other version's import statement swaps meanwhile."""
        before = _active
        with _turns.shared():
            self.activate()
            try:
                yield
            finally:
                if before is not None:
                    before.activate()

    def activate(self) -> None:
        global _active
        if _active is self:
            return
        if _active is not None:
            _active._put_away_all()
        sys.modules.update(self._put_away)
        self._put_away = {}
        sys.path[:0] = self._path
        _active = self

    def _put_away_all(self) -> None:
        self._put_away = {name: module for name, module in list(sys.modules.items()) if self._has(module)}
        for name, module in self._put_away.items():
            vars(module)[OWNER] = self
            del sys.modules[name]
        self._path = [entry for entry in sys.path if self._is_below(entry)]
        sys.path[:] = [entry for entry in sys.path if not self._is_below(entry)]

    def _has(self, module: Any) -> bool:
        file = getattr(module, "__file__", None)
        if isinstance(file, str):
            return self._is_below(file)
        return any(self._is_below(entry) for entry in getattr(module, "__path__", ()))  # a namespace package

    def _is_below(self, path: Any) -> bool:
        return isinstance(path, str) and os.path.join(os.path.abspath(path), "").startswith(self._root)


class _Turns:
    """Imports of the active version go side by side, as Python lets them; those of another one, which swap, alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sharing: Dict[int, int] = {}  # thread → how deep
        self._alone: Optional[int] = None  # the thread that swaps

    @contextmanager
    def shared(self) -> Iterator[None]:
        thread = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: self._alone in (None, thread))
            self._sharing[thread] = self._sharing.get(thread, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._sharing[thread] -= 1
                if self._sharing[thread] == 0:
                    del self._sharing[thread]
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        thread = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: self._alone in (None, thread) and not (self._sharing.keys() - {thread}))
            before, self._alone = self._alone, thread
        try:
            yield
        finally:
            with self._changed:
                self._alone = before
                self._changed.notify_all()


_active: Optional[Modules] = None
_turns = _Turns()
_plain_import: Optional[Callable[..., Any]] = None


def tell_versions_apart() -> None:
    """From now on `import` asks whose it is. Processes that hold one version only go without."""
    global _plain_import
    if _plain_import is None:
        _plain_import = builtins.__import__
        builtins.__import__ = _import


def _import(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
    assert _plain_import is not None
    owner = globals.get(OWNER) if globals else None
    if owner is None:
        return _plain_import(name, globals, locals, fromlist, level)
    if owner is _active:
        with _turns.shared():
            if owner is _active:
                return _plain_import(name, globals, locals, fromlist, level)
    with _turns.alone():
        before = _active
        owner.activate()
        try:
            return _plain_import(name, globals, locals, fromlist, level)
        finally:
            if before is not None:
                before.activate()
