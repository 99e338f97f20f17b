"""What makes the things that ship, and what the tests are run with."""
