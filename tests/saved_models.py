"""Models that differ from how they were created, for saving and loading them."""

import pytest
import timm
import torch
from deterministic import spread
from torch import nn

import dartok
from dartok.models.dials import tokenizer_of

SIZE = (64, 96)


def adapted(host="test_vit", *, num_classes=3, host_args=None, **options):
    model = dartok.adapt(
        timm.create_model(host, num_classes=num_classes, **(host_args or {})), **options
    )
    return used(model)


def used(model):
    """A model that is not as it started: weights, strength, statistics."""
    spread(model)
    dartok.set_strength(model, 0.75)
    model.train()(torch.randn(4, tokenizer_of(model).proj.in_channels, *SIZE))
    return model.eval()


def of_torchvision():
    from torchvision.models import VisionTransformer

    host = VisionTransformer(
        image_size=64,
        patch_size=16,
        num_layers=2,
        num_heads=2,
        hidden_dim=32,
        mlp_dim=48,
        num_classes=3,
        representation_size=24,
    )
    return used(dartok.adapt(host, num_tokens=10, scorer="pixels"))


def authors(name="darvit_tiny", **options):
    return spread(dartok.create_model(name, num_classes=3, **options))


def of_transformers(cls="ViTForImageClassification"):
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    sizes = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = transformers.ViTConfig(**sizes, intermediate_size=32, image_size=64, num_labels=3)
    return used(dartok.adapt(getattr(transformers, cls)(config), num_tokens=9, scorer="pixels"))


class Constant(nn.Module):
    def forward(self, images):
        return images.new_ones((images.shape[0], 2, 2))
