"""scipy: L-BFGS-B from one start after another, at its default tolerances."""

from __future__ import annotations

from scipy.optimize import minimize

from competitors.harness import Counted, Found, Request, distinct, serve


def minima(counted: Counted, request: Request) -> Found:
    ends = [
        minimize(counted.value_and_gradient, x, jac=True, method="L-BFGS-B").x
        for x in counted.problem.starts(request["starts"], request["seed"])
    ]
    return Found(distinct(ends, counted))


if __name__ == "__main__":
    serve({"minima": minima})
