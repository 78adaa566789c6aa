# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc"
"""Sine and activations inside Triton kernels."""

import triton
import triton.language as tl


@triton.jit
def reduce_half_turns(x):
    """x = k pi + r with |r| <= pi / 2: Cody and Waite's three-part pi, whose first two
    products are exact for |k| < 2^13."""
    k = tl.floor(x * 0.3183098861837907 + 0.5)
    r = x - k * 3.140625
    r = r - k * 9.67502593994140625e-4
    return k, r - k * 1.509957990978376432e-7


@triton.jit
def sine_near_zero(r):
    """sin r for |r| <= pi / 2: minimax polynomial, relative error 6e-9 before rounding."""
    s = r * r
    p = 2.6057506414706747e-06
    p = p * s - 1.9809590071742588e-04
    p = p * s + 8.333066082196776e-03
    p = p * s - 1.6666659544545798e-01
    return r + r * s * p


@triton.jit
def cosine_near_zero(r):
    """cos r for |r| <= pi / 2: minimax polynomial, absolute error 4e-10 before rounding."""
    s = r * r
    p = -2.619354759025163e-07
    p = p * s + 2.476929145463757e-05
    p = p * s - 1.3888568970900923e-03
    p = p * s + 4.16666557644524e-02
    return 1.0 - 0.5 * s + s * s * p


@triton.jit
def sine(x):
    """sin x, without the slow path that the library keeps for huge arguments: |x| < 1e4."""
    k, r = reduce_half_turns(x)
    p = sine_near_zero(r)
    return tl.where(k - 2.0 * tl.floor(0.5 * k) == 1.0, -p, p)


@triton.jit
def activate(z, slope, alpha, ACTIVATION: tl.constexpr):
    """The activation of z; alpha is broadcast to z's shape. The sign of sin is lost in its
    square."""
    if ACTIVATION == 1:
        z = tl.where(z > 0, z, z * slope)
    elif ACTIVATION == 2:
        _, r = reduce_half_turns(alpha * z)
        s = sine_near_zero(r)
        z = z + s * s / alpha
    return z


@triton.jit
def activate_backward(z, slope, alpha, ACTIVATION: tl.constexpr):
    """(d activation / dz, d activation / d alpha) at z."""
    dz = tl.full(z.shape, 1.0, tl.float32)
    da = tl.zeros(z.shape, tl.float32)
    if ACTIVATION == 1:
        dz = tl.where(z > 0, 1.0, slope) + tl.zeros(z.shape, tl.float32)
    elif ACTIVATION == 2:
        _, r = reduce_half_turns(alpha * z)
        s = sine_near_zero(r)
        double = 2.0 * s * cosine_near_zero(r)
        dz = 1.0 + double
        da = (z * double - s * s / alpha) / alpha
    return dz, da
