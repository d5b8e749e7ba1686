#!/usr/bin/env bash
# The drivers of the features cust and cudarc, without a GPU: both build, link, are clippy clean, and pass
# their tests on a simulated CUDA driver; without a driver library they fail with an error value.
# usage: ci/drivers.sh
set -euo pipefail
cd "$(dirname "$0")/.."
fake=${CARGO_TARGET_DIR:-target}/fake-cuda
ci/fake_cuda.sh "$fake"
fake=$(cd "$fake" && pwd)
export CUDA_LIBRARY_PATH=$fake

features=cust,cudarc
cargo clippy --package pagedptx --features "$features" --all-targets -- -D warnings
for one in cust cudarc; do
    cargo check --quiet --package pagedptx --features "$one"
    echo "feature $one alone: builds"
done

# On the simulated driver, which has to be found.
LD_LIBRARY_PATH=$fake/lib64 PAGEDPTX_FAKE_CUDA=required \
    cargo test --package pagedptx --features "$features" --lib --test fake_cuda -- --quiet

# The benchmark on the simulated driver: its times mean nothing, its calls do.
LD_LIBRARY_PATH=$fake/lib64 cargo bench --package pagedptx --profile dev --features "$features" --bench attention -- --only 1x1024

# Where there is no driver library.
if ldconfig -p | grep -q 'libcuda\.so\.1'; then
    echo "a real CUDA driver is installed: what happens without one is not tested here"
else
    cargo test --package pagedptx --features "$features" --test no_cuda -- --quiet
fi
