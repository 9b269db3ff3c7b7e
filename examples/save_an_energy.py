"""From a trained network to a file that anyone can analyse: save it with its dynamics, load it, look at its states.

The network here is a soft minimum of three quadratics with hand-set parameters; a trained one is saved the same way.
"""

import sys
from pathlib import Path

import torch

import landscape
from landscape.energy.architectures import SoftMinimum

network = SoftMinimum(dim=2, n_components=3)
with torch.no_grad():
    network.logits.copy_(torch.log(torch.tensor([0.5, 0.3, 0.2])))  # weights of the three wells
    network.centers.copy_(torch.tensor([[-1.3, 0.0], [1.2, 0.3], [0.1, 1.9]]))
    # The diagonal of a factor holds logarithms of inverse standard deviations.
    network.factors.copy_(torch.tensor([[[0.8, 0.0], [0.9, 0.5]], [[0.7, 0.0], [-0.6, 0.7]], [[0.9, 0.0], [0.0, 0.6]]]))

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
path = folder / "three_wells.safetensors"
landscape.save_energy(network, path, dynamics="overdamped", beta=1.0, gamma=2.0, time_unit="ps")

# The file holds numbers and a name to rebuild the network by: loading it runs no code.
energy = landscape.load_energy(str(path))
print(energy, dict(energy.metadata))

analysis = landscape.analyze(energy)
print("weights of the states:", analysis.network.stationary.round(3).tolist())
print("rates, 1/ps:\n", analysis.network.rate_matrix.round(4))
analysis.save("three_wells.landscape")
print("saved:", sorted(file.name for file in Path("three_wells.landscape").iterdir()))
