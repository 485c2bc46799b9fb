"""What regions gain where recognition is strong: region tokens of a convolutional backbone.

    python benchmarks/pooled_camvid.py CAMVID --seeds 3

CAMVID is as of `benchmarks/camvid.py`. An FPN on a small ResNet, from scratch, first learns the
class of each cell of its own map, 56 x 56 for pictures of 224 px, and a score map of where classes
meet. From these weights two copies learn on, in the same order: --num-tokens tokens that are means
of the map over a fixed grid, or over regions of the score; a small head tells each token's class,
and `to_map` paints it. Both are measured, and the second also with the regions of an oracle, which
knows the labels. Prints mIoU of each, with the mean gains and the IoU of each class, and exits with
1 if regions gain less than 2 points. Needs the extra `dense`.
"""

import argparse
import copy
import statistics
import sys
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dartok.bench.machine import describe_machine
from dartok.core.partition import flow_partition
from dartok.data.augment import AugmentConfig, PixelConfig
from dartok.data.label_maps import IGNORE, MapSource
from dartok.data.label_maps.transforms import eval_map_transform, train_map_transform
from dartok.data.loading import eval_batches, seeded, train_batches
from dartok.data.order import TrainOrder
from dartok.data.samples import Batch, PictureSource
from dartok.tasks.segmentation.boundaries import boundary_scores, boundary_weights
from dartok.train.segmenting import class_shares, open_split

GAIN_POINTS = 2.0
WIDTH, NUM_CELLS, EXPONENT, RARITY, SCORE_WEIGHT = 64, 784, 0.7, 0.5, 0.3
KINDS = ("cells", "grid", "regions", "oracle")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PIXELS = PixelConfig(size_px=360, width_px=480, mean=MEAN, std=STD)


class Weights(NamedTuple):
    """What classes weigh."""

    loss: Tensor
    """Of each class in the loss."""
    boundary: Tensor
    """Of each class in the score that is learnt."""


class Pooled(nn.Module):
    """A map, its score, and a head for cells or for means over regions."""

    def __init__(self, options: argparse.Namespace, num_classes: int) -> None:
        super().__init__()
        import segmentation_models_pytorch as smp

        self.side_px, self.num_tokens = options.side_px, options.num_tokens
        self.num_rows = options.num_rows
        self.maps = smp.FPN(
            options.encoder,
            encoder_weights=None,
            classes=WIDTH,
            decoder_pyramid_channels=WIDTH,
            decoder_segmentation_channels=WIDTH,
            decoder_dropout=0.0,
            upsampling=1,
        )
        self.score = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH // 2, 3, padding=1), nn.GELU(), nn.Conv2d(WIDTH // 2, 1, 1)
        )
        self.head = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 128), nn.GELU(), nn.Linear(128, num_classes)
        )

    def forward(
        self, images: Tensor, kind: str, size: tuple[int, int], oracle: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits of `size`, and scores."""
        sides = (self.side_px, self.side_px)
        maps = self.maps(F.interpolate(images, sides, mode="bilinear", antialias=True))
        logit = F.adaptive_avg_pool2d(self.score(maps).squeeze(1), round(NUM_CELLS**0.5))
        scores = (4 * (logit / 4).tanh()).exp()
        if kind == "cells":
            logits = self.head(maps.movedim(1, -1)).movedim(-1, 1)
            return F.interpolate(logits, size, mode="bilinear"), scores
        followed = {"grid": torch.ones_like(scores), "regions": scores.detach(), "oracle": oracle}
        regions = flow_partition(followed[kind], num_tokens=self.num_tokens, num_rows=self.num_rows)
        return regions.to_map(self.head(regions.to_tokens(maps)), size), scores


def oracle_scores(labels: Tensor, weights: Weights) -> Tensor:
    """Where the true classes meet."""
    of_each = (boundary_weights(each, weights.boundary) for each in labels)
    return torch.cat(
        [boundary_scores(each, num_cells=NUM_CELLS, exponent=EXPONENT) for each in of_each]
    )


def loss_of(model: Pooled, batch: Batch, kind: str, weights: Weights) -> Tensor:
    """Of every fourth pixel, and of the score."""
    labels = batch.labels[:, ::4, ::4].long()
    target = oracle_scores(batch.labels, weights)
    size = (labels.shape[1], labels.shape[2])
    logits, scores = model(batch.images, kind, size, target)
    known = torch.where(labels < len(weights.loss), labels, IGNORE)
    loss = F.cross_entropy(logits, known, weight=weights.loss, ignore_index=IGNORE)
    wanted, given = (_shares(each) for each in (target, scores))
    return loss + SCORE_WEIGHT * F.kl_div(given.log(), wanted, reduction="batchmean")


def _shares(scores: Tensor) -> Tensor:
    cells = F.adaptive_avg_pool2d(scores, round(NUM_CELLS**0.5)).flatten(1).float()
    return cells / cells.sum(1, keepdim=True)


def batches_of(source: PictureSource, options: argparse.Namespace, seed: int) -> Iterator[Batch]:
    """Random parts at scale 1 to 2, endlessly as far as this script goes."""
    order = TrainOrder(num_samples=len(source), batch_size=options.batch_size, seed=seed)
    augment = AugmentConfig(color_jitter=0.2)
    transform = train_map_transform(augment, PIXELS, min_scale=1.0, max_scale=2.0)
    draws = order.batches(0, options.steps + options.more_steps)
    return train_batches(source, transform, draws, seed=seed)


def learn(
    model: Pooled, batches: Iterator[Batch], kind: str, weights: Weights, steps: int, rate: float
) -> None:
    """AdamW, one cycle."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.02)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    model.train()
    for _, batch in zip(range(steps), batches, strict=False):
        optimiser.zero_grad()
        loss_of(model, batch, kind, weights).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        cycle.step()


@torch.no_grad()
def ious_of(model: Pooled, source: PictureSource, kind: str, weights: Weights) -> Tensor:
    """IoU of each class over all pictures."""
    count = len(weights.loss)
    confusion = torch.zeros(count, count)
    model.eval()
    for batch in eval_batches(source, eval_map_transform(PIXELS), range(len(source)), 8):
        target = oracle_scores(batch.labels, weights)
        logits, _ = model(
            batch.images, kind, (batch.labels.shape[1], batch.labels.shape[2]), target
        )
        known = batch.labels < count
        pairs = batch.labels[known].long() * count + logits.argmax(1)[known]
        confusion += torch.bincount(pairs, minlength=count**2).view(count, count)
    right = confusion.diagonal()
    return right / (confusion.sum(0) + confusion.sum(1) - right)


def run(
    source: MapSource, test: MapSource, options: argparse.Namespace, seed: int
) -> dict[str, Tensor]:
    """IoUs of each kind, of one seed."""
    shares = class_shares(source)
    rare = shares**-RARITY
    loss = shares**-options.class_balance
    weights = Weights(loss / (loss * shares).sum(), rare / rare.mean())
    with seeded(seed):
        model = Pooled(options, len(shares))
        batches = batches_of(source, options, seed)
        learn(model, batches, "cells", weights, options.steps, options.learning_rate)
        found = {"cells": ious_of(model, test, "cells", weights)}
        later = list(zip(range(options.more_steps), batches, strict=False))
        for kind in ("grid", "regions"):
            own = copy.deepcopy(model)
            again = iter([batch for _, batch in later])
            learn(own, again, kind, weights, options.more_steps, options.learning_rate / 4)
            found[kind] = ious_of(own, test, kind, weights)
        found["oracle"] = ious_of(own, test, "oracle", weights)
    return found


def print_classes(names: tuple[str, ...], found: list[dict[str, Tensor]]) -> None:
    """IoU of each class, the mean over the seeds."""
    print(f"{'IoU / %':<14}" + "".join(f"{kind:>9}" for kind in KINDS))
    means = {kind: 100 * torch.stack([run[kind] for run in found]).mean(0) for kind in KINDS}
    for index, name in enumerate(names):
        print(f"{name:<14}" + "".join(f"{means[kind][index]:9.2f}" for kind in KINDS))


def gain_of(found: list[dict[str, Tensor]], kind: str) -> float:
    """Over the grid, in points of mIoU, printed with its deviation."""
    gains = [100 * float(run[kind].mean() - run["grid"].mean()) for run in found]
    spread = statistics.stdev(gains) if len(gains) > 1 else float("nan")
    print(f"gain of {kind:<8} {statistics.mean(gains):+.2f} +- {spread:.2f} points of mIoU")
    return statistics.mean(gains)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--split", default="test")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--num-tokens", type=int, default=196)
    parser.add_argument("--num-rows", type=int, default=14)
    parser.add_argument("--encoder", default="tu-resnet10t")
    parser.add_argument("--side-px", type=int, default=224)
    parser.add_argument("--steps", type=int, default=800, help="with a class for each cell (800)")
    parser.add_argument("--more-steps", type=int, default=300, help="with tokens (300)")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--class-balance", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> int:
    """Train all, print, and return the exit code."""
    options = parse()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", category=UserWarning)
    print(describe_machine(torch.device("cpu"), torch.float32))
    source = open_split(f"{options.data}:train", "train")
    test = open_split(f"{options.data}:{options.split}", options.split)
    found = []
    for seed in range(options.seeds):
        found.append(run(source, test, options, seed))
        shown = ", ".join(f"{kind} {100 * found[-1][kind].mean():.2f}" for kind in KINDS)
        print(f"seed {seed}: mIoU / % {shown}", flush=True)
    print_classes(source.class_names, found)
    gain_of(found, "oracle")
    return 0 if gain_of(found, "regions") >= GAIN_POINTS else 1


if __name__ == "__main__":
    sys.exit(main())
