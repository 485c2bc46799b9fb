"""Settings: what cannot run is refused where it is set, by the name of its flag."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dartok.data.source_config import DataConfig
from dartok.train.config import TrainConfig
from dartok.train.loop_config import LoopConfig
from dartok.train.model_config import ModelConfig
from dartok.train.optim_config import OptimConfig

NAN, INF = float("nan"), float("inf")


def test_the_settings_that_a_run_needs_are_its_data_and_its_folder(tmp_path):
    config = TrainConfig(data=DataConfig(data="digits"), loop=LoopConfig(out=tmp_path))
    assert config.model.budget is None
    assert not config.mixes


def test_the_number_of_tokens_may_be_a_range():
    budget = ModelConfig(num_tokens="49..392").budget
    assert (budget.least, budget.most) == (49, 392)


def test_no_two_settings_share_a_flag():
    names = [
        entry.name
        for part in dataclasses.fields(TrainConfig)
        for entry in dataclasses.fields(part.type)
    ]
    assert len(names) == len(set(names))


def test_an_authors_model_ramps_without_a_number_of_tokens_as_it_has_its_own():
    for name in ("darvit_tiny", "darvim_sm_2seq"):
        assert ModelConfig(model=name, strength_ramp=5).strength_ramp == 5


@pytest.mark.parametrize("settings", [{"mixup": 0.8}, {"cutmix": 1.0}])
def test_mixing_needs_an_even_number_in_each_processs_micro_batch(config_of, settings):
    config = config_of(batch_size=8, accumulate=2, **settings)
    assert config.mixes
    config.check_pairs(num_processes=2)
    with pytest.raises(ValueError, match="an even number of pictures .* got 1 of 8"):
        config.check_pairs(num_processes=4)


REFUSED = [
    (DataConfig, {"image_px": 0}, "image-px must be >= 1, got 0"),
    (DataConfig, {"workers": -1}, "workers must be >= 0, got -1"),
    (DataConfig, {"num_digits": 0}, "num-digits must be >= 1, got 0"),
    (DataConfig, {"max_bad_share": 1.5}, "max-bad-share must be from 0 to 1, got 1.5"),
    (DataConfig, {"max_bad_share": NAN}, "max-bad-share must be from 0 to 1, got nan"),
    (ModelConfig, {"num_tokens": "x"}, "num-tokens must be a number such as 196"),
    (ModelConfig, {"num_tokens": "9..4"}, "num-tokens must be a number >= 1, or two"),
    (ModelConfig, {"strength_ramp": -1}, "strength-ramp must be >= 0, got -1"),
    (ModelConfig, {"strength_ramp": 5}, "strength-ramp needs regions; give --num-tokens too"),
    (
        ModelConfig,
        {"strength_ramp": 5, "model": "vim_tiny"},
        "strength-ramp needs regions; give --num-tokens too",
    ),
    (ModelConfig, {"drop_path": 1.0}, "drop-path must be from 0 to below 1, got 1.0"),
    (ModelConfig, {"drop_path": NAN}, "drop-path must be from 0 to below 1, got nan"),
    (
        ModelConfig,
        {"pretrained": True, "checkpoint": Path("a.pth")},
        "pretrained and checkpoint exclude each other",
    ),
    (OptimConfig, {"warmup_steps": -1}, "warmup-steps must be >= 0, got -1"),
    (OptimConfig, {"min_learning_rate": -1.0}, "min-learning-rate must be >= 0 and finite"),
    (OptimConfig, {"weight_decay": INF}, "weight-decay must be >= 0 and finite, got inf"),
    (OptimConfig, {"max_grad_norm": NAN}, "max-grad-norm must be >= 0 and finite, got nan"),
    (OptimConfig, {"learning_rate": 0.0}, "learning-rate must be > 0 and finite, got 0.0"),
    (OptimConfig, {"learning_rate": NAN}, "learning-rate must be > 0 and finite, got nan"),
    (OptimConfig, {"beta1": 1.0}, "beta1 must be from 0 to below 1, got 1.0"),
    (OptimConfig, {"beta2": -0.1}, "beta2 must be from 0 to below 1, got -0.1"),
    (OptimConfig, {"ema_decay": 1.0}, "ema-decay must be from 0 to below 1, got 1.0"),
    (LoopConfig, {"epochs": 0}, "epochs must be >= 1, got 0"),
    (LoopConfig, {"steps": 0}, "steps must be >= 1, got 0"),
    (LoopConfig, {"batch_size": 0}, "batch-size must be >= 1, got 0"),
    (LoopConfig, {"accumulate": 0}, "accumulate must be >= 1, got 0"),
    (LoopConfig, {"save_every": 0}, "save-every must be >= 1, got 0"),
    (LoopConfig, {"eval_every": 0}, "eval-every must be >= 1, got 0"),
    (LoopConfig, {"keep_last": 0}, "keep-last must be >= 1, got 0"),
    (LoopConfig, {"seed": -1}, "seed must be >= 0, got -1"),
    (LoopConfig, {"track": "paper"}, "track must be of tensorboard, wandb, mlflow, got 'paper'"),
    (LoopConfig, {"shard": True, "channels_last": True}, "shard and channels-last exclude"),
]


@pytest.mark.refuses
@pytest.mark.parametrize(("part", "settings", "message"), REFUSED)
def test_a_setting_that_cannot_run_is_refused_by_its_flag(part, settings, message):
    needed = {DataConfig: {"data": "digits"}, LoopConfig: {"out": Path("run")}}.get(part, {})
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        part(**needed | settings)
    assert "\n" not in str(raised.value)


@pytest.mark.refuses
def test_a_warm_up_longer_than_the_run_is_refused(config_of):
    with pytest.raises(ValueError, match="warmup-steps must be at most --steps 4, got 5"):
        config_of(steps=4, warmup_steps=5)


@pytest.mark.refuses
def test_an_odd_batch_cannot_be_mixed(config_of):
    with pytest.raises(ValueError, match="batch-size must give .* an even number .* got 7 of 7"):
        config_of(batch_size=7, mixup=0.8)


def test_settings_are_read_without_torch():
    """So that a mistake on the command line is answered at once."""
    code = "import dartok.train.config, sys; assert not {'torch', 'timm'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
