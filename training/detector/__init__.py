"""The first trainer of the shipped harm detector. See README.md's map, and the header of each file for its command.

generate.py   benign and unaligned answers from SmolLM2, in process
phrases.py    our own wordings: everyday questions, refusals, questions that point at a picture
data.py       public sets -> labelled rows, split by question
train.py      fine-tune all-MiniLM-L6-v2 with one logit
export.py     int8 ONNX, agreement with the float model, threshold, manifest
evaluate.py   every figure that the manifest and the model card state
"""
