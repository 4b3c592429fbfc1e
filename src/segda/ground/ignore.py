"""The label of a pixel that nobody is asked about: what reads no pixel needs it, too, and no torch."""

IGNORE = 255
"""No class, no loss, no vote."""
