"""Double-ended paths: the string method, and the minimum energy path through a known saddle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from landscape.energy import Energy, as_energy
from landscape.energy.symmetry import nearest_copies
from landscape.errors import UsageError
from landscape.search.driver import State, Status, evaluate, iterate
from landscape.search.saddles import EigenvectorFollowing, follow_eigenvectors
from landscape.search.stationary import classify, newton_polish
from landscape.tasks import task

LONGEST_MOVE = 0.5  # of an image, in spacings
INERTIA = 0.5  # the most of an image's last move that is added to its next one
FORGETTING = 0.9  # what remains, after each move, of the curvature that earlier ones have shown
TURNED = 1.3  # and where the force across the path has turned round, it grows by this
CLIMBS = 3  # passes, each higher than the last, that a path is led through
ROUNDING = 1e-8  # an energy is higher than another by more than this part of 1 + |E|
UNEVEN = 0.1  # spacings between an image and its place before the last move of a string that has converged


@dataclass(frozen=True)
class StringOptions:
    """Hyper-parameters of the string method.

    n_images : points on a path, both ends included. max_iterations : moves of a string.
    force_tolerance : converged when the largest force across the path is below this part of the largest gradient on it.
    """

    n_images: int = 31
    max_iterations: int = 500
    force_tolerance: float = 0.02

    def __post_init__(self) -> None:
        if self.n_images < 5 or self.max_iterations < 1 or not self.force_tolerance > 0:
            raise UsageError(f"a string needs n_images >= 5, max_iterations >= 1 and force_tolerance > 0, not {self}")


COARSE = StringOptions(n_images=15, max_iterations=100, force_tolerance=0.05)  # good enough to climb from


@dataclass(frozen=True)
class Paths:
    """A batch of n paths of m images.

    images (n, m, d), ends included; energy (n, m); arclength (n, m) : cumulative Euclidean length;
    perpendicular_force (n,) : largest force across the path; status (n,) : `Status` codes;
    saddle (n, d), saddle_energy (n,), saddle_status (n,) : the polished highest point of each path where asked for;
    CONVERGED only if it is an index-1 point (nan elsewhere).
    """

    images: np.ndarray
    energy: np.ndarray
    arclength: np.ndarray
    perpendicular_force: np.ndarray
    status: np.ndarray
    saddle: np.ndarray
    saddle_energy: np.ndarray
    saddle_status: np.ndarray


def straight_images(start: torch.Tensor, end: torch.Tensor, n_images: int) -> torch.Tensor:
    """Evenly spaced images (n, n_images, d) on the straight lines from start (n, d) to end (n, d)."""
    t = torch.linspace(0, 1, n_images, dtype=start.dtype, device=start.device)[None, :, None]
    return start[:, None] * (1 - t) + end[:, None] * t


def arclengths(images: torch.Tensor) -> torch.Tensor:
    """Cumulative Euclidean length along each path: (n, m, d) -> (n, m), starting at 0."""
    pieces = images.diff(dim=1).norm(dim=-1)
    return torch.cat([pieces.new_zeros(len(pieces), 1), pieces.cumsum(1)], 1)


def resample(images: torch.Tensor, n_images: int) -> torch.Tensor:
    """Images at equal arclength, by cubic Hermite interpolation: (n, m, d) -> (n, n_images, d)."""
    m, eps = images.shape[1], max(1e-12, torch.finfo(images.dtype).eps)
    s = arclengths(images)
    # A strictly increasing abscissa even where images coincide.
    increasing = eps * torch.arange(m, dtype=images.dtype, device=images.device)
    s = s / s[:, -1:].clamp_min(torch.finfo(images.dtype).tiny) + increasing
    wanted = torch.linspace(0, 1, n_images, dtype=images.dtype, device=images.device) * s[:, -1:]
    left = (torch.searchsorted(s, wanted, right=True) - 1).clamp(0, m - 2)
    width = s.diff(dim=1)[..., None]
    slope = images.diff(dim=1) / width
    inner = torch.lerp(slope[:, 1:], slope[:, :-1], width[:, 1:] / (width[:, :-1] + width[:, 1:]))
    tangent = torch.cat([slope[:, :1], inner, slope[:, -1:]], 1)
    at = left[..., None].expand(-1, -1, images.shape[2])
    a, b, ta, tb = images.gather(1, at), images.gather(1, at + 1), tangent.gather(1, at), tangent.gather(1, at + 1)
    h = width[..., 0].gather(1, left)[..., None]
    u = (wanted - s.gather(1, left))[..., None] / h
    v = 1 - u
    result = a + (u.square() * (3 - 2 * u)) * (b - a) + (h * u * v) * (v * ta - u * tb)
    result[:, :: n_images - 1] = images[:, :: m - 1]
    return result


# Inside a search strings are the last axis, since operations along a short last axis cost several times as much:
# images, gradients and tangents are (d, m, n), energies (m, n). A move of a few strings costs what its tensor
# operations cost, however small, hence so few of them.


@task(rows={"images": 3}, doubles=lambda x: 24.0 * x.shape[1] * x.shape[2], calls=lambda x: x.shape[1])
def relax_strings(energy: Energy, images: torch.Tensor, options: StringOptions | None = None) -> State:
    """Move the inner images of each string (n, m, d) across the path, downhill, at equal arclength; the ends stay.

    The simplified string method (E, Ren and Vanden-Eijnden 2007): x_k -= dt * (gradient across the path), then
    images are redistributed. dt is, for each image, the inverse of the largest curvature that its own latest moves have
    shown, and no longer than a descent takes to the next image; a part of the last move is added (Polyak's heavy ball).
    Returns images, energy (n, m), force (n,) and status.
    """
    options = options or StringOptions()
    images = resample(images, images.shape[1]).permute(2, 1, 0).contiguous()
    value, gradient = _evaluate(energy, images)
    inner, across = gradient[:, 1:-1], _across(images, value, gradient[:, 1:-1])
    spacing = _length(images.diff(dim=1)).clamp_min(torch.finfo(images.dtype).tiny)
    curvature = _length(gradient.diff(dim=1)) / spacing
    finite = (value + gradient.abs().sum(0)).isfinite().all(0)
    state: State = {
        "path": torch.stack([images[:, 1:-1], inner]), "energy": value[1:-1].clone(),
        "ends": torch.stack([images[:, 0], images[:, -1]], 1), "end_energy": torch.stack([value[0], value[-1]]),
        "across": across, "move": torch.zeros_like(across), "size": _length(across), "slope": _length(inner),
        "curvature": torch.maximum(curvature[1:], curvature[:-1]), "spacing": spacing.mean(0),
        "force": torch.full_like(value[0], torch.inf),
        "status": torch.where(finite, int(Status.RUNNING), int(Status.NOT_FINITE)),
    }  # fmt: skip
    ended = iterate(
        lambda s: _string_step(energy, s, options), state, ("path", "energy", "force"), options.max_iterations,
        axes={name: part.ndim - 1 for name, part in state.items()}, inference=True,
    )  # fmt: skip
    images = _between(state["ends"], ended.pop("path")[0], 1).permute(2, 1, 0).contiguous()
    return ended | {"images": images, "energy": _between(state["end_energy"], ended["energy"], 0).T.contiguous()}


def _evaluate(energy: Energy, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Energies (m, n) and gradients (d, m, n)."""
    d, m, n = images.shape
    value, gradient = evaluate(energy, images.reshape(d, m * n).T)
    return value.reshape(m, n), gradient.T.reshape(d, m, n)


def _length(vectors: torch.Tensor, axis: int = 0) -> torch.Tensor:
    return (vectors * vectors).sum(axis).sqrt()


def _between(ends: torch.Tensor, inner: torch.Tensor, axis: int) -> torch.Tensor:
    """What belongs to inner images, with the first and the last one's at both ends of the axis."""
    start, end = ends.narrow(axis, 0, 1), ends.narrow(axis, 1, 1)
    return torch.cat((start, inner, end), axis)


def _across(images: torch.Tensor, value: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """The part across the path of the gradient (d, m - 2, n) at the inner images.

    Upwind tangents, towards the higher neighbour (Henkelman and Jonsson 2000): with centred ones a steep path breaks
    into zigzags. Their weights of the pieces on both sides, also at an extremum, are up to a factor these sums of the
    rises and falls of the energy on the pieces.
    """
    pieces, climb = images.diff(dim=1), value.diff(dim=0)
    size = climb.abs()
    rise, fall = size + climb, size - climb
    tangent = (rise[1:] + rise[:-1]) * pieces[:, 1:]
    tangent.addcmul_(fall[1:] + fall[:-1], pieces[:, :-1])
    square = (tangent * tangent).sum(0).clamp_min(torch.finfo(value.dtype).tiny)
    return torch.addcmul(gradient, (gradient * tangent).sum(0) / square, tangent, value=-1)


def _evened(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inner images (d, m - 2, n) shifted along the path towards equal arclength, no farther than to a neighbour's
    place; the mean spacing (n,), and the largest shift (n,) that was called for.

    Along the pieces beside it, which cuts corners, but not for long: where nothing moves any more, nothing is shifted.
    A quarter of the operations of `resample`.
    """
    pieces = images.diff(dim=1)
    lengths = _length(pieces).clamp_min(torch.finfo(images.dtype).tiny)
    s, slope = lengths.cumsum(0), pieces / lengths
    spacing = s[-1] / len(lengths)
    place = torch.arange(1, len(lengths), dtype=s.dtype, device=s.device)[:, None] * spacing
    wanted = place - s[:-1]
    forward = torch.minimum(wanted.clamp_min(0), lengths[1:])
    backward = torch.maximum(wanted.clamp_max(0), -lengths[:-1])
    even = torch.addcmul(images[:, 1:-1], forward, slope[:, 1:]).addcmul_(backward, slope[:, :-1])
    return even, spacing, wanted.abs().amax(0)


def _string_step(energy: Energy, state: State, options: StringOptions) -> State:
    path, ends, across, spacing = (state[name] for name in ("path", "ends", "across", "spacing"))
    tiny = torch.finfo(path.dtype).tiny ** 0.5
    # What damps an image: the curvature across the path, and along a steep path the pull of its uphill neighbour, whose
    # direction it takes (gradient / spacing). They add up: a step of more than twice 1 / sum makes kinks grow.
    rate = torch.addcdiv(state["curvature"], state["slope"], spacing).clamp_min(tiny)
    limit = LONGEST_MOVE * spacing
    # A heavy ball only where the curvature prevails: along a steep path it would make kinks grow as well.
    inertia = INERTIA * (state["curvature"] / rate).square()
    move = torch.addcmul(inertia * state["move"], limit / torch.maximum(state["size"], limit * rate), across, value=-1)
    even, spacing, shift = _evened(_between(ends, path[0] + move, 1))
    value, gradient = _evaluate(energy, even)
    new_path = torch.stack([even, gradient])
    even, gradient = new_path.unbind()  # the gradient as it came is not contiguous
    step, change = _length(new_path - path, 1)
    new_across = _across(_between(ends, even, 1), _between(state["end_energy"], value, 0), gradient)
    turned = (new_across * across).sum(0) < 0
    remembered = torch.where(turned, TURNED, FORGETTING) * state["curvature"]
    curvature = torch.maximum(remembered, change / torch.add(step, spacing, alpha=1e-9))
    slope, size = _length(gradient), _length(new_across)
    largest, force = slope.amax(0), size.amax(0)
    new = state | {
        "path": new_path, "energy": value, "across": new_across, "move": move, "size": size, "slope": slope,
        "curvature": curvature, "spacing": spacing, "force": force,
    }  # fmt: skip
    finite = (value.sum(0) + largest).isfinite()
    if not bool(finite.all()):  # such strings stay where they are and try shorter moves
        for name in ("path", "energy", "across", "size", "slope", "spacing", "force"):
            new[name] = torch.where(finite, new[name], state[name])
        new["move"] = torch.where(finite, move, 0)
        new["curvature"] = torch.where(finite, curvature, 4 * state["curvature"])
    done = finite & (force <= options.force_tolerance * largest) & (shift <= UNEVEN * spacing)
    new["status"] = state["status"].masked_fill(done, int(Status.CONVERGED))
    return new


def climb(energy: Energy, images: torch.Tensor, value: torch.Tensor) -> State:
    """The climbing image: follow the highest inner image of each path uphill along its lowest mode, then polish.

    Returns saddle (n, d), saddle_energy (n,), saddle_status (n,): CONVERGED only where an index-1 point was reached.
    """
    n = len(images)
    top = 1 + value[:, 1:-1].argmax(1)
    x = images[torch.arange(n), top]
    length = arclengths(images)[:, -1]
    low, high = images.amin(1) - length[:, None], images.amax(1) + length[:, None]
    short = EigenvectorFollowing(initial_trust=0.02, largest_trust=0.1)
    one = torch.ones(n, dtype=torch.long, device=x.device)
    ended = follow_eigenvectors(energy, x, one, length, (low, high), short)
    polished = newton_polish(energy, ended["x"])
    status = torch.where(ended["status"] == Status.CONVERGED, polished["status"], ended["status"])
    saddle, saddle_energy, result, _ = (
        torch.as_tensor(part, device=x.device) for part in saddles_only(polished, status)
    )
    return {"saddle": saddle, "saddle_energy": saddle_energy, "saddle_status": result}


def saddles_only(polished: State, status: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, energy, status and index of polished rows; rows that are no nondegenerate index-1 points lose their CONVERGED
    status (DEGENERATE, UNFINISHED) and their x and energy (nan)."""
    x, energy, result = (t.cpu().numpy().copy() for t in (polished["x"], polished["energy"], status))
    index, degenerate = classify(polished["eigenvalues"].cpu().numpy())
    converged = result == Status.CONVERGED
    result[converged & (index != 1)] = Status.UNFINISHED
    result[converged & degenerate] = Status.DEGENERATE
    lost = result != Status.CONVERGED
    x[lost], energy[lost] = np.nan, np.nan
    return x, energy, result, index


def string_method(
    energy: Energy | Callable[[torch.Tensor], torch.Tensor],
    start: np.ndarray,
    end: np.ndarray,
    options: StringOptions | None = None,
    *,
    images: np.ndarray | None = None,
) -> Paths:
    """Minimum energy paths between pairs of points, with the saddle at the top of each.

    Parameters
    ----------
    start, end : (n, d), usually minima; they stay fixed. images : (n, m, d) initial paths; straight lines by default.

    Strings of few images relax, then the highest image of each climbs to the saddle (reversed force along the lowest
    mode, Newton polish). Where that is an index-1 point, the two halves relax with all images and the saddle as a fixed
    one, so that the path goes exactly through it; where they come upon a higher pass, once more through that. Where it
    is none, the string relaxes with all images first.

    Raises UsageError for shapes that do not match.
    """
    options = options or StringOptions()
    energy = energy_of(energy, start)
    a, b = end_points(energy, start, end, "a string")
    initial = straight_images(a, b, options.n_images)
    if images is not None:
        given = torch.as_tensor(images, dtype=energy.dtype, device=energy.device)
        if given.ndim != 3 or given.shape[0] != len(a) or given.shape[2] != energy.dim:
            raise UsageError(
                f"initial images have shape (n, m, d) = ({len(a)}, m, {energy.dim}), not {tuple(given.shape)}"
            )
        initial = resample(given, options.n_images)
    coarse = relax_strings(energy, resample(initial, min(COARSE.n_images, options.n_images)), COARSE)
    found = coarse | climb(energy, coarse["images"], coarse["energy"])
    found |= {"images": resample(coarse["images"], options.n_images), "energy": torch.zeros_like(initial[..., 0])}
    lost = torch.nonzero(found["saddle_status"] != Status.CONVERGED)[:, 0]
    if len(lost):  # the coarse string has not shown the top
        relaxed = relax_strings(energy, found["images"][lost], options)
        _put(found, lost, relaxed | climb(energy, relaxed["images"], relaxed["energy"]))
    _lead_through(energy, found, options)
    return make_paths(found, *(found[k].cpu().numpy() for k in ("saddle", "saddle_energy", "saddle_status")))


def _lead_through(energy: Energy, found: State, options: StringOptions) -> None:
    """Lead the paths that have a saddle through it; where a finer path shows a higher pass, through that."""
    rows = torch.nonzero(found["saddle_status"] == Status.CONVERGED)[:, 0]
    for climbs in reversed(range(CLIMBS)):
        if not len(rows):
            return
        halves = _through(energy, found["images"][rows], found["saddle"][rows], options)
        _put(found, rows, halves)
        rows = rows[_is_above(halves["energy"].amax(1), found["saddle_energy"][rows])]
        if len(rows) and climbs:
            higher = climb(energy, found["images"][rows], found["energy"][rows])
            better = _is_above(higher["saddle_energy"], found["saddle_energy"][rows])
            rows = rows[better]
            _put(found, rows, {name: part[better] for name, part in higher.items()})


def _put(found: State, rows: torch.Tensor, part: State) -> None:
    """Give these rows what is in `part`."""
    for name, values in part.items():
        found[name][rows] = values


def _is_above(value: torch.Tensor, saddle_energy: torch.Tensor) -> torch.Tensor:
    """Whether energies (n,) are higher, by more than rounding; False where one is nan."""
    return value - saddle_energy > ROUNDING * (1 + saddle_energy.abs())


def energy_of(energy: Energy | Callable[[torch.Tensor], torch.Tensor], start: np.ndarray) -> Energy:
    """The energy as an `Energy`; a bare callable gets its dimension from the start points (n, d)."""
    if isinstance(energy, Energy):
        return energy
    return as_energy(energy, dim=np.shape(start)[-1] if np.ndim(start) else None)


def end_points(energy: Energy, start: np.ndarray, end: np.ndarray, what: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Both ends (n, d) of n paths as tensors; a UsageError where they do not fit."""
    a, b = (torch.as_tensor(np.asarray(p, float), dtype=energy.dtype, device=energy.device) for p in (start, end))
    if a.shape != b.shape or a.ndim != 2 or a.shape[1] != energy.dim:
        raise UsageError(
            f"{what} joins points of equal shape (n, {energy.dim}), not {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if not bool(a.isfinite().all() and b.isfinite().all()):
        raise UsageError(f"{what} joins finite points, but some of these {len(a)} pairs hold nan or infinity")
    if bool((a == b).all(1).any()):
        raise UsageError(
            f"{what} joins two different points, but the ends of pair {int((a == b).all(1).nonzero()[0])} are equal"
        )
    return a, nearest_copies(energy.symmetry, b, a)


def _through(energy: Energy, images: torch.Tensor, saddle: torch.Tensor, options: StringOptions) -> State:
    """Relax paths (n, m, d) again, split at the inner image nearest to the saddle (n, d), which takes its place."""
    m, top = images.shape[1], saddle[:, None]
    nearest = 1 + (images[:, 1:-1] - top).norm(dim=2).argmin(1)
    place = torch.arange(m, device=images.device) - nearest[:, None]
    half = m // 2 + 1
    left = resample(torch.where((place < 0)[..., None], images, top), half)
    right = resample(torch.where((place > 0)[..., None], images, top), m - half + 1)
    return join_halves(energy, left, right, options)


def join_halves(energy: Energy, left: torch.Tensor, right: torch.Tensor, options: StringOptions) -> State:
    """Relax the halves (end ... saddle) and (saddle ... end) with all ends fixed and join them at the saddle."""
    a, b = relax_strings(energy, left, options), relax_strings(energy, right, options)
    return {
        "images": torch.cat([a["images"], b["images"][:, 1:]], 1),
        "energy": torch.cat([a["energy"], b["energy"][:, 1:]], 1),
        "force": torch.maximum(a["force"], b["force"]),
        "status": torch.maximum(a["status"], b["status"]),
    }


def make_paths(relaxed: State, saddle: np.ndarray, saddle_energy: np.ndarray, saddle_status: np.ndarray) -> Paths:
    """Relaxed strings as numpy arrays, with the saddle of each."""
    images, energy, force, status = (relaxed[k].cpu().numpy() for k in ("images", "energy", "force", "status"))
    length = arclengths(relaxed["images"]).cpu().numpy()
    return Paths(images, energy, length, force, status, saddle, saddle_energy, saddle_status)
