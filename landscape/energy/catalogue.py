"""The analytic energies by name: parameters, defaults and one line of text each, readable without torch.

`potential:NAME[:key=value,...]` names one; `landscape.energy.potentials` computes it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass

from landscape.errors import EnergyError

PREFIX = "potential:"


@dataclass(frozen=True)
class Parameter:
    """One parameter of a potential. Its type is that of the default; the bounds are allowed values."""

    name: str
    default: int | float
    text: str
    minimum: float
    maximum: float

    def parse(self, value: str, where: str) -> int | float:
        kind = "a whole number" if isinstance(self.default, int) else "a number"
        try:
            number = type(self.default)(value)
        except ValueError:
            number = math.nan
        if not self.minimum <= number <= self.maximum:
            allowed = f"{kind} from {self.minimum:g} to {self.maximum:g}"
            raise EnergyError(f"{where}: {self.name} is {allowed}, not {value!r}")
        return number


@dataclass(frozen=True)
class PotentialInfo:
    """What `landscape potentials` prints: the name, the parameters with their defaults, the dimension and a line."""

    name: str
    text: str
    dim: str
    parameters: tuple[Parameter, ...] = ()

    @property
    def usage(self) -> str:
        """The specification with every default written out."""
        return specification(self.name, {p.name: p.default for p in self.parameters})


POTENTIALS: dict[str, PotentialInfo] = {
    info.name: info
    for info in (
        PotentialInfo("muller-brown", "Mueller and Brown 1979: three minima, two saddles, in the plane", "2"),
        PotentialInfo("triple-well", "Metzner, Schuette and Vanden-Eijnden 2006: two deep wells, one shallow", "2"),
        PotentialInfo("double-well", "x^4/4 - x^2/2: minima at -1 and 1, barrier 1/4", "1"),
        PotentialInfo(
            "coupled-chain",
            "Berglund, Fernandez and Gentz 2007: double wells on a ring, coupled to their neighbours",
            "n",
            (
                Parameter("n", 4, "sites on the ring", 2, 10_000),
                Parameter("g", 0.3, "coupling strength", 0, 1e6),
            ),
        ),
        PotentialInfo(
            "gaussian-mixture",
            "minus log of k separated Gaussians with random centres and shapes; weights (at beta = 1) are known",
            "d",
            (
                Parameter("d", 2, "dimension", 1, 200),
                Parameter("k", 3, "components", 1, 200),
                Parameter("seed", 0, "seed of centres, shapes and weights", 0, 2**63),
            ),
        ),
        PotentialInfo(
            "quadratic",
            "kappa/2 |x|^2: one minimum, closed form for everything",
            "d",
            (
                Parameter("d", 3, "dimension", 1, 10_000),
                Parameter("kappa", 1.0, "force constant", 1e-6, 1e6),
            ),
        ),
        PotentialInfo(
            "lennard-jones",
            "cluster of n atoms in 2 or 3 dimensions, eps = sigma = 1; translation, rotation, permutation declared",
            "dim n",
            (Parameter("n", 7, "atoms", 2, 200), Parameter("dim", 3, "dimensions of space", 2, 3)),
        ),
    )
}


def describe() -> tuple[PotentialInfo, ...]:
    """Every analytic energy, in the order in which they are listed."""
    return tuple(POTENTIALS.values())


def specification(name: str, values: Mapping[str, int | float]) -> str:
    """The one spelling of a potential with these parameter values: the text that is hashed and kept on record."""
    written = ",".join(f"{key}={value!r}" for key, value in values.items())
    return f"{PREFIX}{name}:{written}" if written else f"{PREFIX}{name}"


def parse(spec: str) -> tuple[str, dict[str, int | float]]:
    """Name and parameter values (defaults filled in) of `potential:NAME[:key=value,...]`.

    EnergyError for an unknown name or key, a key given twice, and a value of the wrong kind or range.
    """
    name, _, written = spec.removeprefix(PREFIX).partition(":")
    if name not in POTENTIALS:
        close = difflib.get_close_matches(name, POTENTIALS, 1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(POTENTIALS)}"
        raise EnergyError(f"{spec}: there is no potential {name!r}; {hint}")
    parameters = {p.name: p for p in POTENTIALS[name].parameters}
    given: dict[str, int | float] = {}
    for item in filter(None, written.split(",")):
        key, equals, value = (part.strip() for part in item.partition("="))
        if key not in parameters or not equals:
            takes = f"takes {', '.join(parameters)} as key=value" if parameters else "takes no parameters"
            raise EnergyError(f"{spec}: {item!r} is not a parameter; {name} {takes}")
        if key in given:
            raise EnergyError(f"{spec}: {key} is given twice; give each parameter once")
        given[key] = parameters[key].parse(value, spec)
    return name, {key: given.get(key, p.default) for key, p in parameters.items()}
