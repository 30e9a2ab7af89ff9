#!/usr/bin/env bash
# Whether this machine's GPUs compute together what one of them computes: NCCL, Transformer Engine, checkpoints, guards.
#
#   launch/gpu_parity.sh [--dry-run] GPUS OUT
#
#   GPUS  1, 2, 4 or 8
#   OUT   folder for parity.json, parity.txt (the same as a table), and what each part wrote: its JSON, its log, parts.tsv
#
# Two parts, at the same time unless TOGETHER=no; neither is about speed:
#   layouts  every layout that takes all GPUs: three updates held against one GPU, with torch's modules in fp32 and with those of
#            a run in bf16 (Transformer Engine, fused tower, flash attention)
#   ranks    in four of them: save and resume bit for bit, continue in another layout and on one GPU, skip and rewind an update,
#            copies that differ, a save that fails on one rank; recorded quantities of the reference model, if GOLDEN is set
#
# No layout is begun later than 50 s before the time ends, and what was found until then is kept, also where SIGTERM or Ctrl-C
# ends the script and its parts. It returns 0 only if everything was run and passed.
#
# Environment (defaults in brackets):
#   PYTHON    interpreter with moss-train installed [.venv/bin/python beside this folder, else python3]
#   GOLDEN    folder with config.json, weights.safetensors and io.safetensors [none: recorded quantities are left out]
#   LIMIT     seconds of the whole script [230]
#   TOGETHER  no: one part after the other, with half the time each [yes]
#   DEVICE    cuda | cpu; cpu tries the script without GPUs, over gloo [cuda]
#   MODULES   both | torch | auto: what is compared [both]
#   FLASH_ATTENTION_CUTE_DSL_CACHE_DIR  where compiled kernels of flash-attn-4 stay for the next process [OUT/kernels]
set -uo pipefail

die() {
    echo "gpu_parity.sh: $*" >&2
    exit 2
}

dry_run=no
case ${1:-} in
--help | -h)
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
--dry-run)
    dry_run=yes
    shift
    ;;
esac
[ $# = 2 ] || die "give the number of GPUs and a folder: GPUS OUT; --help says more"
gpus=$1 out=$2
case $gpus in
1 | 2 | 4 | 8) ;;
*) die "GPUS is '$gpus'; use 1, 2, 4 or 8" ;;
esac
seconds=${LIMIT:-230} together=${TOGETHER:-yes} device=${DEVICE:-cuda} golden=${GOLDEN:-}
[[ $seconds =~ ^[1-9][0-9]*$ ]] && [ "$seconds" -ge 90 ] || die "LIMIT is '$seconds'; use a whole number of at least 90"
[[ $together =~ ^(yes|no)$ ]] || die "TOGETHER is '$together'; use yes or no"
[ -z "$golden" ] || [ -f "$golden/io.safetensors" ] || die "GOLDEN is '$golden', which holds no io.safetensors; unset it to leave it out"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ -x "$here/../.venv/bin/python" ] && PYTHON=$(cd "$here/.." && pwd)/.venv/bin/python
fi
command -v "$PYTHON" >/dev/null || die "PYTHON is '$PYTHON', which is no program; set it to the interpreter of your environment"
part=$((seconds - 15)) # the rest is for the table
[ "$together" = yes ] || part=$((part / 2))
limit=$((part - 35))
common=(--device "$device" --modules "${MODULES:-both}" --limit-seconds "$limit")
layouts=(layouts --gpus "$gpus" --preset all --no-bf16 "${common[@]}" --json "$out/layouts.json")
ranks=(ranks --ranks "$gpus" "${common[@]}" --json "$out/ranks.json" ${golden:+--golden "$golden"})

# run NAME WORDS...: `moss verify WORDS` under a time; its log and how it ended go into OUT.
run() {
    local name=$1 begin=$SECONDS code
    shift
    local command=(timeout -k 5 "$part" "$PYTHON" -m moss_train.cli.main verify "$@")
    if [ "$dry_run" = yes ]; then
        printf '%q ' "${command[@]}"
        echo
        return 0
    fi
    { echo "$BASHPID" >"$out/.$name.pid" && exec "${command[@]}"; } 2>&1 | tee "$out/$name.log" | sed -u "s/^/$name: /"
    code=${PIPESTATUS[0]}
    printf '%s\t%s\t%s\n' "$name" "$code" "$((SECONDS - begin))" >>"$out/parts.tsv"
    echo "$name: exit code $code after $((SECONDS - begin)) s"
}

# end CODE: a part that was left behind would hold the GPUs; a time limit around this script reaches none of them by itself.
end() {
    trap '' HUP INT TERM
    local file pids=()
    for file in "$out"/.{layouts,ranks}.pid; do
        [ -f "$file" ] && pids+=("$(cat "$file")")
    done
    [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null
    wait
    echo "gpu_parity.sh: ended early; what was found is in $out" >&2
    exit "$1"
}

if [ "$dry_run" = yes ]; then
    run layouts "${layouts[@]}"
    run ranks "${ranks[@]}"
    exit 0
fi
mkdir -p "$out" 2>/dev/null || die "$out cannot be made; give a folder that can be written"
rm -f "$out"/{layouts,ranks,parity}.json "$out"/parts.tsv "$out"/parity.txt "$out"/.{layouts,ranks}.pid
# Every process would compile flash-attn-4's kernels anew, some 20 s.
export FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED=${FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED:-1}
export FLASH_ATTENTION_CUTE_DSL_CACHE_DIR=${FLASH_ATTENTION_CUTE_DSL_CACHE_DIR:-$(realpath -m "$out")/kernels}
[ -n "$golden" ] || echo "golden: left out, GOLDEN is not set"
trap 'end 129' HUP
trap 'end 130' INT
trap 'end 143' TERM
run layouts "${layouts[@]}" & # waited for, since a trap has no turn before a command in the foreground ends
[ "$together" = yes ] || wait
run ranks "${ranks[@]}" &
wait
trap - HUP INT TERM
rm -f "$out"/.{layouts,ranks}.pid
wanted=(--gpus "$gpus")
[ "$device" = cuda ] || wanted=()
"$PYTHON" -m moss_train.verify.parity ${wanted[@]+"${wanted[@]}"} "$out"
