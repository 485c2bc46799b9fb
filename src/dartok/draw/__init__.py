"""Pictures of regions and score maps."""

import sys
from types import ModuleType
from typing import Any

from dartok.draw.files import save_image
from dartok.draw.film import save_film
from dartok.draw.heat import draw_scores, heat_colours
from dartok.draw.masks import draw_mask, mask_image
from dartok.draw.outlines import draw
from dartok.draw.sheet import contact_sheet

__all__ = [
    "contact_sheet",
    "draw",
    "draw_mask",
    "draw_scores",
    "heat_colours",
    "mask_image",
    "save_film",
    "save_image",
]


class _DrawModule(ModuleType):
    """This package, callable: `dartok.draw` is the name of the function and of its package.

    Whoever imports the package first would otherwise hide the function of the same name.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return draw(*args, **kwargs)


sys.modules[__name__].__class__ = _DrawModule
