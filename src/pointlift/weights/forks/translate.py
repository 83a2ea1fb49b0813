"""From a released configuration to a recipe, all parts together. Pure: what was read goes in, plain values come out."""

from __future__ import annotations

from pointlift.core.errors import FileFormatError
from pointlift.weights.forks.account import Account, Translation
from pointlift.weights.forks.datasets import classes_of, take_clouds, with_bases
from pointlift.weights.forks.networks import DVAE, Network, network_of, take_network
from pointlift.weights.forks.reading import ReleasedYaml
from pointlift.weights.forks.training import take_training

# The recipe's keys in the order in which people read it.
_ORDER = ("task", "epochs", "select", "precision", "label_smoothing", "model", "objective", "data", "optim", "schedule")


def translate(released: ReleasedYaml, *, system: str | None = None, outputs: int | None = None) -> Translation:
    """A released configuration as a recipe that trains as the released code does, with what became of every key.

    Args:
        system: Whose checkpoint goes with it ("point-mae"), where there is one.
        outputs: How many classes that checkpoint tells apart.

    Raises:
        UnknownNameError: A model that is not known.
        FileFormatError: A key that the released code needs is missing or of another kind.
    """
    tree, notes = with_bases(released.values, released.bases, released.missing)
    account = Account(released.path.name, tree, notes=notes)
    for part in ("optimizer", "scheduler", "dataset", "model"):
        if not account.section(part):
            raise FileFormatError(f"{account.file} has no {part}", "a configuration of the Point-BERT family")
    network = network_of(account, system)
    clouds = take_clouds(account, pretraining=network.pretraining)
    take_training(account, pretraining=network.pretraining)
    upstream = take_network(account, network, clouds)
    if network.pretraining:
        account.put("task", "pretraining")
        if clouds is not None and clouds.labelled:
            account.notes.append(
                "a configuration for a linear SVM on frozen features (--test_svm), for which nothing is trained: "
                "`pointlift evaluate model.safetensors --protocol svm`"
            )
        _put_augmentation(account, network)
    account.put("note", f"converted from {account.file}")
    recipe = {key: account.recipe[key] for key in (*_ORDER, *account.recipe) if key in account.recipe}
    account.comments[""] = f"{account.file} ({network.about}) as a recipe, by `pointlift convert`."
    return Translation(
        system=network.system,
        upstream=upstream.upstream,
        holds="objective" if network.pretraining else "classifier",
        recipe=recipe,
        comments=account.comments,
        lines=account.lines(),
        notes=tuple(account.notes),
        classes=classes_of(clouds, outputs) if outputs else None,
    )


def _put_augmentation(account: Account, network: Network) -> None:
    if network is DVAE:
        account.put("data.augment.scale", [1.0, 1.0], "As released: the vocabulary is learned from clouds as they are.")
        account.put("data.augment.shift", 0.0)
    else:
        account.notes.append("random scale and shift of clouds stand in the released code, with our defaults")
