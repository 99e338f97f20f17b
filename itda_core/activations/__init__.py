"""Which row of captured activations is which token.

plan: what a training reads; sources: the token of each row; pool: the tokens that could become
atoms; massive: the rows that are left out; alignment: the same tokens of several models. source:
what a training asks of a model or a folder; folder, folder_index, folder_writer, folder_recorder:
activations that were captured before, and recorded: such a folder in place of a model.
"""
