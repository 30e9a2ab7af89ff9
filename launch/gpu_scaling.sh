#!/usr/bin/env bash
# What several GPUs of one machine are good for: one call of at most ten minutes, one JSON.
#
#   launch/gpu_scaling.sh [--dry-run] GPUS OUT [PART...]
#
#   GPUS  2, 4 or 8
#   OUT   folder for gpus-GPUS.json, which holds what every part wrote, and for its JSON, its log and scaling-parts.tsv (part, exit
#         code, seconds); the file is written anew behind each part
#   PART  some of these, in this order [all]
#
#   parity   launch/gpu_parity.sh: they compute together what one of them computes
#   scaling  moss bench scaling: steps at 11B widths in several layouts, exposed communication
#   full     moss bench fleet: moss train of the whole model, a checkpoint, a killed rank, half of the GPUs
#
# A part that fails does not end the others; the script then returns 1. Each ends by itself before its time is up. SIGTERM and
# Ctrl-C end the script and its part, and what was found until then is kept.
#
# Environment (defaults in brackets):
#   PYTHON    interpreter with moss-train installed [.venv/bin/python beside this folder, else python3]
#   DEVICE    cuda | cpu; cpu tries the script without GPUs, over gloo [cuda]
#   TIMES     seconds of the three parts; each ends by itself 10 to 30 s before [205 225 155]
#   DATA      folder of clips for full, of moss bench train --make-data [some are rendered]
#   SCALING   further words of moss bench scaling, split at blanks
#   FLASH_ATTENTION_CUTE_DSL_CACHE_DIR  where compiled kernels of flash-attn-4 stay for the next process [OUT/kernels]
#   FLEET     further words of moss bench fleet, split at blanks [--at-once --not-deterministic --steps 5 --warmup 2
#             checkpoint.verify=sizes guard.lost_rank_seconds=6]
set -uo pipefail

die() {
    echo "gpu_scaling.sh: $*" >&2
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
[ $# -ge 2 ] || die "give the number of GPUs and a folder: GPUS OUT [PART...]; --help says more"
gpus=$1 out=$2
shift 2
case $gpus in
2 | 4 | 8) ;;
*) die "GPUS is '$gpus'; use 2, 4 or 8" ;;
esac
wanted=()
for part in parity scaling full; do
    for word in "${@:-$part}"; do
        [ "$word" != "$part" ] || wanted+=("$part")
    done
done
for word in "$@"; do
    case $word in
    parity | scaling | full) ;;
    *) die "there is no part '$word'; use parity, scaling, full" ;;
    esac
done

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ -x "$here/../.venv/bin/python" ] && PYTHON=$(cd "$here/.." && pwd)/.venv/bin/python
fi
export PYTHON
command -v "$PYTHON" >/dev/null || die "PYTHON is '$PYTHON', which is no program; set it to the interpreter of your environment"
device=${DEVICE:-cuda}
read -r -a scaling_words <<<"${SCALING:-}"
read -r -a fleet_words <<<"${FLEET---at-once --not-deterministic --steps 5 --warmup 2 checkpoint.verify=sizes guard.lost_rank_seconds=6}"
read -r -a times <<<"${TIMES:-205 225 155}"
[[ "${times[*]}" =~ ^[0-9]+\ [0-9]+\ [0-9]+$ ]] || die "TIMES is '${TIMES:-}'; give three whole numbers of seconds"
[ -z "${DATA:-}" ] || [ -d "$DATA" ] || die "DATA is '$DATA', no folder; unset it to have clips rendered"
failed=0 child=

# end CODE: a part that was left behind would hold the GPUs.
end() {
    trap '' HUP INT TERM
    [ -z "$child" ] || kill "$child" 2>/dev/null
    wait
    "$PYTHON" -m moss_train.bench.scaling.joined "$gpus" "$out"
    echo "gpu_scaling.sh: ended early; what was found is in $out" >&2
    exit "$1"
}

# run NAME SECONDS COMMAND...: under a time; its log and how it ended go into OUT.
run() {
    local name=$1 seconds=$2 begin=$SECONDS code
    shift 2
    local command=(timeout -k 10 "$seconds" "$@")
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
    printf '%s\t%s\t%s\n' "$name" "$code" "$((SECONDS - begin))" >>"$out/scaling-parts.tsv"
    echo "$name: exit code $code after $((SECONDS - begin)) s"
    if [ "$code" != 0 ]; then
        failed=1
        tail -n 15 "$out/$name.log"
    fi
    "$PYTHON" -m moss_train.bench.scaling.joined "$gpus" "$out" || failed=1
}

parity() {
    run parity "${times[0]}" env LIMIT=$((times[0] - 10)) DEVICE="$device" "$here/gpu_parity.sh" "$gpus" "$out"
}

scaling() {
    run scaling "${times[1]}" "$PYTHON" -m moss_train.cli.main bench scaling --gpus "1,$gpus" --device "$device" \
        --limit-seconds $((times[1] - 25)) --out "$out/scaling.json" ${scaling_words[@]+"${scaling_words[@]}"}
}

full() {
    run full "${times[2]}" "$PYTHON" -m moss_train.cli.main bench fleet --gpus "$gpus" --device "$device" \
        --limit-seconds $((times[2] - 30)) ${DATA:+--data "$DATA"} --out "$out/fleet.json" ${fleet_words[@]+"${fleet_words[@]}"}
}

if [ "$dry_run" = no ]; then
    mkdir -p "$out" 2>/dev/null || die "$out cannot be made; give a folder that can be written"
    rm -f "$out/scaling-parts.tsv"
fi
# Every process would compile flash-attn-4's kernels anew, some 20 s.
export FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED=${FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED:-1}
export FLASH_ATTENTION_CUTE_DSL_CACHE_DIR=${FLASH_ATTENTION_CUTE_DSL_CACHE_DIR:-$(realpath -m "$out")/kernels}
trap 'end 129' HUP
trap 'end 130' INT
trap 'end 143' TERM
for part in "${wanted[@]}"; do
    "$part"
done
exit "$failed"
