"""Losses and measures of classification."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from dartok.tasks.loss_config import LossConfig

__all__ = ["Criterion", "Tally", "criterion"]

Criterion = Callable[[Tensor, Tensor], Tensor]

_NUM_BINS = 15
"""Of confidence, for the calibration error; the usual number."""


def criterion(config: LossConfig) -> Criterion:
    """Loss of logits `(B, K)` and labels `(B,)`, or label shares `(B, K)` that are smooth already.

    - "ce": `-mean_b sum_k q[b, k] log softmax(z[b])[k]`, with `q = (1 - s) onehot + s / K`.
    - "bce": `mean_bk` of the binary cross entropy of `sigmoid(z[b, k])` with `q[b, k]`.

    Logits are taken to float32.

    Example:
        >>> loss = criterion(LossConfig(label_smoothing=0.0))
        >>> loss(torch.zeros(1, 4), torch.tensor([2]))
        tensor(1.3863)
    """
    smoothing = config.label_smoothing

    def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
        spread = smoothing if labels.ndim == 1 else 0.0
        return F.cross_entropy(logits.float(), labels, label_smoothing=spread)

    def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
        num_classes = logits.shape[-1]
        if labels.ndim == 1:
            shares = F.one_hot(labels, num_classes).float()
            labels = shares * (1 - smoothing) + smoothing / num_classes
        return F.binary_cross_entropy_with_logits(logits.float(), labels)

    return {"ce": cross_entropy, "bce": binary_cross_entropy}[config.loss]


class Tally:
    """Sums over images, from which the measures follow; sums of several processes may be added.

    Args:
        num_classes: K.
        device: Where the sums are kept.
    Example:
        >>> tally = Tally(num_classes=2)
        >>> tally.add(torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
        >>> measures = tally.measures()
        >>> measures["top1"], measures["images"]
        (0.5, 2.0)
    """

    best = "top1"
    """The measure by which models are compared."""

    def __init__(self, *, num_classes: int, device: torch.device | None = None) -> None:
        self.num_classes = num_classes
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)
        self.bins = torch.zeros(3, _NUM_BINS, dtype=torch.float64, device=device)
        self.confusion = torch.zeros(num_classes, num_classes, dtype=torch.float64, device=device)
        """Row: the label; column: the class that is predicted."""

    @torch.no_grad()
    def add(self, logits: Float[Tensor, "B K"], labels: Int[Tensor, "B"]) -> None:
        """Count a batch. Raises ValueError if the logits are of another number of classes."""
        if logits.shape[-1] != self.num_classes:
            raise ValueError(
                f"logits must be of the {self.num_classes} classes of the pictures, got "
                f"{logits.shape[-1]}; the model was made for other classes"
            )
        logits = logits.double()
        best = logits.topk(min(5, self.num_classes)).indices
        predicted = best[:, 0]  # of equal logits the same one leads for top-1 and top-5
        confidence = logits.softmax(-1).amax(-1)
        hits = best.eq(labels[:, None]).double()
        right = hits[:, 0]
        loss = F.cross_entropy(logits, labels, reduction="sum")
        count = torch.ones_like(right)
        self.sums += torch.stack([count.sum(), right.sum(), hits.sum(), loss])
        where = (confidence * _NUM_BINS).ceil().long() - 1  # a bin holds its upper edge
        where = where.clamp(0, _NUM_BINS - 1)  # also what is not a number, refused later
        self.bins.index_add_(1, where, torch.stack([count, confidence, right]))
        pairs = labels * self.num_classes + predicted
        self.confusion.view(-1).index_add_(0, pairs, count)

    def parts(self) -> tuple[Tensor, ...]:
        """The tensors to add up over processes, in place."""
        return self.sums, self.bins, self.confusion

    def measures(self) -> dict[str, float]:
        """Share of images with the label first or among the first five, loss, calibration error.

        - "top1", "top5": shares in [0, 1]; "mean_class_top1": mean over the classes that occur.
        - "loss": mean cross entropy in nats.
        - "ece": `sum_m n_m / n |accuracy_m - confidence_m|` over 15 bins of equal width of the
          largest softmax value (Guo et al., arXiv:1706.04599, equation 3).
        - "images": how many.

        Raises:
            ValueError: If no image was counted, or a logit was not finite.
        """
        images, right, top5, loss = self.sums.tolist()
        if images == 0:
            raise ValueError("nothing was evaluated: no picture could be read; check the data")
        if not math.isfinite(loss):
            raise ValueError(
                f"the model's logits must be finite, got a loss of {loss}; train it with a lower "
                "learning rate or evaluate it in float32"
            )
        _, confidence, accurate = self.bins
        of_class = self.confusion.sum(1)
        occurs = of_class > 0
        return {
            "top1": right / images,
            "top5": top5 / images,
            "mean_class_top1": (self.confusion.diagonal()[occurs] / of_class[occurs]).mean().item(),
            "loss": loss / images,
            "ece": ((accurate - confidence).abs().sum() / images).item(),
            "images": images,
        }
