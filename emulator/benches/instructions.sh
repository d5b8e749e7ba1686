#!/usr/bin/env bash
# Host instructions for each lane instruction of the cases of decode.rs and of pagedptx's own kernels, by valgrind: the same on every run,
# whatever else the machine does.
set -euo pipefail
cd "$(dirname "$0")/../.."
binary() {
    local name=$1
    shift
    cargo bench -q "$@" --bench "$name" --no-run --message-format=json | sed -n "s/.*\"executable\":\"\([^\"]*\/$name-[^\"]*\)\".*/\1/p"
}
others=$(binary decode -p ptx-emulator)
own=$(binary emulator)
# Valgrind counts every byte that `rep stosb` and `rep movsb` go over as an instruction of its own; loops over vectors, which the C library
# has too, are counted as they are.
export GLIBC_TUNABLES=glibc.cpu.x86_rep_stosb_threshold=1000000000:glibc.cpu.x86_rep_movsb_threshold=1000000000
printf '%-24s %15s %15s %8s\n' case 'lane' 'host' each
[ $# -gt 0 ] || set -- {paged_f16_d64,triton_bf16_d128,triton_tf32_d128,f32_d128,bf16_d128}/{all,none}
for case in "$@"; do
    log=$(mktemp)
    case $case in f32_* | bf16_*) bench=$own ;; *) bench=$others ;; esac
    lane=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect='*Device*::launch' --log-file="$log" "$bench" --once "$case")
    host=$(sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$log")
    rm "$log"
    awk -v name="$case" -v lane="$lane" -v host="$host" 'BEGIN { printf "%-24s %15d %15d %8.3f\n", name, lane, host, host / lane }'
done
