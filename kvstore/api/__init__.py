"""The gRPC front door: services and the transports that carry them."""
