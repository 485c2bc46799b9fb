"""The attention of RMT as it is written down: NumPy float64, one location after the other.

Shares no code with `dartok`. Maps are `(h, w, C)`; weights go by their names in a `Retention`.
"""

import numpy as np

__all__ = ["depthwise", "factorised", "full", "retention", "turned"]


def turned(vector, location, angles):
    """Neighbouring pairs of channels, turned by the location's multiple of their angles."""
    out = np.empty_like(vector)
    for pair, angle in enumerate(angles):
        cos, sin = np.cos(location * angle), np.sin(location * angle)
        a, b = vector[2 * pair], vector[2 * pair + 1]
        out[2 * pair], out[2 * pair + 1] = a * cos - b * sin, b * cos + a * sin
    return out


def depthwise(x, weight, bias):
    """Each channel with its own kernel, zeros around."""
    kernel = weight.shape[-1]
    padded = np.pad(x, ((kernel // 2,) * 2, (kernel // 2,) * 2, (0, 0)))
    out = np.empty_like(x)
    for row, column in np.ndindex(x.shape[:2]):
        window = padded[row : row + kernel, column : column + kernel]
        out[row, column] = (window * weight[:, 0].transpose(1, 2, 0)).sum((0, 1)) + bias
    return out


def weighed(query, keys, values, penalties):
    logits = keys @ query / len(query) ** 0.5 + penalties
    shares = np.exp(logits - logits.max())
    return shares / shares.sum() @ values


def factorised(q, k, v, decay):
    """Along each row, then along each column, for one head."""
    height, width, _ = q.shape
    first, second = np.empty_like(v), np.empty_like(v)
    for y, x in np.ndindex(height, width):
        first[y, x] = weighed(q[y, x], k[y], v[y], decay * np.abs(np.arange(width) - x))
    for y, x in np.ndindex(height, width):
        away = decay * np.abs(np.arange(height) - y)
        second[y, x] = weighed(q[y, x], k[:, x], first[:, x], away)
    return second


def full(q, k, v, decay):
    """Among all locations, for one head."""
    height, width, channels = q.shape
    out = np.empty_like(v)
    rows, columns = np.indices((height, width))
    for y, x in np.ndindex(height, width):
        away = (np.abs(rows - y) + np.abs(columns - x)).ravel()
        lines = (k.reshape(-1, channels), v.reshape(-1, v.shape[-1]))
        out[y, x] = weighed(q[y, x], *lines, decay * away)
    return out


def retention(x, weights, *, angles, decays, attend):
    """The whole layer on one map."""
    height, width, channels = x.shape
    size = channels // len(decays)

    def linear(name, values):
        return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    q, k, v = (linear(f"{name}_proj", x) for name in "qkv")
    heads = []
    for head, decay in enumerate(decays):
        own = slice(head * size, (head + 1) * size)
        rotated = [np.empty((height, width, size)) for _ in "qk"]
        for y, col in np.ndindex(height, width):
            for out, values in zip(rotated, (q, k), strict=True):
                out[y, col] = turned(values[y, col, own], y * width + col, angles)
        heads.append(attend(*rotated, v[..., own], decay))
    local = depthwise(v, weights["lepe.conv.weight"], weights["lepe.conv.bias"])
    return linear("out_proj", np.concatenate(heads, axis=-1) + local)
