#!/usr/bin/env bash
# Type-checks examples/candle_custom_op with candle's CUDA backend on a machine without CUDA: an `nvcc` made on the spot
# writes empty files, which is all that checking needs of candle's kernels. Nothing that comes out of it can be run.
# usage: ci/candle_cuda.sh
set -euo pipefail
cd "$(dirname "$0")/.."
toolkit=$(mktemp -d)
trap 'rm -rf "$toolkit"' EXIT
mkdir -p "$toolkit/bin" "$toolkit/include" "$toolkit/lib64"
touch "$toolkit/include/cuda.h"
cat >"$toolkit/bin/nvcc" <<'NVCC'
#!/usr/bin/env bash
if [ "$1" = --version ]; then
    printf 'nvcc: stand-in\n-\n-\nCuda compilation tools, release 12.8, V12.8.0\n'
    exit
fi
directory=.
files=()
while [ $# -gt 0 ]; do
    case $1 in
    -o) touch "$2"; exit ;;
    --output-directory) directory=$2; shift ;;
    *.cu) files+=("$1") ;;
    esac
    shift
done
for file in "${files[@]}"; do touch "$directory/$(basename "${file%.cu}").ptx"; done
NVCC
chmod +x "$toolkit/bin/nvcc"
export PATH=$toolkit/bin:$PATH CUDA_HOME=$toolkit CUDA_PATH=$toolkit CUDA_COMPUTE_CAP=90
cargo clippy --package candle-custom-op --features cuda -- -D warnings
