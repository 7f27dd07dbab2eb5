#!/bin/sh
# How the shipped detector came about, in order. EYELID_DATA names the folder of public sets; run in the repository.
# About two hours of one core, and another of two; training needs 6 GB. Figures: packages/eyelid-models/.../MODEL_CARD.md.
set -eu
R=runs/detector
WHEEL=$R/pyrit-1.1.0-py3-none-any.whl
DATA="--answers $R/answers.jsonl --topics $R/topics.json --noise $R/noise.json --pyrit $WHEEL"

mkdir -p $R
[ -e $WHEEL ] || pip download --no-deps --dest $R pyrit==1.1.0
python -m training.detector.generate --data "$EYELID_DATA" --out $R/answers.jsonl --red 450 --tokens 130
python -m training.detector.topics --out $R/topics.json
python -m training.detector.noise --answers $R/answers.jsonl --topics $R/topics.json --out $R/noise.json
python -m training.detector.data $DATA --out $R/data

# The larger judge: what half of SmolLM2 with a head says of every row, HH-RLHF's unlabelled ones included.
python -m training.detector.teacher states --rows $R/data/rows.jsonl --pyrit $WHEEL --out $R/states
python -m training.detector.teacher train --states $R/states --out $R/teacher --epochs 1.5 --lr 1.5e-4
python -m training.detector.teacher label --rows $R/data/rows.jsonl --states $R/states --teacher $R/teacher/teacher.pt --out $R/told

# The small one: three of MiniLM's layers, on labels mixed of people's and the judge's.
train() {
  eyelid train detector --weight pyrit=2.5 --bf16 --threads 1 --device cpu --batch 32 --dropout 0.05 \
    --train-length 128 --windows 1 "$@"
}
python -m training.detector.base --answers $R/answers.jsonl --units 768 --out $R/base
train --data $R/told/rows.jsonl --base $R/base --out $R/first --epochs 1.6 --lr 2e-4

# Two thirds of its heads and half of its units silenced where all tokens are read, and the rest trained on.
python -m training.detector.slim --model $R/first --rows $R/told/rows.jsonl --heads 4 --units 384 --out $R/slim
train --data $R/told/rows.jsonl --base $R/slim --out $R/final --epochs 1.2 --lr 1.2e-4 --seed 1

# What an image draws out of a small model: lists under questions that say nothing. For the words and the threshold
# only; the encoder has not learnt them. (own_answers.json holds SmolLM2's answers, 22 minutes on one core.)
python -m training.tiny.align --data "$EYELID_DATA" --out $R/own --benign 1500 --harmful 500 --prepare-only
python -m training.detector.lists --own $R/own/own_answers.json --rows $R/data/rows.jsonl --out $R/lists.jsonl
cat $R/data/rows.jsonl $R/lists.jsonl > $R/all.jsonl

# The second stage: a little of SmolLM2's middle layers, for what the first does not find plainly harmless.
python -m training.detector.second states --rows $R/all.jsonl --pyrit $WHEEL --out $R/middle
python -m training.detector.second train --states $R/middle --out $R/second1.pt --epochs 1.2
python -m training.detector.second train --states $R/middle --start $R/second1.pt --out $R/second.pt --epochs 0.74 --lr 5e-4 --seed 1

OUT=packages/eyelid-models/eyelid_models/detector
python -m training.detector.export --rows $R/data/rows.jsonl --model $R/final --tokenizer $R/base --out $R/encoder
python -m training.detector.words --rows $R/all.jsonl --encoder $R/encoder --base $R/base --out $R/words.npz
python -m training.detector.export --rows $R/all.jsonl --model $R/final --tokenizer $R/base --words $R/words.npz --out $OUT
python -m training.detector.stages --rows $R/all.jsonl --second $R/second.pt --detector $OUT --version 0.7
python -m training.detector.baselines --rows $R/data/rows.jsonl --pyrit $WHEEL --out $R/baselines
python -m training.detector.evaluate --rows $R/data/rows.jsonl --pyrit $WHEEL --baselines $R/baselines \
  --lists $R/lists.jsonl --detector $OUT
python -m training.detector.card $OUT
