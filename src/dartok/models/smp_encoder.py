"""Adapted models as encoders of segmentation_models_pytorch, behind any of its decoders."""

import inspect
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from dartok.core.names import whole_number
from dartok.core.tokenizer import Tokenizer
from dartok.models.features import DenseEncoder

__all__ = ["SmpEncoder", "smp_model"]

_FROM_TIMM = "dpt"
"""The architecture that makes its encoder itself, from timm's names."""

_OURS = ("encoder_name", "encoder_weights", "in_channels", "classes")
"""Options of smp's models that follow from the model."""


class SmpEncoder(nn.Module):
    """A model as an encoder of segmentation_models_pytorch.

    It returns the picture, an empty map at stride 2, as smp's encoders without features there do,
    and maps of the model's features at strides 4, 8, 16, 32, as many as `depth` asks for. Where a
    decoder wants a finer last map (`output_stride`), those beyond are painted at that stride:
    nothing is dilated.

    Args:
        model: As of `dartok.features`; held as `dense.model`.
        in_channels: Channels of the pictures.
        depth: From 2 to 5; the coarsest stride is `2 ** depth`.
        output_stride: 8, 16 or 32, the coarsest stride that a map may have.
        layers: The block of each map; None for blocks spread evenly.
        norm: Whether the model's last norm follows each block.
    Raises:
        ValueError: If an option is out of range, or the model can give no maps.
    Example:
        >>> import timm, torch, dartok
        >>> encoder = SmpEncoder(dartok.adapt(timm.create_model("test_vit"), num_tokens=30))
        >>> encoder.out_channels, encoder.output_stride
        ([3, 0, 64, 64, 64, 64], 32)
        >>> [tuple(one.shape[1:]) for one in encoder(torch.randn(1, 3, 64, 96))]
        [(3, 64, 96), (0, 32, 48), (64, 16, 24), (64, 8, 12), (64, 4, 6), (64, 2, 3)]
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        in_channels: int = 3,
        depth: int = 5,
        output_stride: int = 32,
        layers: Sequence[int] | None = None,
        norm: bool = True,
    ) -> None:
        super().__init__()
        if not 2 <= whole_number("depth", depth) <= 5:
            raise ValueError(f"depth must be from 2 to 5, strides 4 to 32, got {depth}")
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride must be 8, 16 or 32, got {output_stride}")
        strides = [min(2**level, output_stride) for level in range(2, depth + 1)]
        self.dense = DenseEncoder(model, strides=strides, layers=layers, norm=norm)
        self.out_channels = [in_channels, 0, *self.dense.channels]
        self.output_stride = strides[-1]

    @property
    def takes_budgets(self) -> bool:
        """Whether `dartok.set_num_tokens(encoder, "auto")` is possible."""
        return self.dense.takes_budgets

    def forward(self, x: Float[Tensor, "B C H W"]) -> list[Tensor]:
        half = (-(-x.shape[-2] // 2), -(-x.shape[-1] // 2))
        return [x, x.new_empty((x.shape[0], 0, *half)), *self.dense(x)]

    def set_in_channels(self, in_channels: int, pretrained: bool = True) -> None:
        """smp's method, which changes the first convolution: a model keeps its channels.

        Raises:
            ValueError: If the number is another than the model's.
        """
        if in_channels != self.out_channels[0]:
            raise ValueError(
                f"in_channels must stay {self.out_channels[0]}, as the model, got {in_channels}; "
                "create the host with in_chans"
            )

    def make_dilated(self, output_stride: int) -> None:
        """smp's method: the maps have this stride already."""


def smp_model(
    architecture: str,
    model: nn.Module,
    *,
    num_classes: int,
    layers: Sequence[int] | None = None,
    norm: bool = True,
    **options: Any,
) -> nn.Module:
    """A segmentation model of segmentation_models_pytorch on an adapted model, in one call.

    Logits `(B, num_classes, H, W)` of pictures whose sides are multiples of `output_stride`, as smp
    wants them (of any size for "unet"). The model keeps its weights; decoder and head are new.
    Dials work on the result: `dartok.set_strength(result, 1.0)`.

    "dpt" makes its encoder itself: `smp.DPT("tu-dart_vit", encoder_weights=None, host="...")`.

    Args:
        architecture: smp's name: "unet", "fpn", "upernet", "deeplabv3plus", "segformer", ...
        model: As of `dartok.features`; held, not copied.
        num_classes: Classes of the masks, the background among them if there is one.
        layers: The block of each map, finest first; None for blocks spread evenly.
        norm: Whether the model's last norm follows each block.
        **options: Of smp's class, such as `decoder_channels`; another name is refused.
    Raises:
        ImportError: Without segmentation-models-pytorch.
        ValueError: If the architecture or an option is unknown or follows from the model.
    Example:
        >>> import timm, torch, dartok
        >>> backbone = dartok.adapt(timm.create_model("test_vit"), num_tokens=30)
        >>> model = smp_model("fpn", backbone, num_classes=11)
        >>> model(torch.randn(2, 3, 64, 96)).shape
        torch.Size([2, 11, 64, 96])
    """
    smp = _smp()
    _check_options(smp, architecture, options)
    channels = _channels_of(model)
    encoder = partial(SmpEncoder, model, in_channels=channels, layers=layers, norm=norm)
    with _listed(smp, encoder) as name:
        made = smp.create_model(
            architecture,
            encoder_name=name,
            encoder_weights=None,
            in_channels=channels,
            classes=num_classes,
            **options,
        )
    assert isinstance(made, nn.Module)
    return made


def _smp() -> ModuleType:
    try:
        import segmentation_models_pytorch
    except ImportError as error:
        raise ImportError(
            "smp_model needs segmentation-models-pytorch: pip install 'dartok[dense]'"
        ) from error
    return segmentation_models_pytorch


@contextmanager
def _listed(smp: Any, encoder: partial[SmpEncoder]) -> Iterator[str]:
    """A name by which smp finds the encoder, for a while: its models take nothing else."""
    name = f"dartok-{uuid.uuid4()}"
    smp.encoders.encoders[name] = {"encoder": encoder, "params": {}, "pretrained_settings": {}}
    try:
        yield name
    finally:
        del smp.encoders.encoders[name]


def _check_options(smp: Any, architecture: str, options: dict[str, Any]) -> None:
    """Refuse what smp would pass over: it takes any name, for encoders of timm."""
    known = sorted(smp.MODEL_ARCHITECTURES_MAPPING)
    if architecture == _FROM_TIMM:
        raise ValueError(
            "architecture 'dpt' makes its encoder itself; use segmentation_models_pytorch.DPT("
            "'tu-dart_vit', encoder_weights=None, host=..., num_tokens=...)"
        )
    if architecture not in known:
        raise ValueError(
            f"architecture must be one of {', '.join(n for n in known if n != _FROM_TIMM)}, "
            f"got {architecture!r}"
        )
    made = smp.MODEL_ARCHITECTURES_MAPPING[architecture]
    parameters = inspect.signature(made.__init__).parameters.values()
    takes = [one.name for one in parameters if one.kind == one.POSITIONAL_OR_KEYWORD]
    free = [name for name in takes if name not in ("self", *_OURS)]
    for name in options:
        if name in _OURS:
            raise ValueError(f"{name} must not be given, it follows from the model")
        if name not in free:
            raise ValueError(f"{name} must be one of the options {', '.join(free)}")


def _channels_of(model: nn.Module) -> int:
    """Channels of the pictures: of the tokenizer's projection, or of the first convolution."""
    cuts = (module.proj for module in model.modules() if isinstance(module, Tokenizer))
    convolutions = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    first = next(cuts, None) or next(convolutions, None)
    if first is None:
        raise ValueError(f"model must hold a convolution of pictures, got a {type(model).__name__}")
    return first.in_channels
