"""Process axes, collectives over them, gradient averaging and failure detection."""
