"""scipy: basin hopping, ten walks of as many hops in all as the others have starts."""

from __future__ import annotations

import numpy as np
from scipy.optimize import basinhopping

from competitors.harness import Counted, Found, Request, distinct, serve

WALKS = 10


def minima(counted: Counted, request: Request) -> Found:
    ends: list[np.ndarray] = []
    for walk, x in enumerate(counted.problem.starts(WALKS, request["seed"])):
        basinhopping(
            counted.value_and_gradient, x, niter=request["starts"] // WALKS - 1, stepsize=counted.problem.step,
            minimizer_kwargs={"method": "L-BFGS-B", "jac": True}, rng=np.random.default_rng(walk),
            callback=lambda x, value, accepted: ends.append(x.copy()),
        )  # fmt: skip
    return Found(distinct(ends, counted))


if __name__ == "__main__":
    serve({"minima": minima})
