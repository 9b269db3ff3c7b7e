"""`train`: one loop for all seeds of a model, with checkpoints, resume, and a guard against non-finite numbers."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nld_models.checkpoint import DTYPES, SavedModel, model_document, model_tensors, read_file, restore, write_file
from nld_models.config import TrainingConfig, recipe
from nld_models.data import SequenceData
from nld_models.errors import CheckpointError, TrainingError
from nld_models.model import LatentModel, Stepping, total_loss
from nld_models.model_config import ModelConfig
from nld_models.resolution import fastest_rate, limit_of
from nld_models.seed_groups import SeedGroups
from nld_models.slow_coordinates import slow_coordinates
from nld_models.windows import Windows

CURVES = ("loss", "reconstruction", "path_kl", "initial_kl", "stationarity", "gradient_norm", "diffusion_coefficient")
RESOLUTION = ("time_step", "resolution", "resolved")
RESOLUTION_DRAWS = 500


@dataclass(frozen=True)
class Stopped:
    """A seed that the guard stopped: at which step, why, and to the state before which step it was rolled back."""

    seed: int
    iteration: int
    reason: str
    rolled_back_to: int


@dataclass(frozen=True)
class TrainingResult:
    """What `train` measured.

    seeds : (S,). curves : name -> (S, steps done); loss and its terms in nats a frame, nan where a seed had been
    stopped. stopped : the seeds that did not reach the end. seconds : wall time, all sessions together. resolution :
    (S,), time step times fastest rate of the prior over posterior draws (see `resolution`), nan for matching, which has
    no time step. resolved : (S,) bool, whether rates of the learned prior mean anything.
    """

    seeds: np.ndarray
    curves: Mapping[str, np.ndarray]
    stopped: tuple[Stopped, ...]
    seconds: float
    resolution: np.ndarray
    resolved: np.ndarray


@dataclass(frozen=True)
class Progress:
    """Where training stands; `loss` of every seed, `seconds_left` an estimate."""

    iteration: int
    iterations: int
    loss: np.ndarray
    seconds_left: float


def train(
    data: SequenceData,
    model: ModelConfig | None = None,
    config: TrainingConfig | None = None,
    *,
    path: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    threads: int = 1,
) -> tuple[SavedModel, TrainingResult]:
    """Train all seeds on standardised sequences (`SequenceData.standardise`); config None is the model's recipe.

    path : where checkpoints and the finished model go. resume : go on from the checkpoint there, which must be of the
    same data and settings; the result is bit for bit that of a run that was never interrupted, on the same
    machine with the same number of torch's own threads. A finished model is returned as it is. progress : called every
    10 steps. threads : among which the seeds are shared out; the result does not depend on it.

    Raises CheckpointError for a file that cannot be used, TrainingError if the guard stopped every seed.
    """
    model = model or ModelConfig()
    trainer = _Trainer(data, model, config or recipe(model), None if path is None else Path(path), threads)
    if resume:
        trainer.resume()
    trainer.run(progress or (lambda state: None))
    return trainer.finish()


class _Trainer:
    """The state of one training run."""

    def __init__(
        self, data: SequenceData, model: ModelConfig, config: TrainingConfig, path: Path | None, threads: int
    ) -> None:
        self.config, self.path, self.data = config, path, data
        dtype = DTYPES[config.dtype]
        seeds = range(config.first_seed, config.first_seed + config.seeds)
        self.windows = Windows(data, config.window, config.equilibration, dtype)
        self.model = LatentModel(model, data.n_channels, data.n_missing > 0, seeds, dtype)
        self.model.stepping = Stepping(config.backend, config.adjoint_clip)
        self.model.encoder.start_from(torch.from_numpy(slow_coordinates(data, model.latent_dim).copy()))
        self.groups = SeedGroups(self.model, threads)
        # Not the stream of the initial values, which depends on the sizes of the networks.
        self.generators = [torch.Generator().manual_seed(2**32 + seed) for seed in seeds]
        self.optimizer = torch.optim.Adam(self._learned.values(), lr=config.learning_rate)
        self.iteration = 0
        self.finished = False
        self.stopped: dict[int, Stopped] = {}
        self.curves = {name: np.full((config.seeds, config.iterations), np.nan) for name in CURVES}
        self.seconds = 0.0
        self.resolution: dict[str, Any] = {}
        self.later: dict[str, Any] = {}  # what the second stage wrote into a finished model's file
        self.good: dict[str, torch.Tensor] = {}
        self.good_iteration = 0
        content = (data.values, data.mask, data.lengths)
        self.fingerprint = hashlib.sha256(b"".join(array.tobytes() for array in content)).hexdigest()

    def run(self, progress: Callable[[Progress], None]) -> None:
        clock, first, before = time.monotonic(), self.iteration, self.seconds
        while self.iteration < self.config.iterations and not self.finished:
            self.step()
            self.seconds = before + time.monotonic() - clock
            if len(self.stopped) == self.config.seeds:
                break
            if self.iteration % 10 == 0 or self.iteration == self.config.iterations:
                left = (self.config.iterations - self.iteration) * (self.seconds - before) / (self.iteration - first)
                loss = self.curves["loss"][:, self.iteration - 1].copy()
                progress(Progress(self.iteration, self.config.iterations, loss, left))

    def step(self) -> None:
        """One Adam step of every seed that still runs."""
        config, i = self.config, self.iteration
        saving = i % config.save_every == 0
        streams = [generator.get_state() for generator in self.generators] if saving else []
        terms, norm = self._gradients(i)
        self._guard(terms, norm)
        if saving:
            # The numbers of this step were finite, so its state is known to be good.
            self._keep(torch.stack(streams))
        self._clip(norm)
        for group in self.optimizer.param_groups:
            group["lr"] = config.rate(i)
        learned = self._learned.values()
        frozen = [(parameter, k, parameter[k].detach().clone()) for k in self.stopped for parameter in learned]
        self.optimizer.step()
        with torch.no_grad():
            for parameter, k, value in frozen:
                parameter[k] = value
        for name, values in terms.items():
            self.curves[name][:, i] = values
        self.curves["gradient_norm"][:, i] = norm
        for k in self.stopped:
            for curve in self.curves.values():
                curve[k, i] = np.nan
        self.iteration = i + 1

    @property
    def _learned(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that training moves; coefficients may be fixed."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def _gradients(self, i: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Set every gradient; the terms of the loss and each seed's gradient norm, (S,) each."""
        config = self.config

        def terms_of(model: LatentModel, rows: slice) -> dict[str, torch.Tensor]:
            generators = self.generators[rows]
            batch = self.windows.draw(generators, config.batch)
            noise = model.draw_noise(generators, config.batch, self.windows.length, config.partition_points)
            terms = model.terms(batch, noise)
            loss = total_loss(terms, config.kl_weight(i), config.stationarity_weight)
            diffusion = model.prior.diffusion(2).mean(1)
            return terms | {"loss": loss, "diffusion_coefficient": diffusion.expand(len(generators))}

        terms = self.groups.differentiate(terms_of)
        gradients = [p.grad for p in self._learned.values() if p.grad is not None]
        squares = [gradient.reshape(config.seeds, -1).double().square().sum(1) for gradient in gradients]
        norm = torch.stack(squares).sum(0).sqrt().numpy()
        return {name: term.double().numpy() for name, term in terms.items()}, norm

    def _guard(self, terms: Mapping[str, np.ndarray], norm: np.ndarray) -> None:
        """Stop each seed with a non-finite number, and roll it back; the other seeds go on."""
        for k, seed in enumerate(self.model.seeds):
            if k in self.stopped:
                continue
            bad = [name for name, values in terms.items() if not np.isfinite(values[k])]
            if bad or not np.isfinite(norm[k]):
                reason = f"{', '.join(bad)} not finite" if bad else "gradient not finite"
                self.stopped[k] = Stopped(seed, self.iteration, reason, self.good_iteration)
                with torch.no_grad():
                    for name, parameter in self.model.named_parameters():
                        if self.good:
                            parameter[k] = self.good[name][k]

    def _clip(self, norm: np.ndarray) -> None:
        running = torch.tensor([k not in self.stopped for k in range(self.config.seeds)])
        scale = (self.config.clip / torch.from_numpy(norm)).clamp(max=1.0)
        for parameter in self._learned.values():
            if parameter.grad is not None:
                shape = (-1, *[1] * (parameter.ndim - 1))
                # A stopped seed's gradient may be nan, which no factor turns into 0.
                scaled = parameter.grad * scale.view(shape).to(parameter)
                parameter.grad = torch.where(running.view(shape), scaled, 0.0)

    def _keep(self, streams: torch.Tensor) -> None:
        """Remember the state before this step, and write it down."""
        self.good = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.good_iteration = self.iteration
        if self.path is not None:
            self._write(self._optimizer_tensors() | {"streams": streams}, finished=False)

    def _optimizer_tensors(self) -> dict[str, torch.Tensor]:
        state = self.optimizer.state
        return {
            f"adam.{key}.{name}": state[p][key]
            for name, p in self._learned.items()
            if p in state
            for key in ("exp_avg", "exp_avg_sq")
        }

    def _write(self, extra: Mapping[str, torch.Tensor], finished: bool) -> None:
        assert self.path is not None
        curves = {
            f"curve.{name}": torch.from_numpy(values[:, : self.iteration]) for name, values in self.curves.items()
        }
        scaling = {"data.mean": torch.from_numpy(self.data.mean), "data.scale": torch.from_numpy(self.data.scale)}
        write_file(self.path, {**model_tensors(self.model), **extra, **curves, **scaling}, self._document(finished))

    def _document(self, finished: bool) -> dict[str, Any]:
        return {
            **model_document(self.model),
            "training": asdict(self.config),
            "data_sha256": self.fingerprint,
            "iteration": self.iteration,
            "finished": finished,
            "stopped": [asdict(stopped) for stopped in self.stopped.values()],
            "seconds": self.seconds,
            **self.resolution,
            **self.later,
        }

    def resume(self) -> None:
        """Continue from the file at `path`."""
        if self.path is None:
            raise CheckpointError("resuming needs the file to resume from")
        tensors, document = read_file(self.path)
        for name, here in (
            ("data_sha256", self.fingerprint), ("training", asdict(self.config)), ("model", self.model.config.as_dict())
        ):  # fmt: skip
            if document.get(name) != here:
                raise CheckpointError(f"{self.path} cannot be resumed: {_difference(name, document.get(name), here)}")
        saved = restore(tensors, document, str(self.path))
        try:
            self.iteration, self.finished, self.seconds = (
                document["iteration"], document["finished"], document["seconds"]
            )  # fmt: skip
            self.stopped = {entry["seed"] - self.config.first_seed: Stopped(**entry) for entry in document["stopped"]}
            for name, values in self.curves.items():
                values[:, : self.iteration] = tensors[f"curve.{name}"].numpy()
            self.model.load_state_dict(saved.model.state_dict())
            if self.finished:
                self.resolution = {name: document[name] for name in RESOLUTION}
                self.later = {name: document[name] for name in ("refinement",) if name in document}
            if not self.finished:
                self._restore_streams(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{self.path} is a damaged model file: {error}") from None

    def _restore_streams(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for generator, state in zip(self.generators, tensors["streams"], strict=True):
            generator.set_state(state.clone())  # a view into the stack makes torch read from its start, or crash
        for name, parameter in self._learned.items():
            # A gradient that is always absent (a single coordinate has nothing to rotate) leaves no state behind.
            if f"adam.exp_avg.{name}" in tensors:
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(float(self.iteration)),
                    "exp_avg": tensors[f"adam.exp_avg.{name}"],
                    "exp_avg_sq": tensors[f"adam.exp_avg_sq.{name}"],
                }
        self.good = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.good_iteration = self.iteration

    def finish(self) -> tuple[SavedModel, TrainingResult]:
        stopped = tuple(self.stopped.values())
        if not self.finished:
            self.resolution = self._measured_resolution()
            if self.path is not None:
                self._write({}, finished=True)
        if len(stopped) == self.config.seeds:
            first = stopped[0]
            raise TrainingError(
                f"every seed stopped; seed {first.seed} at step {first.iteration} ({first.reason}), rolled back to "
                f"step {first.rolled_back_to}; try a lower learning_rate"
            )
        saved = SavedModel(self.model.requires_grad_(False), self.data.mean, self.data.scale, self._document(True))
        curves = {name: values[:, : self.iteration].copy() for name, values in self.curves.items()}
        resolution = self.resolution["resolution"]
        return saved, TrainingResult(
            np.array(self.model.seeds), curves, stopped, self.seconds,
            np.full(self.config.seeds, np.nan) if resolution is None else np.array(resolution),
            np.array(self.resolution["resolved"]),
        )  # fmt: skip

    def _measured_resolution(self) -> dict[str, Any]:
        """Time step, step times fastest rate of each seed, and whether that is short enough, over posterior draws."""
        h, seeds = self.model.config.time_step, self.config.seeds
        if h is None:
            return {"time_step": None, "resolution": None, "resolved": [True] * seeds}
        generator = torch.Generator().manual_seed(0)
        batch = self.windows.draw([generator], min(64, self.config.batch))
        draws = self.model.draw(batch.x[0], batch.mask[0], generator)[:, batch.frames[0]]
        rows = torch.randint(draws.shape[1], (RESOLUTION_DRAWS,), generator=generator)
        found = (h * fastest_rate(self.model.prior, draws[:, rows])).double()
        limit = limit_of(self.model.prior)
        return {"time_step": h, "resolution": found.tolist(), "resolved": (found <= limit).tolist()}


def _difference(name: str, stored: Any, here: Any) -> str:
    if not (isinstance(stored, dict) and isinstance(here, dict)):
        return "it was trained on other data"
    keys = [key for key in here if stored.get(key) != here[key]]
    key = keys[0] if keys else name
    return f"{key} was {stored.get(key)!r} there and is {here.get(key)!r} now"
