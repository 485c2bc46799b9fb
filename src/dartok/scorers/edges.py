"""Scorers without pretrained weights: uniform, edge energy, and a small conv net on top."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dartok.scorers.resize import fixed_copy

__all__ = ["ConvScorer", "EdgeScorer", "Uniform", "log_edge_energy"]

_ENERGY_FLOOR = 0.01
"""Of an image's mean energy: below it a cell counts as flat, so that noise is not told apart."""

_CELL_PX = 8
"""Side of a score cell of `ConvScorer`, in pixels of the copy that it sees."""

_LARGEST_LOGIT = 4.0
"""Scores stay within e^-4 to e^4: no cell can take all regions, none is left without."""


class Uniform(nn.Module):
    """The same score everywhere: the fixed grid.

    Example:
        >>> Uniform()(torch.rand(2, 3, 40, 60))
        tensor([[[1.]],
        <BLANKLINE>
                [[1.]]])
    """

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 1"]:
        return images.new_ones((images.shape[0], 1, 1), dtype=torch.float32)


class EdgeScorer(nn.Module):
    """Local gradient energy, without parameters: `score = exp(bounded log_edge_energy)`.

    Of a clip all frames are compared with each other: flat ones score low.

    Args:
        side_px: Side of the copy that is scored, in pixels; None for the image itself.
        cell_px: Side of a score cell in pixels of that copy.
    Example:
        >>> EdgeScorer()(torch.rand(2, 3, 300, 400)).shape
        torch.Size([2, 28, 28])
    """

    takes_clips = True

    def __init__(self, *, side_px: int | None = 224, cell_px: int = 8) -> None:
        super().__init__()
        self.side_px = side_px
        self.cell_px = cell_px

    def forward(self, images: Float[Tensor, "B *T C H W"]) -> Float[Tensor, "B *T h w"]:
        return _score(log_edge_energy(_copies(images, self.side_px), self.cell_px))


class ConvScorer(nn.Module):
    """Edge energy with a learnt gain, plus a small convolutional residual that starts near zero.

    `logit = gain * log_edge_energy + residual`, `score = exp(bounded logit)`. A scorer that starts
    blind leaves the transformer nothing to learn from when tokens are few; the edge prior finds the
    objects from the first step, and the residual learns what edges cannot tell. The frames of a
    clip are compared with each other.

    Args:
        num_channels: Channels of the images.
        side_px: Side of the copy that is scored, in pixels; None for the image itself.
        width: Channels of the residual's layers.
    Example:
        >>> ConvScorer()(torch.rand(2, 3, 300, 400)).shape
        torch.Size([2, 28, 28])
    """

    takes_clips = True

    def __init__(
        self, *, num_channels: int = 3, side_px: int | None = 224, width: int = 16
    ) -> None:
        super().__init__()
        self.side_px = side_px
        self.gain = nn.Parameter(torch.ones(1))  # not a scalar: FSDP shards none
        self.residual = nn.Sequential(
            nn.Conv2d(num_channels, width, kernel_size=_CELL_PX, stride=_CELL_PX),
            nn.GELU(),
            nn.Conv2d(width, width, kernel_size=3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, 1, kernel_size=3, padding=1),
        )
        self._start_near_zero()

    def _start_near_zero(self) -> None:
        last = self.residual[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        nn.init.normal_(last.weight, std=1e-3)
        nn.init.zeros_(last.bias)

    def forward(self, images: Float[Tensor, "B *T C H W"]) -> Float[Tensor, "B *T h w"]:
        copies = _copies(images, self.side_px)
        residual = self.residual(copies.to(self.gain.dtype).flatten(0, -4))
        residual = residual.squeeze(1).unflatten(0, images.shape[:-3])
        energy = log_edge_energy(copies, _CELL_PX)
        return _score(self.gain * energy + residual.to(energy.dtype))


def _copies(images: Float[Tensor, "B *T C H W"], side_px: int | None) -> Tensor:
    return fixed_copy(images.flatten(0, -4), side_px).unflatten(0, images.shape[:-3])


def log_edge_energy(
    images: Float[Tensor, "B *T C H W"], cell_px: int
) -> Float[Tensor, "B *T H/cell W/cell"]:
    """Standardised logarithm of the gradient energy of each cell.

    `e = mean over the cell of dx^2 + dy^2`, with forward differences of the channels' mean;
    `l = log(e / mean(e) + 0.01)`; the result is `(l - mean(l)) / std(l)` over each image alone, so
    it depends neither on the contrast nor on the batch. A flat image gives zeros. A clip is one
    image of all its frames.

    Args:
        images: Any range; at least `cell_px` pixels a side.
        cell_px: Side of a cell in pixels.
    Returns:
        Float32 or wider.
    Raises:
        ValueError: If a side is below `cell_px`.
    Example:
        >>> log_edge_energy(torch.ones(1, 3, 16, 16), 8)
        tensor([[[0., 0.],
                 [0., 0.]]])
    """
    if min(images.shape[-2:]) < cell_px:
        raise ValueError(
            f"images must be at least cell_px = {cell_px} px a side to be scored, got "
            f"{images.shape[-2]} x {images.shape[-1]} px; enlarge them or set side_px"
        )
    frames = images.flatten(0, -4)
    grey = frames.to(torch.promote_types(frames.dtype, torch.float32)).mean(1, keepdim=True)
    padded = F.pad(grey, (0, 1, 0, 1), mode="replicate")
    corner = padded[..., :-1, :-1]
    across, down = padded[..., :-1, 1:] - corner, padded[..., 1:, :-1] - corner
    energy = F.avg_pool2d(across.square() + down.square(), cell_px).squeeze(1)
    energy = energy.unflatten(0, images.shape[:-3])
    cells = tuple(range(1, energy.ndim))  # of the image, or of all frames of the clip
    tiny = torch.finfo(energy.dtype).tiny
    relative = energy / energy.mean(cells, keepdim=True).clamp_min(tiny)
    logarithm = (relative + _ENERGY_FLOOR).log()
    centred = logarithm - logarithm.mean(cells, keepdim=True)
    variance = centred.square().mean(cells, keepdim=True)
    return centred / variance.clamp_min(1e-6).sqrt()


def _score(logit: Tensor) -> Tensor:
    return (_LARGEST_LOGIT * (logit / _LARGEST_LOGIT).tanh()).exp()
