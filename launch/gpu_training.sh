#!/usr/bin/env bash
# Measure the tables of docs/benchmarks/training-h200.md on one GPU: three calls, each of at most ten minutes.
#
#   launch/gpu_training.sh [--dry-run] 1|2|3|PART... OUT
#   launch/gpu_training.sh page OUT
#
#   1     train, profile, data: steps of all stages, their kernels, real shards
#   2     full, resume, reference: the whole model with its checkpoint, and single samples beside the reference's way
#   3     states, fp8_wide, mixture: convergence, and the workload's samples beside the reference's way
#   page  the page and its JSON from the files of OUT; kinds of which OUT has none stay as they are
#
# Each part has a time of its own and ends before it by itself: at least 25 s are left behind its --limit-seconds for what was
# begun (15 s for a step of convergence) and for what is written, 30 s to reference, whose step and model take ten each. OUT
# gets its JSON, its log and a line of parts.tsv (part, exit code, seconds). A part that fails does not end the others; the
# script then returns 1. SIGTERM and Ctrl-C end the script and its part, which keeps what it found.
#
# Environment (defaults in brackets):
#   PYTHON     interpreter with moss-train installed [.venv/bin/python beside this folder, else python3]
#   SAVE_DIR   folder in which moss-full, the checkpoint of 85 GB, is made and removed [/dev/shm, in memory]
#   DATA_DIR   folder for made-up shards, which stay there [OUT/shards, removed if they were made]
#   MORE       further words of every command, split at blanks
set -uo pipefail

die() {
    echo "gpu_training.sh: $*" >&2
    exit 2
}

dry_run=no
if [ "${1:-}" = "--dry-run" ]; then
    dry_run=yes
    shift
fi
[ $# -ge 2 ] || die "give calls or parts, and a folder: 1|2|3|PART... OUT"
out=${*: -1}
wanted=()
for word in "${@:1:$#-1}"; do
    case $word in
    1) wanted+=(train profile data) ;;
    2) wanted+=(full resume reference) ;;
    3) wanted+=(states fp8_wide mixture) ;;
    train | profile | data | full | resume | reference | states | fp8_wide | mixture | page) wanted+=("$word") ;;
    *) die "there is no part '$word'; use 1, 2, 3, page, or train, profile, data, full, resume, reference, states, fp8_wide, mixture" ;;
    esac
done

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ -x "$here/../.venv/bin/python" ] && PYTHON=$(cd "$here/.." && pwd)/.venv/bin/python
fi
command -v "$PYTHON" >/dev/null || die "PYTHON is '$PYTHON', which is no program; set it to the interpreter of your environment"
if [ "$dry_run" = no ]; then
    mkdir -p "$out" 2>/dev/null || die "$out cannot be made; give a folder that can be written"
fi
save=${SAVE_DIR:-/dev/shm}/moss-full # of a name of its own: it is removed, whatever else is there stays
data=${DATA_DIR:-$out/shards}
read -r -a more <<<"${MORE:-}"
keep=(--keep-gib 66)
chunk=(vision.encode_chunk_frames=32)
failed=0 child= large=()

# end CODE: a part that was left behind would hold the GPU, and a checkpoint the memory.
end() {
    trap '' HUP INT TERM
    [ -z "$child" ] || kill "$child" 2>/dev/null
    wait
    [ "$dry_run" = yes ] || [ ${#large[@]} = 0 ] || rm -rf "${large[@]}"
    echo "gpu_training.sh: ended early; what was found is in $out" >&2
    exit "$1"
}

# run NAME SECONDS WORDS...: `moss bench WORDS` under a time; its log and how it ended go into OUT.
run() {
    local name=$1 seconds=$2 begin=$SECONDS code
    shift 2
    local command=(timeout -k 10 "$seconds" "$PYTHON" -m moss_train.cli.main bench "$@" ${more[@]+"${more[@]}"})
    if [ "$dry_run" = yes ]; then
        printf '%q ' "${command[@]}"
        echo
        return 0
    fi
    "${command[@]}" >"$out/$name.log" 2>&1 & # waited for, since a trap has no turn before a command in the foreground ends
    child=$!
    wait "$child"
    code=$?
    child=
    printf '%s\t%s\t%s\n' "$name" "$code" "$((SECONDS - begin))" >>"$out/parts.tsv"
    echo "$name: exit code $code after $((SECONDS - begin)) s"
    if [ "$code" != 0 ]; then
        failed=1
        tail -n 5 "$out/$name.log"
    fi
    return "$code"
}

skip() {
    echo "$1: skipped, $2" | tee -a "$out/skipped.txt"
}

train() {
    run train 325 train --stages pt2,sft_realtime,sft_offline,pt1 --frames 0,8,64,256 --rows 1024,4096,8192 --precision bf16,fp8 \
        --steps 4 --warmup 2 --case-seconds 4 "${keep[@]}" --limit-seconds 295 --out "$out/train.json" "${chunk[@]}"
}

profile() {
    run profile 95 train --frames 64 --precision bf16,fp8 --steps 2 --warmup 1 --profile "${keep[@]}" --limit-seconds 70 \
        --out "$out/profile.json" "${chunk[@]}"
}

data() {
    local missing made=no
    missing=$("$PYTHON" -c 'import importlib.util as u
def there(name):
    try: return u.find_spec(name) is not None
    except ImportError: return False
print(", ".join(n for n in ("megatron.energon", "av", "multistorageclient") if not there(n)), end="")' 2>/dev/null)
    if [ "$dry_run" = no ] && [ -n "$missing" ]; then
        skip data "$missing cannot be imported; install moss-train with the packages that read shards"
        return 0
    fi
    [ -e "$data" ] || made=yes
    [ -n "${DATA_DIR:-}" ] || [ "$made" = no ] || large+=("$data")
    if [ -e "$data/video" ] || run make_data 80 train --make-data "$data"; then
        run data 95 train --data "$data" --frames 64 --precision bf16,fp8 --steps 4 --warmup 2 --case-seconds 8 "${keep[@]}" \
            --limit-seconds 70 --out "$out/data.json" "${chunk[@]}" data.worker_processes=8
    fi
    [ -n "${DATA_DIR:-}" ] || [ "$dry_run$made" != noyes ] || rm -rf "$data" # videos are no results
}

full() {
    [ "$dry_run" = yes ] || rm -rf "$save"
    large+=("$save")
    run full 255 full --steps 3 --warmup 1 --save "$save" --keep --limit-seconds 225 --out "$out/full.json"
    if [ $? = 2 ] && [ ! -e "$save/checkpoints" ]; then # no room: what is left to measure is measured
        skip full.save "the checkpoint was refused, see full.log"
        run full_steps 85 full --steps 3 --warmup 1 --limit-seconds 60 --out "$out/full.json"
    fi
}

resume() {
    if [ "$dry_run" = yes ] || [ -e "$save/continuation.json" ]; then
        run resume 110 full --steps 3 --warmup 1 --resume "$save" --limit-seconds 85 --out "$out/resume.json"
    else
        skip resume "$save holds no checkpoint of full"
    fi
    [ "$dry_run" = yes ] || rm -rf "$save"
}

reference() {
    run reference 230 reference --frames 64,256 --mixture none --steps 2 --deepspeed --limit-seconds 200 \
        --out "$out/reference.json" vision.keep_host_gib=58 # 256 frames; 64 fit on the GPU
}

states() {
    run states 250 convergence --pairs states,fp8 --seeds 2 --parallel 8 --limit-seconds 220 --out "$out/states.json" \
        --plot "$out/states.svg"
}

fp8_wide() {
    run fp8_wide 165 convergence --pairs fp8_wide --seeds 2 --parallel 4 --limit-seconds 135 --out "$out/fp8_wide.json" \
        --plot "$out/fp8_wide.svg"
}

mixture() {
    run mixture 175 reference --frames none --precision bf16 --limit-seconds 145 --out "$out/mixture.json"
}

# files NAME...: those that there are.
files() {
    local name
    for name in "$@"; do
        [ ! -s "$out/$name.json" ] || echo "$out/$name.json"
    done
}

page() {
    local command kinds=()
    mapfile -t found < <(files profile train data)
    [ ${#found[@]} = 0 ] || kinds+=(--train "${found[@]}")
    mapfile -t found < <(files full resume)
    [ ${#found[@]} = 0 ] || kinds+=(--full "${found[@]}")
    mapfile -t found < <(files reference mixture)
    [ ${#found[@]} = 0 ] || kinds+=(--reference "${found[@]}")
    mapfile -t found < <(files states fp8_wide)
    [ ${#found[@]} = 0 ] || kinds+=(--convergence "${found[@]}")
    command=("$PYTHON" -m moss_train.bench.train.page --merge ${kinds[@]+"${kinds[@]}"} ${more[@]+"${more[@]}"})
    if [ "$dry_run" = yes ]; then
        printf '%q ' "${command[@]}"
        echo
    else
        "${command[@]}" || failed=1
    fi
}

trap 'end 129' HUP
trap 'end 130' INT
trap 'end 143' TERM
for part in "${wanted[@]}"; do
    "$part"
done
exit "$failed"
