"""Optimiser, schedule and length of a run, with the habits of the released runners (cards `point-mae` 7, 12)."""

from __future__ import annotations

from pointlift.weights.forks.account import Account, number, several, whole, word

_OPTIMISERS = {"AdamW": "adamw", "Adam": "adam", "SGD": "sgd"}
_WARMUP_LR = _MIN_LR = 1e-6  # written into the released code


def take_training(account: Account, *, pretraining: bool) -> None:
    """Everything of a configuration but its clouds and its network."""
    account.put("epochs", 1 + account.read("max_epoch", whole), "max_epoch + 1: released loops count from 0 to it.")
    account.kept("max_epoch", "epochs", "one more: released loops run from 0 to max_epoch, both included")
    account.put(
        "precision", "fp32", "As released; our default, auto, computes in bfloat16 where a GPU does so natively."
    )
    _optimiser(account)
    _batches(account)
    _clipping(account, pretraining)
    _schedule(account)
    account.ignored("consider_metric", "released runners compare reconstructions by it; here the loss is compared")


def _batches(account: Account) -> None:
    account.keep("total_bs", whole, "data.batch_size", why="of all processes together; data.batch_size is of each")
    steps = account.read("step_per_update", whole, 1)
    account.put("optim.accumulate", steps)
    added = steps != 1
    account.kept(
        "step_per_update",
        "optim.accumulate",
        "released code adds the gradients, ours averages them: grad_clip counts otherwise" if added else "",
    )


def _optimiser(account: Account) -> None:
    kind = account.read("optimizer.type", word)
    if kind in _OPTIMISERS:
        account.put("optim.name", _OPTIMISERS[kind])
        more = {"Adam": "its weight decay spares no parameter as released", "SGD": "released with Nesterov's step"}
        account.kept("optimizer.type", "optim.name", f"{more[kind]}; ours differs" if kind in more else "")
    else:
        account.put("optim.name", "adamw", f"The released configuration has {kind!r}, which we have not.")
        account.not_understood("optimizer.type", "the recipe says adamw instead")
    account.keep("optimizer.kwargs.lr", number, "optim.lr")
    account.keep("optimizer.kwargs.weight_decay", number, "optim.weight_decay", default=0.0)
    account.keep("optimizer.kwargs.betas", several(number), "optim.betas", default=None)
    account.keep("optimizer.kwargs.momentum", number, "optim.momentum", default=None)
    account.put(
        "optim.no_weight_decay",
        "released",
        'As released: biases, 1-D tensors and every name that contains "token" are not decayed. Our default, standard, '
        "goes by what a module says of its parameters.",
    )


def _clipping(account: Account, pretraining: bool) -> None:
    if pretraining:
        account.put("optim.grad_clip", None, "The released pre-training loops never clip; our default is 10.")
        account.ignored("grad_norm_clip", "the released pre-training loops never clip")
    else:
        account.put("optim.grad_clip", account.read("grad_norm_clip", number, None))
        account.kept("grad_norm_clip", "optim.grad_clip")


def _schedule(account: Account) -> None:
    kind = account.read("scheduler.type", word)
    if kind != "CosLR":
        account.put("schedule.name", "constant", f"The released configuration has {kind!r}, which we have not.")
        account.not_understood("scheduler", "the recipe's learning rate is constant instead")
        return
    account.put(
        "schedule.name",
        "released_cosine",
        "As released: per epoch, and an epoch late. Our default, cosine, moves every step and ends at min_lr.",
    )
    account.kept("scheduler.type", "schedule.name")
    account.keep("scheduler.kwargs.epochs", whole, "schedule.t_initial")
    account.keep("scheduler.kwargs.initial_epochs", number, "schedule.warmup_epochs")
    account.put("schedule.warmup_lr", _WARMUP_LR)
    account.put("schedule.min_lr", _MIN_LR)
    account.notes.append("warm-up from 1e-6 and a lowest learning rate of 1e-6 stand in the released code")
    account.ignored("scheduler.kwargs.warming_up_init_lr", "the released code starts at 1e-6 whatever this says")
