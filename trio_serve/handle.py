"""Handles, under the names that ``ray.serve.handle`` has."""

from trio_serve.serving.handle import DeploymentHandle
from trio_serve.serving.responses import DeploymentResponse, DeploymentResponseGenerator

__all__ = ["DeploymentHandle", "DeploymentResponse", "DeploymentResponseGenerator"]
