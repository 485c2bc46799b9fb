"""Retrofit DINOv2: the same function at first, then regions that follow the picture.

    python examples/retrofit_dinov2.py --out looked-at

Prints how far the adapted model is from its host at strength 0, then, as the strength rises, how
large the regions are and how near the features stay. Writes retrofit.png. Nothing is downloaded:
the weights are random and the features mean nothing. With a network, `--pretrained` loads DINOv2's.
"""

import argparse
from pathlib import Path
from typing import Any

import timm
import torch
from torchvision.transforms.functional import to_pil_image

import dartok
from dartok.data.photographs import load_photograph
from dartok.draw import contact_sheet, save_image


@torch.inference_mode()
def main(arguments: list[str] | None = None) -> None:
    """Adapt, compare, raise the strength, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pretrained", action="store_true", help="download DINOv2's weights")
    parser.add_argument("--image-px", type=int, default=224, help="side, a multiple of 14")
    parser.add_argument("--out", type=Path, default=Path("looked-at"), help="folder of the picture")
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "img_size": options.image_px,
        "init_values": 1.0,
    }  # at timm's 1e-5 blocks do nothing
    host: Any = timm.create_model(
        "vit_small_patch14_dinov2", pretrained=options.pretrained, **sizes
    )
    model = dartok.adapt(host.eval())  # a model of its own; the host stays as it was
    images = dartok.transform(model)(to_pil_image(load_photograph("rocket")))[None]
    expected, actual = host(images), model(images)
    difference = (actual - expected).norm() / expected.norm()
    print(f"as adapted: features differ by {difference:.1e} (relative) from the host's")

    pictures, captions = [], []
    for strength in (0.0, 0.5, 1.0):
        dartok.set_strength(model, strength)
        regions = dartok.regions(model, images)
        smallest, largest = (100 * regions.areas()).aminmax()
        cosine = torch.cosine_similarity(model(images), expected).item()
        captions.append(f"strength {strength}, {regions.num_tokens} regions")
        print(f"{captions[-1]} of {smallest:.2f} to {largest:.2f} % of the picture; ", end="")
        print(f"cosine with the host's features {cosine:.3f}")
        mean, std = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
        pictures += dartok.draw(images, regions, mean=mean, std=std)
    options.out.mkdir(parents=True, exist_ok=True)
    save_image(contact_sheet([pictures], [captions]), options.out / "retrofit.png")


if __name__ == "__main__":
    main()
