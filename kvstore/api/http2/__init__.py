"""A gRPC server of our own: HTTP/2 on the event loop, without a task per call.

Layers, each knowing only those before it: `frames`, `headers` and `flow` are codecs and counters
without state of a connection; `connection` is HTTP/2 without sockets; `requests` and `responses`
are gRPC's headers; `calls` and `sessions` run methods of the table; `peer` and `transport` bring
sockets and timers.
"""
