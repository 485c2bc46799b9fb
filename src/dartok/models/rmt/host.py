"""RMT for images of any size, with the contract of timm's hierarchical models."""

from collections.abc import Collection, Sequence
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from timm.layers.weight_init import trunc_normal_
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.nn import functional as F

from dartok.core.names import one_of
from dartok.models.intermediates import as_dict, as_tuple
from dartok.models.rmt.stage import Stage
from dartok.models.rmt.stem import Stem

__all__ = ["RMT", "Pooling"]

Pooling = Literal["avg", ""]
"""What the head does with its map: the mean over all locations, or nothing."""


class RMT(nn.Module):
    """Four stages of attention that decays with distance, at strides 4, 8, 16 and 32.

    `logits = head(mean over locations of swish(norm(proj(features))))`. Parameters and buffers have
    the names and shapes of the official checkpoints, which load as they are. Images of any size
    work: a side that 32 does not divide is rounded up from stage to stage.

    Source: RMT, arXiv:2309.11523; the host of the authors' `darmt_*`.

    Args:
        embed_dims: Channels of each stage; the first even.
        depths: Blocks of each stage.
        num_heads: Heads of each stage.
        mlp_ratios: Hidden width of the feed-forward layers over the channels, of each stage.
        decay_ranges: Of the decays over the heads of each stage: see `RelativePositions`.
        decay_start: Of the first head, in all stages.
        num_factorised: Leading stages whose attention runs along rows, then columns.
        num_scaled: Trailing stages with factors gamma in their blocks.
        layer_scale: Where those start.
        head_width: Channels that the last map is projected to.
        in_chans: Channels of the images.
        num_classes: Outputs of the head; 0 for none.
        global_pool: "avg" or "".
        drop_rate: Dropout before the head.
        drop_path_rate: Stochastic depth of the last block.
    Raises:
        ValueError: If an option is out of range, or stages differ in number.
    Example:
        >>> model = RMT(embed_dims=(8, 16), depths=(1, 1), num_heads=(2, 2), mlp_ratios=(3, 3),
        ...             decay_ranges=(4, 4), num_factorised=1, num_classes=5).eval()
        >>> model(torch.rand(1, 3, 50, 70)).shape
        torch.Size([1, 5])
    """

    pretrained_cfg: dict[str, Any]
    default_cfg: dict[str, Any]

    def __init__(
        self,
        *,
        embed_dims: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (3, 4, 18, 4),
        num_heads: Sequence[int] = (4, 4, 8, 16),
        mlp_ratios: Sequence[float] = (4, 4, 3, 3),
        decay_ranges: Sequence[float] = (4, 4, 6, 6),
        decay_start: float = 2.0,
        num_factorised: int = 3,
        num_scaled: int = 0,
        layer_scale: float = 1e-6,
        head_width: int = 1024,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: Pooling = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        _check_stages(embed_dims, depths, num_heads, mlp_ratios, decay_ranges)
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f"drop_path_rate must be from 0 to below 1, got {drop_path_rate}")
        self.num_classes = num_classes
        self.global_pool: Pooling = one_of("global_pool", global_pool, Pooling)
        self.num_features, self.head_hidden_size = embed_dims[-1], head_width
        rates, next_widths = _by_stage(drop_path_rate, depths), (*embed_dims[1:], None)
        self.patch_embed = Stem(in_chans, embed_dims[0])
        self.layers = nn.ModuleList(
            Stage(
                embed_dims[i],
                num_heads[i],
                mlp_ratio=mlp_ratios[i],
                decay_start=decay_start,
                decay_range=decay_ranges[i],
                factorised=i < num_factorised,
                layer_scale=layer_scale if i >= len(depths) - num_scaled else None,
                drop_path=rates[i],
                next_width=next_widths[i],
            )
            for i in range(len(depths))
        )
        self.proj: nn.Module = nn.Linear(embed_dims[-1], head_width)
        self.norm: nn.Module = nn.BatchNorm2d(head_width)
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(head_width, num_classes) if num_classes else nn.Identity()
        self.feature_info = _feature_info(embed_dims)
        self.apply(_draw)

    @property
    def stages(self) -> list[Stage]:
        """Those of `layers`, as what they are."""
        return cast(list[Stage], list(self.layers))

    def forward(self, x: Float[Tensor, "B channels H W"]) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Float[Tensor, "B channels H W"]) -> Float[Tensor, "B C h w"]:
        """The map of the last stage."""
        return self._run(x)[0]

    def forward_head(self, x: Float[Tensor, "B C h w"], pre_logits: bool = False) -> Tensor:
        """Project the map of `forward_features`, pool it and classify it."""
        projected = self.proj(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = F.silu(self.norm(projected))
        if self.global_pool == "avg":
            x = x.mean((2, 3))
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def forward_intermediates(
        self,
        x: Float[Tensor, "B channels H W"],
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        output_dict: bool = False,
    ) -> Any:
        """timm's method: maps `(B, C, h, w)` of some stages; `norm` has none to apply.

        Raises:
            ValueError: If `output_fmt` is not "NCHW".
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be NCHW, got {output_fmt!r}")
        taken, last = feature_take_indices(len(self.layers), indices)
        final, maps = self._run(x, taken=taken, stop=last if stop_early else None)
        shown = None if intermediates_only else final
        return as_dict(shown, maps, []) if output_dict else as_tuple(shown, maps, [])

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """timm's method: cut off the stages behind the last one asked for."""
        taken, last = feature_take_indices(len(self.layers), indices)
        cut = last < len(self.layers) - 1
        self.layers = self.layers[: last + 1]
        if cut:
            self.stages[-1].downsample = None
        if cut or prune_norm:  # made for the last stage's map
            self.proj, self.norm = nn.Identity(), nn.Identity()
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
        if cut or prune_head:
            self.reset_classifier(0, "")
        return taken

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: Pooling | None = None) -> None:
        """A new last layer; 0 for none."""
        if global_pool is not None:
            self.global_pool = one_of("global_pool", global_pool, Pooling)
        self.num_classes = num_classes
        head = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()
        _draw(head)
        self.head = head.to(next(self.patch_embed.parameters()))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute blocks again in the backward pass, instead of keeping what they need for it."""
        for stage in self.stages:
            stage.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of what is not decayed beside vectors: the factors gamma."""
        return {name for name, _ in self.named_parameters() if ".gamma_" in name}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which parameters belong to which block, for learning rates by depth."""
        fine = [
            (r"^layers\.(\d+)\.downsample", (0,)),
            (r"^layers\.(\d+)\.blocks\.(\d+)", None),
            (r"^(?:proj|norm)\.", (99999,)),
        ]
        return {"stem": r"^patch_embed|pre_image", "blocks": r"^layers\.(\d+)" if coarse else fine}

    def _entrance(self, images: Float[Tensor, "B channels H W"]) -> Float[Tensor, "B h w C"]:
        return self.patch_embed(images)

    def _run(
        self, images: Tensor, *, taken: Collection[int] = (), stop: int | None = None
    ) -> tuple[Float[Tensor, "B C h w"], list[Tensor]]:
        """The map of the last stage run, and those of some stages before their downsampling."""
        x, found = self._entrance(images), []
        stages = self.stages[: None if stop is None else stop + 1]
        for index, stage in enumerate(stages):
            x = stage(x)
            if index in taken:
                found.append(x.permute(0, 3, 1, 2).contiguous())
            if stage.downsample is not None and index + 1 < len(stages):
                x = stage.downsample(x)
        return x.permute(0, 3, 1, 2), found


def _check_stages(*options: Sequence[float]) -> None:
    lengths = {len(option) for option in options}
    if len(lengths) > 1 or not lengths - {0}:
        raise ValueError(
            "embed_dims, depths, num_heads, mlp_ratios and decay_ranges must be one for each "
            f"stage, got {', '.join(str(len(option)) for option in options)}"
        )
    if options[0][0] % 2:
        raise ValueError(f"embed_dims must start with an even number, got {options[0][0]}")


def _feature_info(widths: Sequence[int]) -> list[dict[str, Any]]:
    """What timm's feature extractors announce."""
    return [
        {"module": f"layers.{i}", "num_chs": width, "reduction": 4 * 2**i}
        for i, width in enumerate(widths)
    ]


def _by_stage(rate: float, depths: Sequence[int]) -> list[tuple[float, ...]]:
    """Rates rising from 0 to `rate` over all blocks, those of each stage together."""
    rates = torch.linspace(0, rate, sum(depths), device="cpu").tolist()
    ends = [sum(depths[: i + 1]) for i in range(len(depths))]
    return [tuple(rates[end - depth : end]) for end, depth in zip(ends, depths, strict=True)]


def _draw(module: nn.Module) -> None:
    """As RMT draws its weights: convolutions keep PyTorch's."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
