"""Prompts in, activations out.

tokens: ids and character spans; model: capture, splice, predict; built_in: the models that need no
network; loading: from a name to a model.
"""
