"""Files: on the disk whole or not at all, read with caution, and what goes wrong as a sentence."""
