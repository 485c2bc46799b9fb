"""Measures of segmentation, by torchmetrics."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

__all__ = ["MapTally"]


class MapTally:
    """Counts over pictures, from which the measures follow; those of processes may be added.

    Args:
        class_names: Of the K classes.
        ignore: Label of the pixels that do not count.
        device: Where the counts are kept.
    Raises:
        ImportError: Without torchmetrics; names the extra.
    Example:
        >>> tally = MapTally(("road", "sky"))
        >>> logits = torch.tensor([[[[2.0, 1.0]], [[0.0, 0.0]]]])
        >>> tally.add(logits, torch.tensor([[[0, 1]]]))
        >>> tally.measures()["miou"], tally.measures()["pixel_accuracy"]
        (0.25, 0.5)
    """

    best = "miou"
    """The measure by which models are compared."""

    def __init__(
        self,
        class_names: tuple[str, ...],
        *,
        ignore: int = 255,
        device: torch.device | None = None,
    ) -> None:
        try:
            from torchmetrics.classification import MulticlassJaccardIndex
        except ImportError as error:
            raise ImportError(
                "segmentation needs torchmetrics: pip install 'dartok[dense]'"
            ) from error
        self.class_names, self.ignore = class_names, ignore
        self._iou = MulticlassJaccardIndex(
            len(class_names), average=None, ignore_index=ignore, sync_on_compute=False
        ).to(device)
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)
        """Pictures, pixels that count, and their cross entropy."""

    @torch.no_grad()
    def add(self, logits: Float[Tensor, "B K H W"], labels: Int[Tensor, "B H W"]) -> None:
        """Count a batch. Raises ValueError if the logits are of another number of classes."""
        num_classes = len(self.class_names)
        if logits.shape[1] != num_classes:
            raise ValueError(
                f"logits must be of the {num_classes} classes of the pictures, got "
                f"{logits.shape[1]}; the model was made for other classes"
            )
        self._iou.update(logits.argmax(1), labels)
        loss = F.cross_entropy(logits.float(), labels, ignore_index=self.ignore, reduction="sum")
        counted = (labels != self.ignore).sum()
        pictures = torch.full_like(counted, len(labels))
        self.sums += torch.stack([pictures.double(), counted.double(), loss.double()])

    @property
    def confusion(self) -> Tensor:
        """Pixels of each class (row) that were taken for each class (column)."""
        return self._iou.confmat

    def parts(self) -> tuple[Tensor, ...]:
        """The tensors to add up over processes, in place."""
        return self.sums, self._iou.confmat

    def ious(self) -> dict[str, float]:
        """Intersection over union of each class; NaN for one that neither occurs nor is found."""
        union = self.confusion.sum(0) + self.confusion.sum(1) - self.confusion.diagonal()
        self._iou._update_count = 1  # counts of other processes are counts too
        values = self._iou.compute().masked_fill(union == 0, math.nan)
        return dict(zip(self.class_names, values.tolist(), strict=True))

    def measures(self) -> dict[str, float]:
        """What is usually reported.

        - "miou": mean intersection over union of the classes that occur or are found.
        - "pixel_accuracy", "mean_class_accuracy": shares of pixels, over all and by class.
        - "loss": mean cross entropy of a pixel in nats.
        - "images": how many.

        Raises:
            ValueError: If no pixel was counted, or a logit was not finite.
        """
        images, pixels, loss = self.sums.tolist()
        if pixels == 0:
            raise ValueError(
                "nothing was evaluated: no picture with labels could be read; check the data"
            )
        if not math.isfinite(loss):
            raise ValueError(
                f"the model's logits must be finite, got a loss of {loss}; train it with a lower "
                "learning rate or evaluate it in float32"
            )
        right, of_class = self.confusion.diagonal().double(), self.confusion.sum(1).double()
        occurs = of_class > 0
        ious = [value for value in self.ious().values() if not math.isnan(value)]
        return {
            "miou": sum(ious) / len(ious),
            "pixel_accuracy": (right.sum() / pixels).item(),
            "mean_class_accuracy": (right[occurs] / of_class[occurs]).mean().item(),
            "loss": loss / pixels,
            "images": images,
        }
