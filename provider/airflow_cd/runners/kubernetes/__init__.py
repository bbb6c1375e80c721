"""Commands as Jobs of a Kubernetes cluster."""
