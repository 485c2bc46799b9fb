"""VideoMamba for clips, on a fixed grid."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dartok.core.regions import Regions
from dartok.models.mamba.mixer import Directions, Merge
from dartok.models.mamba.sequence import ClassPlace, place_of, with_class_token
from dartok.models.mamba.tubelets import TubeletPatchEmbed
from dartok.models.mamba.vim import Entrance, Pooling, Vim, draw_projection

__all__ = ["VideoVim", "resampled_in_time"]


class VideoVim(Vim):
    """`Vim` over the patches of all frames of a clip, frame by frame: VideoMamba.

    Clips are `(B, T, C, H, W)`. Each step of `tubelet_size` frames is cut into the same grid; token
    n of step t has the position `pos_embed[1 + n] + temporal_pos_embedding[t]`, and one class token
    serves the clip. Parameters have the names and shapes of the official checkpoints, in which
    `pos_embed` begins with the class token's entry.

    Source: VideoMamba, arXiv:2403.06977: spatial-first bidirectional scan.

    Args:
        img_size: Height and width of the frames in pixels.
        patch_size: Side of a patch in pixels.
        num_frames: T, frames of a clip.
        tubelet_size: Frames of a step, of which T is a multiple.
        in_chans: Channels of the frames.
        num_classes: Outputs of the head; 0 for none.
        global_pool: "token", "avg" over all steps, or "".
        embed_dim: D, width of the tokens.
        depth: Blocks.
        state_size: Numbers of state per channel.
        class_token: Where the class token stands in the sequence: "middle", "first" or "last".
        merge: How the two directions are put together: "mean" or "sum".
        directions: "both" or "forward", as of `Vim`.
        drop_rate: Dropout before the head.
        pos_drop_rate: Dropout after the positions.
        drop_path_rate: Stochastic depth after the last block.
    Raises:
        ValueError: If an option is unknown or out of range; in `forward`, if a clip has another
            size or number of frames.
    Example:
        >>> model = VideoVim(img_size=32, num_frames=4, embed_dim=16, depth=2, num_classes=5)
        >>> model(torch.rand(1, 4, 3, 32, 32)).shape
        torch.Size([1, 5])
    """

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        num_frames: int = 8,
        tubelet_size: int = 1,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: Pooling = "token",
        embed_dim: int = 192,
        depth: int = 24,
        state_size: int = 16,
        class_token: ClassPlace = "first",
        merge: Merge = "sum",
        directions: Directions = "both",
        drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(
            img_size=img_size,
            patch_size=patch_size,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            embed_dim=embed_dim,
            depth=depth,
            state_size=state_size,
            class_token=class_token,
            merge=merge,
            directions=directions,
            drop_rate=drop_rate,
            pos_drop_rate=pos_drop_rate,
            drop_path_rate=drop_path_rate,
        )
        self.patch_embed = TubeletPatchEmbed(
            img_size,
            patch_size,
            num_frames=num_frames,
            tubelet_size=tubelet_size,
            in_chans=in_chans,
            embed_dim=embed_dim,
        )
        draw_projection(self.patch_embed.proj)
        positions = torch.zeros(1, self.patch_embed.num_steps, embed_dim)
        self.temporal_pos_embedding: nn.Parameter | None = nn.Parameter(positions)

    @property
    def class_position(self) -> int:
        """Index of the class token's entry in `pos_embed`: always the first."""
        return 0

    def set_input_size(
        self, img_size: int | tuple[int, int] | None = None, num_frames: int | None = None
    ) -> None:
        """Resample the positions for clips of another size or length; None for the same.

        In space bicubic and antialiased, as timm's; in time linear, as VideoMamba's.

        Raises:
            ValueError: If patches or steps do not fill such a clip.
        """
        if num_frames is not None:
            assert self.temporal_pos_embedding is not None
            self.patch_embed.set_input_size(num_frames=num_frames)
            before, steps = self.temporal_pos_embedding, self.patch_embed.num_steps
            if before.shape[1] != steps:
                self.temporal_pos_embedding = nn.Parameter(
                    resampled_in_time(before.detach(), steps), requires_grad=before.requires_grad
                )
        if img_size is not None:
            super().set_input_size(img_size)

    def no_weight_decay(self) -> set[str]:
        """Names of what is not decayed: as of `Vim`, and the temporal positions."""
        return {*super().no_weight_decay(), "temporal_pos_embedding"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which parameters belong to which block, for learning rates by depth."""
        groups = super().group_matcher(coarse)
        return {**groups, "stem": f"{groups['stem']}|temporal_pos_embedding"}

    def _entrance(self, images: Tensor) -> Entrance:
        tokens = self.patch_embed(images)
        assert self.pos_embed is not None
        assert self.temporal_pos_embedding is not None
        tokens = tokens + self.pos_embed[:, None, 1:] + self.temporal_pos_embedding[:, :, None]
        tokens = tokens.flatten(1, 2)
        place = place_of(self.class_token, tokens.shape[1])
        one = self.cls_token + self.pos_embed[:, :1]
        return Entrance(self.pos_drop(with_class_token(tokens, one, place)), None)

    def _laid_out(
        self, found: list[Tensor], images: Tensor, regions: Regions | None, output_fmt: str
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Maps `(B, D, steps, h, w)` or tokens of some blocks, and their class tokens."""
        maps = [tokens[:, 1:] for tokens in found]
        if output_fmt == "NCHW":
            cells = (self.patch_embed.num_steps, *self.patch_embed.grid_size)
            maps = [tokens.transpose(1, 2).unflatten(2, cells) for tokens in maps]
        return maps, [tokens[:, :1] for tokens in found]


def resampled_in_time(
    positions: Float[Tensor, "1 T D"], num_steps: int
) -> Float[Tensor, "1 steps D"]:
    """Positions in time for another number of steps: linear, between the steps' middles.

    Source: VideoMamba fine-tunes longer clips so.

    Example:
        >>> resampled_in_time(torch.tensor([[[0.0], [1.0]]]), 4).flatten()
        tensor([0.0000, 0.2500, 0.7500, 1.0000])
    """
    wide = positions.transpose(1, 2).to(torch.promote_types(positions.dtype, torch.float32))
    resampled = F.interpolate(wide, size=num_steps, mode="linear", align_corners=False)
    return resampled.transpose(1, 2).to(positions.dtype).contiguous()
