"""The sources of pictures that a configuration names."""

from pathlib import Path

from dartok.data.digit_source import DigitSource
from dartok.data.digits import CanvasConfig
from dartok.data.folder import FolderSource
from dartok.data.samples import Source
from dartok.data.source_config import DataConfig

__all__ = ["DIGITS", "eval_source", "source_to_evaluate", "train_source"]

DIGITS = "digits"
"""Name of the embedded digits, instead of a folder."""

_NUM_TEST_DIGITS = 1024
_CANVAS_PX = 192
_EVAL_FOLDERS = ("val", "valid", "validation", "test")


def train_source(config: DataConfig) -> Source:
    """What to train on.

    Raises:
        ValueError: If the folder is missing or does not hold class folders with pictures.
    """
    if config.data == DIGITS:
        canvas = CanvasConfig(size_px=_CANVAS_PX)
        return DigitSource(canvas, split="train", num_canvases=config.num_digits)
    return FolderSource(config.data)


def eval_source(config: DataConfig, class_names: tuple[str, ...]) -> Source:
    """What to evaluate on, with the classes of the training pictures.

    Raises:
        ValueError: If there is none, or it holds other classes.
    """
    if config.val is None and config.data == DIGITS:
        return source_to_evaluate(DIGITS, class_names)
    root = Path(config.data)
    beside = [root.with_name(name) for name in _EVAL_FOLDERS if name != root.name]
    found = [Path(config.val)] if config.val else [path for path in beside if path.is_dir()]
    if not found:
        raise ValueError(
            f"val must name a folder to evaluate on: none of {', '.join(_EVAL_FOLDERS)} is beside "
            f"{root}; give --val"
        )
    return source_to_evaluate(str(found[0]), class_names)


def source_to_evaluate(data: str, class_names: tuple[str, ...]) -> Source:
    """A folder of class folders, or the test digits, with the classes of a model.

    Raises:
        ValueError: If the folder is missing or holds other classes.
    """
    if data == DIGITS:
        canvas = CanvasConfig(size_px=_CANVAS_PX)
        return DigitSource(canvas, split="test", num_canvases=_NUM_TEST_DIGITS)
    return FolderSource(data, class_names)
