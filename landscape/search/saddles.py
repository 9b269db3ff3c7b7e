"""Single-ended search for saddles of any index: batched eigenvector following with a trust radius."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from landscape.energy import Energy, ParticleSymmetry
from landscape.energy.modulo import eigh_modulo
from landscape.errors import UsageError
from landscape.search.driver import State, Status, as_given, iterate, working_copy
from landscape.search.large_saddles import follow_by_products
from landscape.search.recognition import KnownPoints
from landscape.tasks.task import matrix_doubles, task

FLOOR = 1e-3  # eigenvalues below this part of the largest count as that much, so that steps stay bounded
ENERGY_NOISE = 450.0  # changes of the energy below this many units in its last place say nothing
MANY_POINTS = 1000  # known, from which on the nearest one is looked for ...
NEAR = 0.3  # ... only by rows whose Newton step is shorter than this part of the trust radius
MOST_ZERO_MODES = 6  # translations and rotations in space
REFUSED = 0.6  # a step that the model foretells worse than this is not taken
REFRESH = 0.35  # and one that it foretells worse than this is followed by products, where these renew Hessians


@dataclass(frozen=True)
class EigenvectorFollowing:
    """Hyper-parameters of `follow_eigenvectors`.

    max_iterations : steps a row may use, a gradient each.
    step_tolerance : converged when the Newton step is below step_tolerance (1 + |x|); the caller polishes.
    trust : initial and largest trust radius as parts of the landscape's length scale.
    single : walk in float32; the caller polishes in the energy's own precision.
    products : Hessian-vector products, with as many of the lowest and of the highest modes of the estimate, by which a
        Hessian that has failed is renewed; 0 for a Hessian that is exact again. Saves most of the cost in tens of
        dimensions, at about twice the iterations.
    """

    max_iterations: int = 60
    step_tolerance: float = 1e-5
    initial_trust: float = 0.1
    largest_trust: float = 0.3
    single: bool = False
    products: int = 0

    def __post_init__(self) -> None:
        if self.max_iterations < 1 or not self.step_tolerance > 0 or not 0 < self.initial_trust <= self.largest_trust:
            raise UsageError(
                f"eigenvector following needs positive limits and initial_trust <= largest_trust, not {self}"
            )
        if self.products < 0:
            raise UsageError(f"a Hessian is renewed by products >= 0 at either end of its spectrum, not {self}")


@task(
    rows={"x": 2, "index": 1, "scale": 1, "region": 2, "hessian": 3},
    doubles=matrix_doubles,
    calls=lambda x: 2 * x.shape[1],
)
def follow_eigenvectors(
    energy: Energy,
    x: torch.Tensor,
    index: torch.Tensor,
    scale: float | torch.Tensor,
    region: tuple[torch.Tensor, torch.Tensor],
    config: EigenvectorFollowing | None = None,
    hessian: torch.Tensor | None = None,
    *,
    known: tuple[KnownPoints, torch.Tensor] | None = None,
) -> State:
    """Walk from each row of x (n, d) towards a stationary point of the given index (n,).

    In the eigenbasis of the Hessian the step is +g_i/|lambda_i| in the `index` lowest modes (uphill) and
    -g_i/|lambda_i| in the others (downhill), cut at a trust radius that follows how well the quadratic model foretells
    the energy (Cerjan and Miller 1981; Wales 1994). At a point of the wanted index this is Newton's method. The Hessian
    is exact at the start and where a step has been refused, since the model had failed; in between it is updated from
    the gradients (Bofill, J. Comput. Chem. 15 (1994) 1), which costs nothing, where an exact one costs 2 d gradients.
    Products (see `config`) renew it sooner. `scale`, one number or one a row, is the length that the trust radius
    refers to.

    region : the box (low, high; each (d,), or (n, d) for one box a row) that no row may leave: it would be DIVERGED.
    hessian (n, d, d) : of points nearby, taken in place of the exact one at the start (renewed by `config.products`,
    where there are any); rows of nan get the exact one. known : points, and the index (k,) of each; a row that comes
    near one of them, if it has the index sought, is CAPTURED.

    Returns x, energy, status, iterations, and label (n,): the number of the capturing point, -1 for none.
    Where d is too large for Hessians the steps are chosen in Krylov subspaces (`follow_by_products`), and no points are
    known.
    """
    config = config or EigenvectorFollowing()
    if energy.matrix_free:
        return follow_by_products(energy, x, index, scale, region, config) | {"label": torch.full_like(index, -1)}
    given = x
    energy, x = working_copy(energy, x, config.single)
    low, high = (bound.to(x).expand_as(x) for bound in region)
    known = None if known is None else (known[0].to(x), known[1].to(x.device))
    n = len(x)
    length = torch.as_tensor(scale, dtype=x.dtype, device=x.device).expand(n)
    value, gradient = energy.value_and_gradient(x)
    exact = torch.ones(n, dtype=torch.bool, device=x.device)
    if hessian is None:
        hessian = energy.hessian(x)
    else:
        missing = ~finite_matrices(hessian.to(x))
        hessian = _started(energy, x, hessian.to(x), missing, config.products)
        exact = missing | bool(config.products)
    finite = value.isfinite() & gradient.isfinite().all(1) & finite_matrices(hessian)
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    hessian = torch.where(finite[:, None, None], hessian, eye)
    eigenvalues, vectors = eigh_modulo(energy.symmetry, x, hessian)
    state: State = {
        "x": x.clone(), "energy": value, "gradient": gradient, "hessian": hessian, "exact": exact,
        "eigenvalues": eigenvalues, "vectors": vectors, "target": index, "scale": length,
        "trust": config.initial_trust * length, "low": low, "high": high,
        "label": torch.full_like(index, -1),
        "status": torch.where(finite, int(Status.RUNNING), int(Status.NOT_FINITE)),
    }  # fmt: skip

    def step(state: State) -> State:
        return _step(energy, state, config, known)

    return as_given(iterate(step, state, ("x", "energy", "label"), config.max_iterations), given)


def _started(
    energy: Energy, x: torch.Tensor, hessian: torch.Tensor, missing: torch.Tensor, products: int
) -> torch.Tensor:
    """Hessians (n, d, d) to start from at x (n, d): those given, renewed by products; exact ones where missing (n,)."""
    hessian = torch.where(missing[:, None, None], torch.eye(x.shape[1], dtype=x.dtype, device=x.device), hessian)
    if products:
        hessian = _renewed(energy, x, hessian, x, eigh_modulo(energy.symmetry, x, hessian)[1], products)
    if bool(missing.any()):
        hessian[missing] = energy.hessian(x[missing])
    return hessian


def finite_matrices(matrices: torch.Tensor) -> torch.Tensor:
    return matrices.sum((-2, -1)).isfinite()


def _step(
    energy: Energy, state: State, config: EigenvectorFollowing, known: tuple[KnownPoints, torch.Tensor] | None
) -> State:
    x, value, gradient, eigenvalues = state["x"], state["energy"], state["gradient"], state["eigenvalues"]
    tiny = torch.finfo(x.dtype).tiny
    components = _rotated(state["vectors"].mT, gradient)
    magnitude = eigenvalues.abs()
    magnitude = torch.maximum(magnitude, FLOOR * magnitude.amax(1, keepdim=True)).clamp_min(tiny)
    mode = torch.arange(x.shape[1], device=x.device)
    uphill = mode < state["target"][:, None]
    step = torch.where(uphill, 1.0, -1.0) * components / magnitude
    length = step.norm(dim=1)
    step = step * (state["trust"] / torch.maximum(length, state["trust"]))[:, None]
    move = _rotated(state["vectors"], step)
    trial = x + move
    trial_value, trial_gradient = energy.value_and_gradient(trial)
    finite = trial_value.isfinite() & trial_gradient.isfinite().all(1)

    # How far the energy's change is from the model's, in units of the model's own terms (their signs may cancel).
    linear, quadratic = components * step, 0.5 * eigenvalues * step.square()
    predicted, terms = (linear + quadratic).sum(1), (linear.abs() + quadratic.abs()).sum(1)
    noise = ENERGY_NOISE * torch.finfo(x.dtype).eps * (1 + value.abs())
    mismatch = ((trial_value - value - predicted).abs() / (terms + noise)).nan_to_num(torch.inf)
    accept = finite & (mismatch < REFUSED)
    factor = torch.where(mismatch < 0.1, 2.0, torch.where(mismatch < 0.3, 1.0, torch.where(accept, 0.6, 0.35)))
    factor = torch.where(finite, factor, 0.25)
    used = torch.minimum(length, state["trust"])
    trust = torch.where(factor > 1, torch.maximum(state["trust"], 2 * used), factor * used)
    result = dict(state)
    result["trust"] = trust = torch.minimum(trust, config.largest_trust * state["scale"])
    result["x"] = x = torch.where(accept[:, None], trial, x)
    result["energy"] = torch.where(accept, trial_value, value)
    result["gradient"] = torch.where(accept[:, None], trial_gradient, gradient)

    # A model that failed with an exact Hessian fails by its length alone: the trust radius mends that.
    renew = ~accept & ~state["exact"]
    if config.products:
        renew |= accept & (mismatch > REFRESH)
    updated = bofill(state["hessian"], move, trial_gradient - gradient)
    hessian = torch.where((accept & finite_matrices(updated))[:, None, None], updated, state["hessian"])
    if bool(renew.any()):
        hessian[renew] = _renewed(
            energy, x[renew], hessian[renew], state["x"][renew], state["vectors"][renew], config.products
        )
    result["hessian"], result["exact"] = hessian, renew | (~accept & state["exact"])
    result["eigenvalues"], result["vectors"] = eigh_modulo(energy.symmetry, x, hessian)

    newton = _rotated(result["vectors"].mT, result["gradient"]) / result["eigenvalues"].abs().clamp_min(tiny)
    status = state["status"].clone()
    status[newton.norm(dim=1) < config.step_tolerance * (1 + x.norm(dim=1))] = Status.CONVERGED
    status[((x < state["low"]) | (x > state["high"])).any(1)] = Status.DIVERGED
    status[trust < 1e-8 * state["scale"]] = Status.UNFINISHED
    if known is not None:
        result["label"] = _labels(known, result, newton.norm(dim=1) <= NEAR * trust)
        status[result["label"] >= 0] = Status.CAPTURED
    result["status"] = status
    return result


def _labels(known: tuple[KnownPoints, torch.Tensor], state: State, near: torch.Tensor) -> torch.Tensor:
    """Numbers (n,) of the known points that the rows have come near, if these have the index sought; else -1.

    near (n,) : rows that are not far from a stationary point, by their own models. Of very many points the nearest is
    dear to find, and looked for by these rows only.
    """
    points, index = known
    if len(points) > MANY_POINTS:
        label = torch.full_like(state["label"], -1)
        if bool(near.any()):
            label[near] = points.recognise(state["x"][near], state["energy"][near], state["gradient"][near])
    else:
        label = points.recognise(state["x"], state["energy"], state["gradient"])
    place = torch.searchsorted(points.numbers, label.clamp_min(int(points.numbers[0])))
    return torch.where(index[place] == state["target"], label, -1)


def _renewed(
    energy: Energy, x: torch.Tensor, hessian: torch.Tensor, before: torch.Tensor, vectors: torch.Tensor, products: int
) -> torch.Tensor:
    """Exact Hessians at x (n, d), or estimates (n, d, d) made right in the modes at both ends of their spectra.

    before, vectors : the points and the eigenvectors of the step that failed, whose ends are as good as later ones.
    The lowest modes decide which way is uphill. The highest ones outlive the short bonds to which they belonged, since
    no later step is long in them, and make every step look wrong.
    """
    n, d = x.shape
    if not products or 2 * products > d - MOST_ZERO_MODES:
        renewed = energy.hessian(x)
    else:
        modes = _ends(energy, before, vectors, products)
        rows = modes.mT.reshape(-1, d)
        images = energy.hvp(x.repeat_interleave(2 * products, 0), rows).reshape(n, -1, d).mT
        # the symmetric matrix nearest to the estimate that takes the modes to their images (Powell's, for a block)
        missed = images - hessian @ modes
        cross = (missed - 0.5 * modes @ (modes.mT @ missed)) @ modes.mT
        renewed = hessian + cross + cross.mT
    return torch.where(finite_matrices(renewed)[:, None, None], renewed, hessian)


def _ends(energy: Energy, x: torch.Tensor, vectors: torch.Tensor, k: int) -> torch.Tensor:
    """The k lowest and the k highest of the modes `vectors` (n, d, d) at x (n, d), without those along orbits, which
    come last: (n, d, 2 k)."""
    d, last = x.shape[1], torch.full_like(x[:, 0], x.shape[1])
    if isinstance(energy.symmetry, ParticleSymmetry):
        last = last - energy.symmetry.tangents(x)[0].square().sum((1, 2)).round()
    place = torch.arange(k, device=x.device)
    place = torch.cat([place.expand(len(x), k), last.long()[:, None] - k + place], 1)
    return vectors.gather(2, place[:, None].expand(-1, d, -1))


def _rotated(matrices: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Matrix times vector, row by row: (n, d, d), (n, d) -> (n, d)."""
    return torch.bmm(matrices, rows[:, :, None])[:, :, 0]


def bofill(hessian: torch.Tensor, step: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """Hessian estimates (n, d, d) that map the step (n, d) to the change of the gradient (n, d), near the given ones.

    With u the unit step and q the change that the estimate misses, a step length, the symmetric rank-one update
    q q' / (q.u) and Powell's symmetric one q u' + u q' - (q.u) u u' are mixed in the shares phi and 1 - phi,
    phi = (q.u)^2 / q.q: neither of them forces the estimate to be positive.
    """
    tiny = torch.finfo(hessian.dtype).tiny
    length = step.norm(dim=1, keepdim=True).clamp_min(tiny)
    unit = step / length
    missed = change / length - _rotated(hessian, unit)
    along, size = (missed * unit).sum(1, keepdim=True), missed.square().sum(1, keepdim=True).clamp_min(tiny)
    powell = 1 - along.square() / size
    # both updates in one product of rank two: q (along / size q + powell u)' + u (powell (q - along u))'
    pair = torch.stack([missed, unit], 2)
    mixed = torch.stack([along / size * missed + powell * unit, powell * (missed - along * unit)], 1)
    return torch.baddbmm(hessian, pair, mixed)
