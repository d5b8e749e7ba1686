#!/usr/bin/env python3
"""Has `sentryward`, a static verifier of races and barriers, look at a few variants of each kernel.

usage: ci/static_races.py DIR        (DIR: what `cargo run --example expand -- DIR` wrote)

It proves for all schedules of one launch, where the emulator tries some schedules of many; but branches must not depend on memory, and a
kernel's parameters must be single pointers and numbers. So each kernel is specialised first, textually:

- fields of the by-value struct become pointer parameters or constants; lse and error_word are null;
- what is read from tables becomes a constant or an index: lengths, block ids, slots;
- copies lose their zero fill and cache policy, which it does not parse: a row past the length counts as copied;
- a branch on a vote over scores is never taken: rescales, which touch registers only, are left out;
- of a row in several chunks the atomic counter, which it does not model, is taken out: no CTA merges. So it says nothing of the merge.

Each kernel must come out race free, and with a barrier taken out must not.
"""
import json
import re
import sys
import tempfile
from pathlib import Path

from sentryward import verify

DECODE_POINTERS = {0: "q", 8: "k_cache", 16: "v_cache", 24: "block_table", 32: "seq_lens", 40: "out", 56: "partial_out",
                   64: "partial_stat", 72: "arrivals"}


def replace(text, pattern, to):
    """Every match of the pattern, of which there has to be one."""
    text, count = re.subn(pattern, to, text)
    if not count:
        sys.exit(f"sentryward: {pattern} does not occur, the kernel has changed")
    return text


def specialise(text, pointers, numbers):
    """The text with the fields of `params` as pointers or constants, by offset."""
    def field(match):
        kind, register, offset = match.group(1), match.group(2), int(match.group(3))
        if offset in pointers:
            return f"ld.param.u64 {register}, [{pointers[offset]}];"
        return f"mov.{kind} {register}, {numbers[offset]};"
    text = replace(text, r"ld\.param\.(\w+) (%\w+), \[params\+(\d+)\];", field)
    declared = ", ".join(f".param .u64 .ptr .global .align 16 {name}" for name in pointers.values())
    return replace(text, r"\(\.param \.align 8 \.b8 params\[\d+\]\)", f"({declared})")


def append(text):
    """Token c goes to slot c."""
    pointers = {0: "k_new", 8: "v_new", 16: "k_cache", 24: "v_cache", 32: "slot_mapping"}
    text = specialise(text, pointers, {40: 64, 44: 0})
    return replace(text, r"ld\.global\S* (%slot), \[[^\]]*\];", r"mov.u32 %slot_32, %ctaid.x;\n    cvt.u64.u32 \1, %slot_32;").replace(
        "{\n", "{\n    .reg .b32 %slot_32;\n", 1)


def division(divisor):
    shift = 31 + (divisor - 1).bit_length()
    return (1 << shift) // divisor + 1, shift


def decode(text, block_index, length, head_dim, group_size, kv_heads, block_size=16, q_dtype=1):
    """One sequence, whose blocks are 0, 1, 2 ... `block_index`: the register that holds a block's place in its row."""
    token, heads = kv_heads * head_dim, kv_heads * group_size * head_dim
    numbers = {48: 0, 80: 0, 88: block_size * token, 96: token, 100: head_dim, 104: heads, 108: head_dim, 112: heads, 116: head_dim, 120: 1,
               124: kv_heads, 128: group_size, 132: head_dim, 136: block_size, 140: 32, 144: 64, 148: 0, 152: 6, 156: 3,
               160: "0f3E000000", 164: "0f42800000", 168: 0, 172: 1, 192: q_dtype}
    numbers[176], numbers[180] = division(block_size)
    numbers[184], numbers[188] = division(kv_heads)
    text = specialise(text, DECODE_POINTERS, numbers)
    text = replace(text, r"ld\.global\.nc\.u32 %lane_next_len, \[%g_len\];", f"mov.u32 %lane_next_len, {length};")
    text = replace(text, r"ld\.global\.nc\.u32 %next_id, \[%g_entry\];", f"mov.u32 %next_id, {block_index};")
    text = replace(text, r"@%p_any_grew bra\.uni \$rescale;", "")
    text = replace(text, r"(cp\.async\.cg\.shared\.global)(?:\.L2::cache_hint)? (\[[^\]]*\], \[[^\]]*\], 16)[^;]*;", r"\1 \2;")
    text = replace(text, r"atom\.acq_rel\.gpu\.global\.inc\.u32 %arrived, [^;]*;", "mov.u32 %arrived, 0;")
    return replace(text, r"ld\.shared\.u32 %arrived, \[[^\]]*\];", "mov.u32 %arrived, 0;")


def without(text, barrier):
    """The text without a barrier, by the beginning of its comment."""
    return replace(text, r"bar(?:\.warp)?\.sync \w+; +// " + barrier, "// ")


def result(text, grid, threads, shared_bytes):
    launch = {"grid_dim": [grid, 1, 1], "block_dim": [threads, 1, 1], "cluster_dim": [1, 1, 1], "dynamic_shared_bytes": shared_bytes}
    with tempfile.TemporaryDirectory() as folder:
        ptx, config = Path(folder, "kernel.ptx"), Path(folder, "input.json")
        ptx.write_text(text)
        config.write_text(json.dumps({"schema": "spverify.kernel-input/v1", "launch": launch}))
        report = verify(ptx, input=config, timeout_seconds=300)
    return report["result"], json.dumps(report.get("diagnostics"))[:600]


def main():
    folder = Path(sys.argv[1])
    append_text = append((folder / "append_f16_f16.ptx").read_text())
    mma_text = (folder / "decode_mma_d32_bf16_g8.ptx").read_text()
    shared = 192 * (2 * 32 + 16)
    straight, mixed = ((folder / f"decode_d32_{kv}.ptx").read_text() for kv in ("f32", "bf16"))
    straight_shared, mixed_shared = (stages * 2 * 16 * (32 * elem + 16) + 2 * 32 * (32 + 16) for stages, elem in ((3, 4), (4, 2)))
    same_slot = replace(append_text, r"cvt\.u64\.u32 %slot, %slot_32;", "mov.u64 %slot, 0;")
    mma_one = decode(mma_text, "%block_index", length=40, head_dim=32, group_size=4, kv_heads=1)
    mma_two = decode(mma_text, "%block_index", length=140, head_dim=32, group_size=4, kv_heads=2)
    # Seven tiles are more than the ring holds: it is refilled.
    one = decode(straight, "%row_block", length=100, head_dim=32, group_size=12, kv_heads=1, q_dtype=0)
    mixed_one = decode(mixed, "%row_block", length=40, head_dim=32, group_size=12, kv_heads=1)
    mixed_two = decode(mixed, "%row_block", length=140, head_dim=32, group_size=12, kv_heads=1)
    ok = True
    for name, text, shape, wanted in [
        ("append_f16_f16", append_text, (2, 128, 0), "race_free"),
        ("append_f16_f16, two tokens to one slot", same_slot, (2, 128, 0), "potential_race"),
        ("decode_mma_d32_bf16_g8, one chunk", mma_one, (1, 64, shared), "race_free"),
        ("decode_mma_d32_bf16_g8, two chunks of two heads", mma_two, (4, 64, shared), "race_free"),
        ("decode_mma_d32_bf16_g8, parts of the warps are read before they are written", without(mma_one, "the parts of all warps"),
         (1, 64, shared), "potential_race"),
        ("decode_d32_f32, two warps", one, (1, 64, straight_shared), "race_free"),
        ("decode_d32_f32, K is read before it has landed", without(one, "every warp's rows of K have landed"),
         (1, 64, straight_shared), "potential_race"),
        ("decode_d32_f32, a group of copies too many stays open", replace(one, r"wait_group 4; +// the groups after this V's", "wait_group 5; //"),
         (1, 64, straight_shared), "potential_race"),
        ("decode_d32_bf16, q f16, two warps", mixed_one, (1, 64, mixed_shared), "race_free"),
        ("decode_d32_bf16, q f16, two chunks", mixed_two, (2, 64, mixed_shared), "race_free"),
        ("decode_d32_bf16, q is widened over words not yet read", without(mixed_one, "all lanes have read their words"),
         (1, 64, mixed_shared), "potential_race"),
    ]:
        got, diagnostics = result(text, *shape)
        print(f"sentryward: {name}: {got}" + ("" if got == wanted else f", {wanted} is expected: {diagnostics}"), flush=True)
        ok &= got == wanted
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
