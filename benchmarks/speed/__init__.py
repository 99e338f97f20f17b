"""Seconds and bytes against limits and peers: `make bench` writes docs/performance.md."""
