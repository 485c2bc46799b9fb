"""Score statistics: batch while training, running or frozen values in eval mode."""

import subprocess
import sys

import pytest
import torch
from torch.testing import assert_close

from dartok.scorers import ScoreStatistics


def test_training_standardises_over_the_whole_batch():
    values = torch.randn(3, 4, 5, dtype=torch.float64)
    expected = (values - values.mean()) / (values.std() + 1e-8)
    assert_close(ScoreStatistics().train()(values), expected, rtol=0, atol=1e-12)


def test_the_first_batch_sets_the_running_values_and_later_ones_move_them():
    statistics = ScoreStatistics().train()
    first, second = torch.randn(8, 6, 6), 3 + 2 * torch.randn(8, 6, 6)
    statistics(first)
    assert_close(statistics.mean, first.mean())
    assert_close(statistics.var, first.var())
    statistics(second)
    assert_close(statistics.mean, 0.9 * first.mean() + 0.1 * second.mean())
    assert int(statistics.num_batches) == 2


def test_running_statistics_make_an_image_independent_of_its_batch():
    statistics = ScoreStatistics("running").train()
    statistics(torch.randn(8, 6, 6))
    statistics.eval()
    batch = torch.randn(4, 6, 6)
    assert torch.equal(statistics(batch)[:1], statistics(batch[:1]))


def test_batch_statistics_do_depend_on_the_batch_until_they_are_frozen():
    statistics = ScoreStatistics("batch").eval()
    batch = torch.randn(4, 6, 6)
    assert not torch.allclose(statistics(batch)[:1], statistics(batch[:1]), atol=1e-3)
    statistics.freeze(0.5, 4.0)
    assert_close(statistics(batch), (batch - 0.5) / 2)
    assert torch.equal(statistics(batch)[:1], statistics(batch[:1]))


def test_frozen_statistics_survive_the_state_dict():
    statistics = ScoreStatistics("batch")
    statistics.freeze(0.5, 4.0)
    copy = ScoreStatistics("batch").eval()
    copy.load_state_dict(statistics.state_dict())
    assert_close(copy(torch.full((1, 2, 2), 2.5)), torch.ones(1, 2, 2))


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 3)])
def test_constant_values_have_finite_results_and_gradients(shape):
    values = torch.full(shape, 2.0, requires_grad=True)
    result = ScoreStatistics("batch").eval()(values)
    result.sum().backward()
    assert result.isfinite().all()
    assert values.grad.isfinite().all()


@pytest.mark.refuses
def test_an_unknown_source_is_refused():
    with pytest.raises(ValueError, match=r"statistics must be one of running, batch, got 'none'"):
        ScoreStatistics("none")


def test_frozen_statistics_stay_through_further_training_and_half_precision():
    statistics = ScoreStatistics("running")
    statistics.freeze(5.03, 0.0025)
    statistics.train()(torch.randn(8, 6, 6))
    statistics.bfloat16().eval()
    values = 5.03 + 0.05 * torch.randn(2, 6, 6)
    assert_close(statistics(values), (values - 5.03) / 0.05, rtol=1e-4, atol=1e-4)


_PROCESSES = """
import os
import sys

import torch
from torch import distributed

from dartok.scorers import ScoreStatistics

torch.manual_seed(0)
values, weights = torch.randn(2, 6, 3, 4, dtype=torch.float64)
rank = int(os.environ["RANK"])
distributed.init_process_group("gloo")


def learn(values, weights):
    statistics = ScoreStatistics().train().double()
    values = values.clone().requires_grad_()
    out = statistics(values)
    (out.sin() * weights).sum().backward()
    return out.detach(), values.grad, statistics.mean, statistics.var


share = slice(0, 2) if rank == 0 else slice(2, 6)  # processes may hold different numbers
mine = learn(values[share], weights[share])
distributed.destroy_process_group()
out, gradient, mean, var = learn(values, weights)
for actual, expected in zip(mine, (out[share], gradient[share], mean, var)):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
"""


@pytest.mark.slow
def test_processes_that_train_together_share_their_statistics_and_gradients(tmp_path):
    script = tmp_path / "processes.py"
    script.write_text(_PROCESSES)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
