"""`AutoBudget`: how many tokens each image gets, from the mass of its scores."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed, nn

from dartok.core.names import whole_number

__all__ = ["AutoBudget"]

_RATE = 0.1  # share of the mean's error, in logarithm, that one training step corrects
_LEVELS = 8  # steps from none to the mean, unless asked otherwise


class AutoBudget(nn.Module):
    """Tokens of each image: its score mass over the mass of one token, in whole steps.

    `n = least + step * round((mass / mass_per_token - least) / step)`, from `least` to `most`;
    `mass` is the mean score of the image, the integral of its scores over [0, 1] x [0, 1]. In
    steps, so that many images of a batch share a count and run as one dense batch.

    `mass_per_token` holds the mean: while training, each step moves it by a tenth of the logarithm
    of (mean count of the batch / `mean`), over all processes; `dartok.calibrate_num_tokens` sets it
    on pictures of your own. In eval mode it is a constant, so that an image's count does not depend
    on its batch mates. It starts at `1 / mean`: a score of 1 everywhere asks for `mean` tokens.

    What the mass means depends on the scorer. "detail" gives busy pictures a large mass and flat
    ones a small one. "conv" and "edge" standardise each image by itself: pictures whose detail is
    concentrated have a large mass, evenly textured and flat ones a small one. A model trained with
    a price on tokens (`--token-cost`) learns what is worth it.

    Args:
        mean: Tokens per image on average.
        least: None for a quarter of `mean`.
        most: None for twice `mean`.
        step: Counts are `least` plus a multiple of it; None for an eighth of `mean`.
    Raises:
        ValueError: Unless `1 <= least <= mean <= most` and `step >= 1`.
    Example:
        >>> budget = AutoBudget(100).eval()
        >>> budget(torch.tensor([0.5, 1.0, 9.0]))
        tensor([ 49,  97, 200])
    """

    mass_per_token: Tensor

    def __init__(
        self,
        mean: int,
        *,
        least: int | None = None,
        most: int | None = None,
        step: int | None = None,
    ) -> None:
        super().__init__()
        self.mean = whole_number("mean", mean)
        self.least = max(1, mean // 4) if least is None else whole_number("least", least)
        self.most = 2 * mean if most is None else whole_number("most", most)
        self.step = max(1, mean // _LEVELS) if step is None else whole_number("step", step)
        if not self.least <= self.mean <= self.most:
            raise ValueError(
                "num_tokens='auto' needs least <= mean <= most, got "
                f"{self.least}, {self.mean}, {self.most}"
            )
        self.register_buffer("mass_per_token", torch.tensor(1 / mean))

    def counts(self) -> list[int]:
        """Every count that an image may get, in order.

        Example:
            >>> AutoBudget(4, least=1, most=8, step=3).counts()
            [1, 4, 7, 8]
        """
        return sorted({*range(self.least, self.most, self.step), self.most})

    @torch.no_grad()
    def start_from(self, other: "AutoBudget") -> None:
        """Take over what a token is worth there, in proportion to the two means."""
        self.mass_per_token.copy_(other.mass_per_token * other.mean / self.mean)

    def counts_at(
        self, mass: Float[Tensor, "B"], mass_per_token: Float[Tensor, ""]
    ) -> Int[Tensor, "B"]:
        """The counts of images for a given mass of one token.

        Example:
            >>> budget = AutoBudget(4, least=1, most=8, step=1)
            >>> budget.counts_at(torch.tensor([0.1, 2.0, 30.0]), torch.tensor(0.5))
            tensor([1, 4, 8])
        """
        tokens = (mass / mass_per_token).clamp(self.least, 2 * self.most)  # beyond, long overflows
        steps = ((tokens - self.least) / self.step).round()
        return (self.least + self.step * steps.long()).clamp(self.least, self.most)

    def forward(self, mass: Float[Tensor, "B"]) -> Int[Tensor, "B"]:
        """The counts of images; while training, the mass of one token moves after them."""
        mass = mass.detach().to(torch.promote_types(mass.dtype, torch.float32))
        counts = self.counts_at(mass, self.mass_per_token)
        if self.training:
            self._hold_mean(counts)
        return counts

    @torch.no_grad()
    def _hold_mean(self, counts: Tensor) -> None:
        mean = counts.to(self.mass_per_token.dtype).mean()
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(mean)
            mean = mean / distributed.get_world_size()
        self.mass_per_token.mul_((mean / self.mean) ** _RATE)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "AutoBudget":
        """Move with the model, but stay in float32 or wider."""
        mass = self.mass_per_token
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        wide = torch.promote_types(self.mass_per_token.dtype, torch.float32)
        if wide != self.mass_per_token.dtype:
            self.mass_per_token = mass.to(self.mass_per_token.device, wide)
        return self

    def extra_repr(self) -> str:
        return f"mean={self.mean}, least={self.least}, most={self.most}, step={self.step}"
