"""The authors' vision transformers by name: numbers only, so that listing them costs nothing."""

from dataclasses import dataclass

__all__ = ["DARVIT_PRESETS", "DarvitPreset"]


@dataclass(frozen=True, kw_only=True)
class DarvitPreset:
    """What tells the authors' seven ViT variants apart."""

    embed_dim: int
    num_heads: int
    scorer: str
    num_tokens: int = 196
    depth: int = 12

    @property
    def summary(self) -> str:
        """One line for lists."""
        host = {192: "DeiT-Ti", 384: "DeiT-S"}[self.embed_dim]
        return f"{host}, {self.scorer}, 448 px"


DARVIT_PRESETS = {
    "darvit_tiny": DarvitPreset(embed_dim=192, num_heads=3, scorer="mobilenetv3_small"),
    "darvit_tiny_v2": DarvitPreset(embed_dim=192, num_heads=3, scorer="mobilenetv3_small_v2"),
    "darvit_tiny_121p": DarvitPreset(
        embed_dim=192, num_heads=3, scorer="mobilenetv3_small", num_tokens=121
    ),
    "darvit_sm": DarvitPreset(embed_dim=384, num_heads=6, scorer="mobilenetv3_large"),
    "darvit_sm_144p": DarvitPreset(
        embed_dim=384, num_heads=6, scorer="mobilenetv3_large", num_tokens=144
    ),
    "darvit_sm_288p": DarvitPreset(
        embed_dim=384, num_heads=6, scorer="mobilenetv3_large", num_tokens=288
    ),
    "darvit_sm_392p": DarvitPreset(
        embed_dim=384, num_heads=6, scorer="mobilenetv3_large", num_tokens=392
    ),
}
"""Name, and what it means. Models that differ only in `num_tokens` share one checkpoint layout."""
