"""Decoders of region tokens: what each token says about the pixels of its region."""

from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from timm.layers import trunc_normal_
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LinearDecoder", "MaskTransformer", "TokenDecoder"]


class TokenDecoder(Protocol):
    """Tokens of some layers to class logits of a small patch for each region."""

    num_layers: int
    """How many layers it reads, counted from the last."""

    def __call__(
        self,
        tokens: Sequence[Float[Tensor, "B N D"]],
        is_region: Bool[Tensor, "B N"] | None = None,
    ) -> Float[Tensor, "B N K detail detail"]:
        """Logits, for `unsample_regions`; what is not a region (None: all are) is not looked at."""


class LinearDecoder(nn.Module):
    """`logits[n] = W [norm(t_1[n]); ...; norm(t_L[n])] + b`: a linear layer on each token.

    Args:
        width: D, width of the tokens.
        num_classes: K.
        detail: Samples per region and axis that a token tells the classes of.
        num_layers: L, layers of the encoder that are read.
    Example:
        >>> decoder = LinearDecoder(8, num_classes=5, detail=4)
        >>> decoder([torch.randn(2, 10, 8)]).shape
        torch.Size([2, 10, 5, 4, 4])
    """

    def __init__(
        self, width: int, *, num_classes: int, detail: int = 4, num_layers: int = 1
    ) -> None:
        super().__init__()
        self.num_layers = num_layers
        self.shape = (num_classes, detail, detail)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(num_layers))
        self.head = nn.Linear(width * num_layers, num_classes * detail * detail)
        trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Sequence[Tensor], is_region: Tensor | None = None) -> Tensor:
        del is_region  # each token is looked at alone
        normed = [norm(layer) for norm, layer in zip(self.norms, tokens, strict=True)]
        return self.head(torch.cat(normed, dim=-1)).unflatten(-1, self.shape)


class MaskTransformer(nn.Module):
    """Class tokens that look at the region tokens, and the likeness of the two as logits.

    K learnt class tokens join the N region tokens in a few transformer blocks. Then
    `logits[n, c, i, j] = norm_K(<f_ij(token n), g(class c)>)` of vectors of length 1, where `f_ij`
    is a linear map of its own for each of the detail x detail samples of a region.

    Source: Segmenter, arXiv:2105.05633, section 3.2; samples within a region are ours.

    Args:
        width: D, width of the tokens.
        num_classes: K.
        detail: Samples per region and axis that a token tells the classes of.
        depth: Transformer blocks.
        head_width: Width of an attention head; must divide D.
    Raises:
        ValueError: If `head_width` does not divide D.
    Example:
        >>> decoder = MaskTransformer(64, num_classes=5, detail=2)
        >>> decoder([torch.randn(2, 10, 64)]).shape
        torch.Size([2, 10, 5, 2, 2])
    """

    num_layers = 1

    def __init__(
        self,
        width: int,
        *,
        num_classes: int,
        detail: int = 4,
        depth: int = 2,
        head_width: int = 64,
    ) -> None:
        super().__init__()
        if width % head_width:
            raise ValueError(f"head_width must divide the width {width}, got {head_width}")
        self.detail = detail
        self.norm_tokens = nn.LayerNorm(width)
        self.project = nn.Linear(width, width)
        self.class_tokens = nn.Parameter(torch.empty(1, num_classes, width))
        self.blocks = nn.ModuleList(
            Block(width, num_heads=width // head_width, qkv_bias=True) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.of_samples = nn.Linear(width, width * detail * detail, bias=False)
        self.of_classes = nn.Linear(width, width, bias=False)
        self.norm_masks = nn.LayerNorm(num_classes)
        for weight in (self.project.weight, self.of_samples.weight, self.of_classes.weight):
            trunc_normal_(weight, std=0.02)
        trunc_normal_(self.class_tokens, std=0.02)

    def forward(self, tokens: Sequence[Tensor], is_region: Tensor | None = None) -> Tensor:
        (last,) = tokens
        num_tokens = last.shape[1]
        classes = self.class_tokens.expand(last.shape[0], -1, -1)
        both = torch.cat([self.project(self.norm_tokens(last)), classes], dim=1)
        mask = None
        if is_region is not None:
            mask = F.pad(is_region, (0, classes.shape[1]), value=True)[:, None, None]
        for block in self.blocks:
            both = block(both, attn_mask=mask)
        regions, classes = self.norm(both).split([num_tokens, classes.shape[1]], dim=1)
        samples = self.of_samples(regions).unflatten(-1, (self.detail**2, -1))
        samples = F.normalize(samples, dim=-1).flatten(1, 2)
        likeness = samples @ F.normalize(self.of_classes(classes), dim=-1).mT
        masks = self.norm_masks(likeness).unflatten(1, (num_tokens, self.detail, self.detail))
        return masks.permute(0, 1, 4, 2, 3)
