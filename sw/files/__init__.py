"""Networks in files: checkpoints, and images of networks with what they have learned."""
