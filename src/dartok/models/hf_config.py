"""`DartokConfig`: how to build an adapted model of transformers again, as transformers keeps it."""

from typing import Any

from transformers import PretrainedConfig

from dartok.core.partition import PartitionName
from dartok.core.sampling import SamplingName

__all__ = ["DartokConfig", "register_config"]


class DartokConfig(PretrainedConfig):  # type: ignore[misc]
    """Configuration of a `DartokModel`: the host's own, and the options of `dartok.adapt`.

    Args:
        host: The host's configuration as a dictionary.
        host_class: Name of the host's class in transformers.
        host_args: Further arguments of its constructor.
        num_tokens: Regions per image; None for the host's own count.
        num_rows: Rows of regions; None for about square regions.
        scorer: A name that `dartok.scorers.create_scorer` knows.
        scorer_args: Further options of the scorer.
        partition: "flow" or "grid".
        sampling: "centred" or "corner".
        oversample: Samples averaged per patch pixel and axis.
        antialias: Whether regions of more pixels than samples are averaged.
        size_embedding: Whether a token is told how large its region is.
        min_region: Least side of a region, as a share of the picture's; None for any.
        max_region: Largest side.
        **settings: Those that transformers keeps for every model.
    Example:
        >>> from transformers import ViTConfig
        >>> config = DartokConfig(
        ...     host=ViTConfig().to_dict(), host_class="ViTModel", num_tokens=50
        ... )
        >>> config.model_type, config.host["model_type"], config.num_tokens
        ('dartok', 'vit', 50)
    """

    model_type = "dartok"

    def __init__(
        self,
        *,
        host: dict[str, Any] | None = None,
        host_class: str = "",
        host_args: dict[str, Any] | None = None,
        num_tokens: int | None = None,
        num_rows: int | None = None,
        scorer: str = "conv",
        scorer_args: dict[str, Any] | None = None,
        partition: PartitionName = "flow",
        sampling: SamplingName = "centred",
        oversample: int = 1,
        antialias: bool = False,
        size_embedding: bool = False,
        min_region: float | None = None,
        max_region: float | None = None,
        **settings: Any,  # transformers' own, which it makes without any argument, too
    ) -> None:
        self.host = host or {}
        self.host_class = host_class
        self.host_args = host_args or {}
        self.num_tokens = num_tokens
        self.num_rows = num_rows
        self.scorer = scorer
        self.scorer_args = scorer_args or {}
        self.partition: PartitionName = partition
        self.sampling: SamplingName = sampling
        self.oversample = oversample
        self.antialias = antialias
        self.size_embedding = size_embedding
        self.min_region = min_region
        self.max_region = max_region
        super().__init__(**settings)


def register_config() -> None:
    """Make `AutoConfig` know the configuration; harmless when repeated."""
    from transformers import AutoConfig  # importing it is what calls this function

    AutoConfig.register(DartokConfig.model_type, DartokConfig, exist_ok=True)
