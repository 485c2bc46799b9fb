"""Resample each region of an image or clip to one patch, in one pass over the picture."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dartok.core.names import one_of
from dartok.core.precision import without_autocast
from dartok.core.regions import Regions

__all__ = ["SamplingName", "sample_regions"]

SamplingName = Literal["centred", "corner"]


class _Points(NamedTuple):
    """Where the patches are sampled, in pixel indices (0 is the centre of the first pixel)."""

    x_px: Float[Tensor, "B N columns"]
    y_px: Float[Tensor, "B N rows columns"]
    row: Tensor  # (B, N, columns): the strip row of each column of samples


def sample_regions(
    images: Tensor,
    regions: Regions,
    patch_size: tuple[int, int],
    *,
    sampling: SamplingName = "centred",
    oversample: int = 1,
) -> Float[Tensor, "B N C patch_height patch_width"]:
    """Bilinear samples of each region on a regular lattice of `patch_size` points.

    Column j of region n lies at strip coordinate `s = a + (b - a) * u_j`, between its edges a and
    b; sample k of that column lies at `top + (bottom - top) * u_k` of the row that holds s. So a
    region that crosses a seam takes each column from its own row. The border pixel is repeated
    outside the image.

    - "centred": `u_k = (k + 0.5) / P`, in edge coordinates. A region of exactly P pixels is copied,
      one of 2 P pixels is averaged 2 x 2.
    - "corner": the authors' rule. `u_k = k / P`, edge coordinates are read as pixel indices, and a
      sample beyond the last column of a row blends with the first column of the next row (with zero
      after the last row).

    Source: DART, arXiv:2506.10390; "corner" after the reference code (dart.py, tools.py).

    Args:
        images: `(B, C, H, W)`, or `(B, T, C, H, W)` for clips; any size. Half precision is sampled
            in float32.
        regions: A partition of those images, made for any resolution.
        patch_size: Samples per patch, (height, width).
        sampling: One of the two rules above.
        oversample: m >= 1 averages m x m samples per output pixel, against aliasing in regions
            larger than the patch.
    Returns:
        Patches in float32 or wider; NaN where an image's edges are, as NaN scores make them. A
        view: the memory is laid out (B, C, N, height, width).
    Raises:
        ValueError: If `sampling` is unknown, `oversample < 1`, a side of `patch_size` is below 1,
            or the batch or frames do not match.
    Example:
        >>> regions = Regions(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[0.0, 1.0]]))
        >>> sample_regions(torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]]), regions, (1, 1))
        tensor([[[[[1.5000]]]]])
    """
    one_of("sampling", sampling, SamplingName)
    if oversample < 1:
        raise ValueError(f"oversample must be >= 1, got {oversample}")
    if min(patch_size) < 1:
        raise ValueError(f"patch_size must be (height, width) of at least 1, got {patch_size}")
    if images.shape[0] != regions.row_edges.shape[0]:
        raise ValueError(
            f"images and regions must be of one batch, got {images.shape[0]} images and regions of "
            f"{regions.row_edges.shape[0]}"
        )
    picture = _stack_frames(images, regions.num_frames)
    count = (patch_size[0] * oversample, patch_size[1] * oversample)
    size_px = (images.shape[-2], images.shape[-1])
    sound = Regions(_finite(regions.row_edges), _finite(regions.strip_edges))
    with without_autocast(images):
        points = _points(sound, size_px, count, sampling, picture.dtype)
        column = _bilinear(picture, points.x_px.unsqueeze(2), points.y_px)
        if sampling == "corner":
            column = _blend_seams(column, picture, sound, points, size_px)
        if oversample > 1:
            column = F.avg_pool2d(column, oversample)
        column = column + _nan_where_not_finite(regions).to(column.dtype)
    patches = column.unflatten(2, (regions.num_tokens, patch_size[0]))
    return patches.transpose(1, 2)


def _stack_frames(images: Tensor, num_frames: int) -> Tensor:
    """Frames one below the other, `(B, C, T * H, W)`, in float32 or wider."""
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    if images.ndim == 4 and num_frames == 1:
        return images
    if images.ndim != 5 or images.shape[1] != num_frames:
        raise ValueError(
            f"images must be (B, C, H, W) or (B, T, C, H, W) with T = {num_frames} as the regions, "
            f"got {tuple(images.shape)}"
        )
    return images.transpose(1, 2).flatten(2, 3)


def _points(
    regions: Regions,
    size_px: tuple[int, int],
    count: tuple[int, int],
    sampling: SamplingName,
    dtype: torch.dtype,
) -> _Points:
    start = 0.5 if sampling == "centred" else 0.0  # of a step; and of a pixel, from edge to index
    edges = regions.strip_edges
    left, right = edges[:, :-1, None], edges[:, 1:, None]
    strip = left + (right - left) * _offsets(count[1], start, edges)
    row = strip.detach().floor().long().clamp(0, regions.num_frames * regions.num_rows - 1)
    x_px = ((strip - row) * size_px[1] - start).to(dtype)
    top, bottom = (bound * size_px[0] - start for bound in regions._row_bounds(row))
    top, height = top.to(dtype).unsqueeze(2), (bottom - top).to(dtype).unsqueeze(2)
    y_px = top + height * _offsets(count[0], start, top)[:, None]
    y_px = y_px.clamp(0, size_px[0] - 1)  # frames are stacked: do not read the neighbour
    if regions.num_frames > 1:
        y_px = y_px + (row // regions.num_rows * size_px[0]).to(dtype).unsqueeze(2)
    return _Points(x_px, y_px, row)


def _finite(edges: Tensor) -> Tensor:
    """Edges that are safe to sample at: the backward of `grid_sample` crashes at NaN on the CPU."""
    return edges.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def _nan_where_not_finite(regions: Regions) -> Float[Tensor, "B 1 1 1"]:
    """0, or NaN for an image whose edges are not finite: a broken scorer must not go unseen."""
    total = regions.row_edges.sum((1, 2)) + regions.strip_edges.sum(1)
    return (total * 0)[:, None, None, None]


def _offsets(count: int, start: float, like: Tensor) -> Tensor:
    return (torch.arange(count, dtype=like.dtype, device=like.device) + start) / count


def _bilinear(
    picture: Float[Tensor, "B C H W"], x_px: Tensor, y_px: Float[Tensor, "B N rows columns"]
) -> Float[Tensor, "B C N*rows columns"]:
    """Bilinear values at pixel indices, the border pixel repeated outside."""
    height, width = picture.shape[-2:]
    x = (2 * x_px + 1) / width - 1
    y = (2 * y_px + 1) / height - 1
    lattice = torch.stack([x.expand_as(y), y], dim=-1).flatten(1, 2)
    return F.grid_sample(
        picture, lattice, mode="bilinear", padding_mode="border", align_corners=False
    )


def _blend_seams(
    column: Tensor, picture: Tensor, regions: Regions, points: _Points, size_px: tuple[int, int]
) -> Tensor:
    """The authors' seam: beyond the last pixel of a row, fade to the next row's first pixel."""
    num_tokens, rows, columns = points.y_px.shape[1:]
    first = _first_column(picture, regions, rows, size_px)  # (B, C, strip rows, rows)
    following = F.pad(first[:, :, 1:], (0, 0, 0, 1))
    index = points.row.flatten(1)[:, None, :, None].expand(-1, picture.shape[1], -1, rows)
    following = following.gather(2, index).view(*index.shape[:2], num_tokens, columns, rows)
    share = (points.x_px - (size_px[1] - 1)).clamp_min(0)[:, None, :, None, :]
    patches = column.unflatten(2, (num_tokens, rows))
    return torch.lerp(patches, following.transpose(-1, -2), share).flatten(2, 3)


def _first_column(
    picture: Tensor, regions: Regions, rows: int, size_px: tuple[int, int]
) -> Float[Tensor, "B C strip_rows rows"]:
    bounds = regions.row_edges.to(picture.dtype) * size_px[0]
    top, height = bounds[..., :-1, None], bounds.diff(dim=-1).unsqueeze(-1)
    y_px = (top + height * _offsets(rows, 0.0, picture)).clamp(max=size_px[0] - 1)
    frame = torch.arange(regions.num_frames, dtype=y_px.dtype, device=y_px.device)
    y_px = (y_px + (frame * size_px[0])[:, None, None]).flatten(1, 2).unsqueeze(-1)
    column = _bilinear(picture, torch.zeros_like(y_px), y_px)
    return column.squeeze(-1).unflatten(2, (-1, rows))
