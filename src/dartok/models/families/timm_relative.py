"""timm's `Beit` and `VisionTransformerRelPos`: hosts with a relative position bias."""

from typing import Any

from timm.layers import RelPosMlp
from timm.models.beit import Beit
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import Tensor, nn

from dartok.models.families.parts import Family, Parts
from dartok.models.families.timm_vit import fold_prefix_positions, parts_with_positions, share
from dartok.models.patch_embed import RegionPatchEmbed
from dartok.models.relative import RegionBeit, RegionRelPos, RelativeHost
from dartok.models.relative_bias import MlpBias, TableBias

__all__ = ["FAMILIES"]


class _Relative:
    """Hosts that differ in their class and in the name of their module of a shared bias."""

    def __init__(self, cls: type[RelativeHost], shared: str) -> None:
        self.cls = cls
        self.shared = shared

    def take_apart(self, host: nn.Module) -> Parts:
        parts = parts_with_positions(host)
        self._biases(host)  # read here already: a refusal should come before any work
        return parts

    def put_together(self, host: nn.Module, embed: RegionPatchEmbed) -> nn.Module:
        positions = getattr(host, "pos_embed", None)
        if positions is not None and embed.pos_embed is not None:
            embed.pos_embed.requires_grad_(positions.requires_grad)
        model: Any = share(host, self.cls)
        fold_prefix_positions(host, model)
        model.patch_embed = embed
        model.shared_bias, *biases = self._biases(host)
        setattr(model, self.shared, None)
        pairs = zip(model.blocks, biases, strict=True)
        model.blocks = nn.ModuleList([_block(block, bias) for block, bias in pairs])
        model.blocks.training = host.training
        return model

    def features(self, model: nn.Module, images: Tensor) -> Tensor:
        assert isinstance(model, Beit | VisionTransformerRelPos)
        return model.forward_features(images)

    def _biases(self, host: Any) -> list[nn.Module | None]:
        """The bias that all blocks share, then that of each block."""
        grid = host.patch_embed.grid_size
        sources = [getattr(host, self.shared)]
        for block in host.blocks:
            own_table = getattr(block.attn, "relative_position_bias_table", None)
            sources.append(
                getattr(block.attn, "rel_pos", None) if own_table is None else block.attn
            )
        return [_bias(type(host).__name__, source, grid) for source in sources]


def _bias(name: str, source: Any, grid_size: tuple[int, int]) -> nn.Module | None:
    if source is None:
        return None
    if type(source) is RelPosMlp:
        return MlpBias(share(source, RelPosMlp)).train(source.training)
    table = getattr(source, "relative_position_bias_table", None)
    if table is None:
        raise ValueError(
            f"adapt cannot carry over {name}: its relative position bias is a "
            f"{type(source).__name__}, whose values between whole cells are not known here"
        )
    num_prefix = getattr(source, "prefix_tokens", 1)  # BEiT always has a class token
    return TableBias(table, grid_size, num_prefix).train(source.training)


def _block(block: Any, bias: nn.Module | None) -> nn.Module:
    """A block on the same parameters whose own bias is `attn.bias`, and given from outside."""
    copied: Any = share(block, type(block))
    copied.attn = share(block.attn, type(block.attn))
    copied.attn.bias = bias
    for name in ("relative_position_bias_table", "relative_position_index", "window_size"):
        if hasattr(copied.attn, name):
            setattr(copied.attn, name, None)
    if hasattr(copied.attn, "rel_pos"):
        copied.attn.rel_pos = None
    return copied


FAMILIES: dict[type[nn.Module], Family] = {
    Beit: _Relative(RegionBeit, "rel_pos_bias"),
    VisionTransformerRelPos: _Relative(RegionRelPos, "shared_rel_pos"),
}
"""Class of a host, and what knows it."""
