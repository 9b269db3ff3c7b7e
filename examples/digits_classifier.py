"""The loss of a small classifier as an energy: two trained networks, the path between them, and the barrier.

The network has one hidden layer of smooth units and learns scikit-learn's digits. A point of the landscape is the
vector of all its d = 2,410 weights, and the energy is its mean cross-entropy on 300 images plus an L2 term, which
confines it and makes every minimum a point. So many dimensions leave no room for Hessians: everything below asks for
Hessian-vector products only. Takes about 40 seconds.
"""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.datasets import load_digits

import landscape
from landscape.search import Catalogue, MinimaSearch, Points, StringOptions, string_method

HIDDEN, IMAGES, L2 = 32, 300, 1e-3

digits = load_digits()
pixels = torch.as_tensor(digits.data / 16.0 - 0.3)
labels = torch.as_tensor(digits.target)


def forward(weights: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Logits (n, images, 10) of n networks, each a row of weights (n, d)."""
    first, bias, second, shift = weights.split([64 * HIDDEN, HIDDEN, HIDDEN * 10, 10], dim=1)
    hidden = torch.tanh(images @ first.reshape(-1, 64, HIDDEN) + bias[:, None])
    return hidden @ second.reshape(-1, HIDDEN, 10) + shift[:, None]


def loss(weights: torch.Tensor) -> torch.Tensor:
    logits = forward(weights, pixels[:IMAGES])
    right = logits.gather(2, labels[:IMAGES, None].expand(len(weights), -1, 1))[..., 0]
    return (logits.logsumexp(2) - right).mean(1) + 0.5 * L2 * weights.square().sum(1)


def accuracy(weights: np.ndarray) -> float:
    """On the images that were not trained on."""
    guess = forward(torch.as_tensor(weights)[None], pixels[IMAGES:])[0].argmax(1)
    return float((guess == labels[IMAGES:]).double().mean())


def renamed(weights: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The same network with its hidden units reordered, and their signs chosen, to be as near to `like` as possible.

    tanh is odd, so a unit may change the sign of all its weights: 32! 2^32 vectors of weights are one network, and two
    minima are different networks only if they are apart after this.
    """

    def units(w: np.ndarray) -> np.ndarray:  # one row a unit: its weights in, its bias, its weights out
        first, bias, second = np.split(w[:-10], [64 * HIDDEN, 65 * HIDDEN])
        return np.column_stack([first.reshape(64, HIDDEN).T, bias, second.reshape(HIDDEN, 10)])

    mine, theirs = units(weights), units(like)
    overlap = theirs @ mine.T
    order = linear_sum_assignment(-np.abs(overlap))[1]
    best = mine[order] * np.sign(overlap[np.arange(HIDDEN), order])[:, None]
    return np.concatenate([best[:, :64].T.ravel(), best[:, 64], best[:, 65:].ravel(), weights[-10:]])


if __name__ == "__main__":
    torch.set_num_threads(1)
    energy = landscape.as_energy(loss, dim=64 * HIDDEN + HIDDEN + HIDDEN * 10 + 10)
    starts = 0.3 * np.random.default_rng(0).standard_normal((2, energy.dim))

    # Two trainings from two starts. Newton's method then sharpens the minima, and Lanczos proves that they are minima.
    found = landscape.find_minima(energy, MinimaSearch(starts=Points(starts)))
    a, b = found.minima.x[:2]
    b = renamed(b, a)
    print(f"a network has d = {energy.dim} weights; two trainings ended at two minima")
    for name, point, value in zip("ab", (a, b), found.minima.energy, strict=False):
        print(f"  {name}: loss {value:.5f}, {accuracy(point):.1%} of unseen digits right")
    print(f"  apart by {np.linalg.norm(a - b):.2f} after renaming units; their norms are {np.linalg.norm(a):.2f}")
    print(f"  softest and stiffest curvature of a: {found.minima.eigenvalues[0, 0]:.1e} and "
          f"{found.minima.eigenvalues[0, -1]:.1e}; the L2 term alone gives {L2:.1e}")  # fmt: skip

    # The straight line climbs; the string method lets it sink to a path of least loss.
    line = energy.value(a + np.linspace(0, 1, 15)[:, None] * (b - a))
    path = string_method(energy, a[None], b[None], StringOptions(n_images=15, max_iterations=150))
    print(f"on the straight line between them the loss rises by {line.max() - line[0]:.4f}, "
          f"on the path by {path.energy[0].max() - line[0]:.4f}")  # fmt: skip
    middle = path.images[0, path.energy[0].argmax()]
    print(f"  the network at the top of the path has {accuracy(middle):.1%} of unseen digits right")

    print("  so the barrier between the two trainings is small beside their loss: they lie in one wide valley")

    # Uphill along the softest mode from there: a saddle, one direction down and all others up. In a valley this flat it
    # is the pass of this path only if it lies above both ends; else the walk has slid to another one.
    above = path.saddle_energy[0] - line[[0, -1]].max()
    if np.isfinite(above):
        saddle = Catalogue(energy)
        saddle.add(torch.as_tensor(path.saddle))
        which = "the pass of this path" if above > 0 else "a pass elsewhere in the valley"
        side = "above" if above > 0 else "below"
        print(f"the saddle that a walk from there ends at is {which}: {abs(above):.1e} {side} the higher end, "
              f"curvature {saddle.points().eigenvalues[0, 0]:.1e} along its way down")  # fmt: skip
    else:
        print("a walk from there ends at no saddle of index 1")
    print(f"cost: {energy.evaluations.gradient:,} gradients, {energy.evaluations.hvp:,} Hessian-vector products, "
          f"{energy.evaluations.hessian} Hessians")  # fmt: skip
