"""compile.py ARCH DIR: compiles the kernels beside it for sm_ARCH, without a GPU, and writes DIR/triton_NAME.ptx."""

import os
import pathlib
import sys

os.environ["TRITON_DISABLE_LINE_INFO"] = "1"  # debug sections name the machine that compiled them

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import kernels

# name, kernel, argument types, constants, warps, stages
VARIANTS = [
    ("softmax", kernels.softmax, {"x": "*fp32", "out": "*fp32", "rows": "i32", "cols": "i32", "stride": "i32"},
     {"WIDTH": 256}, 4, 2),
    *[(f"flash_{name}", kernels.flash_forward,
       {"q": f"*{dtype}", "k": f"*{dtype}", "v": f"*{dtype}", "out": f"*{dtype}", "lse": "*fp32", "scale": "fp32",
        "length": "i32", "heads": "i32", "kv_heads": "i32"},
       {"CAUSAL": causal, "D": 64, "BLOCK_M": 64, "BLOCK_N": 32}, 4, 2)
      for name, dtype, causal in [("f16_causal", "fp16", True), ("bf16_full", "bf16", False)]],
    *[(f"split_{dtype}", kernels.split_decode,
       {"q": f"*{dtype}", "k_cache": f"*{dtype}", "v_cache": f"*{dtype}", "partial_out": "*fp32", "partial_lse": "*fp32",
        "tables": "*i32", "lens": "*i32", "scale": "fp32", "max_blocks": "i32", "heads": "i32", "kv_heads": "i32"},
       {"GROUP": group, "GROUP_PADDED": 16, "D": 128, "BLOCK": 16, "SPLITS": 4}, warps, 3)
      for dtype, group, warps in [("bf16", 7, 4), ("fp32", 4, 2)]],
    ("merge", kernels.merge, {"partial_out": "*fp32", "partial_lse": "*fp32", "out": "*fp16"}, {"D": 128, "SPLITS": 4}, 4, 2),
]


def main():
    arch, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
    for name, kernel, types, constants, warps, stages in VARIANTS:
        names = kernel.arg_names
        signature = {n: types.get(n, "constexpr") for n in names}
        # Pointers are 16-byte aligned, as an allocator hands them out.
        attrs = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if signature[n].startswith("*")}
        source = ASTSource(kernel, signature, constexprs={(names.index(c),): v for c, v in constants.items()}, attrs=attrs)
        # With a whole warpgroup Triton takes `wgmma` on sm_90, which is not what these tests are about.
        warps = min(warps, 2) if arch == 90 and name.startswith("flash") else warps
        compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32),
                                  options={"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True, "ptx_version": 88})
        header = f"// {compiled.metadata.name}: {compiled.metadata.shared} bytes of dynamic shared memory, {32 * warps} threads"
        (folder / f"triton_{name}.ptx").write_text(header + "\n" + compiled.asm["ptx"].strip() + "\n")


main()
