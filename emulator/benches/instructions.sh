#!/usr/bin/env bash
# Host instructions for each lane instruction of the cases of decode.rs, and of benches/emulator.rs (this crate's own kernels), by
# valgrind: the same on every run, whatever else the machine does. Arguments are the cases, all if there are none.
set -euo pipefail
cd "$(dirname "$0")/../.."
built() {
    cargo bench -q -p "$1" --bench "$2" --no-run --message-format=json | sed -n 's/.*"executable":"\([^"]*'"$2"'-[^"]*\)".*/\1/p'
}
others=$(built ptx-emulator decode)
own=$(built pagedptx emulator)
[ $# -gt 0 ] || set -- {paged_f16_d64,triton_bf16_d128,triton_tf32_d128,f32_d128,bf16_d128}/{all,none}
printf '%-24s %15s %15s %8s\n' case lane host each
for case in "$@"; do
    bench=$others
    case $case in f32_* | bf16_*) bench=$own ;; esac
    log=$(mktemp)
    lane=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect='*device::Device>::launch' --log-file="$log" "$bench" --once "$case")
    host=$(sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$log")
    rm "$log"
    awk -v name="$case" -v lane="$lane" -v host="$host" 'BEGIN { printf "%-24s %15d %15d %8.3f\n", name, lane, host, host / lane }'
done
