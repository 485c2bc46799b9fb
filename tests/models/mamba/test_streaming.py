"""A model over tokens that come in parts."""

import pytest
import torch
from deterministic import fill, spread
from refusals import refused
from torch.testing import assert_close

import dartok
from dartok.models.mamba.streaming import stream
from dartok.models.mamba.video import VideoVim
from dartok.models.mamba.vim import Vim

FORWARD = {"directions": "forward", "class_token": "last"}
SIZES = {"img_size": (32, 48), "embed_dim": 24, "depth": 3, "num_classes": 5}


def clips(num_frames=4, dtype=torch.float64):
    return torch.randn(2, num_frames, 3, 32, 48, dtype=dtype)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@torch.no_grad()
def test_frame_by_frame_a_clip_gives_the_tokens_and_logits_of_the_whole(dtype, atol):
    host = fill(VideoVim(num_frames=4, **FORWARD, **SIZES)).to(dtype)
    model = dartok.adapt(host, num_tokens=24, scorer="edge", strength=1.0)
    images = clips(dtype=dtype)
    tokens = model.patch_embed(images)
    states, found = None, []
    for part in tokens.split([6, 1, 12, 5], dim=1):
        read, states = stream(model, part, states)
        found.append(read)
    answer = stream(model, model.cls_token.expand(2, -1, -1), states).tokens[:, 0]
    expected = model.forward_features(images)
    assert_close(torch.cat(found, dim=1), expected[:, 1:], rtol=0, atol=atol)
    assert_close(answer, expected[:, 0], rtol=0, atol=atol)
    assert_close(model.head(answer), model(images), rtol=0, atol=10 * atol)


@torch.no_grad()
def test_to_ask_in_between_changes_nothing_that_comes():
    model = fill(Vim(**FORWARD, **SIZES))
    tokens = torch.randn(1, 9, 24, dtype=torch.float64)
    first, states = stream(model, tokens[:, :4])
    stream(model, model.cls_token, states)
    second, _ = stream(model, tokens[:, 4:], states)
    assert_close(torch.cat([first, second], 1), stream(model, tokens).tokens, rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_clip_that_is_cut_short_gives_the_tokens_of_the_long_one():
    """Forwards, what is yet to come changes nothing."""
    host = spread(VideoVim(num_frames=4, **FORWARD, **SIZES)).double()
    images = clips()
    changed = images.clone()
    changed[:, 2:] += 1
    found, other = (host.forward_features(one)[:, 1:] for one in (images, changed))
    assert_close(found[:, :12], other[:, :12], rtol=0, atol=1e-12)
    assert ((found[:, 12:] - other[:, 12:]).abs().amax((0, 2)) > 1e-6).all()


@pytest.mark.refuses
def test_models_and_states_that_do_not_fit_are_refused():
    tokens = torch.randn(1, 4, 24)
    with pytest.raises(ValueError, match="parts of a sequence need directions='forward', got a bl"):
        stream(Vim(**SIZES), tokens)
    model = Vim(**FORWARD, **SIZES)
    with refused("states must be one for each of the 3 blocks, got 2"):
        stream(model, tokens, stream(model, tokens).states[:2])
