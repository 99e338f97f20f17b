"""Which layer of one model matches which of another: writes docs/matching.md."""
