"""The messages of grpc.health.v1, generated from proto/health.proto; imported by `HealthProbe` when it first asks."""
