"""Networks in floating point, their training by any method of sw.stop, and what a training step costs."""
