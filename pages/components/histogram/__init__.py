"""A histogram that one of the project's own components draws."""
