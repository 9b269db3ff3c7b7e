"""Energies: the `Energy` object, loaders for saved files, networks rebuilt by name, analytic potentials."""

from landscape.energy.energy import Energy, Evaluations

__all__ = ["Energy", "Evaluations"]
