"""The one place that knows all rooms: it feeds events to the core and carries out its commands."""
