"""Images to the first map of RMT, and one map to the next of half the size."""

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Downsample", "Stem"]


class Stem(nn.Module):
    """Four 3 x 3 convolutions, each normalised, the first and third halving the size.

    Source: RMT, arXiv:2309.11523.

    Args:
        num_channels: Channels of the images.
        width: C, channels of the map; even.
    Example:
        >>> import torch
        >>> Stem(3, 8)(torch.rand(2, 3, 32, 50)).shape
        torch.Size([2, 8, 13, 8])
    """

    def __init__(self, num_channels: int, width: int) -> None:
        super().__init__()
        half = width // 2
        self.proj = nn.Sequential(
            *(nn.Conv2d(num_channels, half, 3, 2, 1), nn.BatchNorm2d(half), nn.GELU()),
            *(nn.Conv2d(half, half, 3, 1, 1), nn.BatchNorm2d(half), nn.GELU()),
            *(nn.Conv2d(half, width, 3, 2, 1), nn.BatchNorm2d(width), nn.GELU()),
            *(nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width)),
        )

    def forward(self, images: Float[Tensor, "B channels H W"]) -> Float[Tensor, "B h w C"]:
        return self.proj(images).permute(0, 2, 3, 1)


class Downsample(nn.Module):
    """A 3 x 3 convolution to half the size and another width, normalised.

    Args:
        width: C, of the map.
        next_width: Of the result.
    Example:
        >>> import torch
        >>> Downsample(8, 16)(torch.rand(2, 5, 8, 8)).shape
        torch.Size([2, 3, 4, 16])
    """

    def __init__(self, width: int, next_width: int) -> None:
        super().__init__()
        self.reduction = nn.Conv2d(width, next_width, 3, 2, 1)
        self.norm = nn.BatchNorm2d(next_width)

    def forward(self, x: Float[Tensor, "B h w C"]) -> Float[Tensor, "B h/2 w/2 D"]:
        return self.norm(self.reduction(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
