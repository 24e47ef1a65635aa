"""The fault matrix: every fault at every moment, as data, and the two worlds in which they happen."""
