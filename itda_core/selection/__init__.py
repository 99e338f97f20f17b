"""Which activations become atoms.

threshold: the paper's greedy method; coverage: the default; builders: how a training feeds them.
"""
