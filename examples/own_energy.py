"""States, rates and paths of an energy of your own: any torch function (n, d) -> (n,)."""

import torch

import landscape


def energy(x: torch.Tensor) -> torch.Tensor:
    """Three wells in the plane (Metzner, Schuette and Vanden-Eijnden 2006): two deep ones, and a shallow one above."""
    u, v = x[:, 0], x[:, 1]
    bumps = 3 * torch.exp(-(u**2) - (v - 1 / 3) ** 2) - 3 * torch.exp(-(u**2) - (v - 5 / 3) ** 2)
    wells = -5 * torch.exp(-((u - 1) ** 2) - v**2) - 5 * torch.exp(-((u + 1) ** 2) - v**2)
    return bumps + wells + u**4 / 5 + (v - 1 / 3) ** 4 / 5


analysis = landscape.analyze(energy, landscape.Overdamped(beta=4.0, gamma=1.0), dim=2)

# Which states are there, and how likely is each? Harmonic weights, and sampled ones with their standard error.
assert analysis.sampled is not None
for k, x in enumerate(analysis.states.x):
    weight, error = analysis.sampled.weights[k], analysis.sampled.standard_errors[k]
    print(f"state {k} at ({x[0]: .3f}, {x[1]: .3f}): weight {analysis.network.stationary[k]:.5f} (2nd order)", end=", ")
    print(f"{weight:.4f} +- {error:.4f} (sampled)")

# How fast does it move between them, and over which saddles?
print("\nrate matrix, 1/time:\n", analysis.network.rate_matrix)
print("slowest relaxation time:", analysis.network.timescales[0])

# The direct path between the two deep wells crosses a higher saddle than the detour over the shallow one.
for k, saddle in enumerate(analysis.paths.saddle):
    i, j = analysis.saddles.joins[saddle]
    barrier = analysis.saddles.energy[saddle] - analysis.states.energy[i]
    print(f"path {i} -> {j}: length {analysis.paths.arclength[k, -1]:.2f}, barrier {4.0 * barrier:.1f} kT")

# What the user should know before believing these numbers.
print("\n".join(analysis.warnings))
