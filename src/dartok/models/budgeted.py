"""A forward in which each image has tokens of its own number: in dense groups, or masked."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from timm.layers.attention_pool import AttentionPoolLatent
from torch import Tensor, nn

from dartok.core.regions import Regions, frames_of
from dartok.core.steering import Priority, Steering
from dartok.models.intermediates import RegionBlocks
from dartok.models.patch_embed import RegionPatchEmbed

__all__ = ["Budgeted", "in_groups", "same_count_groups", "unpadded", "with_padding"]


class Budgeted(RegionBlocks, nn.Module):
    """What `num_tokens="auto"` and `priority=` add to a timm host. First among its base classes.

    With a budget for each image (`AutoBudget`) the images of a batch have different counts. In eval
    mode those of one count run together, as they would alone: nothing is padded, and the counts are
    read on the host once. While training, under a compiler, and where a mask is given, the batch is
    padded to the most tokens that an image may have, and no token looks at the padding: its
    attention weight is exactly 0, and pooling leaves it out. Both ways agree to rounding.
    """

    takes_budgets = True
    """`set_num_tokens(model, "auto")` is possible."""
    patch_embed: RegionPatchEmbed
    num_prefix_tokens: int
    global_pool: Any
    attn_pool: Any
    patch_drop: Any

    def forward(
        self,
        x: Float[Tensor, "B C H W"],
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        *,
        priority: Priority | None = None,
        priority_weight: float = 2.0,
    ) -> Any:
        """timm's forward, with what is important in each image: see `dartok.steer`."""
        if self.patch_embed.budget is None and priority is None:
            return self._host_forward(x, attn_mask, is_causal)
        steering = None if priority is None else Steering(priority, priority_weight)
        regions = self.patch_embed.regions(x, steering)
        if regions.counts is None:
            return self._host_head(self.features_of(x, regions, attn_mask, is_causal))
        dense = not (self.training or is_causal or torch.compiler.is_compiling())
        if dense and attn_mask is None and self.global_pool:  # without pooling, padded tokens
            return in_groups(x, regions, self._forward_group)
        return self._masked_head(self.features_of(x, regions, attn_mask, is_causal), regions)

    def forward_head(self, x: Float[Tensor, "B L D"], pre_logits: bool = False) -> Any:
        """timm's method.

        Raises:
            ValueError: If padding would be pooled with the tokens: `forward` tells them apart.
        """
        if self.patch_embed.budget is not None and self._pools_all():
            raise ValueError(
                f"forward_head cannot tell tokens from padding with num_tokens='auto' and "
                f"global_pool={self.global_pool!r}; call the model on the images"
            )
        return self._host_head(x, pre_logits)

    def padded_mask(
        self, attn_mask: Tensor | None, regions: Regions, is_causal: bool
    ) -> Tensor | None:
        """The mask of the blocks: the given one, and none looks at the padding.

        Raises:
            ValueError: If the host would drop tokens, or look at earlier ones only.
        """
        if regions.counts is None:
            return attn_mask
        if is_causal:
            raise ValueError("num_tokens='auto' cannot be causal; pass attn_mask instead")
        if self.training and not isinstance(self.patch_drop, nn.Identity | None):
            raise ValueError(
                "num_tokens='auto' cannot train with patch_drop, got "
                f"{type(self.patch_drop).__name__}; set patch_drop_rate=0"
            )
        return with_padding(attn_mask, regions, self.num_prefix_tokens, self.patch_embed.dtype)

    def _host_forward(self, x: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Any:
        if is_causal:  # older timm does not know this option
            return super().forward(x, attn_mask=attn_mask, is_causal=True)
        return super().forward(x, attn_mask=attn_mask)

    def _host_head(self, features: Tensor, pre_logits: bool = False) -> Any:
        host: Any = super()
        return host.forward_head(features, pre_logits=pre_logits)

    def _forward_group(self, x: Tensor, regions: Regions) -> Any:
        return self._host_head(self.features_of(x, regions))

    def _pools_all(self) -> bool:
        return self.attn_pool is not None or self.global_pool not in ("token", "")

    def _masked_head(self, features: Tensor, regions: Regions) -> Any:
        """timm's `forward_head` of padded tokens."""
        if not self._pools_all():
            return self._host_head(features)
        host: Any = self
        pooled = _pool(host, features, _is_token(regions, self.num_prefix_tokens))
        return host.head(host.head_drop(host.fc_norm(pooled)))


def in_groups(
    images: Float[Tensor, "B C H W"], regions: Regions, run: Callable[[Tensor, Regions], Any]
) -> Any:
    """`run` on the images of each count together, without padding; results in the images' order.

    Reads the counts on the host, which waits for the device.

    Example:
        >>> edges = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.5, 1.0]])
        >>> regions = Regions(torch.tensor([[[0.0, 1.0]]] * 2), edges, torch.tensor([1, 2]))
        >>> images = torch.tensor([5.0, 7.0]).reshape(2, 1, 1, 1)
        >>> in_groups(images, regions, lambda part, found: part.flatten() + found.num_tokens)
        tensor([6., 9.])
    """
    indices, results = [], []
    for index, part in same_count_groups(regions):
        results.append(run(images[index], part))
        indices.append(index)
    order = torch.cat(indices).argsort()
    if isinstance(results[0], tuple):  # the two heads of a distilled DeiT
        return tuple(torch.cat(parts)[order] for parts in zip(*results, strict=True))
    return torch.cat(results)[order]


def same_count_groups(regions: Regions) -> Iterator[tuple[Int[Tensor, "b"], Regions]]:
    """Images with as many tokens each, and their regions without padding.

    Reads the counts on the host, which waits for the device.

    Example:
        >>> edges = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.5, 1.0], [0.0, 1.0, 1.0]])
        >>> regions = Regions(torch.tensor([[[0.0, 1.0]]] * 3), edges, torch.tensor([1, 2, 1]))
        >>> [(index.tolist(), part.num_tokens) for index, part in same_count_groups(regions)]
        [([0, 2], 1), ([1], 2)]
    """
    assert regions.counts is not None
    if frames_of(regions) != 1:
        raise ValueError(f"a count for each clip is not supported, got {frames_of(regions)} frames")
    batch = regions.strip_edges.shape[0]
    ends = torch.stack([regions.counts.expand(batch).double(), regions.strip_edges[:, -1].double()])
    groups: dict[tuple[int, int], list[int]] = {}
    for image, (count, rows) in enumerate(ends.t().tolist()):  # the strip is as long as its rows
        groups.setdefault((int(count), round(rows)), []).append(image)
    for (count, rows), images in sorted(groups.items()):
        index = torch.tensor(images, device=regions.strip_edges.device)
        row_edges = regions.row_edges[index][:, :, : rows + 1]
        yield index, Regions(row_edges, regions.strip_edges[index][:, : count + 1])


def unpadded(regions: Regions, image: int) -> Regions:
    """The regions of one image on the CPU, as many as it has.

    Example:
        >>> edges = torch.tensor([[0.0, 1.0, 1.0]])
        >>> regions = Regions(torch.tensor([[[0.0, 1.0]]]), edges, torch.tensor([1]))
        >>> unpadded(regions, 0).num_tokens
        1
    """
    one = regions.select(slice(image, image + 1))
    if one.counts is not None:
        _, one = next(same_count_groups(one))
    return Regions(one.row_edges.cpu(), one.strip_edges.cpu())


def with_padding(
    attn_mask: Tensor | None, regions: Regions, num_prefix: int, dtype: torch.dtype
) -> Float[Tensor, "B 1 1 prefix+N"] | Tensor | None:
    """An attention mask that adds -inf where a key is padding, to a mask that is given.

    None where there is no padding and no mask. -inf gives the weight 0 exactly.
    """
    if regions.counts is None:
        return attn_mask
    is_token = _is_token(regions, num_prefix)[:, None, None]
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        return torch.zeros_like(attn_mask & is_token, dtype=dtype).masked_fill(
            ~(attn_mask & is_token), -torch.inf
        )
    padding = torch.zeros_like(is_token, dtype=dtype).masked_fill(~is_token, -torch.inf)
    return padding if attn_mask is None else attn_mask + padding


def _is_token(regions: Regions, num_prefix: int) -> Bool[Tensor, "B prefix+N"]:
    return nn.functional.pad(regions.is_region(), (num_prefix, 0), value=True)


def _pool(model: Any, tokens: Float[Tensor, "B L D"], is_token: Bool[Tensor, "B L"]) -> Tensor:
    """timm's pooling of a host, over tokens alone."""
    # Eva knows no such choice: its attention pools the prefix too, its mean does not.
    if not getattr(model, "pool_include_prefix", model.attn_pool is not None):
        tokens = tokens[:, model.num_prefix_tokens :]
        is_token = is_token[:, model.num_prefix_tokens :]
    if model.attn_pool is not None:
        return _attention_pool(model.attn_pool, tokens, is_token)
    keep = is_token.unsqueeze(-1)
    mean = tokens.masked_fill(~keep, 0).sum(1) / keep.sum(1)
    if model.global_pool == "avg":
        return mean
    most = tokens.masked_fill(~keep, -torch.inf).amax(1)
    if model.global_pool == "max":
        return most
    if model.global_pool == "avgmax":
        return 0.5 * (most + mean)
    raise ValueError(f"num_tokens='auto' cannot pool by {model.global_pool!r} in padded batches")


def _attention_pool(pool: Any, tokens: Tensor, is_token: Tensor) -> Tensor:
    if not isinstance(pool, AttentionPoolLatent) or getattr(pool, "pos_embed", None) is not None:
        raise ValueError(
            f"num_tokens='auto' cannot pool padded batches with {type(pool).__name__}; "
            "give a number of tokens"
        )
    mask = torch.zeros_like(is_token, dtype=tokens.dtype).masked_fill(~is_token, -torch.inf)
    return pool(tokens, attn_mask=mask[:, None, None])
