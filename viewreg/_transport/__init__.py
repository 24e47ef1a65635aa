"""gRPC over Trio: one connection to one server, the calls on it, and what is said when it fails."""
