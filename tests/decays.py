"""What weight decay touches."""

from timm.optim import param_groups_weight_decay

from dartok.train.optim import create_optimiser
from dartok.train.optim_config import OptimConfig

__all__ = ["decayed"]


def decayed(model):
    """Names of the parameters that are decayed, by timm's own grouping or by our optimiser."""
    config = OptimConfig(weight_decay=0.05)
    groups = [
        *param_groups_weight_decay(model, 0.05, no_weight_decay_list=model.no_weight_decay()),
        *create_optimiser(model, config).param_groups,
    ]
    touched = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in touched}
