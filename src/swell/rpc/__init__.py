"""The Open Inference Protocol over gRPC: a door in front of the gateway."""
