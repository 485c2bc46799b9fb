"""Vision Mamba as it is written down: NumPy float64, one position after the other.

Shares no code with `dartok`; weights go by the names of the official checkpoints.
"""

import numpy as np

__all__ = ["encoder", "mixer", "rms_norm", "weights_of"]


def weights_of(module):
    """The state dict in NumPy float64."""
    return {name: value.double().numpy() for name, value in module.state_dict().items()}


def below(weights, prefix):
    """The weights of one part, by their names within it."""
    found = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    assert found, prefix
    return found


def silu(values):
    return values / (1 + np.exp(-values))


def softplus(values):
    return np.log1p(np.exp(values))


def rms_norm(values, weight):
    """Of each row."""
    return values / np.sqrt((values**2).mean(-1, keepdims=True) + 1e-5) * weight


def convolved(x, weight, bias):
    """Each channel's last four values, the present one with the last weight; zeros before."""
    out = np.zeros_like(x)
    for place in range(len(x)):
        total = bias.copy()
        for tap in range(4):
            before = place - 3 + tap
            if before >= 0:
                total += weight[:, 0, tap] * x[before]
        out[place] = silu(total)
    return out


def one_direction(w, suffix, x, z):
    """`o[l]` of the reading direction whose weights end in `suffix`."""
    x = convolved(x, w[f"conv1d{suffix}.weight"], w[f"conv1d{suffix}.bias"])
    rates = -np.exp(w["A_log" if suffix == "" else "A_b_log"])
    skip = w["D" if suffix == "" else "D_b"]
    rank = w[f"dt_proj{suffix}.weight"].shape[1]
    size = rates.shape[1]
    state, out = np.zeros_like(rates), []
    for now, gate in zip(x, z, strict=True):
        reduced = w[f"x_proj{suffix}.weight"] @ now
        low, enters, leaves = reduced[:rank], reduced[rank : rank + size], reduced[rank + size :]
        step = softplus(w[f"dt_proj{suffix}.weight"] @ low + w[f"dt_proj{suffix}.bias"])
        for channel in range(len(now)):
            decay = np.exp(step[channel] * rates[channel])
            state[channel] = decay * state[channel] + step[channel] * now[channel] * enters
        out.append((state @ leaves + skip * now) * silu(gate))
    return np.stack(out)


def mixer(w, tokens, *, halve):
    """Tokens `(L, D)` read forwards and backwards."""
    projected = tokens @ w["in_proj.weight"].T
    inner = projected.shape[1] // 2
    x, z = projected[:, :inner], projected[:, inner:]
    both = one_direction(w, "", x, z) + one_direction(w, "_b", x[::-1], z[::-1])[::-1]
    return (both / 2 if halve else both) @ w["out_proj.weight"].T


def encoder(w, sequence, *, depth, halve):
    """A sequence `(L, D)` through all blocks and the last norm."""
    residual, hidden = sequence, np.zeros_like(sequence)
    for index in range(depth):
        block = below(w, f"layers.{index}.")
        residual = residual + hidden
        normed = rms_norm(residual, block["norm.weight"])
        hidden = mixer(below(block, "mixer."), normed, halve=halve)
    return rms_norm(residual + hidden, w["norm_f.weight"])
