"""The numbers that Koop, Peletier, Portegies and Menkovski (2022) print, to stand beside ours: mean and spread.

The spread is over the models they chose (experiment 1: the best five of many, ranked by 2nd-order weights). The
parameters of their emissions are not public, so the data behind ours are another draw of the same kind.
"""

from __future__ import annotations

from typing import NamedTuple

DATA_DIFFER = "the published emission parameters are not public: these data are another draw of the same kind"


class Published(NamedTuple):
    """mean +- spread."""

    mean: float
    spread: float


# (experiment, dynamics) -> method -> l1 distance of the weights to the chain's stationary vector: Tables 1 and 4.
L1: dict[tuple[int, str], dict[str, Published]] = {
    (1, "overdamped"): {
        "draws 1000": Published(0.047, 0.037),
        "0th order": Published(0.051, 0.022),
        "2nd order": Published(0.040, 0.013),
    },
    (1, "underdamped"): {
        "draws 1000": Published(0.072, 0.068),
        "0th order": Published(0.041, 0.029),
        "2nd order": Published(0.021, 0.004),
    },
    (2, "underdamped"): {
        "draws 1000": Published(0.23, 0.040),
        "0th order": Published(0.24, 0.049),
        "2nd order": Published(0.22, 0.0061),
    },
}
# The same -> method -> the weights themselves, smallest state first: Table 2 (first coordinate only) and Table 5.
COORDINATES: dict[tuple[int, str], dict[str, tuple[Published, ...]]] = {
    (1, "overdamped"): {
        "draws 1000": (Published(0.329, 0.013),),
        "0th order": (Published(0.322, 0.022),),
        "2nd order": (Published(0.324, 0.017),),
    },
    (1, "underdamped"): {
        "draws 1000": (Published(0.335, 0.027),),
        "0th order": (Published(0.333, 0.011),),
        "2nd order": (Published(0.336, 0.006),),
    },
    (2, "underdamped"): {
        "draws 1000": (Published(0.096, 0.014), Published(0.373, 0.047), Published(0.532, 0.041)),
        "0th order": (Published(0.090, 0.009), Published(0.383, 0.053), Published(0.527, 0.060)),
        "2nd order": (Published(0.093, 0.003), Published(0.379, 0.034), Published(0.529, 0.033)),
    },
}
# The same -> accuracy of the segmentation and its standard deviation over sequences, as fractions: Tables 3 and 6.
ACCURACY = {
    (1, "overdamped"): (Published(0.926, 0.006), Published(0.016, 0.002)),
    (1, "underdamped"): (Published(0.822, 0.056), Published(0.036, 0.014)),
    (2, "underdamped"): (Published(0.853, 0.011), Published(0.042, 0.003)),
}
# The tables' numbers in the paper: weights' l1, weights themselves, accuracy.
NUMBERS = {1: (1, 2, 3), 2: (4, 5, 6)}
