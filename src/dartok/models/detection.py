"""Adapted models as backbones of torchvision's detectors: a pyramid on painted maps."""

from collections import OrderedDict
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from dartok.models.features import DenseEncoder
from dartok.models.preprocessing import data_config

__all__ = ["RegionPyramid"]


class RegionPyramid(nn.Module):
    """A backbone for torchvision's detectors: maps of a model's features, and a pyramid on them.

    The maps of all strides are painted from the tokens, so no level is pooled or convolved from
    another; the pyramid adds each coarser level to the next finer one. The defaults are the five
    levels of FasterRCNN and MaskRCNN; RetinaNet and FCOS have theirs at strides 8 to 128:

        backbone = RegionPyramid(model)
        FasterRCNN(backbone, num_classes=2, **backbone.pixels)
        RetinaNet(RegionPyramid(model, strides=(8, 16, 32, 64, 128)), num_classes=2)

    *Normalisation.* A detector takes pictures from 0 to 1 and normalises them itself, as ImageNet's
    unless it is told: give it `**backbone.pixels` for a model with another mean and deviation.

    *Padding.* A detector resizes pictures, by default to a shorter side of 800 px, and pads those
    of a batch to one size, with zeros at the right and bottom. The model sees one picture with its
    padding: regions cover it, and little is spent on it as far as the scorer finds nothing there.
    So a picture's detections depend slightly on the sizes of its batch mates, as they do on any
    backbone that looks beyond a neighbourhood. Batches of pictures of one size have none:
    `FasterRCNN(..., fixed_size=(height, width))` or pictures of batch size 1.

    Source: Feature Pyramid Networks, arXiv:1612.03144, as torchvision has them.

    Args:
        model: As of `dartok.features`; held as `dense.model`.
        out_channels: Channels of all levels.
        strides: Pixels per cell of each level, finest first.
        layers: The block of each level; None for blocks spread evenly.
        norm: Whether the model's last norm follows each block.
    Raises:
        ValueError: If an option is out of range, or the model can give no maps.
    Example:
        >>> import timm, torch, dartok
        >>> model = dartok.adapt(timm.create_model("test_vit"), num_tokens=30)
        >>> backbone = RegionPyramid(model, out_channels=16)
        >>> levels = backbone(torch.randn(1, 3, 64, 96))
        >>> {name: tuple(level.shape[2:]) for name, level in levels.items()}
        {'0': (16, 24), '1': (8, 12), '2': (4, 6), '3': (2, 3), '4': (1, 2)}
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        out_channels: int = 256,
        strides: Sequence[int] = (4, 8, 16, 32, 64),
        layers: Sequence[int] | None = None,
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.dense = DenseEncoder(model, strides=strides, layers=layers, norm=norm)
        self.pyramid = FeaturePyramidNetwork(list(self.dense.channels), out_channels)
        self.out_channels = out_channels

    @property
    def pixels(self) -> dict[str, tuple[float, ...]]:
        """`image_mean` and `image_std` of the model, as torchvision's detectors take them.

        Raises:
            ValueError: If the model does not say how its pixels are normalised.
        """
        known = data_config(self.dense.model)
        return {"image_mean": known["mean"], "image_std": known["std"]}

    @property
    def takes_budgets(self) -> bool:
        """Whether `dartok.set_num_tokens(backbone, "auto")` is possible."""
        return self.dense.takes_budgets

    def forward(
        self, images: Float[Tensor, "B C H W"]
    ) -> OrderedDict[str, Float[Tensor, "B D h w"]]:
        maps = self.dense(images)
        return self.pyramid(OrderedDict((str(level), one) for level, one in enumerate(maps)))
