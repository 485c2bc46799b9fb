"""VideoMamba on regions. Made by `dartok.adapt`."""

from torch import Tensor

from dartok.core.regions import Regions, frames_of
from dartok.models.mamba.region_vim import RegionVim
from dartok.models.mamba.video import VideoVim

__all__ = ["RegionVideoVim"]


class RegionVideoVim(RegionVim, VideoVim):
    """`VideoVim` whose patches are regions of the whole clip: any size, frames, number of tokens.

    Clips are `(B, T, C, H, W)`, T a multiple of the host's tubelet. `patch_embed` is a
    `RegionPatchEmbed`, which adds the positions in space and time; `pos_embed` and
    `temporal_pos_embedding` are None.
    """

    takes_budgets = False
    """A clip has the tokens that it is given: `num_tokens="auto"` is for images."""

    def set_input_size(
        self, img_size: int | tuple[int, int] | None = None, num_frames: int | None = None
    ) -> None:
        """Note the size that the model is meant for; every size and length works without it."""
        del num_frames  # nothing is made for it
        if img_size is not None:
            super().set_input_size(img_size)

    def _laid_out(
        self, found: list[Tensor], images: Tensor, regions: Regions | None, output_fmt: str
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Maps `(B, D, steps, h, w)` painted from the tokens, or the tokens."""
        maps, prefixes = super()._laid_out(found, images, regions, output_fmt)
        assert regions is not None
        if output_fmt == "NCHW" and frames_of(regions) == 1:
            maps = [one.unsqueeze(2) for one in maps]
        return maps, prefixes
