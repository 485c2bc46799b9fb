"""What consumes tokens: vision transformers, by adapting others', and Vision Mamba."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dartok.models.adaptation import adapt
    from dartok.models.checkpoints import convert_checkpoint
    from dartok.models.dials import regions, set_num_tokens, set_scan, set_strength, steer
    from dartok.models.features import features
    from dartok.models.preprocessing import transform
    from dartok.models.registry import create_model, list_models
    from dartok.models.reshaped import reshape
    from dartok.models.sharing import from_pretrained, push_to_hub, save_pretrained

__all__ = [
    "adapt",
    "convert_checkpoint",
    "create_model",
    "features",
    "from_pretrained",
    "list_models",
    "push_to_hub",
    "regions",
    "reshape",
    "save_pretrained",
    "set_num_tokens",
    "set_scan",
    "set_strength",
    "steer",
    "transform",
]

_HOMES = {
    "adapt": "adaptation",
    "convert_checkpoint": "checkpoints",
    "create_model": "registry",
    "features": "features",
    "from_pretrained": "sharing",
    "list_models": "registry",
    "push_to_hub": "sharing",
    "regions": "dials",
    "reshape": "reshaped",
    "save_pretrained": "sharing",
    "set_num_tokens": "dials",
    "set_scan": "dials",
    "set_strength": "dials",
    "steer": "dials",
    "transform": "preprocessing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dartok.models' has no attribute {name!r}")
    return getattr(importlib.import_module(f"dartok.models.{_HOMES[name]}"), name)
