"""Patches that overlap, as in the fine-tuned Vim checkpoints of stride 8."""

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["OverlappingPatchEmbed"]


class OverlappingPatchEmbed(nn.Module):
    """A convolution whose kernel is wider than its stride, flattened to tokens.

    Args:
        img_size: Height and width of the images in pixels.
        patch_size: Side of a patch in pixels.
        stride: Pixels from one patch to the next.
        in_chans: Channels of the images.
        embed_dim: Width of the tokens.
    Raises:
        ValueError: If patches leave gaps or are larger than the images; in `forward`, if an image
            has another size.
    Example:
        >>> from torch import rand
        >>> embed = OverlappingPatchEmbed(32, 16, 8, 3, 4)
        >>> embed(rand(1, 3, 32, 32)).shape, embed.grid_size
        (torch.Size([1, 9, 4]), (3, 3))
    """

    def __init__(
        self,
        img_size: int | tuple[int, int],
        patch_size: int,
        stride: int,
        in_chans: int,
        embed_dim: int,
    ) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if not 1 <= stride <= patch_size <= min(height, width):
            raise ValueError(
                f"stride must be at most the patch and the patch at most the image, got {stride}, "
                f"{patch_size} and {(height, width)} px"
            )
        self.img_size = (height, width)
        self.patch_size = (patch_size, patch_size)
        self.grid_size = tuple((side - patch_size) // stride + 1 for side in self.img_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, stride)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N D"]:
        if tuple(images.shape[-2:]) != self.img_size:
            raise ValueError(
                f"images must be {self.img_size} px, as the model's positions, got "
                f"{tuple(images.shape[-2:])}; resize them"
            )
        return self.proj(images).flatten(2).transpose(1, 2)
