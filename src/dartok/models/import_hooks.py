"""Register our models with timm and transformers when they are imported, without importing them.

`timm.create_model("darvit_tiny")` and `AutoModel.from_pretrained(folder)` must work once `dartok`
is imported, yet importing `dartok` must not cost the seconds that either takes. So a finder waits
on `sys.meta_path` for the modules that hold their registries, lets the regular finders find them,
and runs our registration right after their own code has run.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

__all__ = ["register_when_imported"]

_REGISTRATIONS = {
    "timm": (
        ("dartok.models.registry", "register_with_timm"),
        ("dartok.tasks.segmentation.named", "register_with_timm"),
    ),
    "transformers.models.auto.configuration_auto": (
        ("dartok.models.hf_config", "register_config"),
    ),
    "transformers.models.auto.modeling_auto": (("dartok.models.hf", "register_model"),),
}
"""Module that holds a registry, and what of ours enters our models there."""


def register_when_imported() -> None:
    """Register now or as soon as it can be done. Calling it again changes nothing."""
    for name in _REGISTRATIONS:
        if name in sys.modules:
            _register(name)
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _register(name: str) -> None:
    for module, function in _REGISTRATIONS[name]:
        getattr(importlib.import_module(module), function)()


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _REGISTRATIONS:
            return None
        place = sys.meta_path.index(self)
        sys.meta_path.remove(self)  # for this search only: who asks need not import
        try:
            spec = importlib.util.find_spec(fullname)
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
        _register(module.__name__)
