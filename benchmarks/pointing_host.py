"""A small ViT that finds a fingertip in single pictures: the host of benchmarks/clips_gain.py.

    python benchmarks/pointing_host.py FOLDER host.pt

FOLDER holds hands/*.png, cut-out arms that point with their topmost pixel, and photos in
backgrounds/train/ and backgrounds/val/. Arms are pasted on photos at random, and a timm ViT learns
from scratch in which of 8 x 8 cells the fingertip lies: on its fixed grid in every other step, in
the others on regions of pictures of more pixels, their number and strength drawn anew, so that it
knows both. It sees no video. Its weights are written without the head, with those that tell it the
sizes of regions; the shares of right cells on the photos of val/ are printed.
"""

import argparse
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import dartok
from dartok.models.dials import tokenizer_of
from dartok.scorers.build import build_scorer

CELLS = 8
PATCH_PX = 16
FRAME_PX = (192, 144)  # width and height that arms are drawn for
OPAQUE = 128


class Arm(NamedTuple):
    """A cut-out."""

    image: Image.Image
    tip: tuple[float, float]
    """Place (x, y) of the fingertip, as a share of width and height."""


class Pictures(NamedTuple):
    """Rendered pictures in memory."""

    images: UInt8[Tensor, "N 3 side side"]
    cells: Int[Tensor, "N"]


def read_arms(folder: Path) -> list[Arm]:
    """All cut-outs."""
    arms = []
    for path in sorted(folder.glob("*.png")):
        image = Image.open(path).convert("RGBA")
        rows, columns = np.nonzero(np.asarray(image)[..., 3] > OPAQUE)
        top = rows.argmin()
        arms.append(Arm(image, (columns[top] / image.width, rows[top] / image.height)))
    return arms


def render(
    arms: list[Arm], photo: Image.Image, generator: np.random.Generator
) -> tuple[Image.Image, int]:
    """An arm on a part of a photo, and the cell of its fingertip."""
    left, top = (
        int(generator.uniform(0, a - b)) for a, b in zip(photo.size, FRAME_PX, strict=True)
    )
    frame = photo.crop((left, top, left + FRAME_PX[0], top + FRAME_PX[1]))
    arm = arms[generator.integers(len(arms))]
    zoom = generator.uniform(1, 1.3)  # so that the arm still leaves at the frame's edge
    size = (round(FRAME_PX[0] * zoom), round(FRAME_PX[1] * zoom))
    place = [generator.uniform(low + 0.02, 0.96) for low in arm.tip]
    drawn = arm.image.resize(size, Image.Resampling.BILINEAR)
    light = generator.uniform(0.6, 1.3) * generator.uniform(0.9, 1.1, 3)
    colours = (np.asarray(drawn)[..., :3] * light).clip(0, 255).astype(np.uint8)
    corner = [
        round(share * side - tip * length)
        for share, side, tip, length in zip(place, FRAME_PX, arm.tip, size, strict=True)
    ]
    frame.paste(Image.fromarray(colours), (corner[0], corner[1]), drawn.getchannel("A"))
    return frame, int(place[1] * CELLS) * CELLS + int(place[0] * CELLS)


def render_all(folder: Path, split: str, count: int, side_px: int, seed: int) -> Pictures:
    """`count` pictures on the photos of a split, whole, as squares."""
    generator = np.random.default_rng(seed)
    arms = read_arms(folder / "hands")
    paths = sorted((folder / "backgrounds" / split).glob("*.jpg"))
    photos = [Image.open(path).convert("RGB") for path in paths]
    images = torch.empty((count, 3, side_px, side_px), dtype=torch.uint8)
    cells = torch.empty(count, dtype=torch.long)
    for number in range(count):
        frame, cells[number] = render(arms, photos[generator.integers(len(photos))], generator)
        square = np.array(frame.resize((side_px, side_px), Image.Resampling.BILINEAR))
        images[number] = torch.from_numpy(square).permute(2, 0, 1)
    return Pictures(images, cells)


def build_host(model: str, side_px: int, num_classes: int) -> Any:
    """Means over all tokens; positions start as sines, as strong as patches."""
    host: Any = timm.create_model(
        model, num_classes=num_classes, img_size=side_px, class_token=False, global_pool="avg"
    )
    height, width = host.patch_embed.grid_size
    each = host.embed_dim // 6
    with torch.no_grad():
        places = host.pos_embed.zero_().view(height, width, -1)
        places[..., : 2 * each] = waves(width, each).T
        places[..., 2 * each : 4 * each] = waves(height, each).T[:, None]
    return host


def waves(length: int, count: int) -> Float[Tensor, "2*count length"]:
    """Sines and cosines at the middles of `length` steps, of 1/2 to 8 waves over all of them."""
    places = (torch.arange(length) + 0.5) / length
    phases = torch.pi * 2 ** torch.linspace(0, 4, count)[:, None] * places
    return torch.cat([phases.sin(), phases.cos()])


def normalised(frames: UInt8[Tensor, "*B 3 H W"]) -> Float[Tensor, "*B 3 H W"]:
    """From -1 to 1."""
    return frames.float() / 127.5 - 1


def look(
    model: nn.Module, images: UInt8[Tensor, "B 3 H W"], options: argparse.Namespace, draws: Tensor
) -> Float[Tensor, "B K"]:
    """Logits on the fixed grid, or, of draws that are not 0, on regions as they say."""
    regions, count, strength = draws.tolist()
    full = (options.side_px // PATCH_PX) ** 2
    dartok.set_num_tokens(model, round(full * (0.5 + 1.5 * count)) if regions else full)
    dartok.set_strength(model, strength if regions else 0.0)
    side_px = options.regions_px if regions else options.side_px
    images = F.interpolate(images, (side_px, side_px), mode="bilinear", antialias=True)
    return model(normalised(images))


@torch.inference_mode()
def share_right(
    model: nn.Module, pictures: Pictures, options: argparse.Namespace, draws: Tensor
) -> float:
    """Of the cells."""
    model.eval()
    found = [look(model, part, options, draws).argmax(1) for part in pictures.images.split(100)]
    model.train()
    return float((torch.cat(found) == pictures.cells).float().mean())


def report(model: nn.Module, pictures: Pictures, options: argparse.Namespace) -> str:
    """Shares of right cells on the grid, and on half as many and as many regions."""
    looks = {"grid": (0.0, 0.0, 0.0), "half": (1.0, 0.0, 1.0), "as many": (1.0, 1 / 3, 1.0)}
    return ", ".join(
        f"{name} {share_right(model, pictures, options, torch.tensor(draws)):.1%}"
        for name, draws in looks.items()
    )


def train(options: argparse.Namespace) -> dict[str, dict[str, Tensor]]:
    """Weights of the host, without its head, and of what tells it the sizes of regions."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    folder = Path(options.data)
    pictures = render_all(folder, "train", options.pictures, options.store_px, seed=0)
    held_out = render_all(folder, "val", 1000, options.store_px, seed=1)
    host = build_host(options.model, options.side_px, CELLS**2)
    scorer = build_scorer("edge", side_px=options.regions_px)
    model = dartok.adapt(host, scorer=scorer, size_embedding=True)
    optim = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optim, options.learning_rate, options.steps, pct_start=0.1, cycle_momentum=False
    )
    print(f"chance: {1 / CELLS**2:.1%}, loss {math.log(CELLS**2):.3f}")
    for step in range(1, options.steps + 1):
        drawn = torch.randint(len(pictures.cells), (options.batch_size,), generator=generator)
        draws = torch.rand(3, generator=generator) * (step % 2)
        logits = look(model, pictures.images[drawn], options, draws)
        loss = F.cross_entropy(logits, pictures.cells[drawn])
        optim.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optim.step()
        schedule.step()
        if step % 500 == 0 or step == options.steps:
            shares = report(model, held_out, options)
            print(f"step {step}: loss {loss.item():.3f}, right cells: {shares}", flush=True)
    tokenizer = tokenizer_of(model)
    assert tokenizer.pos_embed is not None
    assert tokenizer.size_embed is not None
    with torch.no_grad():
        host.pos_embed.copy_(tokenizer.pos_embed.flatten(2).transpose(1, 2))
    host.reset_classifier(0)
    return {"host": host.state_dict(), "size_embed": tokenizer.size_embed.state_dict()}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", help="folder with hands/ and backgrounds/")
    parser.add_argument("out", type=Path, help="file of weights to write")
    parser.add_argument("--model", default="test_vit", help="timm ViT (test_vit)")
    parser.add_argument("--side-px", type=int, default=64, help="pictures on the grid (64)")
    parser.add_argument("--regions-px", type=int, default=96, help="pictures on regions (96)")
    parser.add_argument("--store-px", type=int, default=112, help="pictures in memory (112)")
    parser.add_argument("--pictures", type=int, default=20000, help="rendered (20000)")
    parser.add_argument("--steps", type=int, default=5000, help="(5000)")
    parser.add_argument("--batch-size", type=int, default=128, help="pictures per step (128)")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="largest (3e-3)")
    return parser.parse_args()


def main() -> int:
    """Train, write, and return the exit code."""
    options = parse()
    torch.set_num_threads(1)
    torch.save(train(options), options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
