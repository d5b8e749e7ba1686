#!/usr/bin/env python3
"""Matrix products as tensor cores make them, by MMA-Sim (arXiv 2511.10909): mma.txt, which tests/tensor_cores.rs reads.

    pip install numpy==2.4.6 ml_dtypes==0.6.0 && pip install --no-deps mmasim==2.1.1
    python3 generate.py > mma.txt

MMA-Sim is written for torch; the few functions that it uses for these products are here, on numpy and in f64, which holds
every value that they form. Of mma.sync with operands of 8 bits on sm_90 it has no model, as the GPU has no unit for it:
`cuobjdump -sass` shows what ptxas makes of one, two products of f16 (of the elements k % 4 < 2, then of the others)
from zero on, whose sum is added to the accumulator at the end, and so it is put together here.

A line: target, shape and types, then A row by row, B column by column, C and D row by row, in hexadecimal.
"""
import random
import sys
import types

import ml_dtypes
import numpy as np


class Tensor:
    def __init__(self, array):
        self.array = np.asarray(array)

    dtype = property(lambda self: self.array.dtype)
    shape = property(lambda self: self.array.shape)
    T = property(lambda self: Tensor(self.array.T))

    def apply(self, function, other):
        return Tensor(function(self.array, other.array if isinstance(other, Tensor) else other))

    def __mul__(self, other):
        return self.apply(np.multiply, other)

    def __add__(self, other):
        return self.apply(np.add, other)

    def __sub__(self, other):
        return self.apply(np.subtract, other)

    def __lt__(self, other):
        return self.apply(np.less, other)

    def __gt__(self, other):
        return self.apply(np.greater, other)

    def __or__(self, other):
        return self.apply(np.logical_or, other)

    def __eq__(self, other):
        return self.apply(np.equal, other)

    def __rshift__(self, other):
        return self.apply(np.right_shift, other)

    def __lshift__(self, other):
        return self.apply(np.left_shift, other)

    def __getitem__(self, key):
        return Tensor(self.array[key.array if isinstance(key, Tensor) else key])

    def __setitem__(self, key, value):
        value = value.array if isinstance(value, Tensor) else value
        self.array[key.array if isinstance(key, Tensor) else key] = value

    def any(self):
        return bool(self.array.any())

    def isnan(self):
        return Tensor(np.isnan(self.array))

    def to(self, dtype):
        return Tensor(self.array.astype(dtype))

    def float(self):
        return self.to(np.float32)

    def double(self):
        return self.to(np.float64)

    def view(self, dtype):
        return Tensor(self.array.view(dtype))

    def sum(self, dim):
        return Tensor(self.array.sum(axis=dim))

    def max(self, dim):
        return types.SimpleNamespace(values=Tensor(self.array.max(axis=dim)))

    def unsqueeze(self, dim):
        return Tensor(np.expand_dims(self.array, dim))

    def expand(self, *shape):
        shape = [have if want == -1 else want for have, want in zip(self.shape, shape)]
        return Tensor(np.broadcast_to(self.array, shape).copy())


def frexp(x):
    significand, exponent = np.frexp(x.array)
    return Tensor(significand), Tensor(exponent.astype(np.int32))


def install_torch():
    torch = types.ModuleType("torch")
    torch.Tensor = Tensor
    torch.tensor = lambda values, dtype=None: Tensor(np.array(values, dtype))
    torch.frexp = frexp
    torch.exp2 = lambda x: Tensor(np.exp2(x.array.astype(np.float64)))
    torch.trunc = lambda x: Tensor(np.trunc(x.array))
    torch.round = lambda x: Tensor(np.round(x.array))
    torch.cat = lambda list, dim: Tensor(np.concatenate([t.array for t in list], axis=dim))
    for name in ["float64", "float32", "float16", "uint8", "int16", "int32"]:
        setattr(torch, name, np.dtype(name))
    torch.bfloat16 = np.dtype(ml_dtypes.bfloat16)
    for name in ["e5m2", "e4m3fn", "e5m2fnuz", "e4m3fnuz", "e8m0fnu"]:
        setattr(torch, "float8_" + name, np.dtype(getattr(ml_dtypes, "float8_" + name)))
    sys.modules["torch"] = torch
    # Products of f64 are not among these.
    sys.modules["mmasim.arithmetic.fma"] = types.ModuleType("fma")


install_torch()
from mmasim.nv_ptx import sim  # noqa: E402

# Name, bits of an element, of its exponent and of its fraction, numpy's type.
FORMATS = {
    "f16": (16, 5, 10, np.float16),
    "bf16": (16, 8, 7, ml_dtypes.bfloat16),
    "tf32": (32, 8, 23, np.float32),
    "f32": (32, 8, 23, np.float32),
    "e4m3": (8, 4, 3, ml_dtypes.float8_e4m3fn),
    "e5m2": (8, 5, 2, ml_dtypes.float8_e5m2),
}
UNSIGNED = {8: np.uint8, 16: np.uint16, 32: np.uint32}
ARCHITECTURES = {"sm_80": "Ampere", "sm_89": "Ada Lovelace", "sm_90": "Hopper"}


def draw(kind, name):
    """One element: near 1, of any exponent, subnormal, large or special."""
    bits, exponent_bits, fraction_bits, _ = FORMATS[name]
    bias, top = (1 << exponent_bits - 1) - 1, (1 << exponent_bits) - 1
    sign = random.getrandbits(1) << bits - 1
    fraction = random.getrandbits(fraction_bits) & random.choice([-1, -1, 0, 3 << fraction_bits - 2])
    exponent = {
        "near": lambda: bias + random.randint(-2, 2),
        "spread": lambda: min(max(bias + random.randint(-13, 13), 0), top - 1),
        "small": lambda: random.choice([0, 0, 0, 1, bias, top // 2 + 2]),
        "large": lambda: random.choice([top - 1, top - 1, top - 2, bias]),
        "special": lambda: random.choice([top, bias, bias, bias, bias, bias, bias, bias, 0]),
    }[kind]()
    if kind == "special" and exponent == 0:
        fraction = 0
    if kind == "special" and exponent == top and random.random() < 0.6:
        fraction = 0 if name != "e4m3" else 6
    return sign | exponent << fraction_bits | fraction


def array(codes, name, shape):
    bits, _, _, dtype = FORMATS[name]
    return np.array(codes, UNSIGNED[bits]).view(dtype).reshape(shape)


def accumulators(a, b, name):
    """Like the products' sum, against it, or with no regard to it."""
    sums = a.astype(np.float64) @ b.astype(np.float64).T
    codes = []
    for total in sums.flat:
        choice = random.random()
        if choice < 0.35 and np.isfinite(total):
            dtype = FORMATS[name][3]
            near = np.asarray(total * random.choice([-1, -1, 1]), np.float64).astype(dtype)
            codes.append(int(near.view(UNSIGNED[FORMATS[name][0]])) ^ random.choice([0, 0, 1, 5]))
        elif choice < 0.5:
            codes.append(0)
        else:
            kind = random.choice(["near", "spread", "spread", "small", "large" if choice > 0.95 else "near"])
            codes.append(draw(kind, name))
    return codes


def product(target, shape, d, a_type, b_type, a, b, c):
    if target == "sm_90" and FORMATS[a_type][0] == 8:
        half = sim.MMA("Hopper", f"m16n8k16.{d}.f16.f16.{d}")
        total = Tensor(np.zeros(c.shape, c.dtype))
        for part in range(2):
            columns = [k for k in range(a.shape[1]) if k % 4 // 2 == part]
            of_part = [Tensor(m[:, columns].astype(np.float16)) for m in (a, b)]
            total = half(of_part[0], of_part[1].T, total)
        # One more addition in the format of the accumulators; f32 holds a sum of two f16 well enough to round it once.
        result = (c.astype(np.float32) + total.array.astype(np.float32)).astype(c.dtype)
        canonical = np.array(0x7FFFFFFF if d == "f32" else 0x7FFF, UNSIGNED[c.itemsize * 8]).view(c.dtype)
        return np.where(np.isnan(result), canonical, result)
    model = sim.MMA(ARCHITECTURES[target], f"{shape}.{d}.{a_type}.{b_type}.{d}")
    return model(Tensor(a), Tensor(b).T, Tensor(c)).array


def hexadecimal(values, name):
    bits = FORMATS[name][0]
    return "".join(f"{int(code):0{bits // 4}x}" for code in values.view(UNSIGNED[bits]).flat)


def line(target, shape, d, a_type, b_type, kinds):
    k = int(shape.split("k")[1])
    a = array([draw(kinds[row % len(kinds)], a_type) for row in range(16) for _ in range(k)], a_type, (16, k))
    columns = ["near", "spread", "near", "small", "near", "large", "spread", "near"]
    b = array([draw(columns[column], b_type) for column in range(8) for _ in range(k)], b_type, (8, k))
    c = array(accumulators(a, b, d), d, (16, 8))
    result = product(target, shape, d, a_type, b_type, a, b, c)
    matrices = [(a, a_type), (b, b_type), (c, d), (result, d)]
    print(target, f"{shape}.{d}.{a_type}.{b_type}.{d}", *(hexadecimal(m, t) for m, t in matrices))


def main():
    np.seterr(all="ignore")
    random.seed(1)
    wide = [("m16n8k16", "f32", "f16"), ("m16n8k16", "f16", "f16"), ("m16n8k16", "f32", "bf16"),
            ("m16n8k8", "f32", "f16"), ("m16n8k8", "f16", "f16"), ("m16n8k8", "f32", "bf16"),
            ("m16n8k8", "f32", "tf32"), ("m16n8k4", "f32", "tf32")]  # fmt: skip
    narrow = [(f"m16n8k{k}", d, a, b) for k, d in [(32, "f32"), (16, "f32"), (32, "f16")]
              for a, b in [("e4m3", "e4m3"), ("e5m2", "e5m2"), ("e4m3", "e5m2")]]  # fmt: skip
    for target in ARCHITECTURES:
        cases = [(shape, d, ab, ab) for shape, d, ab in wide] if target != "sm_89" else []
        cases += narrow if target != "sm_80" else []
        for case in cases:
            line(target, *case, ["near", "spread", "near", "small", "spread"])
            line(target, *case, ["spread", "special", "near", "large"])


main()
