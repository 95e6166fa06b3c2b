"""Requests from outside to deployments: the only room that knows both sides."""
