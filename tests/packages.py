"""Folders of small models, as training leaves them."""

import timm
import torch

from dartok.models.recipes import Recipe
from dartok.train.model import pixels_of
from dartok.train.package import save_package

CLASSES = ("ant", "bee", "cat")


def write_package(folder, *, name="dart_vit", **args):
    """A random model of 160 px on three classes; returns it in eval mode."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=len(CLASSES), **args).eval()
    with torch.no_grad():
        model.head.weight.normal_(std=0.5)  # so that pictures get different answers
    save_package(
        model,
        Recipe(name, {"num_classes": len(CLASSES), **args}),
        folder,
        pixels=pixels_of(model, None),
        class_names=CLASSES,
        measures={"top1": 0.5},
    )
    return model


def write_adapted(folder):
    """A random `test_vit` with 20 regions."""
    return write_package(folder, host="test_vit", num_tokens=20)
