"""A segmenter as a name in timm's registry, so that a saved folder can be loaded again."""

from typing import TYPE_CHECKING, Any

from dartok.models.registry import SEGMENTER
from dartok.tasks.task_config import DecoderName

if TYPE_CHECKING:  # registering must not wait for the models
    from dartok.tasks.segmentation.segmenter import Segmenter

__all__ = ["built_segmenter", "register_with_timm"]


def built_segmenter(
    *,
    encoder: dict[str, Any],
    num_classes: int = 21,
    decoder: DecoderName = "linear",
    detail: int = 4,
    encoder_weights: dict[str, Any] | None = None,
    in_chans: int = 3,
) -> "Segmenter":
    """`segmenter(adapted_host(**encoder), ...)`, as `dartok train` builds it.

    Args:
        encoder: Options of `dartok.models.hosts.adapted_host`.
        num_classes: K.
        decoder: As of `segmenter`, like `detail`.
        detail: Samples per region and axis.
        encoder_weights: More such options that say where weights come from; not of a saved model.
        in_chans: Channels of the images.
    """
    from dartok.models.hosts import adapted_host
    from dartok.tasks.segmentation.segmenter import segmenter

    host = adapted_host(
        **{"num_classes": 0, "in_chans": in_chans, **encoder, **(encoder_weights or {})}
    )
    return segmenter(host, num_classes=num_classes, decoder=decoder, detail=detail)


def register_with_timm() -> None:
    """Make the name known to `timm.create_model`; harmless when repeated."""
    from timm.models import is_model, register_model

    if not is_model(SEGMENTER):
        register_model(dart_segmenter)
    __all__[:] = [name for name in __all__ if name != SEGMENTER]  # timm appends it


def dart_segmenter(pretrained: bool = False, **options: Any) -> "Segmenter":
    """An adapted host with a decoder of pixels' classes; see `dartok train --task segmentation`."""
    from timm.models import build_model_with_cfg
    from timm.models._pretrained import PretrainedCfg

    from dartok.models.hosts import host_config
    from dartok.models.preprocessing import note_pixels

    given = options.pop("pretrained_cfg", None)
    if "encoder" not in options:
        raise ValueError(
            f"{SEGMENTER} needs the options of its encoder, got none; load a folder that dartok "
            "train wrote, or use dartok.tasks.segmentation.segmenter"
        )
    host = options["encoder"].get("host", "vit_tiny_patch16_224")
    known = {**host_config(host), "architecture": SEGMENTER, "classifier": "decoder"}
    options["pretrained_cfg"] = given or PretrainedCfg(**known)
    model: Segmenter = build_model_with_cfg(built_segmenter, SEGMENTER, pretrained, **options)
    note_pixels(model)
    return model
