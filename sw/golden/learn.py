"""Learning of a data set with the golden model, one sample an update. `python -m sw.learn` is the program."""

from __future__ import annotations

from collections.abc import Iterator

from tqdm import tqdm

from hw.network import Network
from sw import data
from sw.golden.fast import FastNetwork
from sw.golden.network import GoldenNetwork
from sw.golden.recipe import Recipe, recipe_for


def accuracy(network: GoldenNetwork, split: data.Split) -> float:
    """Share of the samples that the network classifies rightly."""
    return sum(network.run(sample).winner == label for sample, label in split) / len(split)


def learn(network: GoldenNetwork, dataset: data.Dataset, switches: str, *, seed: int = 0, epochs: int = 10,
          samples: int | None = None, recipe: Recipe | None = None) -> Iterator[int]:  # fmt: skip
    """Learn from random weights, one sample an update; yields the number of samples learned, after each.

    `switches` is any of w (weights), t (thresholds), l (leakages); an epoch is all training samples, or the first `samples`, in
    an order that follows from `seed` and the epoch.
    """
    recipe = recipe or recipe_for(dataset.name, network.config)
    samples = len(dataset.train) if samples is None else samples
    total = epochs * samples
    network.load(recipe.state(network.config, seed))
    for epoch in range(epochs):
        for n, i in enumerate(recipe.order(seed, epoch, samples), epoch * samples):
            vars(network).update(recipe.rates(n / total))
            network.run(*dataset.train[i], switches)
            yield n + 1


def learn_seeds(config: Network, dataset: data.Dataset, switches: str, *, seeds: int, epochs: int, samples: int | None = None,
                recipe: Recipe | None = None, quiet: bool = False) -> list[list[float]]:  # fmt: skip
    """Accuracy on the held-out samples, (seeds, epochs)."""
    samples = len(dataset.train) if samples is None else samples
    table = []
    with tqdm(total=seeds * epochs * samples, desc=switches, unit=" samples", disable=quiet) as bar:
        for seed in range(seeds):
            network, row = FastNetwork(config), []
            for n in learn(network, dataset, switches, seed=seed, epochs=epochs, samples=samples, recipe=recipe):
                bar.update()
                if n % samples == 0:
                    row.append(accuracy(network, dataset.test))
                    bar.set_postfix_str(f"seed {seed}, epoch {len(row)}: {row[-1]:.2%}")
            table.append(row)
    return table
