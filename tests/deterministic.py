"""Weights and pictures that come out the same everywhere, for small golden numbers."""

import zlib

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["fill", "picture", "spread"]


def fill(module: nn.Module) -> nn.Module:
    """Give every entry of the state dict a value drawn from its own name, in float64."""
    for name, value in module.double().state_dict().items():
        if not value.is_floating_point() or name.endswith("strength"):
            continue
        draw = np.random.RandomState(zlib.crc32(name.encode())).random_sample(tuple(value.shape))
        noise = torch.from_numpy(np.asarray(2 * draw - 1))
        value.copy_(_scaled(name, noise))
    return module.eval()


def _scaled(name: str, noise: Tensor) -> Tensor:
    leaf = name.rsplit(".", 1)[-1]
    if leaf in ("running_var", "var"):
        return 1 + 0.5 * noise
    if leaf in ("running_mean", "mean", "bias"):
        return 0.1 * noise
    if leaf in ("cls_token", "pos_embed"):
        return 0.5 * noise
    if noise.ndim <= 1:
        return 1 + 0.2 * noise
    return noise * (3 / noise[0].numel()) ** 0.5


def picture(height: int, width: int, *, phase: float = 0.0) -> Tensor:
    """A smooth picture with a bright square, `(3, height, width)` in float64."""
    y = torch.linspace(0, 1, height, dtype=torch.float64)[:, None]
    x = torch.linspace(0, 1, width, dtype=torch.float64)
    waves = [torch.sin(9 * x * (c + 1) + phase) * torch.cos(7 * y + c) for c in range(3)]
    image = torch.stack(waves)
    image[:, height // 4 : height // 2, width // 2 : 3 * width // 4] += 1.5 + phase
    return image


def spread(model: nn.Module) -> nn.Module:
    """Move every parameter off the values that hide mistakes: LayerScale near 0, norms at 1."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "gamma" in name:
                value.uniform_(0.05, 0.3)
            elif name.endswith("_token") or "pos_embed" in name:
                value.normal_(std=0.5)
            elif value.ndim <= 1:
                value.add_(torch.randn_like(value), alpha=0.05)
    return model.eval()
