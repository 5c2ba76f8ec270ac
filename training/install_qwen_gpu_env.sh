#!/usr/bin/env bash
# Makes or updates the conda environment of qwen_gpu_env.yaml, and checks that a model can use the
# cards from it.
#
#   training/install_qwen_gpu_env.sh [--dry-run] [--name NAME] [--cpu] [--download HUB]
#
#   --dry-run       run the checks, print the commands, change nothing; exit code 2 if one fails
#   --name NAME     another name than the file's, qwen_gpu_env
#   --cpu           install without an NVIDIA card (--cpu-ok means the same)
#   --download HUB  then download the model from huggingface or modelscope
#
# Exit codes: 0 done, 1 a command or a check after the installation failed, 2 bad usage or a check
# before it failed.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
ENV_FILE="$HERE/qwen_gpu_env.yaml"
REQUIRED_GB=20

name=qwen_gpu_env dry_run=false cpu_ok=false checks_failed=false hub=""

die() {
    echo "error: $1" >&2
    exit "${2:-2}"
}

usage() {
    sed -n '2,/^set -euo/p' "${BASH_SOURCE[0]}" | sed -n 's/^# \{0,1\}//p'
}

# A check that fails ends the installation; in a dry run it is reported and all others run too.
fail_check() {
    if "$dry_run"; then
        echo "check failed: $1" >&2
        checks_failed=true
    else
        die "$1"
    fi
}

run() {
    if "$dry_run"; then
        printf '+'
        printf ' %q' "$@"
        printf '\n'
    else
        "$@" || die "this command failed: $*" 1
    fi
}

read_options() {
    while [ $# -gt 0 ]; do
        case "$1" in
            --dry-run) dry_run=true ;;
            --cpu | --cpu-ok) cpu_ok=true ;;
            --name | --download)
                [ $# -ge 2 ] && [ -n "$2" ] || die "$1 needs a value"
                if [ "$1" = --name ]; then name="$2"; else hub="$2"; fi
                shift
                ;;
            -h | --help)
                usage
                exit 0
                ;;
            *) die "unknown option $1; known: --dry-run --name --cpu --download" ;;
        esac
        shift
    done
    case "$hub" in
        "" | huggingface | modelscope) ;;
        *) die "--download $hub: expected huggingface or modelscope" ;;
    esac
}

check_system() {
    [ "$(uname -s)" = Linux ] || fail_check "found $(uname -s); Loracle runs on Linux"
}

find_conda() {
    local candidate
    for candidate in "${CONDA_EXE:-}" conda mamba; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1; then
            conda="$candidate"
            return
        fi
    done
    conda=conda
    fail_check "found no conda and no mamba; install Miniforge (conda-forge.org), or do without: \
python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e '.[embedded,modelscope]'"
}

check_driver() {
    "$cpu_ok" && return
    if ! command -v nvidia-smi >/dev/null 2>&1; then
        fail_check "found no nvidia-smi; install the NVIDIA driver, or pass --cpu"
    elif ! cards="$(nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader)"; then
        fail_check "nvidia-smi cannot reach the driver ($cards); repair it, or pass --cpu"
    else
        echo "cards: $cards"
    fi
}

check_room() {
    local free_gb
    free_gb=$(df --output=avail -BG "$HERE" | tail -n 1 | tr -dc '0-9')
    [ "$free_gb" -ge "$REQUIRED_GB" ] ||
        fail_check "$HERE is on a disk with $free_gb GB free; the environment needs $REQUIRED_GB"
}

install() {
    if [ -n "$("$conda" env list 2>/dev/null | awk -v name="$name" '$1 == name')" ]; then
        run "$conda" env update --name "$name" --file "$ENV_FILE" --prune
    else
        run "$conda" env create --name "$name" --file "$ENV_FILE"
    fi
}

check_installation() {
    run "$conda" run --name "$name" python -m pip check
    run "$conda" run --name "$name" loracle --help
    "$cpu_ok" || run "$conda" run --name "$name" python -c "
import sys, torch
if not torch.cuda.is_available():
    sys.exit(f'torch {torch.__version__} (CUDA {torch.version.cuda}) finds no card: update the driver')
for i in range(torch.cuda.device_count()):
    card = torch.cuda.get_device_properties(i)
    print(f'card {i}: {card.name}, {card.total_memory / 2**30:.0f} GiB')
"
}

download() {
    [ -z "$hub" ] ||
        run "$conda" run --name "$name" --no-capture-output \
            python "$HERE/download_qwen.py" --hub "$hub"
}

main() {
    read_options "$@"
    check_system
    find_conda
    check_driver
    check_room
    install
    check_installation
    download
    "$dry_run" || echo "done: conda activate $name"
    if "$checks_failed"; then exit 2; fi
}

main "$@"
