#!/usr/bin/env bash
# Builds a CUDA driver library without a device: DIR/lib64/libcuda.so.1 and DIR/lib64/libcuda.so.
# usage: ci/fake_cuda.sh DIR
#
# To link a program that uses cust (its build script wants a CUDA toolkit): CUDA_LIBRARY_PATH=DIR.
# To run the tests of tests/fake_cuda.rs: LD_LIBRARY_PATH=DIR/lib64.
#
# The functions that our drivers call are simulated (tests/fake_cuda/fake_cuda.c). All others that cust declares are
# there for the linker and return CUDA_ERROR_NOT_SUPPORTED.
set -euo pipefail
cd "$(dirname "$0")/.."
source=tests/fake_cuda/fake_cuda.c
mkdir -p "$1/lib64"
lib64=$(cd "$1/lib64" && pwd)
manifest=$(cargo metadata --format-version 1 --features cust |
    python3 -c 'import json, sys; print(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "cust_raw"))')
rest=$(mktemp --suffix=.c)
trap 'rm -f "$rest"' EXIT
comm -23 \
    <(grep -ohE 'pub fn cu[A-Za-z0-9_]+' "$(dirname "$manifest")/src/cuda.rs" | sed 's/pub fn //' | sort -u) \
    <(grep -ohE '^API [A-Za-z]+ \*?cu[A-Za-z0-9_]+' "$source" | sed 's/.* //' | sort -u) |
    sed 's/.*/int &(void) { return 801; }/' >"$rest"
${CC:-cc} -std=gnu11 -O1 -g -Wall -Wextra -Werror -shared -fPIC -Wl,-soname,libcuda.so.1 \
    "$source" "$rest" -o "$lib64/libcuda.so.1" -lpthread
ln -sf libcuda.so.1 "$lib64/libcuda.so"
echo "fake CUDA driver: $(grep -c '^API Code cu' "$source") functions simulated, $(wc -l <"$rest") for the linker"
