"""Lay a patch per region back on the picture: what `sample_regions` takes apart, put together."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from dartok.core.precision import without_autocast
from dartok.core.regions import Regions, frames_of, rows_of, tokens_of

__all__ = ["unsample_regions"]


def unsample_regions(
    patches: Float[Tensor, "B N C patch_height patch_width"],
    regions: Regions,
    size: tuple[int, int],
) -> Tensor:
    """The picture whose regions look like these patches: the inverse of `sample_regions`.

    A pixel centre at strip coordinate s and height y lies in region n with the edges a and b, in a
    row from `top` to `bottom`, at `u = (s - a) / (b - a)` across and `v = (y - top) / (bottom -
    top)` down. It takes the bilinear value of patch n there, whose sample k of P lies at
    `(k + 0.5) / P`; beyond its outermost samples the patch is constant, so nothing leaks into a
    neighbour. A region that crosses a seam is laid on both its rows, as it was sampled.

    With one sample per patch each pixel takes the value of its region. On the fixed grid, with as
    many samples as pixels, it is the plain reshape of patches to a picture. Where `size` is coarser
    than the samples, it picks some of them; `Regions.to_map` averages.

    Args:
        patches: Any floating dtype; half precision is read in float32.
        regions: Of the same batch.
        size: Height and width of the picture in pixels; any.
    Returns:
        `(B, C, H, W)` for images, `(B, C, T, H, W)` for clips, in the dtype of the patches;
        differentiable in the patches and in the edges.
    Raises:
        ValueError: If there is not one patch per region, or a side is below 1.
    Example:
        >>> regions = Regions(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[0.0, 0.25, 1.0]]))
        >>> unsample_regions(torch.tensor([[[[[1.0]]], [[[3.0]]]]]), regions, (1, 4))
        tensor([[[[1., 3., 3., 3.]]]])
    """
    expected = (regions.strip_edges.shape[0], tokens_of(regions))
    if patches.ndim != 5 or patches.shape[:2] != expected:
        raise ValueError(
            f"patches must be (B, N, C, height, width) with (B, N) = {expected}, "
            f"got {tuple(patches.shape)}"
        )
    if min(size) < 1:
        raise ValueError(f"size must be (height, width) of at least 1 pixel each, got {size}")
    dtype = torch.promote_types(patches.dtype, torch.float32)
    sheet, places = _sheet(patches.to(dtype)), _places(regions, size, patches.shape[-2:])
    with without_autocast(patches):
        frames = F.grid_sample(sheet, places.flatten(1, 2).to(dtype), align_corners=False)
    picture = frames.unflatten(2, (frames_of(regions), size[0])).to(patches.dtype)
    return picture.squeeze(2) if frames_of(regions) == 1 else picture


def _sheet(patches: Float[Tensor, "B N C h w"]) -> Float[Tensor, "B C rows_h columns_w"]:
    """All patches side by side in a nearly square sheet: long ones would need more than float32."""
    side = _side(patches.shape[1])
    filled = F.pad(patches, (0, 0, 0, 0, 0, 0, 0, side * side - patches.shape[1]))
    return filled.unflatten(1, (side, side)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def _side(num_patches: int) -> int:
    return math.ceil(num_patches**0.5)


def _places(
    regions: Regions, size: tuple[int, int], patch_size: tuple[int, ...]
) -> Float[Tensor, "B T H W 2"]:
    """Where in the sheet each pixel is read, from -1 to 1."""
    y = regions._pixel_centres(size[0]).expand(*regions.row_edges.shape[:2], -1).contiguous()
    row = torch.searchsorted(regions.row_edges.detach().contiguous(), y, right=True) - 1
    row = row.clamp(0, rows_of(regions) - 1)
    top, bottom = (regions.row_edges.gather(2, row + step) for step in (0, 1))
    v = ((y - top) / (bottom - top)).unsqueeze(-1)
    frame = torch.arange(frames_of(regions), device=row.device)[:, None]
    strip = (frame * rows_of(regions) + row).unsqueeze(-1) + regions._pixel_centres(size[1])
    region = regions._regions_at(strip.flatten(1))
    left, right = (regions.strip_edges.gather(1, region + step) for step in (0, 1))
    u = ((strip.flatten(1) - left) / (right - left)).view(strip.shape)
    region, side = region.view(strip.shape), _side(tokens_of(regions))
    x = _on_sheet(region % side, u, patch_size[1], side)
    return torch.stack([x, _on_sheet(region // side, v.expand_as(u), patch_size[0], side)], dim=-1)


def _on_sheet(place: Int[Tensor, "*s"], share: Tensor, samples: int, side: int) -> Tensor:
    inside = (share * samples).clamp(0.5, samples - 0.5)
    return 2 * (place * samples + inside) / (side * samples) - 1
