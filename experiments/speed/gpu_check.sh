#!/bin/bash
# Check mmlab's CUDA code on a machine with a GPU, in 480 s at most.
#
#   bash experiments/speed/gpu_check.sh prepare   on a machine with a package registry: downloads
#                                                 wheels into .whl/ of the checkout
#   bash experiments/speed/gpu_check.sh           on the GPU machine, which needs no network: installs
#                                                 the wheels of .whl/ in a temporary folder, then runs
#                                                 the check with the torch that is installed
#
# Writes gpu_check.log and gpu_check.json to $OUT (default: .speed/). Other variables: PYTHON
# (python3), PYTHON_VERSION of the GPU machine (3.12), DEVICE (cuda), BUDGET (seconds, 400), and MORE
# options of the check, e.g. MORE="--small --only kernels".
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
PYTHON=${PYTHON:-python3}

if [ "${1:-}" = prepare ]; then
  platforms=()
  for tag in manylinux_2_28 manylinux_2_27 manylinux_2_24 manylinux_2_17 manylinux2014 manylinux1; do
    platforms+=(--platform "${tag}_x86_64")
  done
  mkdir -p .whl
  status=0
  # What mmlab needs besides torch, NumPy, SciPy, scikit-learn, h5py, psutil and pytest.
  for package in anndata annotated-types array-api-compat charset-normalizer cosg donfig \
      google-crc32c igraph lassonet legacy-api-wrap natsort numcodecs pandas platformdirs pydantic \
      pydantic_core pynndescent pytz scanpy scverse-misc session-info2 texttable typing-inspection \
      tzdata umap-learn zarr; do
    ls .whl/"${package//-/_}"-*.whl >/dev/null 2>&1 && continue
    "$PYTHON" -m pip download --quiet --no-deps --only-binary=:all: --implementation cp \
      --python-version "${PYTHON_VERSION:-3.12}" "${platforms[@]}" \
      --constraint constraints.txt --dest .whl "$package" || status=1
  done
  du -sh .whl
  exit "$status"
fi

OUT=${OUT:-.speed}
mkdir -p "$OUT"
if ls .whl/*.whl >/dev/null 2>&1; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
    --target "$site" .whl/*.whl || exit
  export PYTHONPATH="$site"
fi
export PYTHONUNBUFFERED=1
command -v nvidia-smi >/dev/null &&
  nvidia-smi --query-gpu=name,memory.total,memory.used,driver_version --format=csv
# shellcheck disable=SC2086  # MORE is a list of words
"$PYTHON" -m experiments.speed.gpu_check --device "${DEVICE:-cuda}" --budget "${BUDGET:-400}" \
  --output "$OUT/gpu_check.json" ${MORE:-} 2>&1 | tee "$OUT/gpu_check.log"
