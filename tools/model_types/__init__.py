"""Tiny random models of every type that transformers knows, to try the explorer on.

    python -m tools.model_types.build --out DIR              all of them, one line a type
    python -m tools.model_types.build --out DIR --types a,b  some

`listing` says which types there are, `sizes` how small each setting becomes, `configuration` makes
a configuration of it, `tokenizer` the tokenizer, `tiny` saves both with weights, `forward` tries
what was saved, and `build` does all this for many types, each in a process of its own.
"""
