"""Vision Mamba on a fixed grid, with the contract of timm's models: Vim and VideoMamba."""

from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from timm.layers.drop import DropPath
from timm.layers.patch_embed import PatchEmbed
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.layers.weight_init import lecun_normal_, trunc_normal_
from timm.models._features import feature_take_indices
from timm.models._manipulate import checkpoint
from torch import Tensor, nn

from dartok.core.names import one_of, whole_number
from dartok.core.regions import Regions
from dartok.models.intermediates import as_dict, as_tuple, check_output_fmt
from dartok.models.mamba.block import MambaBlock, WideRMSNorm
from dartok.models.mamba.mixer import Directions, Merge
from dartok.models.mamba.overlapping import OverlappingPatchEmbed
from dartok.models.mamba.sequence import ClassPlace, class_first, place_of, with_class_token

__all__ = ["Entrance", "Pooling", "Vim", "draw_projection"]

Pooling = Literal["token", "avg", ""]
"""What the head reads: the class token, the mean of the others, or nothing is pooled."""


class Entrance(NamedTuple):
    """What the first block receives."""

    sequence: Float[Tensor, "B L D"]
    """The class token among the others, positions added."""
    regions: Regions | None
    """What the others stand for; None for a fixed grid."""


class Vim(nn.Module):
    """Bidirectional Mamba blocks over the patches of an image and a class token.

    Parameters have the names and shapes of the official checkpoints, which load as they are;
    `features` and `forward_features` put the class token first, wherever the sequence has it.

    Source: Vision Mamba, arXiv:2401.09417; VideoMamba, arXiv:2403.06977 (class token first, the two
    directions added without halving).

    With `directions="forward"` the blocks are Mamba's, and a token sees only those before it. Then
    what the head reads must come last: `class_token="last"`, or be the mean: `global_pool="avg"`.

    Args:
        img_size: Height and width of the images in pixels.
        patch_size: Side of a patch in pixels.
        patch_stride: Pixels from one patch to the next; None for patches side by side.
        in_chans: Channels of the images.
        num_classes: Outputs of the head; 0 for none.
        global_pool: "token", "avg" or "".
        embed_dim: D, width of the tokens.
        depth: Blocks.
        state_size: Numbers of state per channel.
        class_token: Where the class token stands in the sequence: "middle", "first" or "last".
        merge: How the two directions are put together: "mean" or "sum"; unused if there is one.
        directions: "both", or "forward" alone, for tokens that come in parts (`resume`).
        drop_rate: Dropout before the head.
        pos_drop_rate: Dropout after the positions.
        drop_path_rate: Stochastic depth after the last block.
    Raises:
        ValueError: If an option is unknown or out of range.
    Example:
        >>> model = Vim(img_size=32, embed_dim=16, depth=2, num_classes=5)
        >>> model(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 5])
    """

    num_prefix_tokens = 1
    pretrained_cfg: dict[str, Any]
    default_cfg: dict[str, Any]

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        patch_stride: int | None = None,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: Pooling = "token",
        embed_dim: int = 192,
        depth: int = 24,
        state_size: int = 16,
        class_token: ClassPlace = "middle",
        merge: Merge = "mean",
        directions: Directions = "both",
        drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        whole_number("depth", depth)
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f"drop_path_rate must be from 0 to below 1, got {drop_path_rate}")
        self.num_classes = num_classes
        self.global_pool: Pooling = one_of("global_pool", global_pool, Pooling)
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dim
        self.class_token: ClassPlace = one_of("class_token", class_token, ClassPlace)
        self.directions: Directions = one_of("directions", directions, Directions)
        self._check_sight()
        self.grad_checkpointing = False
        embed: Any = _patch_embed(img_size, patch_size, patch_stride, in_chans, embed_dim)
        self.patch_embed = embed
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        positions = torch.zeros(1, 1 + embed.num_patches, embed_dim)
        self.pos_embed: nn.Parameter | None = nn.Parameter(positions)
        self.pos_drop = nn.Dropout(pos_drop_rate)
        kind: Any = {"state_size": state_size, "merge": merge, "directions": directions}
        self.layers = nn.ModuleList(
            MambaBlock(embed_dim, num_layers=depth, drop_path=rate, **kind)
            for rate in _drop_path_rates(drop_path_rate, depth)
        )
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()
        self.norm_f: nn.Module = WideRMSNorm(embed_dim)
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(embed_dim, num_classes) if num_classes else nn.Identity()
        self._note_features(patch_stride or patch_size)
        self._draw_weights()

    def _note_features(self, reduction: int) -> None:
        """What timm's feature extractors announce."""
        self.feature_info = [
            {"module": f"layers.{index}", "num_chs": self.embed_dim, "reduction": reduction}
            for index in range(len(self.layers))
        ]

    def _draw_weights(self) -> None:
        """As Vim draws those outside its mixers."""
        for values in (self.cls_token, self.pos_embed):
            trunc_normal_(values, std=0.02)
        draw_projection(self.patch_embed.proj)
        _draw_head(self.head)

    def _check_sight(self) -> None:
        """Refuse to read a class token that has seen only a part of the picture."""
        if (
            self.directions == "forward"
            and self.global_pool == "token"
            and self.class_token != "last"
        ):
            raise ValueError(
                "directions='forward' needs class_token='last' or global_pool='avg': a token sees "
                f"those before it, got class_token={self.class_token!r}"
            )

    @property
    def class_position(self) -> int:
        """Index of the class token's entry in `pos_embed`: that of its place in the sequence."""
        num_patches: int = self.patch_embed.num_patches
        place = place_of(self.class_token, num_patches)
        assert isinstance(place, int)
        return place

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks, under timm's name."""
        return self.layers

    def forward(self, x: Float[Tensor, "B *T C H W"]) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Float[Tensor, "B *T C H W"]) -> Float[Tensor, "B 1+N D"]:
        """All tokens behind the last norm, the class token first."""
        return self._run(self._entrance(x).sequence)[0]

    def forward_head(self, x: Float[Tensor, "B 1+N D"], pre_logits: bool = False) -> Tensor:
        """Pool the tokens of `forward_features` and classify them."""
        return self._classify(self._pool(x), pre_logits)

    def forward_intermediates(
        self,
        x: Float[Tensor, "B *T C H W"],
        indices: int | list[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        output_dict: bool = False,
    ) -> Any:
        """timm's method: maps `(B, D, h, w)` or tokens of some blocks, class tokens beside.

        Raises:
            ValueError: If `output_fmt` is neither "NCHW" nor "NLC".
        """
        check_output_fmt(output_fmt)
        taken, last = feature_take_indices(len(self.layers), indices)
        entrance = self._entrance(x)
        final, found = self._run(
            entrance.sequence,
            None if entrance.regions is None else entrance.regions.counts,
            taken=taken,
            norm=norm,
            stop=last if stop_early else None,
        )
        maps, prefixes = self._laid_out(found, x, entrance.regions, output_fmt)
        prefixes = prefixes if return_prefix_tokens else []
        shown = None if intermediates_only else final
        return as_dict(shown, maps, prefixes) if output_dict else as_tuple(shown, maps, prefixes)

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """timm's method: cut off the blocks behind the last one asked for."""
        taken, last = feature_take_indices(len(self.layers), indices)
        self.layers = self.layers[: last + 1]
        if prune_norm:
            self.norm_f = nn.Identity()
        if prune_head:
            self.reset_classifier(0, "")
        return taken

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: Pooling | None = None) -> None:
        """A new last layer; 0 for none."""
        if global_pool is not None:
            self.global_pool = one_of("global_pool", global_pool, Pooling)
            self._check_sight()
        self.num_classes = num_classes
        head = nn.Linear(self.embed_dim, num_classes) if num_classes else nn.Identity()
        _draw_head(head)
        self.head = head.to(self.cls_token)

    def set_input_size(self, img_size: int | tuple[int, int]) -> None:
        """Resample the positions for images of another size: bicubic, antialiased, as timm's.

        Raises:
            ValueError: If the patches overlap.
        """
        if isinstance(self.patch_embed, OverlappingPatchEmbed):
            raise ValueError("set_input_size needs patches side by side; give img_size instead")
        assert self.pos_embed is not None
        grid_size, place = self.patch_embed.grid_size, self.class_position
        self.patch_embed.set_input_size(img_size=img_size)
        if self.patch_embed.grid_size == grid_size:
            return
        before = self.pos_embed.detach()
        positions = resample_abs_pos_embed(
            class_first(before, place),
            self.patch_embed.grid_size,
            old_size=grid_size,
            num_prefix_tokens=1,
        )
        self.pos_embed = nn.Parameter(
            with_class_token(positions[:, 1:], positions[:, :1], self.class_position),
            requires_grad=self.pos_embed.requires_grad,
        )

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute blocks again in the backward pass, instead of keeping what they need for it."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of what is not decayed: positions, the class token, and each state's rates."""
        blocks: Sequence[Any] = list(self.layers)
        rates = {
            f"layers.{index}.mixer.{name}"
            for index, block in enumerate(blocks)
            for name in block.mixer.rates_and_skips
        }
        return {"cls_token", "pos_embed", *rates}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which parameters belong to which block, for learning rates by depth."""
        blocks = (
            r"^layers\.(\d+)" if coarse else [(r"^layers\.(\d+)", None), (r"^norm_f", (99999,))]
        )
        return {"stem": r"^cls_token|pos_embed|patch_embed", "blocks": blocks}

    def _entrance(self, images: Tensor) -> Entrance:
        tokens = self.patch_embed(images)
        place = place_of(self.class_token, tokens.shape[1])
        assert self.pos_embed is not None
        sequence = with_class_token(tokens, self.cls_token, place) + self.pos_embed
        return Entrance(self.pos_drop(sequence), None)

    def _laid_out(
        self, found: list[Tensor], images: Tensor, regions: Regions | None, output_fmt: str
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Maps or tokens of some blocks, and their class tokens."""
        maps = [tokens[:, 1:] for tokens in found]
        if output_fmt == "NCHW":
            grid = self.patch_embed.grid_size
            maps = [tokens.transpose(1, 2).unflatten(2, grid) for tokens in maps]
        return maps, [tokens[:, :1] for tokens in found]

    def _run(
        self,
        sequence: Float[Tensor, "B L D"],
        counts: Int[Tensor, "B"] | None = None,
        *,
        taken: Collection[int] = (),
        norm: bool = False,
        stop: int | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """All tokens behind the last norm and behind some blocks, class tokens first.

        Args:
            sequence: The class token among the others; behind a sequence's end is padding.
            counts: Tokens of each sequence but the class token; None for as many as there are.
            taken: Blocks whose result is wanted.
            norm: Whether those are normalised.
            stop: The last block to run; None for all.
        """
        lengths = None if counts is None else counts + 1
        place = place_of(self.class_token, sequence.shape[1] - 1 if counts is None else counts)
        hidden, residual, found = sequence, None, []
        dtype = self.cls_token.dtype
        for index, block in enumerate(self.layers[: None if stop is None else stop + 1]):
            run: Any = checkpoint if self.grad_checkpointing else _call
            hidden, residual = run(block, hidden, residual, lengths)
            if index in taken:
                tokens = residual + hidden
                found.append((self.norm_f(tokens) if norm else tokens).to(dtype))
        final = self.norm_f(residual + self.drop_path(hidden)).to(dtype)
        return class_first(final, place), [class_first(tokens, place) for tokens in found]

    def _pool(self, tokens: Float[Tensor, "B 1+N D"]) -> Tensor:
        if self.global_pool == "token":
            return tokens[:, 0]
        return tokens[:, 1:].mean(1) if self.global_pool == "avg" else tokens

    def _classify(self, pooled: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = self.head_drop(pooled)
        return pooled if pre_logits else self.head(pooled)


def draw_projection(proj: nn.Conv2d | nn.Conv3d) -> None:
    """Draw the weights of a patch projection as Vim does.

    Example:
        >>> draw_projection(proj := nn.Conv2d(1, 2, 4, 4))
        >>> int(proj.bias.count_nonzero())
        0
    """
    lecun_normal_(proj.weight)  # type: ignore[no-untyped-call]
    if proj.bias is not None:
        nn.init.zeros_(proj.bias)


def _call(block: nn.Module, *inputs: Any) -> Any:
    return block(*inputs)


def _patch_embed(
    img_size: int | tuple[int, int], side: int, stride: int | None, channels: int, width: int
) -> nn.Module:
    if stride is None or stride == side:
        return PatchEmbed(img_size, side, channels, width)
    return OverlappingPatchEmbed(img_size, side, stride, channels, width)


def _drop_path_rates(rate: float, depth: int) -> Sequence[float]:
    """Of what each block is given: none before the first; the last rate is behind all blocks."""
    rates = torch.linspace(0, rate, depth, device="cpu").tolist()
    return [0.0, *rates[:-1]]


def _draw_head(head: nn.Module) -> None:
    if isinstance(head, nn.Linear):
        trunc_normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
