"""`num_tokens="auto"`: a number of tokens for each picture, the same on average.

    python examples/tokens_per_image.py --out looked-at

A picture's count follows the mean of its scores. The scorer `detail` is the deviation of the
pixels around: flat pictures get few tokens, busy ones many. The default of
`dartok.adapt`, `--scorer conv`, standardises each picture by itself: untrained, it tells a flat
picture apart and hardly anything else; training with `--token-cost` teaches it what a token is
worth. Prints the counts, and writes counts.png. Needs scikit-learn.
"""

import argparse
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

import dartok
from dartok.data.digits import CanvasConfig, DigitCanvases
from dartok.draw import contact_sheet, save_image


def canvases(num_strokes: int, count: int) -> Tensor:
    """Digits among strokes, normalised."""
    config = CanvasConfig(size_px=160, num_strokes=num_strokes)
    return 2 * DigitCanvases(config, split="train").batch(count, seed=num_strokes).images - 1


@torch.inference_mode()
def main(arguments: list[str] | None = None) -> None:
    """Calibrate on canvases, then count a flat, a sparse and a busy one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scorer", choices=["detail", "conv"], default="detail")
    parser.add_argument("--mean", type=int, default=64, help="tokens per picture on average")
    parser.add_argument("--out", type=Path, default=Path("looked-at"), help="folder of the picture")
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    host: Any = timm.create_model("test_vit", in_chans=1)
    model = dartok.adapt(host, scorer=options.scorer, strength=1.0).eval()
    dartok.set_num_tokens(model, "auto", mean=options.mean)
    seen = [canvases(num_strokes, 64) for num_strokes in (0, 4, 8, 16)]
    mean = dartok.calibrate_num_tokens(model, seen)
    print(f"mean of {sum(map(len, seen))} canvases: {mean:.1f} tokens")

    images = torch.cat([torch.full((1, 1, 160, 160), -0.6), canvases(1, 1), canvases(40, 1)])
    regions = dartok.regions(model, images)
    assert regions.counts is not None
    names = [
        f"{name}: {count} tokens"
        for name, count in zip(("flat", "sparse", "busy"), regions.counts.tolist(), strict=True)
    ]
    print(*names, sep="\n")
    difference = (model(images)[1:2] - model(images[1:2])).abs().max()
    print(f"the sparse one alone and in the batch: logits differ by {difference:.1e}")
    options.out.mkdir(parents=True, exist_ok=True)
    pictures = dartok.draw((images + 1) / 2, regions, colour=(255, 176, 32), line_px=1)
    save_image(contact_sheet([pictures], [names]), options.out / "counts.png")


if __name__ == "__main__":
    main()
