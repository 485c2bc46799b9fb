"""`Segmenter`: an encoder and a decoder, from pictures to the class of each pixel."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dartok.core.regions import Regions
from dartok.core.unsampling import unsample_regions
from dartok.models.dials import tokenizer_of
from dartok.models.features import DenseEncoder, features, region_tokens
from dartok.tasks.segmentation.decoders import LinearDecoder, MaskTransformer
from dartok.tasks.task_config import DecoderName

__all__ = ["MapSegmenter", "Segmenter", "TokenSegmenter", "segmenter"]

_STRIDES = (4, 8, 16, 32)


def segmenter(
    encoder: nn.Module, *, num_classes: int, decoder: DecoderName = "linear", detail: int = 4
) -> "Segmenter":
    """A model for segmentation: an adapted encoder with a new decoder.

    Args:
        encoder: What `dartok.adapt` returned, without a head (`num_classes=0`) or with one, which
            is not used; for "upernet" also what else `dartok.features` reads.
        num_classes: K.
        decoder: "linear", "mask" (Segmenter's mask transformer) or "upernet".
        detail: Samples per region and axis that "linear" and "mask" tell the classes of.
    Returns:
        A module: `(B, 3, H, W)` to logits `(B, K, H, W)`, or of any `size=(h, w)`.
    Raises:
        ValueError: If an option is out of range, or the encoder has no regions for a decoder of
            tokens.
        ImportError: If the package of "upernet" is missing.
    Example:
        >>> import timm, torch, dartok
        >>> encoder = dartok.adapt(timm.create_model("test_vit", num_classes=0), num_tokens=30)
        >>> model = segmenter(encoder, num_classes=11)
        >>> model(torch.randn(1, 3, 90, 120)).shape
        torch.Size([1, 11, 90, 120])
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be >= 2, got {num_classes}")
    if detail < 1:
        raise ValueError(f"detail must be >= 1, got {detail}")
    if decoder == "upernet":
        return MapSegmenter(encoder, num_classes=num_classes)
    width = tokenizer_of(encoder).proj.out_channels
    of_tokens = {"linear": LinearDecoder, "mask": MaskTransformer}[decoder]
    read = of_tokens(width, num_classes=num_classes, detail=detail)
    return TokenSegmenter(encoder, read, num_classes=num_classes)


class Segmenter(nn.Module):
    """Maps pictures to class logits of their pixels. What `segmenter` makes is one.

    Args:
        encoder: What `dartok.adapt` returned.
        num_classes: K.
    """

    def __init__(self, encoder: nn.Module, *, num_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.num_classes = num_classes
        self.train_stride = 1
        """In train mode, logits come for each so-many-th row and column of pixels."""

    def logits_size(self, images: Tensor, size: tuple[int, int] | None) -> tuple[int, int]:
        """Height and width of the logits: as asked for, or by the pictures and the mode."""
        if size is not None:
            return size
        stride = self.train_stride if self.training else 1
        return -(-images.shape[-2] // stride), -(-images.shape[-1] // stride)

    @property
    def takes_budgets(self) -> bool:
        """Whether `dartok.set_num_tokens(model, "auto")` is possible."""
        return getattr(self.encoder, "takes_budgets", False)

    def get_classifier(self) -> nn.Module:
        """What tells the classes: the whole decoder."""
        decoder: Any = self.decoder
        return decoder

    def no_weight_decay(self) -> set[str]:
        """That of the encoder, under its name here."""
        names: set[str] = getattr(self.encoder, "no_weight_decay", set)()
        return {f"encoder.{name}" for name in names} | {"decoder.class_tokens"}


class TokenSegmenter(Segmenter):
    """A decoder of tokens, whose patches of logits are laid back on the picture.

    `logits = unsample_regions(decoder(tokens), regions, size)`.

    Args:
        encoder: What `dartok.adapt` returned.
        decoder: Tokens of the last layers to patches of logits.
        num_classes: K.
    """

    searches_edges = True
    """Which graphs cannot: see `dartok.export`."""

    def __init__(
        self, encoder: nn.Module, decoder: LinearDecoder | MaskTransformer, *, num_classes: int
    ) -> None:
        super().__init__(encoder, num_classes=num_classes)
        self.decoder = decoder

    def patches(self, images: Tensor) -> tuple[Float[Tensor, "B N K detail detail"], Regions]:
        """Logits of each region's samples, not yet laid on the picture."""
        layers = range(-self.decoder.num_layers, 0)
        regions, tokens = region_tokens(self.encoder, images, layers, norm=False)
        is_region = None if regions.counts is None else regions.is_region()
        return self.decoder(tokens, is_region), regions

    def forward(
        self, images: Float[Tensor, "B C H W"], size: tuple[int, int] | None = None
    ) -> Float[Tensor, "B K h w"]:
        patches, regions = self.patches(images)
        return unsample_regions(patches, regions, self.logits_size(images, size))


class MapSegmenter(Segmenter):
    """UPerNet on maps that the tokens are painted to, or on those of an encoder with stages.

    Source: UPerNet, arXiv:1807.10221, by segmentation_models_pytorch.

    Args:
        encoder: What `dartok.features` reads.
        num_classes: K.
        width: Channels of the decoder.
    Raises:
        ImportError: Without segmentation_models_pytorch; names the extra.
    """

    def __init__(self, encoder: nn.Module, *, num_classes: int, width: int = 256) -> None:
        try:
            from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
        except ImportError as error:
            raise ImportError(
                "decoder upernet needs segmentation-models-pytorch: pip install 'dartok[dense]'"
            ) from error
        super().__init__(encoder, num_classes=num_classes)
        channels = DenseEncoder(encoder, strides=_STRIDES).channels
        decoder = UPerNetDecoder(
            encoder_channels=(0, 0, *channels),  # nothing at strides 1 and 2
            encoder_depth=len(_STRIDES) + 1,
            decoder_channels=width,
        )
        self.decoder = nn.ModuleDict(
            {"pyramid": decoder, "head": nn.Conv2d(width, num_classes, kernel_size=1)}
        )

    def forward(
        self, images: Float[Tensor, "B C H W"], size: tuple[int, int] | None = None
    ) -> Float[Tensor, "B K h w"]:
        maps = features(self.encoder, images, strides=_STRIDES)
        found = self.decoder["head"](self.decoder["pyramid"]([images, images, *maps]))
        size = self.logits_size(images, size)
        return F.interpolate(found, size, mode="bilinear", align_corners=False)
