"""A linear segmentation head on the maps of `forward_intermediates`: which pixels are the digit?

    python examples/segmentation_head.py --out looked-at

A small ViT and a linear head learn for some seconds from digits among clutter, on an even grid
(strength 0) and on regions (strength 1) of as many tokens; their maps have a cell for each patch of
4 px. Prints the IoU (pixels that are digit by prediction and truth, over those by either) on other
digits, and writes segmentation.png. Needs scikit-learn.
"""

import argparse
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import to_pil_image

import dartok
from dartok.data.digits import CanvasConfig, Canvases, DigitCanvases
from dartok.draw import contact_sheet, save_image

PX = 96


class Segmenter(nn.Module):
    """A ViT on regions, and a logit for each pixel."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        small: dict[str, Any] = {"img_size": PX, "patch_size": 4, "in_chans": 1}
        host: Any = timm.create_model("vit_tiny_patch16_224", embed_dim=96, depth=3, **small)
        self.vit = dartok.adapt(host, num_tokens=64, strength=strength)
        self.head = nn.Conv2d(96, 1, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.vit.forward_intermediates(2 * images - 1, indices=1, intermediates_only=True)
        return F.interpolate(self.head(maps[-1]), (PX, PX), mode="bilinear")


def truth(canvases: Canvases) -> Tensor:
    """The bright pixels inside the digit's box."""
    centres = (torch.arange(PX) + 0.5) / PX
    left, top, right, bottom = canvases.boxes_xyxy[:, 0, :, None].unbind(1)
    down, across = (top < centres) & (centres < bottom), (left < centres) & (centres < right)
    return down[:, None, :, None] & across[:, None, None] & (canvases.images > 0.5)


def main(arguments: list[str] | None = None) -> None:
    """Train on an even grid and on regions, compare, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=80, help="of each training")
    parser.add_argument("--out", type=Path, default=Path("looked-at"), help="folder of the picture")
    options = parser.parse_args(arguments)
    config = CanvasConfig(size_px=PX)
    test = DigitCanvases(config, split="test").batch(64, seed=1)
    rows = {"canvas": test.images[:4], "truth": truth(test)[:4]}
    for name, strength in (("even grid", 0.0), ("regions", 1.0)):
        torch.manual_seed(0)
        model = Segmenter(strength)
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
        batches = DigitCanvases(config, split="train").batches(16, seed=0)
        for _, canvases in zip(range(options.steps), batches, strict=False):
            wanted = truth(canvases).float()
            loss = F.binary_cross_entropy_with_logits(model(canvases.images), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            found = model.eval()(test.images) > 0
        rows[f"{name}, predicted"] = found[:4]
        iou = (found & truth(test)).sum() / (found | truth(test)).sum()
        print(f"{name}: IoU {iou:.3f} on 64 tokens after {options.steps} steps")
    options.out.mkdir(parents=True, exist_ok=True)
    large = [F.interpolate(row.float(), scale_factor=2) for row in rows.values()]
    pictures = [[to_pil_image(one) for one in row] for row in large]
    captions = [[name] * 4 for name in rows]
    save_image(contact_sheet(pictures, captions), options.out / "segmentation.png")


if __name__ == "__main__":
    main()
