"""`ModelConfig`: which prior, which objective, and the sizes of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal

import torch

from landscape.energy.architectures import build
from landscape.errors import EnergyError
from nld_models.encoder import DIRECTIONS, Direction
from nld_models.errors import ConfigError
from nld_models.observation import DECODERS, NOISES, DecoderKind, NoiseKind

PriorKind = Literal["overdamped", "underdamped", "rotated", "nsde"]
Objective = Literal["matching", "simulated"]
PRIORS: tuple[PriorKind, ...] = ("overdamped", "underdamped", "rotated", "nsde")
OBJECTIVES: tuple[Objective, ...] = ("matching", "simulated")
MLP_ENERGY = MappingProxyType({"hidden": [64, 64], "activation": "tanh", "confinement": 0.1})
# What each prior has of the coefficients that can be learned.
COEFFICIENTS = {
    "overdamped": ("beta", "gamma"),
    "rotated": ("beta", "gamma"),
    "underdamped": ("beta", "gamma", "mass"),
    "nsde": ("gamma",),
}


@dataclass(frozen=True)
class ModelConfig:
    """The kind and the sizes of a model; one family, which differs in the prior only.

    latent_dim : d. prior : see `prior`. objective : "matching" (simulation-free, the default) or "simulated"
    (the paper's). direction : context c_k sees x_0..x_k ("online") or
    x_k..x_T ("reversed"). substeps : time steps an observation of the simulated objective; None is 4, underdamped 10.
    architecture, energy : name and config (without dim) of the energy network, see `landscape.energy.architectures`;
    an empty table is two hidden layers of 64 and a confinement of .1 for "mlp", the published sizes for "residual-mlp".
    decoder : "mlp" or "linear"; decoder_hidden : its hidden units. noise : the decoder's is one number a channel
    ("constant") or depends on the latent point ("state"). context : units of the GRU and of the posterior's networks.
    drift_hidden : units of the two hidden layers of the free drift ("nsde").

    initial_diffusion : D = 1 / (beta gamma) at the start, in latent length^2 a frame (a prototype found no wells from
    4). beta : inverse temperature at the start. momentum_time : M / gamma at the start, in frames. learned : which of
    "beta", "gamma", "mass" training moves; the others stay. None is gamma and mass: only beta E enters any term, so
    that beta can be absorbed by the energy and stays 1. Of gamma and mass each coordinate's gamma / M is determined by
    the data, the scale of gamma only together with that of the latent space, which decoder and energy can stretch;
    learning it spares them that.
    """

    latent_dim: int = 2
    prior: PriorKind = "overdamped"
    objective: Objective | None = None
    direction: Direction = "online"
    substeps: int | None = None
    architecture: str = "mlp"
    energy: Mapping[str, Any] = field(default_factory=dict)
    decoder: DecoderKind = "mlp"
    decoder_hidden: int = 32
    noise: NoiseKind = "constant"
    context: int = 48
    drift_hidden: int = 64
    initial_diffusion: float = 0.5
    beta: float = 1.0
    momentum_time: float = 0.25
    learned: Sequence[str] | None = None

    def __post_init__(self) -> None:
        check_choice("prior", self.prior, PRIORS)
        underdamped = self.prior == "underdamped"
        learned = tuple(name for name in COEFFICIENTS[self.prior] if name != "beta")
        defaults = (("objective", "matching"), ("substeps", 10 if underdamped else 4), ("learned", learned))
        for name, value in defaults:
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name in ("latent_dim", "decoder_hidden", "context", "substeps", "drift_hidden"):
            check_count(name, getattr(self, name))
        for name, known in (
            ("objective", OBJECTIVES), ("direction", DIRECTIONS), ("decoder", DECODERS), ("noise", NOISES)
        ):  # fmt: skip
            check_choice(name, getattr(self, name), known)
        if self.prior == "rotated" and self.latent_dim < 2:
            raise ConfigError("a rotation needs latent_dim of at least 2, not 1")
        for name in ("initial_diffusion", "beta", "momentum_time"):
            check_positive(name, getattr(self, name))
        self._check_learned()
        self._check_energy()

    def _check_learned(self) -> None:
        known = COEFFICIENTS[self.prior]
        given = self.learned
        if isinstance(given, str) or not isinstance(given, Sequence) or set(given) - set(known):
            raise ConfigError(f"learned is a list of {', '.join(known)} for prior {self.prior}, not {given!r}")
        object.__setattr__(self, "learned", tuple(name for name in known if name in given))

    def _check_energy(self) -> None:
        if not isinstance(self.energy, Mapping) or "dim" in self.energy:
            raise ConfigError(f"energy is a table without dim (latent_dim gives it), not {self.energy!r}")
        given = self.energy or (MLP_ENERGY if self.architecture == "mlp" else {})
        object.__setattr__(self, "energy", MappingProxyType(dict(given)))
        try:
            with torch.random.fork_rng(devices=[]):
                build(self.architecture, {"dim": self.latent_dim, **self.energy})
        except EnergyError as error:
            raise ConfigError(str(error)) from None

    @property
    def time_step(self) -> float | None:
        """Of the simulated objective, in observations; matching has none."""
        assert self.substeps is not None
        return 1 / self.substeps if self.objective == "simulated" else None

    def learns(self, name: str) -> bool:
        return name in (self.learned or ())

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy cannot be copied or sent to another process.
        return _from_plain, (self.as_dict(),)

    def as_dict(self) -> dict[str, Any]:
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return plain | {"energy": dict(self.energy), "learned": list(self.learned or ())}


def _from_plain(plain: Mapping[str, Any]) -> ModelConfig:
    return ModelConfig(**plain)


def check_choice(name: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{name} is one of {', '.join(known)}, not {value!r}")


def check_count(name: str, value: Any, minimum: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ConfigError(f"{name} is a whole number of at least {minimum}, not {value!r}")


def check_positive(name: str, value: Any, zero: bool = False) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (0 < value < float("inf") or (zero and value == 0)):
        raise ConfigError(f"{name} is a finite number above 0{' or 0' if zero else ''}, not {value!r}")
