"""The load generator: gRPC calls as ready-made HTTP/2 frames on raw sockets.

Real clients would spend more time than the servers that are to be measured. Here a request is a few
constant pieces joined by its stream id, and an answer is its frame heads, a header block that was
seen before, and a status that is looked up by that block's bytes. What a client must honour is
honoured: flow control in both directions, settings, pings, the dynamic header table, every
status.

`python -m benchmarks.generator` reads one job as JSON from stdin and prints one result; a process
of its own for each run, so that its CPU can be told from everything else.
"""
