"""Double-ended paths: the string method, and the minimum energy path through a known saddle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from landscape.energy import Energy, as_energy
from landscape.energy.symmetry import nearest_copies
from landscape.errors import UsageError
from landscape.search.driver import State, Status, iterate
from landscape.search.saddles import EigenvectorFollowing, follow_eigenvectors
from landscape.search.stationary import classify, newton_polish
from landscape.tasks import task


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
    return _resampled(images.permute(2, 0, 1).contiguous(), n_images).permute(1, 2, 0).contiguous()


# Inside a search the components of a vector are the first axis and the images the last: sums over a short last axis
# cost several times as much. Images, gradients and tangents are (d, n, m).


def _resampled(images: torch.Tensor, n_images: int) -> torch.Tensor:
    pieces = images.diff(dim=2)
    lengths = _square(pieces).sqrt()
    n, m = lengths.shape[0], images.shape[2]
    s = torch.cat([lengths.new_zeros(n, 1), lengths.cumsum(1)], 1)
    # A strictly increasing abscissa even where images coincide.
    increasing = max(1e-12, torch.finfo(images.dtype).eps) * torch.arange(m, dtype=images.dtype, device=images.device)
    s = s / s[:, -1:].clamp_min(torch.finfo(images.dtype).tiny) + increasing
    wanted = torch.linspace(0, 1, n_images, dtype=images.dtype, device=images.device) * s[:, -1:]
    left = (torch.searchsorted(s, wanted, right=True) - 1).clamp(0, m - 2)
    width = s.diff(dim=1)
    slope = pieces / width
    weight = width[:, 1:] / (width[:, :-1] + width[:, 1:])
    inner = torch.lerp(slope[..., 1:], slope[..., :-1], weight)
    both = torch.stack([images, torch.cat([slope[..., :1], inner, slope[..., -1:]], 2)])
    at = left.expand(*both.shape[:2], -1, -1)
    (a, ta), (b, tb) = both.gather(3, at), both.gather(3, at + 1)
    h = width.gather(1, left)
    u = (wanted - s.gather(1, left)) / h
    v = 1 - u
    result = a + (u.square() * (3 - 2 * u)) * (b - a) + (h * u * v) * (v * ta - u * tb)
    result[..., :: n_images - 1] = images[..., :: m - 1]
    return result


def _square(vectors: torch.Tensor) -> torch.Tensor:
    return (vectors * vectors).sum(0)


@task(rows={"images": 3}, doubles=lambda x: 24.0 * x.shape[1] * x.shape[2], calls=lambda x: x.shape[1])
def relax_strings(energy: Energy, images: torch.Tensor, options: StringOptions | None = None) -> State:
    """Move the inner images of each string (n, m, d) across the path, downhill, at equal arclength; the ends stay.

    The simplified string method (E, Ren and Vanden-Eijnden 2007): x_k -= dt * (gradient across the path), then
    images are redistributed. dt is the inverse of the largest curvature that the string's own moves have shown, and no
    longer than a descent takes to the next image. Returns images, energy (n, m), force (n,) and status.
    """
    options = options or StringOptions()
    images = _resampled(images.permute(2, 0, 1).contiguous(), images.shape[1])
    value, gradient = _evaluate(energy, images)
    spacing = _square(images.diff(dim=2)).sqrt().clamp_min(torch.finfo(images.dtype).tiny)
    curvature = (_square(gradient.diff(dim=2)).sqrt() / spacing).amax(1)
    finite = (value + gradient.abs().sum(0)).isfinite().all(1)
    state: State = {
        "path": torch.stack([images, gradient]), "energy": value, "across": _across(images, value, gradient),
        "curvature": curvature,
        "force": torch.full_like(curvature, torch.inf),
        "status": torch.where(finite, int(Status.RUNNING), int(Status.NOT_FINITE)),
    }  # fmt: skip
    ended = iterate(
        lambda s: _string_step(energy, s, options), state, ("path", "energy", "force"), options.max_iterations,
        axes={"path": 2, "across": 1},
    )  # fmt: skip
    return {"images": ended.pop("path")[0].permute(1, 2, 0).contiguous()} | ended


def _evaluate(energy: Energy, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Energies (n, m) and gradients (d, n, m)."""
    d, n, m = images.shape
    value, gradient = energy.value_and_gradient(images.reshape(d, n * m).T)
    return value.reshape(n, m), gradient.T.reshape(d, n, m)


def _across(images: torch.Tensor, value: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """The part of the gradient across the path at the inner images.

    Upwind tangents, towards the higher neighbour (Henkelman and Jonsson 2000): with centred ones a steep path breaks
    into zigzags.
    """
    pieces, climb = images.diff(dim=2), value.diff(dim=1)
    rise, fall, size = climb[:, 1:], -climb[:, :-1], climb.abs()
    larger, smaller = torch.maximum(size[:, 1:], size[:, :-1]), torch.minimum(size[:, 1:], size[:, :-1])
    forward_higher = value[:, 2:] > value[:, :-2]
    at_extremum = rise * fall >= 0
    higher, lower = torch.where(at_extremum, larger, 1.0), torch.where(at_extremum, smaller, 0.0)
    weight_forward = torch.where(forward_higher, higher, lower)
    weight_backward = torch.where(forward_higher, lower, higher)
    tangent = weight_forward * pieces[..., 1:] + weight_backward * pieces[..., :-1]
    inner = gradient[..., 1:-1]
    square = _square(tangent)
    along = (inner * tangent).sum(0) / torch.where(square > 0, square, 1)
    return inner - along * tangent


def _string_step(energy: Energy, state: State, options: StringOptions) -> State:
    path, value, across = state["path"], state["energy"], state["across"]
    images, gradient = path.unbind()
    tiny = torch.finfo(images.dtype).tiny
    spacing = _square(images.diff(dim=2)).sqrt().mean(1, keepdim=True)
    # What damps an image: the curvature across the path, and along a steep path the pull of its uphill neighbour, whose
    # direction it takes (gradient / spacing). They add up: a step of more than twice 1 / sum makes kinks grow.
    rate = state["curvature"][:, None] + _square(gradient[..., 1:-1]).sqrt() / spacing
    limit = 0.5 * spacing
    shortest = torch.maximum(_square(across).sqrt(), limit * rate.clamp_min(tiny))
    moved = images.clone()
    moved[..., 1:-1] -= limit / shortest * across
    even = _resampled(moved, images.shape[2])
    uneven = _square(even - moved).amax(1, keepdim=True).sqrt() > 1e-3 * spacing
    moved = torch.where(uneven, even, moved)
    # The ends stay, and so do their energies and gradients.
    new_path, new_value = path.clone(), value.clone()
    new_path[0] = moved
    new_value[:, 1:-1], new_path[1, ..., 1:-1] = _evaluate(energy, moved[..., 1:-1])
    change = (new_path - path)[..., 1:-1]
    step, change = (change * change).sum(1).sqrt().unbind()
    seen = torch.where(step > 1e-9 * spacing, change / step.clamp_min(tiny), 0).amax(1).nan_to_num(0)
    curvature = torch.maximum(0.98 * state["curvature"], seen)
    new_across = _across(moved, new_value, new_path[1])
    largest = _square(new_path[1, ..., 1:-1]).amax(1).sqrt()
    force = _square(new_across).amax(1).sqrt()
    finite = new_value.isfinite().all(1) & largest.isfinite()
    keep = finite[:, None]
    done = finite & (force <= options.force_tolerance * largest)
    return {
        "path": torch.where(keep, new_path, path), "energy": torch.where(keep, new_value, value),
        "across": torch.where(keep, new_across, across),
        "curvature": torch.where(finite, curvature, 4 * state["curvature"]),
        "force": torch.where(finite, force, state["force"]),
        "status": state["status"].masked_fill(done, int(Status.CONVERGED)),
    }  # fmt: skip


def climb(energy: Energy, images: torch.Tensor, value: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The climbing image: follow the highest inner image of each path uphill along its lowest mode, then polish.

    Returns saddle (n, d), energy (n,), status (n,): CONVERGED only where an index-1 point was reached.
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
    return saddles_only(polished, status)[:3]


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

    The strings relax, then the highest image of each climbs to the saddle (reversed force along the lowest mode,
    Newton polish). Where that is an index-1 point, the two halves relax again with the saddle as a fixed image, so that
    the path goes exactly through it.

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
    relaxed = relax_strings(energy, initial, options)
    saddle, saddle_energy, saddle_status = climb(energy, relaxed["images"], relaxed["energy"])
    paths, value, force, status = (relaxed[k] for k in ("images", "energy", "force", "status"))
    through = np.nonzero(saddle_status == Status.CONVERGED)[0]
    if len(through):
        top = torch.as_tensor(saddle[through], dtype=energy.dtype, device=energy.device)
        halves = _through(energy, paths[through], value[through], top, options)
        paths[through], value[through], force[through] = halves["images"], halves["energy"], halves["force"]
        status[through] = halves["status"]
    return make_paths(relaxed, saddle, saddle_energy, saddle_status)


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


def _through(
    energy: Energy, images: torch.Tensor, value: torch.Tensor, saddle: torch.Tensor, options: StringOptions
) -> State:
    """Relax paths (n, m, d) again, split at their highest image, which becomes the saddle (n, d)."""
    n, m, _ = images.shape
    top = 1 + value[:, 1:-1].argmax(1)
    left, right = [], []
    half = m // 2 + 1
    for k in range(n):
        t = int(top[k])
        left.append(resample(torch.cat([images[k, :t], saddle[k : k + 1]])[None], half))
        right.append(resample(torch.cat([saddle[k : k + 1], images[k, t + 1 :]])[None], m - half + 1))
    return join_halves(energy, torch.cat(left), torch.cat(right), options)


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
