"""Neural Langevin Dynamics: models whose trained energies `landscape` analyses."""
