"""What the detector's second stage borrows: word vectors and layers of SmolLM2, from the file in its own package.

The file has 4 bits a weight in blocks with a scale and an offset each (`Q4_1`), its word vectors 8 bits (`Q8_0`); both
layouts are those of ggml's documentation. Nothing of it is copied into ours: layers are turned into 8-bit products when
a detector is opened, and of the word vectors only the rows that a text has are ever read.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

#: Weights in a block of either layout.
BLOCK = 32
#: 7 bits: the product of 8 bits with 8 bits overflows on processors without VNNI (`eyelid.train.bert_graph`).
RANGE = 63
Q4_1 = np.dtype([("scale", "<f2"), ("least", "<f2"), ("values", "u1", (BLOCK // 2,))])
Q8_0 = np.dtype([("scale", "<f2"), ("values", "i1", (BLOCK,))])


class Base:
    """The file at `path`, mapped. `places`: where things begin, in bytes, as a manifest states it for this very file.

    `words`: the table of word vectors; `layers`: each layer; `parts`: within a layer, by ggml's names. A word vector
    has `width` numbers, a layer's middle `units`, keys and values `shared`. `added`: for some matrices "layer.name.up"
    [outputs, rank] and "layer.name.down" [rank, inputs], whose product is added to what the file has.
    """

    def __init__(
        self,
        path: Path,
        places: Mapping[str, Any],
        added: Mapping[str, np.ndarray],
        *,
        width: int,
        units: int,
        shared: int,
        words: int,
    ):
        with path.open("rb") as f:
            self._map = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        self._bytes = np.frombuffer(self._map, np.uint8)
        self._places, self._added, self.width = places, added, width
        self._shapes = {
            "attn_q": (width, width),
            "attn_k": (shared, width),
            "attn_v": (shared, width),
            "attn_output": (width, width),
            "ffn_gate": (units, width),
            "ffn_up": (units, width),
            "ffn_down": (width, units),
        }
        per_row = width // BLOCK * Q8_0.itemsize
        start = int(places["words"])
        self._table = self._bytes[start : start + words * per_row].reshape(words, per_row)

    def vectors(self, ids: list[int]) -> np.ndarray:
        """Word vectors of token ids, float32 [tokens, width]."""
        blocks = np.ascontiguousarray(self._table[ids]).view(Q8_0)
        found: np.ndarray = blocks["values"] * blocks["scale"][..., None].astype(np.float32)
        return found.reshape(len(ids), self.width)

    def release(self) -> None:
        """Let go of the pages that were read, of which the layers' are not needed again; where the system knows how."""
        if hasattr(self._map, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def products(self, layer: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """(name, int8 [inputs, outputs], float32 scale of each output) of a layer's four products.

        The scale of each norm is part of the weights that read it. Queries and keys keep ggml's order, in which the two
        numbers that a place turns are neighbours.
        """
        attended, fed = (self._floats(layer, n, self.width) for n in ("attn_norm", "ffn_norm"))
        yield "three", *eight_bits(np.concatenate([self._matrix(layer, f"attn_{n}") for n in "qkv"]) * attended)
        yield "told", *eight_bits(self._matrix(layer, "attn_output"))
        yield "both", *eight_bits(np.concatenate([self._matrix(layer, f"ffn_{n}") for n in ("gate", "up")]) * fed)
        yield "down", *eight_bits(self._matrix(layer, "ffn_down"))

    def _at(self, layer: int, name: str, size: int) -> np.ndarray:
        p = self._places
        start = int(p["layers"][layer]) + int(p["parts"][name])
        return self._bytes[start : start + size]

    def _floats(self, layer: int, name: str, count: int) -> np.ndarray:
        return self._at(layer, name, count * 4).view("<f4")

    def _matrix(self, layer: int, name: str) -> np.ndarray:
        rows, width = self._shapes[name]
        blocks = self._at(layer, name, rows * width // BLOCK * Q4_1.itemsize).view(Q4_1)
        packed = blocks["values"]
        values = np.concatenate([packed & 15, packed >> 4], axis=-1).astype(np.float32)
        scale, least = (blocks[k].astype(np.float32)[:, None] for k in ("scale", "least"))
        found: np.ndarray = (values * scale + least).reshape(rows, width)
        if f"{layer}.{name}.up" in self._added:
            up, down = (self._added[f"{layer}.{name}.{k}"].astype(np.float32) for k in ("up", "down"))
            found += up @ down
        return found


def eight_bits(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`weight` [outputs, inputs] as int8 [inputs, outputs], symmetric, and float32 scales [outputs]."""
    scale = np.maximum(np.abs(weight).max(axis=1), 1e-12) / RANGE
    values = np.clip(np.round(weight / scale[:, None]), -RANGE, RANGE).astype(np.int8)
    return np.ascontiguousarray(values.T), scale.astype(np.float32)


#: TensorProto's numbers for the types that products have.
KINDS = {"float32": 1, "int8": 3}


def initializer(name: str, array: np.ndarray) -> bytes:
    """`array` as what follows an ONNX model's bytes to become one of its constants.

    Of a message that occurs twice, Protocol Buffers' readers merge the parts (encoding guide, "Last One Wins"), so that
    a graph and its constants may come one after the other. ONNX Runtime would take arrays as well
    (`add_external_initializers`), but then they must outlive the session, beside its own packed copy of them.
    """
    dims = b"".join(b"\x08" + _varint(n) for n in array.shape)  # field 1, one number each
    tensor = dims + b"\x10" + _varint(KINDS[str(array.dtype)]) + _field(8, name.encode()) + _field(9, array.tobytes())
    return _field(7, _field(5, tensor))  # ModelProto.graph, GraphProto.initializer


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
