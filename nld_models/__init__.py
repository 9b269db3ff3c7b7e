"""Neural Langevin Dynamics: models whose trained energies `landscape` analyses.

So far: the data. `markov` has walks on a Markov chain seen through Gaussian emissions with their exact filter and
smoother, `paper_chains` the published experiments, `data` the container of sequences every model is trained on, and
`sequence_files` reads it from .npy, .npz and CSV.
"""
