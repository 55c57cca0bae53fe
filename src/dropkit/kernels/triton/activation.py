"""Activations and their derivatives, in the CPU kernels' very operations: float32 results are the same bits.

    relu   max(0, h)          h > 0
    gelu   h Phi(h)           Phi(h) + h phi(h)
    tanh   h s                s + h s (1 - s) 2u',    s = 1 / (1 + e^-2u),  u = sqrt(2 / pi) (h + 0.044715 h^3)

float64 takes the toolchain's erf and exp, and agrees to rounding.

Source: Hendrycks and Gimpel 2016; e^x is Cephes' expf, erf the rational form that Eigen and XLA use.
"""
# ruff: noqa: RET505 - a kernel's constant branches need their else
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, untyped-decorator, valid-type"

import triton
import triton.language as tl

RELU, GELU, GELU_TANH = 0, 1, 2
ACTIVATIONS = {"relu": RELU, "gelu": GELU, "gelu_tanh": GELU_TANH}
IS_RELU, IS_GELU = tl.constexpr(RELU), tl.constexpr(GELU)
TWICE = tl.constexpr(1.5957691216057307117)  # 2 sqrt(2 / pi)
CUBE = tl.constexpr(0.044715)
THRICE = tl.constexpr(3 * 0.044715)
ROOT_HALF = tl.constexpr(0.70710678118654752440)
DENSITY = tl.constexpr(0.39894228040143267794)  # 1 / sqrt(2 pi)


@triton.jit
def clamp(x, LOW: tl.constexpr, HIGH: tl.constexpr):
    """Between the bounds; NaN stays."""
    x = tl.where(x < LOW, LOW, x)
    return tl.where(x > HIGH, HIGH, x)


@triton.jit
def exponential(x):
    """e^x: x = n ln 2 + r, a polynomial in r, 2^n in the exponent. Adding and subtracting 1.5 * 2^23 rounds."""
    if x.dtype == tl.float64:
        return tl.exp(x)
    else:
        x = clamp(x, -87.0, 88.0)
        magic = x * 1.44269504088896341 + 12582912.0
        n = magic - 12582912.0
        r = x - n * 0.693359375 - n * -2.12194440e-4
        y = 1.9875691500e-4 * r + 1.3981999507e-3
        y = y * r + 8.3334519073e-3
        y = y * r + 4.1665795894e-2
        y = y * r + 1.6666665459e-1
        y = y * r + 5.0000001201e-1
        power = ((magic.to(tl.int32, bitcast=True) << 23) + (127 << 23)).to(tl.float32, bitcast=True)
        return (y * r * r + r + 1.0) * power


@triton.jit
def error_function(x):
    """erf(x) as x P(x^2) / Q(x^2) on [-4, 4], 1 beyond in float32."""
    if x.dtype == tl.float64:
        return tl.erf(x)
    else:
        x = clamp(x, -4.0, 4.0)
        z = x * x
        p = -2.72614225801306e-10 * z + 2.77068142495902e-08
        p = p * z + -2.10102402082508e-06
        p = p * z + -5.69250639462346e-05
        p = p * z + -7.34990630326855e-04
        p = p * z + -2.95459980854025e-03
        p = p * z + -1.60960333262415e-02
        q = -1.45660718464996e-05 * z + -2.13374055278905e-04
        q = q * z + -1.68282697438203e-03
        q = q * z + -7.37332916720468e-03
        q = q * z + -1.42647390514189e-02
        return tl.div_rn(x * p, q)


@triton.jit
def cdf(h):
    return 0.5 + 0.5 * error_function(h * ROOT_HALF)


@triton.jit
def sigmoid(h):
    below = 1.0 + exponential(0.0 - (h + h * CUBE * h * h) * TWICE)
    if h.dtype == tl.float64:
        return 1.0 / below
    else:
        return tl.div_rn(1.0, below)


@triton.jit
def activate(h, ACT: tl.constexpr):
    if ACT == IS_RELU:
        return tl.where(h < 0, 0.0, h)
    elif ACT == IS_GELU:
        return h * cdf(h)
    else:
        return h * sigmoid(h)


@triton.jit
def chain(h, dy, ACT: tl.constexpr):
    """dy times the derivative at h."""
    if ACT == IS_RELU:
        return tl.where(h > 0, dy, 0.0)
    elif ACT == IS_GELU:
        return dy * (cdf(h) + h * (exponential(-0.5 * h * h) * DENSITY))
    else:
        s = sigmoid(h)
        slope = (1.0 + h * THRICE * h) * TWICE
        return dy * (s + h * s * (1.0 - s) * slope)
