"""Spirals in both senses: what a gradient cannot represent, and a gradient with a rotation can.

The data are 1,000 spirals in the plane, half of them clockwise, 1.5 turns in 40 frames. Three priors learn them:

- overdamped, dz = -gamma^-1 grad E dt + noise. At equilibrium it looks the same backwards in time, so the
  autocorrelation of anything seen through a decoder is a mixture of decaying exponentials: never below 0, whatever the
  energy, the decoder and the number of latent dimensions. The data's is -.95 after half a turn. What such a model can
  do is unroll a turn or two as a slope, downhill from where a sequence starts.
- rotated, dz = -(gamma^-1 + J) grad E dt + noise, with the same equilibrium exp(-beta E). Where E has the Hessian H
  it turns by -J H: one way round a minimum, the other way round a maximum, and in four dimensions each plane its own
  way. Both senses need two planes, or a well and a hill.
- nsde, dz = f(z) dt + noise, free to do anything: what there is to gain.

Printed for each: the ELBO of held-out spirals; the error of the free prior's prediction, from the posterior at the
middle of a sequence; and of simulated paths at equilibrium, seen through the decoder, the shares that turn by more than
half a turn either way, and the autocorrelation after half a turn. Writes spirals.png. One seed and a short training
(about a minute) unless told otherwise: python spirals.py [--seeds N] [--iterations N].
"""

import argparse
import math
import sys

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nld_models.config import TrainingConfig
from nld_models.model_config import ModelConfig
from nld_models.resolution import fastest_rate
from nld_models.simulated import roll_out
from nld_models.spirals import sample_spirals
from nld_models.training import train
from nld_models.windows import Windows

LENGTH, WINDOW, AHEAD = 40, 31, 10  # frames
HALF_TURN = round((LENGTH - 1) / 3)  # frames: a sequence has 1.5 turns
PATHS, BURN_IN = 200, 160  # simulated paths, and frames before they count as equilibrium
COLORS = {1: "tab:blue", -1: "tab:red"}  # anticlockwise, clockwise


def free_paths(saved, start, frames, seed=0):
    """The prior without observations from latent points (S, n, d), seen through the decoder: (S, n, frames + 1, 2)."""
    prior, generator = saved.model.prior, torch.Generator().manual_seed(seed)
    substeps = min(40, max(4, math.ceil(float(fastest_rate(prior, start).max()) / 0.2)))
    seeds, n, d = start.shape
    noise = torch.randn(seeds, frames * substeps, n, d, generator=generator)
    with torch.no_grad():
        z = roll_out(prior, lambda state, interval, share: torch.zeros_like(state), start, noise, substeps).states
        return saved.model.decoder.decode(z).double().numpy() * saved.scale + saved.mean


def elbo(saved, test, batches=10):
    """Mean over windows of held-out sequences, nats a frame, (S,)."""
    generators = [torch.Generator().manual_seed(7) for _ in saved.model.seeds]
    windows = Windows(saved.standardised(test), WINDOW, 0.0, saved.model.dtype)
    found = []
    for _ in range(batches):
        noise = saved.model.draw_noise(generators, 100, WINDOW, 1024)
        terms = saved.model.terms(windows.draw(generators, 100), noise)
        found.append((terms["reconstruction"] - terms["path_kl"] - terms["initial_kl"]).detach())
    return torch.stack(found).mean(0).numpy()


def turns(x):
    """Net turns of paths (..., T, 2) about the origin, anticlockwise positive."""
    angle = np.unwrap(np.arctan2(x[..., 1], x[..., 0]), axis=-1)
    return (angle[..., -1] - angle[..., 0]) / (2 * np.pi)


def autocorrelation(x, lag):
    x = x - x.mean((0, 1))
    return (x[:, :-lag] * x[:, lag:]).sum(-1).mean() / (x * x).sum(-1).mean()


def distance(x, y):
    return np.sqrt(((x - y) ** 2).sum(-1).mean())


def draw(panels):
    """Paths of each panel, colored by their sense, and the distribution of their turns."""
    figure = Figure(figsize=(3 * len(panels), 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(panels))
    for (name, x), (above, below) in zip(panels.items(), axes.T, strict=True):
        found = turns(x)
        for path, turned in zip(x[:24], found[:24], strict=True):
            above.plot(*path.T, color=COLORS[1 if turned > 0 else -1], lw=0.8)
        above.set(title=name, aspect="equal", xlim=(-3.6, 3.6), ylim=(-3.6, 3.6))
        edges = np.linspace(-2.5, 2.5, 51)
        for sense, color in COLORS.items():
            below.hist(np.clip(found[found * sense > 0], -2.5, 2.5), edges, color=color)
        below.set(xlabel=f"turns in {LENGTH} frames", yticks=[])
    figure.savefig("spirals.png", dpi=110)


parser = argparse.ArgumentParser(description="Spirals in both senses.")
parser.add_argument("--seeds", type=int, default=1)
parser.add_argument("--iterations", type=int, default=900)
arguments = parser.parse_args()
torch.set_num_threads(1)
data = sample_spirals(1000, LENGTH, seed=0).standardise()
test = sample_spirals(PATHS, LENGTH, seed=1)
config = TrainingConfig(
    seeds=arguments.seeds, iterations=arguments.iterations, batch=48, window=WINDOW, kl_warmup=0.5
)  # fmt: skip
middle = LENGTH // 2 - 1
truth = test.values[:, middle + AHEAD]
print(f"held-out data: autocorrelation after half a turn {autocorrelation(test.values, HALF_TURN):.2f}")
print(
    f"error {AHEAD} frames ahead of the last value {distance(test.values[:, middle], truth):.2f}, of the mean "
    f"{distance(data.mean, truth):.2f}"
)
print(f"{'prior':<11} seed  ELBO  error  anticlockwise  clockwise  autocorrelation")
panels = {"held-out data": test.values}
for prior in ("overdamped", "rotated", "nsde"):
    print(f"training: {prior}", file=sys.stderr)
    saved, _ = train(data, ModelConfig(prior=prior, latent_dim=4, initial_diffusion=0.02), config)
    seen = saved.standardised(test)
    mean, sd = saved.model.encode(torch.from_numpy(seen.values), torch.from_numpy(seen.mask))
    bound = elbo(saved, test)
    # Many paths from each posterior: their mean is the prediction.
    at, spread = (values[:, :, middle].repeat(1, 10, 1) for values in (mean, sd))
    start = at + spread * torch.randn(at.shape, generator=torch.Generator().manual_seed(1))
    ahead = free_paths(saved, start, AHEAD)[:, :, -1].reshape(arguments.seeds, 10, PATHS, 2).mean(1)
    paths = free_paths(saved, mean[:, :, middle], BURN_IN + LENGTH - 1)[:, :, BURN_IN:]
    for k, x in enumerate(paths):
        found = turns(x)
        print(
            f"{prior:<11} {k:>4} {bound[k]:>5.2f} {distance(ahead[k], truth):>6.2f} {np.mean(found > 0.5):>13.0%} "
            f"{np.mean(found < -0.5):>11.0%} {autocorrelation(x, HALF_TURN):>16.2f}",
            flush=True,
        )
    panels[prior] = paths[0]
draw(panels)
