"""Neural Langevin Dynamics: models whose trained energies `landscape` analyses.

- Data: `markov` has walks on a Markov chain seen through Gaussian emissions with their exact filter and smoother,
  `paper_chains` the published experiments, `triple_well` and `spirals` two other data sets, `data` the container of
  sequences every model is trained on, and `sequence_files` reads it from .npy, .npz and CSV.
- Models: `networks` stacks networks over seeds; `encoder`, `observation`, `prior`, `posterior` and `inertial` (that of
  underdamped paths) are the parts, `model` the family that differs in the prior only, `model_config` its sizes;
  `matching` (simulation-free) and `simulated` (`sde` is its torchsde backend) are the two objectives, `stationary` and
  `resolution` what both need.
- Training: `training` with `config`, `windows`, `checkpoint` and `slow_coordinates`; then `refinement`, the second
  stage, with `kinetics` and `least_change`.
- Afterwards: `landscape_adapter` leads to `landscape`, `drift_states` is what a free drift has instead; `evaluation`
  compares with the truth, `experiment` with the numbers of the paper (`published`), `experiment_table` many of these;
  `simulation` makes new sequences, `plots` draws; `commands` and `cli` are `nld`.
"""
