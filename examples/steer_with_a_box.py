"""Steer tokens with a box: no training, the number of tokens stays.

    python examples/steer_with_a_box.py --out looked-at

Prints the share of the regions whose centre lies in a box around the face in a photograph, for
several weights, beside the box's share of the picture. Writes steer.png. The encoder is timm's
smallest, with random weights: regions come from the scorer, which starts from edge energy.
"""

import argparse
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import ImageDraw

import dartok
from dartok.data.photographs import load_photograph
from dartok.draw import contact_sheet, save_image

FACE = (0.34, 0.08, 0.56, 0.36)
"""Left, top, right, bottom in [0, 1] of the picture."""


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--num-tokens", type=int, default=196)
    parser.add_argument("--box", type=float, nargs=4, default=FACE, help="in [0, 1]")
    parser.add_argument("--out", type=Path, default=Path("looked-at"), help="folder of the picture")
    return parser.parse_args(arguments)


@torch.inference_mode()
def main(arguments: list[str] | None = None) -> None:
    """Steer with several weights, count, draw."""
    options = parsed(arguments)
    torch.manual_seed(0)
    host: Any = timm.create_model("test_vit").eval()
    model = dartok.adapt(host, num_tokens=options.num_tokens, strength=1.0)
    photograph = load_photograph("astronaut")[None]
    mean, std = (torch.tensor(model.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    images = (photograph - mean) / std
    box = torch.tensor(options.box)
    print(f"the box is {100 * (box[2:] - box[:2]).prod():.1f} % of the picture")
    pictures, captions = [], []
    for weight in (0.0, 1.0, 2.0, 4.0):
        with dartok.steer(model, [box[None]], weight=weight):
            regions = dartok.regions(model, images)
        centres = regions.centres()[0]
        share = ((centres >= box[:2]) & (centres <= box[2:])).all(-1).double().mean()
        print(f"weight {weight:g}: {100 * share:4.1f} % of {regions.num_tokens} regions in the box")
        pictures += dartok.draw(photograph, regions, line_px=1)
        width, height = pictures[-1].size
        corners = [a * side for a, side in zip(options.box, (width, height) * 2, strict=True)]
        ImageDraw.Draw(pictures[-1]).rectangle(corners, outline=(255, 176, 32), width=4)
        captions.append(f"weight {weight:g}: {100 * share:.0f} % in the box")
    logits = model(images, priority=[box[None]], priority_weight=2.0)  # the same, in one call
    print(f"logits of the steered picture: {tuple(logits.shape)}")
    options.out.mkdir(parents=True, exist_ok=True)
    sheet = contact_sheet([pictures[:2], pictures[2:]], [captions[:2], captions[2:]])
    save_image(sheet, options.out / "steer.png")


if __name__ == "__main__":
    main()
