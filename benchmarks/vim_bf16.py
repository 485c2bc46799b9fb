"""A Vision Mamba on regions trained under bfloat16 autocast: does it stay finite, does it learn?

    python benchmarks/vim_bf16.py FOLDER --steps 1000

FOLDER holds one folder of pictures per class. A Vim of width 96 and depth 8 with 36 regions at full
strength learns from random crops of 128 px, matrix products in bfloat16, scan, step sizes and
residual in float32. Prints the mean loss of each hundred steps; exits with 1 if a loss or gradient
was not finite, or if the last hundred steps are not better than the first.
"""

import argparse
import statistics
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import dartok
from dartok.bench.machine import describe_machine
from dartok.models.mamba.vim import Vim

IMAGE_PX, NUM_TOKENS = 128, 36
STEPS_PER_LINE = 100


def pictures(folder: Path) -> ImageFolder:
    """Random crops, normalised to about mean 0 and deviation 1."""
    steps = [
        v2.RandomResizedCrop(IMAGE_PX, scale=(0.35, 1.0)),
        v2.RandomHorizontalFlip(),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.5] * 3, [0.25] * 3),
    ]
    return ImageFolder(str(folder), transform=v2.Compose(steps))


def build(num_classes: int) -> nn.Module:
    """The model before the first step."""
    host = Vim(img_size=96, embed_dim=96, depth=8, num_classes=num_classes)
    return dartok.adapt(host, num_tokens=NUM_TOKENS, scorer="conv", strength=1.0).train()


def train_step(
    model: nn.Module, optimiser: torch.optim.Optimizer, images: Tensor, labels: Tensor
) -> tuple[float, float]:
    """The loss and the norm of the gradient of one step."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
    assert logits.dtype == torch.bfloat16
    loss = nn.functional.cross_entropy(logits.float(), labels)
    optimiser.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    return float(loss), float(norm)


def main() -> int:
    """Train, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with one folder of pictures per class")
    parser.add_argument("--steps", type=int, default=1000, help="updates (1000)")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures per step (16)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="largest (1e-3)")
    options = parser.parse_args()
    torch.manual_seed(0)
    print(describe_machine(torch.device("cpu"), torch.bfloat16), flush=True)
    source = pictures(options.data)
    model = build(len(source.classes))
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, options.learning_rate, total_steps=options.steps, pct_start=0.1
    )
    sampler = torch.utils.data.RandomSampler(
        source, replacement=True, num_samples=options.steps * options.batch_size
    )
    losses, norms = [], []
    for images, labels in torch.utils.data.DataLoader(source, options.batch_size, sampler=sampler):
        loss, norm = train_step(model, optimiser, images, labels)
        schedule.step()
        losses.append(loss)
        norms.append(norm)
        if len(losses) % STEPS_PER_LINE == 0:
            recent = statistics.mean(losses[-STEPS_PER_LINE:])
            print(f"step {len(losses)}: loss {recent:.3f}", flush=True)
    bad = sum(not torch.tensor([pair]).isfinite().all() for pair in zip(losses, norms, strict=True))
    first, last = (statistics.mean(part) for part in (losses[:100], losses[-100:]))
    met = bad == 0 and last < first
    print(f"{bad} steps not finite; loss {first:.3f} -> {last:.3f}: {'met' if met else 'NOT MET'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
