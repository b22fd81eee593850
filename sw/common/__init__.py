"""What all of sw stands on: what a host may hand to a network, and C++ for this machine."""
