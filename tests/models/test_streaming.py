"""A causal model on a stream: its chunks are the whole, and it is asked anew behind each."""

import pytest
import torch
from torch.testing import assert_close

import dartok
from dartok.core.streaming import join_regions
from dartok.models.mamba.video import VideoVim
from dartok.models.streaming import VideoStream

STREAM = {"chunk_frames": 4, "tokens_per_second": 50.0, "fps": 8.0}


def causal(**options):
    usual = {"directions": "forward", "class_token": "last", "num_classes": 5, "num_frames": 8}
    host = VideoVim(img_size=32, embed_dim=16, depth=2, **usual | options)
    model = dartok.adapt(host, scorer="motion/conv", strength=1.0).eval()
    torch.nn.init.normal_(model.patch_embed.time_embed)
    return model


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("parts", [(8,), (1,) * 8, (3, 5), (5, 2, 1)])
def test_chunks_are_what_the_whole_gives_cut_in_the_same_chunks(dtype, tolerance, parts):
    model, clips = causal().to(dtype), torch.randn(2, 8, 3, 32, 48, dtype=dtype)
    stream, answers = VideoStream(model, **STREAM), []
    for part in clips.split(parts, dim=1):
        answers += stream.push(part)
    assert len(answers) == 2
    regions = join_regions([answer.regions for answer in answers])
    with torch.no_grad():
        whole = model.features_of(clips, regions)
        logits = model.forward_head(whole)
    features = torch.cat([answer.features for answer in answers], dim=1)
    assert_close(features, whole[:, 1:], rtol=0, atol=tolerance * whole.abs().max().item())
    scale = logits.abs().max().item()
    assert_close(answers[-1].logits, logits, rtol=0, atol=tolerance * scale)


def test_the_end_of_a_stream_forgets_it():
    stream, clips = VideoStream(causal(), **STREAM), torch.randn(1, 6, 3, 32, 32)
    first = stream.push(clips) + stream.finish()
    second = stream.push(clips) + stream.finish()
    assert len(first) == len(second) == 2
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.logits, other.logits)


@pytest.mark.refuses
def test_models_that_cannot_answer_in_parts_are_refused():
    both = dartok.adapt(VideoVim(img_size=32, embed_dim=16, depth=2))
    with pytest.raises(
        ValueError, match="must be an adapted Vision Mamba that reads forwards, got"
    ):
        VideoStream(both, **STREAM)
    with pytest.raises(ValueError, match="must answer with its class token, got global_pool='avg'"):
        VideoStream(causal(global_pool="avg"), **STREAM)
    with pytest.raises(ValueError, match="ask its class token last, got class_token='first'"):
        VideoStream(causal(global_pool="avg", class_token="first"), **STREAM)
    with pytest.raises(ValueError, match="must be in eval mode, got one in training; call model.e"):
        VideoStream(causal().train(), **STREAM)
