"""The shipped harm detector: from public sets and our own texts to 8-bit weights. Each file's header is its command.

questions.py, phrases.py, foreign.py, sober.py   our own wordings: questions, refusals, other languages, babble, prose
texts/         harmless answers in the manner of large models, written for this project
generate.py    benign and unaligned answers from SmolLM2, in process
topics.py      stand-ins for the questions that GPTFuzz does not publish
variants.py    rows made from rows: cut, wrapped, after a refusal
noise.py       doubtful labels, found by cross-validation
data.py        all of it as files that `eyelid train detector` reads, split by question
base.py        the base: all-MiniLM-L6-v2, cut to what fits in five milliseconds
pyrit.py       answers that people scored, of which half of the questions are for evaluation only
words.py       what single words say, a linear part beside the encoder
teacher.py     a larger judge, half of SmolLM2 with a head, and what it says of every row
               `eyelid train detector` trains; recipe.sh holds the commands in order
slim.py        the trained one with fewer heads and units, which are trained on from there
export.py      the trained weights as 8-bit ONNX, agreement with the float model, temperature and threshold, manifest
baselines.py   what it must beat: keywords, TF-IDF, the untrained encoder
evaluate.py    every figure that the manifest and the model card state
card.py        the model card
"""
