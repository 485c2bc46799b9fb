"""Register our models with timm when timm is imported, without importing it ourselves.

`timm.create_model("darvit_tiny")` must work once `dartok` is imported, yet importing `dartok` must
not cost the seconds that timm takes. So a finder waits on `sys.meta_path` for `timm`, lets the
regular finders find it, and runs our registration right after timm's own code has run.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

__all__ = ["register_when_timm_is_imported"]


def register_when_timm_is_imported() -> None:
    """Register now if timm is loaded, else as soon as it is. Calling it again changes nothing."""
    if "timm" in sys.modules:
        _register()
    elif not any(isinstance(finder, _TimmFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TimmFinder())


def _register() -> None:
    importlib.import_module("dartok.models.registry").register_with_timm()


class _TimmFinder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "timm":
            return None
        place = sys.meta_path.index(self)
        sys.meta_path.remove(self)  # for this search only: who asks need not import
        try:
            spec = importlib.util.find_spec("timm")
        finally:
            sys.meta_path.insert(place, self)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader)
        return spec


class _RegisteringLoader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        _register()
