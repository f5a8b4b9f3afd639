#!/usr/bin/env bash
# Write the lock files of the image: every package with its exact version and hashes.
#
# requirements.lock holds mmlab's dependencies with the extras cluster and server, torch-cuda.lock
# torch with the packages that only its CUDA build needs. Versions are those of constraints.txt.
# Requires uv (`pip install uv`); with --check, fails if constraints.txt and the files differ.
set -euo pipefail
cd "$(dirname "$0")/.."

check() {
    # A lock file may hold packages that constraints.txt does not name, never other versions.
    local name version pinned failed=0
    while IFS='=' read -r name _ version; do
        pinned=$(grep -i "^${name//[-_.]/[-_.]}==" constraints.txt | cut -d= -f3 || true)
        if [ -n "$pinned" ] && [ "$pinned" != "$version" ]; then
            echo "lock: $name $version, but constraints.txt has $pinned; run docker/lock.sh" >&2
            failed=1
        fi
    done < <(grep -hoE '^[A-Za-z0-9._-]+==[^ ;]+' docker/requirements.lock docker/torch-cuda.lock)
    return "$failed"
}

if [ "${1:-}" = --check ]; then
    check
    exit
fi

locked=$(mktemp)
trap 'rm -f "$locked"' EXIT
uv pip compile pyproject.toml --extra cluster --extra server --constraint constraints.txt \
    --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
    --generate-hashes --no-annotate --no-header --quiet --no-config --output-file "$locked"
of_torch='^(torch|triton|nvidia-|cuda-)'
awk -v wanted="$of_torch" '/^[A-Za-z0-9]/ { keep = $0 ~ wanted } keep' "$locked" >docker/torch-cuda.lock
awk -v other="$of_torch" '/^[A-Za-z0-9]/ { keep = $0 !~ other } keep' "$locked" >docker/requirements.lock
check
wc -l docker/requirements.lock docker/torch-cuda.lock
