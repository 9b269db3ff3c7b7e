"""Two known states and the question what lies between them: the string method and the mountain pass, side by side."""

import numpy as np

import landscape

energy = landscape.load_energy("potential:muller-brown")
states = landscape.find_minima(energy).minima
print("minima:", np.round(states.energy, 4).tolist())

# All pairs at once: both methods work on a batch of pairs.
i, j = np.triu_indices(len(states), 1)
paths = landscape.string_method(energy, states.x[i], states.x[j])
passes = landscape.mountain_pass(energy, states.x[i], states.x[j])
for k in range(len(i)):
    print(
        f"{i[k]} -> {j[k]}: string saddle {paths.saddle_energy[k]:.6f}, mountain pass {passes.energy[k]:.6f}, "
        f"length {paths.arclength[k, -1]:.3f}, force across the path {paths.perpendicular_force[k]:.2g}"
    )

# Both find the same saddle, and the highest point on the way from the first state to the third is the upper of two.
assert np.allclose(paths.saddle, passes.saddle, atol=1e-6)
print("energy evaluations:", energy.evaluations.as_dict())
