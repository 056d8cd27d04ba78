"""The Open Inference Protocol over gRPC: what is in front of the replicas, and its messages."""
