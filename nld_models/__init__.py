"""Neural Langevin Dynamics: models whose trained energies `landscape` analyses.

- Data: `markov` has walks on a Markov chain seen through Gaussian emissions with their exact filter and smoother,
  `paper_chains` the published experiments, `data` the container of sequences every model is trained on, and
  `sequence_files` reads it from .npy, .npz and CSV.
- Models: `networks` stacks networks over seeds; `encoder`, `observation`, `prior` and `posterior` are the parts,
  `model_config` chooses among the priors, `model` is the family with its two objectives: `matching`, simulation-free,
  and `simulated`, by own stepping or, in `sde`, torchsde. `stationary` has what both take from exp(-beta E), and
  `resolution` judges the time step.
- `training` with `config`, `windows` and `checkpoint`; `landscape_adapter` leads to `landscape`, `evaluation` compares
  with the truth, `commands` and `cli` are the command `nld`.
"""
