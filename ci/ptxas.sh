#!/usr/bin/env bash
# Assembles every expanded entry for the targets given and demands 0 spills.
# usage: ci/ptxas.sh DIR sm_80 [sm_90 ...]   (DIR: what `cargo run --example expand -- DIR` wrote)
set -euo pipefail
dir=$1
shift
ptxas=$(python3 -c 'import nvidia; print(list(nvidia.__path__)[0] + "/cu13/bin/ptxas")')
log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
for target in "$@"; do
    find "$dir" -name '*.ptx' -print0 | sort -z |
        xargs -0 -P "$(nproc)" -I{} sh -c \
            '"$1" -v -arch="$2" "$3" -o "$4/$(basename "$3").cubin" >"$4/$(basename "$3").log" 2>&1 || { echo "$3 ($2):"; cat "$4/$(basename "$3").log"; exit 1; }' \
            sh "$ptxas" "$target" {} "$log"
    if grep -L ' 0 bytes spill stores, 0 bytes spill loads' "$log"/*.log | grep .; then
        echo "ptxas: the entries above spill on $target"
        exit 1
    fi
    most=$(grep -ho 'Used [0-9]* registers' "$log"/*.log | sort -k2n | tail -n 1)
    echo "ptxas $target: $(ls "$log"/*.log | wc -l) entries, 0 spills, at most ${most,,}"
    rm -f "$log"/*
done
