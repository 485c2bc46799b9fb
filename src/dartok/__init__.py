"""Adaptive visual tokens: regions that follow the picture, on any vision encoder.

Public names load what they need when first used, so importing the package is instant. The models
are registered with timm and transformers as soon as these are imported.
"""

import importlib
from typing import TYPE_CHECKING, Any

from dartok.models.import_hooks import register_when_imported

if TYPE_CHECKING:
    from dartok.core.regions import Regions
    from dartok.draw import draw
    from dartok.models import (
        adapt,
        create_model,
        features,
        from_pretrained,
        list_models,
        push_to_hub,
        regions,
        reshape,
        save_pretrained,
        set_num_tokens,
        set_scan,
        set_strength,
        steer,
        transform,
    )
    from dartok.scorers import RegionTokenizer, calibrate, calibrate_num_tokens

__version__ = "0.1.0"

__all__ = [
    "RegionTokenizer",
    "Regions",
    "adapt",
    "calibrate",
    "calibrate_num_tokens",
    "create_model",
    "draw",
    "export",
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
    "RegionTokenizer": "dartok.scorers",
    "Regions": "dartok.core.regions",
    "adapt": "dartok.models.adaptation",
    "calibrate": "dartok.scorers",
    "calibrate_num_tokens": "dartok.scorers",
    "create_model": "dartok.models.registry",
    "draw": "dartok.draw",
    "export": "dartok.models.export",
    "features": "dartok.models.features",
    "from_pretrained": "dartok.models.sharing",
    "list_models": "dartok.models.registry",
    "push_to_hub": "dartok.models.sharing",
    "regions": "dartok.models.dials",
    "reshape": "dartok.models.reshaped",
    "save_pretrained": "dartok.models.sharing",
    "set_num_tokens": "dartok.models.dials",
    "set_scan": "dartok.models.dials",
    "set_strength": "dartok.models.dials",
    "transform": "dartok.models.preprocessing",
    "steer": "dartok.models.dials",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dartok' has no attribute {name!r}")
    home = importlib.import_module(_HOMES[name])
    # `dartok.draw` is a package that can be called: python sets it as our attribute anyway.
    value = home if home.__name__ == f"{__name__}.{name}" else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


register_when_imported()
