"""exp, log and powers that every processor rounds in the same way.

Those of NumPy and of the C library are chosen by the instructions of the processor, and differ in
the last bit with and without AVX2, AVX-512 or FMA. Here only additions, multiplications and
divisions are done, each by itself, which IEEE 754 rounds in one way. The results are within a few
units of the last place of the true values.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# ln 2 in two parts (fdlibm's e_exp.c): whole multiples of the first, up to 2**20, are exact.
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
_SMALLEST = -750.0  # exp of less is 0 in float64
_EXP_TERMS = [1 / math.factorial(n) for n in range(14)]  # to 4e-18 for |x| <= ln(2) / 2
_LOG_TERMS = [1 / (2 * n + 1) for n in range(12)]  # to 2e-18 for x in [1/sqrt(2), sqrt(2)]


def exp(x: ArrayLike) -> Floats:
    """e**x.

    Args:
        x: Below 709; -inf gives 0.
    """
    bounded = np.maximum(np.asarray(x, np.float64), _SMALLEST)
    halvings = np.rint(bounded / (_LN2_HIGH + _LN2_LOW))
    rest = bounded - halvings * _LN2_HIGH - halvings * _LN2_LOW
    result: Floats = np.ldexp(_polynomial(_EXP_TERMS, rest), halvings.astype(np.int32))
    return result


def log(x: ArrayLike) -> Floats:
    """The natural logarithm.

    Args:
        x: At least 0 and finite; 0 gives -inf.
    """
    values = np.asarray(x, np.float64)
    mantissa, exponent = np.frexp(values)  # in [1/2, 1)
    small = mantissa < math.sqrt(0.5)
    mantissa = np.where(small, 2 * mantissa, mantissa)
    exponent = exponent - small
    ratio = (mantissa - 1) / (mantissa + 1)  # log(m) = 2 artanh of it
    rest = 2 * ratio * _polynomial(_LOG_TERMS, ratio * ratio) + exponent * _LN2_LOW
    return np.where(values > 0, exponent * _LN2_HIGH + rest, -np.inf)


def power(base: ArrayLike, exponent: float) -> Floats:
    """base**exponent.

    Args:
        base: At least 0 and finite; 0 only where the exponent is above 0.
        exponent: Any finite number whose result is finite.
    """
    return exp(exponent * log(base))


def _polynomial(coefficients: list[float], x: Floats) -> Floats:
    result = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        result = result * x + coefficient
    return result
