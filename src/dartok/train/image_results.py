"""What a model says of each picture that it is measured on, as a table for other programs."""

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dartok.core.files import write_beside
from dartok.data.samples import Batch
from dartok.train.world import World

__all__ = ["ImageResult", "ImageResults"]

_NUM_NAMES = 5


class ImageResult(NamedTuple):
    """A row of the table: a picture at one budget under one protocol."""

    name: str
    num_tokens: int
    protocol: str
    label: str | None = None
    """Name of its class; None, here and below, for a picture that could not be read."""
    predicted: str | None = None
    """Name of the likeliest class."""
    right: bool | None = None
    confidence: float | None = None
    """Softmax value of the likeliest class."""
    top5: list[str] | None = None
    """Names of the likeliest classes, the likeliest first."""
    loss: float | None = None
    """Cross entropy in nats."""
    error: str | None = None
    """Why the picture could not be read; None if it could."""


class ImageResults:
    """Collects the rows of a process; the main one writes those of all into a Parquet file.

    Args:
        path: The file, replaced at once when all is done.
        class_names: What logits and labels mean.
    Raises:
        ValueError: If the path is a folder.
        ImportError: Without pyarrow; names the extra.
    """

    def __init__(self, path: Path, class_names: tuple[str, ...]) -> None:
        try:
            import pyarrow  # noqa: F401  # not first missed after an hour of evaluation
        except ImportError as error:
            raise ImportError("per-image needs pyarrow: pip install 'dartok[data]'") from error
        if path.is_dir():
            raise ValueError(f"per-image {path} is a folder; name a file, such as {path}/a.parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.class_names = path, class_names
        self.rows: list[ImageResult] = []

    @torch.no_grad()
    def add(
        self, batch: Batch, logits: Float[Tensor, "B K"], *, num_tokens: int, protocol: str
    ) -> None:
        """Note what was said of a batch, and which of its pictures were damaged."""
        logits, labels = logits.double().cpu(), batch.labels.cpu()
        shares = logits.softmax(-1)
        best = shares.topk(min(_NUM_NAMES, len(self.class_names))).indices.tolist()
        losses = F.cross_entropy(logits, labels, reduction="none").tolist()
        of_each = zip(batch.names, labels.tolist(), best, shares.amax(-1), losses, strict=True)
        for name, label, classes, confidence, loss in of_each:
            row = ImageResult(
                name,
                num_tokens,
                protocol,
                label=self.class_names[label],
                predicted=self.class_names[classes[0]],
                right=label == classes[0],
                confidence=float(confidence),
                top5=[self.class_names[index] for index in classes],
                loss=loss,
            )
            self.rows.append(row)
        for name, reason in batch.bad:
            self.rows.append(ImageResult(name, num_tokens, protocol, error=reason))

    def write(self, world: World) -> None:
        """Write the rows of all processes, sorted by budget, protocol and name."""
        import pyarrow
        from pyarrow import parquet

        found = world.gather(self.rows)
        if not world.is_main:
            return
        rows = [row for part in found if isinstance(part, list) for row in part]
        rows.sort(key=lambda row: (row.num_tokens, row.protocol, row.name))
        columns = dict(zip(ImageResult._fields, zip(*rows, strict=True), strict=True))
        types = {
            **dict.fromkeys(("name", "protocol", "label", "predicted", "error"), pyarrow.string()),
            "num_tokens": pyarrow.int64(),
            "right": pyarrow.bool_(),
            "top5": pyarrow.list_(pyarrow.string()),
            **dict.fromkeys(("confidence", "loss"), pyarrow.float64()),
        }
        schema = pyarrow.schema([(name, types[name]) for name in ImageResult._fields])
        table = pyarrow.table({name: list(columns[name]) for name in columns}, schema=schema)
        write_beside(self.path, lambda target: parquet.write_table(table, target))
