"""The command line.

main: one command and its exit code; parser: all options; commands, measure, latents, exchange: what
the commands do; console: what they print.
"""
