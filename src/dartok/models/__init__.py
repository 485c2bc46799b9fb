"""What consumes tokens: vision transformers, by adapting timm's."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dartok.models.adaptation import adapt
    from dartok.models.checkpoints import convert_checkpoint
    from dartok.models.dials import regions, set_num_tokens, set_strength
    from dartok.models.registry import create_model, list_models

__all__ = [
    "adapt",
    "convert_checkpoint",
    "create_model",
    "list_models",
    "regions",
    "set_num_tokens",
    "set_strength",
]

_HOMES = {
    "adapt": "adaptation",
    "convert_checkpoint": "checkpoints",
    "create_model": "registry",
    "list_models": "registry",
    "regions": "dials",
    "set_num_tokens": "dials",
    "set_strength": "dials",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dartok.models' has no attribute {name!r}")
    return getattr(importlib.import_module(f"dartok.models.{_HOMES[name]}"), name)
