"""Of what bad inputs are made: values that no field takes, and small whole inputs of each kind."""

import math

from itda_core.settings import RESID_POST

ODD = [
    None, True, -1, 0, 10**400, 2**31, 2**63, 1e308, math.nan, math.inf, "", "x" * 5_000, "\ud800",
    "\0", "../../etc/passwd", [], [[]], {}, {"a": None}, "'; DROP TABLE runs; --", "=1+1",
    "1" * 5_000,
]  # fmt: skip
"""What any field may hold"""
TEXTS = {
    ".txt": b"one\n\ntwo three\n\nfour",
    ".csv": b'text,label\n"one, two",a\nthree,b\n',
    ".tsv": b"text\tlabel\none\ta\n",
    ".jsonl": b'{"text": "one"}\n{"text": "two"}\n',
    ".json": b'[{"text": "one"}, {"text": "two"}]',
}
"""Uploads, by their ending"""
JOB = {
    "job_id": "00001", "title": "Training", "command": "train", "arguments": ["--l0", "8"],
    "state": "done", "created": 5.0, "started": 6.0, "ended": 7.5, "pid": 4, "memory": None,
}  # fmt: skip
PROGRESS = b'{"stage": "training", "tokens": 5, "fraction": 0.5}\n'
LIST = b'[[trainings]]\nmodel = "a"\nlayers = [1, 2]\n'
ACTIVATIONS = {
    "format": 1,
    "model": {"name": "some/model", "dtype": "bfloat16", "d_model": 16, "n_layers": 5},
    "layers": [1, 3],
    "sites": [RESID_POST],
    "context_length": 16,
    "skip_first": True,
    "tokens": ["tokens.parquet"],
    "parts": [{"rows": 120, "files": ["part-0.safetensors"]}],
}
"""What a folder of activations says of itself"""
