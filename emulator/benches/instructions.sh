#!/usr/bin/env bash
# Host instructions for each lane instruction of the cases of decode.rs, by valgrind: the same on every run, whatever else the machine does.
set -euo pipefail
cd "$(dirname "$0")/../.."
bench=$(cargo bench -q -p ptx-emulator --bench decode --no-run --message-format=json | sed -n 's/.*"executable":"\([^"]*decode-[^"]*\)".*/\1/p')
printf '%-24s %15s %15s %8s\n' case 'lane' 'host' each
[ $# -gt 0 ] || set -- {paged_f16_d64,triton_bf16_d128,triton_tf32_d128}/{all,none}
for case in "$@"; do
    log=$(mktemp)
    lane=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect='*::launch' --log-file="$log" "$bench" --once "$case")
    host=$(sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$log")
    rm "$log"
    awk -v name="$case" -v lane="$lane" -v host="$host" 'BEGIN { printf "%-24s %15d %15d %8.3f\n", name, lane, host, host / lane }'
done
