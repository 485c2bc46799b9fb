"""Patches of clips: some frames deep, as VideoMamba's."""

from jaxtyping import Float
from torch import Tensor, nn

from dartok.core.names import whole_number

__all__ = ["TubeletPatchEmbed"]


class TubeletPatchEmbed(nn.Module):
    """A 3D convolution whose kernel is its stride: each step of `tubelet_size` frames to tokens.

    Args:
        img_size: Height and width of the frames in pixels.
        patch_size: Side of a patch in pixels.
        num_frames: T, frames of a clip.
        tubelet_size: k, frames of a step.
        in_chans: Channels of the frames.
        embed_dim: Width of the tokens.
    Raises:
        ValueError: If steps or patches do not fill the clip; in `forward`, if a clip has another
            size or number of frames.
    Example:
        >>> from torch import rand
        >>> embed = TubeletPatchEmbed(32, 16, num_frames=4, tubelet_size=2, in_chans=3, embed_dim=8)
        >>> embed(rand(1, 4, 3, 32, 32)).shape
        torch.Size([1, 2, 4, 8])
    """

    def __init__(
        self,
        img_size: int | tuple[int, int],
        patch_size: int,
        *,
        num_frames: int,
        tubelet_size: int,
        in_chans: int,
        embed_dim: int,
    ) -> None:
        super().__init__()
        self.patch_size = (patch_size, patch_size)
        self.tubelet_size = whole_number("tubelet_size", tubelet_size)
        kernel = (tubelet_size, patch_size, patch_size)
        self.proj = nn.Conv3d(in_chans, embed_dim, kernel, kernel)
        self.set_input_size(img_size, num_frames)

    def set_input_size(
        self, img_size: int | tuple[int, int] | None = None, num_frames: int | None = None
    ) -> None:
        """Expect frames of another size, or another number of them; None for the same."""
        if img_size is not None:
            size = (img_size, img_size) if isinstance(img_size, int) else img_size
            if any(
                side < 1 or side % patch for side, patch in zip(size, self.patch_size, strict=True)
            ):
                raise ValueError(
                    f"img_size must be multiples of the patch of {self.patch_size} px, got {size}; "
                    "resize the frames"
                )
            self.img_size = size
        if num_frames is not None:
            if whole_number("num_frames", num_frames) % self.tubelet_size:
                raise ValueError(
                    f"num_frames must be a multiple of tubelet_size={self.tubelet_size}, got "
                    f"{num_frames}"
                )
            self.num_frames = num_frames

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = self.patch_size
        return self.img_size[0] // height, self.img_size[1] // width

    @property
    def num_patches(self) -> int:
        """Patches of a step."""
        return self.grid_size[0] * self.grid_size[1]

    @property
    def num_steps(self) -> int:
        """Steps of a clip."""
        return self.num_frames // self.tubelet_size

    def forward(self, clips: Float[Tensor, "B T C H W"]) -> Float[Tensor, "B steps N D"]:
        """Tokens of each step in the order of reading."""
        self._check(clips)
        return self.proj(clips.transpose(1, 2)).flatten(3).permute(0, 2, 3, 1)

    def _check(self, clips: Tensor) -> None:
        expected = (self.num_frames, self.proj.in_channels, *self.img_size)
        if clips.ndim != 5 or tuple(clips.shape[1:]) != expected:
            raise ValueError(
                f"clips must be (B, T, C, H, W) with (T, C, H, W) = {expected}, as the model, got "
                f"{tuple(clips.shape)}; call set_input_size(img_size, num_frames)"
            )
