"""timm's `Eva`: EVA, EVA-02, DINOv3, Perception Encoder and ViTs with rotary positions."""

from timm.models.eva import Eva
from torch import Tensor, nn

from dartok.models.eva import RegionEva
from dartok.models.families.parts import Family, Parts
from dartok.models.families.timm_rotary import rotary_of
from dartok.models.families.timm_vit import fold_prefix_positions, parts_with_positions, share
from dartok.models.patch_embed import RegionPatchEmbed

__all__ = ["FAMILIES"]


class _TimmEva:
    def take_apart(self, host: nn.Module) -> Parts:
        assert isinstance(host, Eva)
        parts = parts_with_positions(host)
        if host.rope is not None:  # read here already: a refusal should come before any work
            rotary_of(type(host).__name__, host.rope, host.patch_embed.grid_size)
        return parts

    def put_together(self, host: nn.Module, embed: RegionPatchEmbed) -> nn.Module:
        assert isinstance(host, Eva)
        model = share(host, RegionEva)
        assert isinstance(model, RegionEva)
        if host.pos_embed is not None and embed.pos_embed is not None:
            embed.pos_embed.requires_grad_(host.pos_embed.requires_grad)
        fold_prefix_positions(host, model)
        model.patch_embed = embed
        model.dynamic_img_size = False
        if host.rope is not None:
            model.rope = rotary_of(type(host).__name__, host.rope, host.patch_embed.grid_size)
            model.rope.train(host.training)
        return model

    def features(self, model: nn.Module, images: Tensor) -> Tensor:
        assert isinstance(model, Eva)
        return model.forward_features(images)


FAMILIES: dict[type[nn.Module], Family] = {Eva: _TimmEva()}
"""Class of a host, and what knows it."""
