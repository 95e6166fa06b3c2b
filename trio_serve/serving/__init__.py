"""Deployments, handles and replicas: Ray Serve's room, usable with no network at all."""
