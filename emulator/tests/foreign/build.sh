#!/bin/sh
# Regenerates ptx/ from cuda/ and triton/. Needs python3 with venv, and a C++ compiler whose preprocessor nvcc uses; no GPU.
#   emulator/tests/foreign/build.sh [VENV]     VENV: where the compilers are installed (default: target/foreign-venv)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=${1:-$here/../../../target/foreign-venv}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
    nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96 \
    nvidia-cuda-cccl==13.0.85 triton==3.9.0
root=$("$venv/bin/python" -c 'import nvidia; print(list(nvidia.__path__)[0] + "/cu13")')
for arch in 80 90; do
    mkdir -p "$here/ptx/sm_$arch"
    for source in "$here"/cuda/*.cu; do
        name=$(basename "$source" .cu)
        (cd "$here/cuda" && "$root/bin/nvcc" -std=c++17 -O3 -arch="compute_$arch" --ptx -I"$root/include/cccl" \
            -o "$here/ptx/sm_$arch/$name.ptx" "$name.cu")
    done
    PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" "$here/triton/compile.py" "$arch" "$here/ptx/sm_$arch"
done
