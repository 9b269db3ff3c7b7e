"""learned-landscape: states, weights, paths and rates of any learned energy function."""
