"""HTTP/2 for a gRPC client, without I/O: bytes in, events out; calls in, bytes out. Pure, and in no need of Trio.

From the ground up: `frames`, `errors`, `payloads`, `headers`, `flow`, `stream`, `events`, `outgoing`, `protocol`. Each
imports only those before it. Users begin with `protocol.Protocol` and `stream.Stream`.
"""
