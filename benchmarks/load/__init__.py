"""What calls the servers: h2load, a gRPC client in Go, and one of our own that writes bytes."""
