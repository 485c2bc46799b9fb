"""Losses of a student's logits against a teacher's."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

__all__ = ["hard_distillation", "soft_distillation"]


def soft_distillation(
    student: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"], *, temperature: float
) -> Float[Tensor, ""]:
    """`T^2 mean_b KL(softmax(teacher[b] / T) || softmax(student[b] / T))`, in nats.

    With `q`, `p` the two: `KL = sum_k q[k] (log q[k] - log p[k])`. The mean is over pictures only,
    as in the paper's formula. The code of DeiT divides by the K classes as well (its `numel`):
    with 1000 of them the teacher then weighs a thousandth of what the formula says. Its
    `alpha = a` is, up to a factor of the whole loss, our weight `a / (a + K (1 - a))`.
    In float32.

    Source: DeiT, arXiv:2012.12877, equation 2; Hinton et al., arXiv:1503.02531, for `T^2`, which
    keeps the gradient's size as T grows.

    Example:
        >>> import torch
        >>> teacher = torch.tensor([[1.0, 0.0]])
        >>> soft_distillation(torch.zeros(1, 2), teacher, temperature=1.0)
        tensor(0.1109)
    """
    log_q = (teacher.float() / temperature).log_softmax(-1)
    log_p = (student.float() / temperature).log_softmax(-1)
    divergence = F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def hard_distillation(
    student: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"]
) -> Float[Tensor, ""]:
    """`-mean_b log softmax(student[b])[argmax_k teacher[b, k]]`: the teacher's class is the label.

    It is not smoothed, as in DeiT's code. In float32.

    Source: DeiT, arXiv:2012.12877, equation 3.

    Example:
        >>> import torch
        >>> hard_distillation(torch.zeros(1, 4), torch.tensor([[0.0, 3.0, 1.0, 2.0]]))
        tensor(1.3863)
    """
    return F.cross_entropy(student.float(), teacher.argmax(-1))
