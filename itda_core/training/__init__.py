"""From a configuration to runs.

trainer: the pass over the prompts; run_writer: the run directories; folder_capture: the same pass
into a folder of activations.
"""
