"""A forward in which each image has tokens of its own number: in dense groups, or masked."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from timm.layers.attention_pool import AttentionPoolLatent
from torch import Tensor, nn

from dartok.core.regions import Regions, frames_of
from dartok.core.steering import Priority, Steering
from dartok.models.patch_embed import RegionPatchEmbed

__all__ = ["Budgeted", "same_count_groups", "unpadded", "with_padding"]


class Budgeted(nn.Module):
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
        steering = None if priority is None else Steering(priority, priority_weight)
        with self.patch_embed.steered(steering):
            if self.patch_embed.budget is None:
                return self._host_forward(x, attn_mask, is_causal)
            regions = self.patch_embed.regions(x)
        dense = not (self.training or torch.compiler.is_compiling() or is_causal)
        if dense and attn_mask is None:
            return self._forward_in_groups(x, regions)
        with self.patch_embed.knowing(regions):
            features: Any = self.forward_features
            options = {"is_causal": True} if is_causal else {}
            return self._masked_head(features(x, attn_mask=attn_mask, **options), regions)

    def _host_forward(self, x: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Any:
        if is_causal:  # older timm does not know this option
            return super().forward(x, attn_mask=attn_mask, is_causal=True)
        return super().forward(x, attn_mask=attn_mask)

    def _forward_in_groups(self, x: Tensor, regions: Regions) -> Any:
        indices, results = [], []
        for index, part in same_count_groups(regions):
            with self.patch_embed.knowing(part):
                results.append(self._host_forward(x[index], None, False))
            indices.append(index)
        order = torch.cat(indices).argsort()
        if isinstance(results[0], tuple):  # the two heads of a distilled DeiT
            return tuple(torch.cat(parts)[order] for parts in zip(*results, strict=True))
        return torch.cat(results)[order]

    def _masked_head(self, features: Tensor, regions: Regions) -> Any:
        """timm's `forward_head` of padded tokens."""
        head: Any = self
        if head.global_pool in ("token", "") and head.attn_pool is None:
            return head.forward_head(features)
        is_token = _is_token(regions, self.num_prefix_tokens)
        pooled = _pool(head, features, is_token)
        return head.head(head.head_drop(head.fc_norm(pooled)))


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
