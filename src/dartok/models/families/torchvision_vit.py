"""torchvision's `VisionTransformer`."""

import torch
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer

from dartok.models.families.parts import Family, Parts, check_whole_patches
from dartok.models.families.timm_vit import position_map, share
from dartok.models.patch_embed import RegionPatchEmbed
from dartok.models.torchvision_vit import RegionEncoder, RegionTorchvisionViT

__all__ = ["FAMILIES"]


class _TorchvisionViT:
    def take_apart(self, host: nn.Module) -> Parts:
        assert isinstance(host, VisionTransformer)
        if type(host.conv_proj) is not nn.Conv2d:
            raise ValueError(
                f"adapt cannot carry over VisionTransformer: its conv_proj is a "
                f"{type(host.conv_proj).__name__}, not a plain Conv2d of patches side by side"
            )
        image_px = (host.image_size, host.image_size)
        check_whole_patches("VisionTransformer", image_px, (host.patch_size, host.patch_size))
        side = host.image_size // host.patch_size
        table = host.encoder.pos_embedding
        positions = position_map("VisionTransformer", table, 1, (side, side))
        return Parts(host.conv_proj, None, positions, image_px)

    def put_together(self, host: nn.Module, embed: RegionPatchEmbed) -> nn.Module:
        assert isinstance(host, VisionTransformer)
        table, token = host.encoder.pos_embedding, host.class_token
        assert embed.pos_embed is not None
        embed.pos_embed.requires_grad_(table.requires_grad)
        model, encoder = share(host, RegionTorchvisionViT), share(host.encoder, RegionEncoder)
        del encoder.pos_embedding
        folded = token.detach() + table.detach()[:, :1]
        model.class_token = nn.Parameter(folded, requires_grad=token.requires_grad)
        model.encoder, model.conv_proj = encoder, embed
        return model

    def features(self, model: nn.Module, images: Tensor) -> Tensor:
        assert isinstance(model, VisionTransformer)
        tokens = model._process_input(images)
        return model.encoder(torch.cat([model.class_token.expand(len(images), -1, -1), tokens], 1))


FAMILIES: dict[type[nn.Module], Family] = {VisionTransformer: _TorchvisionViT()}
"""Class of a host, and what knows it."""
