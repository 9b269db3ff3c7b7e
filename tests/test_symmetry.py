"""Declared symmetries: what they say of points, and weights and rates against quadrature over internal coordinates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq, minimize

import landscape
from landscape.energy import Energy, ParticleSymmetry, Periodic, load_energy, save_energy
from landscape.energy.architectures import SoftMinimum
from landscape.energy.modulo import eigh_modulo, nonzero_modes
from landscape.energy.symmetry import from_record
from landscape.errors import EnergyError, UsageError
from landscape.rates import langer_rates
from landscape.rates.log_determinant import LogDeterminants
from landscape.store.modulo import check_dynamics

GOLDEN = (1 + 5**0.5) / 2
ICOSAHEDRON = [[0, s, t * GOLDEN] for s in (1, -1) for t in (1, -1)]
ICOSAHEDRON = [row[k:] + row[:k] for row in ICOSAHEDRON for k in range(3)] + [[0, 0, 0]]
OCTAHEDRON = [[s if k == i else 0 for k in range(3)] for i in range(3) for s in (1, -1)]
TRIANGLE = [[math.cos(a), math.sin(a), 0] for a in (0, 2 * math.pi / 3, 4 * math.pi / 3)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- points ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("atoms", "order", "zero_modes"),
    [
        (ICOSAHEDRON, 120, 6),
        (OCTAHEDRON, 48, 6),
        ([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], 24, 6),
        (TRIANGLE, 12, 6),
        ([[0, 0, 0], [1, 0, 0], [0, 1.3, 0]], 2, 6),  # planar: its mirror image is itself
        ([[0, 0, 0], [1, 0, 0], [0, 1.3, 0], [0.2, 0.3, 0.9]], 1, 6),
        ([[0, 0, 0], [1, 0, 0], [2, 0, 0]], 4, 5),  # on a line: both signs, and end for end
        ([[0, 0, 0], [1, 0, 0], [2.1, 0, 0]], 2, 5),
    ],
)
def test_point_groups(atoms: list[list[float]], order: int, zero_modes: int) -> None:
    """Orders from the books, for the points as they are and moved by random elements of the group."""
    x = np.array(atoms, float).reshape(1, -1)
    symmetry = ParticleSymmetry(len(atoms))
    moved = symmetry.moved(torch.from_numpy(x).repeat(3, 1), generator()).numpy()
    orbits = symmetry.orbits(np.concatenate([x, moved]))
    assert (orbits.order == order).all() and (orbits.zero_modes == zero_modes).all()
    assert np.ptp(orbits.log_volume) < 1e-9


def test_species_and_handedness_change_the_point_group() -> None:
    octahedron = np.array(OCTAHEDRON, float).reshape(1, -1)

    def order(**options: object) -> int:
        return int(ParticleSymmetry(6, **options).orbits(octahedron).order[0])

    assert order(inversion=False) == 24
    assert order(species=("a", "a", "b", "b", "b", "b")) == 16  # an axis is told from the others
    assert order(species=tuple(range(6))) == 1
    assert order(rotation=False, inversion=False) == 1


def test_copies_are_recognised_and_other_points_are_not() -> None:
    """Mirror images are copies only where inversion is declared; the chiral cluster has five particles at random."""
    x = torch.randn(1, 15, generator=generator(), dtype=torch.float64)
    both, one = ParticleSymmetry(5), ParticleSymmetry(5, inversion=False)
    for symmetry in (both, one):
        moved = symmetry.moved(x.repeat(20, 1), generator(1)).numpy()
        assert symmetry.separation(moved, x[0].numpy(), 1e-6).max() < 1e-12
        assert np.abs(symmetry.nearest(moved, x.repeat(20, 1).numpy()) - x.numpy()).max() < 1e-12
    mirrored = (x.reshape(1, 5, 3) * torch.tensor([1.0, 1, -1], dtype=torch.float64)).reshape(1, 15).numpy()
    assert both.separation(mirrored, x[0].numpy(), 1e-6)[0] < 1e-12
    assert one.separation(mirrored, x[0].numpy(), 1e-6)[0] == np.inf
    other = x.clone()
    other[0, 0] += 1e-3
    assert both.separation(other.numpy(), x[0].numpy(), 1e-4)[0] == np.inf


def test_the_nearest_copy_of_another_shape() -> None:
    """Against a search over all permutations and, for each, Kabsch's rotation found by an optimiser."""
    a, b = np.random.default_rng(0).standard_normal((2, 1, 8))
    symmetry = ParticleSymmetry(4, dim=2)
    near = symmetry.nearest(b, a)
    one, other = (symmetry.centered(p)[0] for p in (a, b))
    best = np.inf

    def distance(angle: np.ndarray, points: np.ndarray) -> float:
        turn = np.array([[math.cos(angle[0]), -math.sin(angle[0])], [math.sin(angle[0]), math.cos(angle[0])]])
        return float(np.linalg.norm(one - points @ turn.T))

    for order in itertools.permutations(range(4)):
        for sign in (1, -1):
            points = other[list(order)] * [1, sign]
            best = min(best, *(minimize(distance, [s], args=(points,)).fun for s in (0.0, 3.0)))
    assert np.linalg.norm(symmetry.canonical(near) - symmetry.canonical(a)) == pytest.approx(best, abs=1e-6)


def test_zero_modes_leave_the_spectrum_and_come_back_as_exact_zeros() -> None:
    energy = load_energy("potential:lennard-jones:n=4")
    x = torch.randn(5, 12, generator=generator(), dtype=torch.float64)
    hessian = energy.hessian(x)
    values, vectors = eigh_modulo(energy.symmetry, x, hessian)
    basis, _ = energy.symmetry.tangents(x)
    assert (basis.mT @ basis - torch.eye(6)).abs().max() < 1e-12
    assert (vectors[:, :, :6].mT @ basis).abs().max() < 1e-7  # the six others come first
    spectrum = energy.symmetry.spectrum(x.numpy(), values.numpy())
    assert ((spectrum == 0).sum(1) == 6).all()


def test_periods() -> None:
    symmetry = Periodic((2.0, None))
    assert np.allclose(symmetry.canonical(np.array([[-0.5, -0.5], [4.0, 7.0]])), [[1.5, -0.5], [0.0, 7.0]])
    assert symmetry.separation(np.array([[1.9, 0.0]]), np.array([0.1, 0.0]), 1.0)[0] == pytest.approx(0.2)
    assert np.allclose(symmetry.nearest(np.array([[0.1, 3.0]]), np.array([[5.8, 3.0]])), [[6.1, 3.0]])


# -- declarations ------------------------------------------------------------------------------------------------------


def pairs(x: torch.Tensor) -> torch.Tensor:
    """A confining pair energy of three particles in the plane."""
    atoms = x.reshape(len(x), 3, 2)
    gap = (atoms[:, [0, 0, 1]] - atoms[:, [1, 2, 2]]).square().sum(2)
    return ((gap - 1) ** 2).sum(1)


REFUSED = [
    (lambda x: pairs(x) + 0.1 * x[:, 0], ParticleSymmetry(3, 2), "translation changes E from"),
    (lambda x: pairs(x) + 0.1 * (x[:, 0] - x[:, 2]) ** 2, ParticleSymmetry(3, 2), "rotation changes E from"),
    (
        lambda x: pairs(x) + ((x[:, 2:4] - x[:, :2]).flip(1) * (x[:, 4:] - x[:, :2]) @ torch.tensor([-1.0, 1]).to(x)),
        ParticleSymmetry(3, 2, species=("a", "b", "c")),
        "inversion changes E from",
    ),
    (
        lambda x: pairs(x) + 0.1 * (x[:, :2] - x[:, 2:4]).square().sum(1),
        ParticleSymmetry(3, 2),
        "permutation of particles of one species changes E from",
    ),
    (lambda x: torch.cos(x).sum(1), Periodic((6.28, None, None, None, None, None)), "period 6.28 of coordinate 0"),
]


@pytest.mark.parametrize(("function", "symmetry", "says"), REFUSED)
def test_a_symmetry_that_an_energy_lacks_is_refused_with_the_numbers(
    function: Callable[[torch.Tensor], torch.Tensor], symmetry: ParticleSymmetry | Periodic, says: str
) -> None:
    def energy(x: torch.Tensor) -> torch.Tensor:
        return function(x)

    energy.symmetry = symmetry
    with pytest.raises(EnergyError, match=says):
        load_energy(energy, dim=6)


def test_a_symmetry_that_holds_is_accepted_from_code_and_from_files(tmp_path: Path) -> None:
    code = "import landscape, torch\ndef mine(x): return torch.cos(x).sum(1)\n"
    (tmp_path / "e.py").write_text(code + "mine.symmetry = landscape.Periodic((2 * torch.pi, None))\n")
    assert load_energy(f"{tmp_path}/e.py:mine", dim=2).symmetry == Periodic((2 * math.pi, None))
    with torch.random.fork_rng():
        network = SoftMinimum(2, 2)
    with torch.no_grad():
        network.centers.copy_(torch.tensor([[1.0, 0], [-1, 0]]))
        network.factors.zero_()
        network.logits.zero_()
    mirror = ParticleSymmetry(2, dim=1, translation=False)  # two particles on a line: exchange, and x -> -x
    with pytest.raises(EnergyError, match="permutation of particles"):
        load_energy(save_energy(network, tmp_path / "wrong.safetensors", symmetry=mirror))
    told = ParticleSymmetry(2, dim=1, translation=False, species=("a", "b"))
    found = load_energy(save_energy(network, tmp_path / "right.safetensors", symmetry=told))
    assert found.symmetry == told and from_record(told.record(), 2, "here") == told


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Periodic((0.0,)), "finite number above 0"),
        (lambda: Periodic((None, None)), "a period in one coordinate"),
        (lambda: ParticleSymmetry(0), "at least 1"),
        (lambda: ParticleSymmetry(3, dim=4), "1, 2 or 3"),
        (lambda: ParticleSymmetry(3, rotation=False), "together with rotation"),
        (lambda: ParticleSymmetry(3, species=("a",)), "3 labels"),
        (lambda: Energy(pairs, 7, symmetry=ParticleSymmetry(3, 2)), "6 coordinates, but the energy has 7"),
        (lambda: from_record({"kind": "crystal"}, 3, "file"), "periodic or particles"),
        (lambda: from_record({"kind": "periodic", "period": [1]}, 1, "file"), "period"),
        (lambda: from_record({"kind": "periodic", "periods": [1.0]}, 2, "file"), "one a coordinate"),
    ],
)
def test_bad_declarations(make: Callable[[], object], says: str) -> None:
    with pytest.raises(EnergyError, match=says):
        make()


def test_dynamics_must_have_the_symmetry() -> None:
    record = ParticleSymmetry(2, 2, species=("a", "b")).record()
    check_dynamics(record, landscape.Overdamped(1.0, (1, 1, 2, 2)), 4)
    for gamma in ((1, 2, 1, 2), (1, 1, 1, 2)):
        with pytest.raises(UsageError, match="one number a particle"):
            check_dynamics(record, landscape.Overdamped(1.0, gamma), 4)
    with pytest.raises(UsageError, match="one number a particle"):
        check_dynamics(ParticleSymmetry(2, 2).record(), landscape.Underdamped(1.0, 1.0, (1, 1, 2, 2)), 4)


# -- masses and rates against quadrature -------------------------------------------------------------------------------


def formula_mass(energy: Energy, x: np.ndarray, beta: float) -> float:
    """log of the mass of the orbit of the minimum x (d,) in the harmonic approximation, a unit of volume of the box."""
    point = torch.from_numpy(x[None])
    values, _ = eigh_modulo(energy.symmetry, point, energy.hessian(point))
    spectrum = energy.symmetry.spectrum(x[None], values.numpy())
    orbits = energy.symmetry.orbits(x[None])
    width = energy.dim - int(orbits.zero_modes[0])
    log_det = nonzero_modes(spectrum, orbits.log_volume, width, beta)[1][0]
    return -beta * float(energy.value(x[None])[0]) - 0.5 * log_det + 0.5 * width * math.log(2 * math.pi / beta)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("species", [None, ("a", "b", "c")])
def test_masses_of_the_lennard_jones_trimer(dim: int, species: tuple[str, ...] | None) -> None:
    """Z = 2 pi int a b exp(-beta E) da db dtheta in the plane (8 pi^2 int a^2 b^2 sin(theta) in space), over the bond
    lengths a, b and the angle between them, all labellings: 2 triangles in the plane, or 1 in space (where a turn makes
    the mirror image). The formula is off by a factor 1 + c / beta: halved when beta doubles."""
    potential = load_energy(f"potential:lennard-jones:n=3,dim={dim}").function
    energy = Energy(potential, 3 * dim, symmetry=ParticleSymmetry(3, dim, species=species))
    r = 2 ** (1 / 6)
    x = np.zeros((3, dim))
    x[1, 0], x[2, :2] = r, (r / 2, r * 3**0.5 / 2)
    points, weights = np.polynomial.legendre.leggauss(24)

    def difference(beta: float) -> float:
        reach = 9 / math.sqrt(57 * beta)  # the curvature of a bond is 57
        a, b, t = np.meshgrid(r + reach * points, r + reach * points, math.pi / 3 + 1.5 * reach * points)
        w = 1.5 * reach**3 * np.einsum("i,j,k->ijk", weights, weights, weights)
        c = np.sqrt(a * a + b * b - 2 * a * b * np.cos(t))
        value = sum(4 * (s**-12 - s**-6) for s in (a, b, c))
        measure = 2 * 2 * math.pi * a * b if dim == 2 else 8 * math.pi**2 * (a * b) ** 2 * np.sin(t)
        exact = np.log((w * measure * np.exp(-beta * (value + 3))).sum()) + 3 * beta
        return formula_mass(energy, x.ravel(), beta) - exact

    coarse, fine = difference(1000.0), difference(2000.0)
    assert abs(fine) < 5e-3 and fine == pytest.approx(0.5 * coarse, rel=0.05)


def bond(r: float) -> float:
    """A double well in the length of a bond."""
    return 8 * (r - 1) ** 2 * (r - 2) ** 2 + 0.1 * r


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_dimer_with_two_lengths(dim: int) -> None:
    """Weights against int r^(dim - 1) exp(-beta E) dr, and rates against the mean first passage time of r, whose free
    energy is E - (dim - 1) log(r) / beta and whose diffusion coefficient is 2 / (beta gamma): in space all points have
    five zero modes, and saddle and minima differ by their moments of inertia alone. Both are right to O(1 / beta)."""

    def function(x: torch.Tensor) -> torch.Tensor:
        r = (x[:, :dim] - x[:, dim:]).square().sum(1).sqrt()
        return 8 * (r - 1) ** 2 * (r - 2) ** 2 + 0.1 * r

    energy = Energy(function, 2 * dim, symmetry=ParticleSymmetry(2, dim))
    gamma = 1.7

    def slope(r: float) -> float:
        return 16 * (r - 1) * (r - 2) * (2 * r - 3) + 0.1

    short, top, long = (brentq(slope, *bracket, xtol=1e-14) for bracket in ((0.9, 1.1), (1.4, 1.6), (1.9, 2.1)))
    x = np.zeros((3, 2 * dim))
    x[:, 0] = short, top, long
    points = torch.from_numpy(x)
    values, _ = eigh_modulo(energy.symmetry, points, energy.hessian(points))
    spectra = energy.symmetry.spectrum(x, values.numpy())
    orbits = energy.symmetry.orbits(x)
    errors = []
    for beta in (40.0, 80.0):
        reduced, log_dets = nonzero_modes(spectra, orbits.log_volume, 1, beta)
        assert reduced.shape == (3, 1)

        def mass(r: float, beta: float = beta) -> float:
            return r ** (dim - 1) * math.exp(-beta * bond(r))

        low, high = (quad(mass, *limits, epsabs=0, epsrel=1e-10)[0] for limits in ((0, top), (top, 4)))
        weight = formula_mass(energy, x[0], beta) - formula_mass(energy, x[2], beta) - math.log(low / high)
        time = quad(
            lambda y: quad(mass, 0, y, epsabs=0, epsrel=1e-9)[0] / mass(y), short, long, epsabs=0, epsrel=1e-8,
            points=[top],
        )[0]  # fmt: skip
        exact = -math.log(time * beta * gamma / 2)
        e = energy.value(x)
        rates = langer_rates(
            landscape.Overdamped(beta, gamma), e[[0, 2]], reduced[[0, 2]], e[[1]], reduced[[1]], None,
            np.array([[0, 1]]),
            log_dets=(LogDeterminants.exact(log_dets[[0, 2]]), LogDeterminants.exact(log_dets[[1]])),
        )  # fmt: skip
        forward, backward = rates.log_rates[0]
        masses = [formula_mass(energy, x[k], beta) for k in (0, 2)]
        assert masses[0] + forward == pytest.approx(masses[1] + backward, abs=1e-9)
        errors.append((weight, forward - exact))
    assert np.abs(errors[1]).max() < 0.02
    assert np.abs(errors[1]).max() < 0.7 * np.abs(errors[0]).max()


def test_lines_and_other_shapes_have_masses_that_can_be_compared() -> None:
    """A point with one zero mode less: its row is filled up, and exp(-beta E) / sqrt(det) is the mass still."""
    spectra = np.array([[0.0, 0, 2, 3], [0, 4, 5, 6]])
    volumes, beta = np.array([0.7, 0.2]), 3.0
    reduced, log_dets = nonzero_modes(spectra, volumes, 3, beta)
    assert np.allclose(reduced, [[2, math.sqrt(6), 3], [4, 5, 6]])
    per_mode = 0.5 * math.log(2 * math.pi / beta)
    direct = volumes + per_mode * np.array([2, 3]) - 0.5 * np.log([6, 120])
    assert np.diff(-0.5 * log_dets)[0] == pytest.approx(np.diff(direct)[0], abs=1e-12)
