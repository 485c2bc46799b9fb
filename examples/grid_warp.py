"""DART-Grid: a photograph warped by its score, and laid back.

    python examples/grid_warp.py --out looked-at

Reduces a photograph of 512 px to 128 px evenly, by a warp that enlarges edges, and by one that is
steered towards the face as well; then lays each back on the picture. Prints how well the face and
the whole come back (PSNR in dB), how large the face is in the warped picture, and the way back of
its box. Writes grid.png: the cells, the warped picture, the picture that comes back.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

import dartok
from dartok.core.partition import grid_partition
from dartok.data.photographs import load_photograph
from dartok.draw import contact_sheet, save_image

FACE = (0.34, 0.08, 0.56, 0.36)
"""Left, top, right, bottom in [0, 1] of the picture."""


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", type=int, default=16, help="rows and columns")
    parser.add_argument("--size-px", type=int, default=128, help="of the warped picture")
    parser.add_argument("--out", type=Path, default=Path("looked-at"), help="folder of the picture")
    return parser.parse_args(arguments)


def psnr(picture: Tensor, back: Tensor, box: tuple[float, ...] = (0.0, 0.0, 1.0, 1.0)) -> float:
    """Of values in [0, 1], in dB, inside a box."""
    left, top, right, bottom = (round(side * picture.shape[-1]) for side in box)
    return float(-10 * (picture - back)[..., top:bottom, left:right].square().mean().log10())


def even(rows: int, columns: int) -> dartok.Regions:
    """Cells of one size; one cell draws no line."""
    return grid_partition(torch.ones(1, 1, 1), num_tokens=rows * columns, num_rows=rows)


def panels(model: Any, photograph: Tensor, back: Tensor) -> list[Image.Image]:
    """The cells on the picture, the warped picture with its even cells, and what comes back."""
    warped = nn.functional.interpolate(model(photograph), photograph.shape[-2:])
    cells = dartok.draw(photograph, dartok.regions(model, photograph), line_px=1)
    enlarged = dartok.draw(warped, even(*model.reshaper.grid), line_px=1)
    return [*cells, *enlarged, *dartok.draw(back.clamp(0, 1), even(1, 1))]


@torch.inference_mode()
def main(arguments: list[str] | None = None) -> None:
    """Warp, lay back, compare, draw."""
    options = parsed(arguments)
    side, face = options.size_px, torch.tensor([FACE])
    photograph = load_photograph("astronaut")[None]
    # A host that returns the picture as it is: what comes back is what any host could see.
    model = dartok.reshape(nn.Identity(), grid=options.cells, size_px=side, scorer="edge")
    rows, captions = [], []
    for name, strength, weight in (("even", 0.0, 0.0), ("warped", 1.0, 0.0), ("steered", 1.0, 1.0)):
        dartok.set_strength(model, strength)
        with dartok.steer(model, [face], weight=weight):
            back, lattice = model.dense_outputs(photograph), model.reshaper(photograph).lattice
            rows.append(panels(model, photograph, back))
        sizes = {"image_px": (512, 512), "warped_px": (side, side)}
        (box,) = lattice.boxes_to_warped([512 * face], **sizes)
        (again,) = lattice.boxes_to_image([box], **sizes)
        inside, whole = psnr(photograph, back, FACE), psnr(photograph, back)
        share = 100 * (box[0, 2:] - box[0, :2]).prod() / side**2
        error = (again - 512 * face).abs().max()
        print(f"{name}: the face fills {share:.1f} %, its box comes back to {error:.0e} px")
        print(f"{name}: {inside:.1f} dB in the face, {whole:.1f} dB in the whole")
        first = f"{name}: {options.cells} x {options.cells} cells"
        last = f"laid back: {inside:.1f} dB in the face, {whole:.1f} dB in the whole"
        captions.append([first, f"{side} px, enlarged", last])
    options.out.mkdir(parents=True, exist_ok=True)
    sheet = contact_sheet(rows, captions)
    smaller = sheet.resize((sheet.width * 2 // 3, sheet.height * 2 // 3))
    save_image(smaller, options.out / "grid.png")


if __name__ == "__main__":
    main()
