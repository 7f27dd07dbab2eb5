#!/usr/bin/env bash
# The embedded model from nothing, in one command that can be stopped and started again: a stage that is done is skipped.
#
#   EYELID_DATA=DIR OUT=runs/tiny training/tiny/recipe.sh                          a CPU of two cores, about four hours
#   EYELID_DATA=DIR OUT=runs/tiny DEVICE=cuda WORKERS=15 training/tiny/recipe.sh   a GPU, about an hour
#
# (The times are of before free pages had a third of the tower's pages: it was not run again since.)
#
# MINUTES_SEE, MINUTES_MORE, MINUTES_SPELL, MINUTES_REFIT (of settle, too), MINUTES_ALIGN and MINUTES_CONNECT change how long a
# stage learns; STAGES picks some of them.
# Of what it writes, $OUT/product is what ships; the rest may be left behind.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${EYELID_DATA:?the folder of the public sets}" "${OUT:?where the run is kept}"
device=${DEVICE:-cpu} workers=${WORKERS:-1} python=${PYTHON:-python}
stages=${STAGES:-see refit more settle align connect export}
if [ "$device" = cpu ]; then
    see=(--batch 32 --widen 0.4 --typo 0.5 --lag 0.3 --short 0.12 --free 0.35 --free-lag 0.3
        --pictures 0.25)
    first=(--minutes "${MINUTES_SEE:-90}" --lr 1e-3) more=(--minutes "${MINUTES_MORE:-60}" --lr 4e-4)
    align=(--minutes "${MINUTES_ALIGN:-25}")
    connect=(--minutes "${MINUTES_CONNECT:-50}" --tokens 900 --lr 8e-4 --pages 1500 --text 400 --free 0.25)
else
    see=(--batch 256 --workers "$workers" --negatives 8000 --typo 0.35 --short 0.12 --free 0.35 --free-lag 0.2
        --pictures 0.25)
    first=(--minutes "${MINUTES_SEE:-8}" --lr 1.5e-3 --hidden 384 --layers 8) more=(--minutes "${MINUTES_MORE:-5}" --lr 5e-4)
    align=(--minutes "${MINUTES_ALIGN:-3}" --tokens 12000 --lr 6e-4)
    connect=(--minutes "${MINUTES_CONNECT:-9}" --tokens 12000 --lr 8e-4 --pages 3000 --text 1200 --workers "$workers"
        --free 0.25)
fi
common=(--device "$device")

done_() { [ -e "$OUT/$1.done" ]; }
stage() { # stage NAME COMMAND...
    case " $stages " in *" $1 "*) ;; *) return 0 ;; esac
    if done_ "$1"; then echo "== $1: done before"; return 0; fi
    local name=$1 begun=$SECONDS
    shift
    echo "== $name"
    "$python" -W ignore -m "$@"
    touch "$OUT/$name.done"
    echo "== $name: $((SECONDS - begun)) s"
}

mkdir -p "$OUT"
again=()
if [ -e "$OUT/see/last.pt" ]; then again=(--resume "$OUT/see/last.pt"); fi
stage see training.tiny.see --out "$OUT/see" "${see[@]}" "${first[@]}" "${common[@]}" "${again[@]}"
# On the CPU in any case: the tower runs once over each page, and what is trained is two layers and a projector.
refit=(--minutes "${MINUTES_REFIT:-8}" --pages "${PAGES_REFIT:-26000}" --widen 0.4 --free 0.35 --pictures 0.2)
spell=(--spell "${MINUTES_SPELL:-6}")
stage refit training.tiny.refit --tower "$OUT/see/last.pt" --out "$OUT/refit" "${refit[@]}" "${spell[@]}"
# Tower and memory together, then memory and projector once more on what the tower has come to see.
again=(--resume "$OUT/refit/reader.pt" --level 0.9)
if [ -e "$OUT/more/last.pt" ]; then again=(--resume "$OUT/more/last.pt"); fi
stage more training.tiny.see --out "$OUT/more" --memory-lr 3e-3 --near 4 --sharpness 30 --final 1 "${see[@]}" "${more[@]}" \
    "${common[@]}" "${again[@]}"
stage settle training.tiny.refit --keep --tower "$OUT/more/last.pt" --out "$OUT/settle" "${refit[@]}"
stage align training.tiny.align --data "$EYELID_DATA" --out "$OUT/align" "${align[@]}" "${common[@]}"
again=(--tower "$OUT/settle/reader.pt")
if [ -e "$OUT/connect/reader.pt" ]; then again=(--tower "$OUT/connect/reader.pt" --resume "$OUT/connect" --seed "$RANDOM"); fi
stage connect training.tiny.connect --data "$EYELID_DATA" --align "$OUT/align" --out "$OUT/connect" "${again[@]}" \
    "${connect[@]}" "${common[@]}" --pictures 0.25 --projector-lr 2e-4
stage export training.tiny.export --reader "$OUT/connect/reader.pt" --out "$OUT/product" --no-hf \
    --lora "align=$OUT/align" --lora "see=$OUT/connect"
