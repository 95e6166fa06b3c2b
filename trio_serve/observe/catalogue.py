"""Every metric that an instance exports by itself: its name, its kind, and what it means.

The names of ``serve_backend_*`` and their eight companions are those of Ray Serve 1.3, the other ``serve_*``
those of Ray Serve 2, ``grpc_server_*`` those of go-grpc-prometheus.  docs/observability.md lists them for
readers; a test holds the two together.
"""

from enum import StrEnum

import attrs


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"


@attrs.frozen
class Metric:
    """``labels`` are those of each series, in the order in which samples give them."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str


_C, _G, _H, _S = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM, Kind.SUMMARY

_BACKEND = ("backend", "application")
_BACKEND_REPLICA = (*_BACKEND, "replica")
_DEPLOYMENT = ("application", "deployment")
_REPLICA = (*_DEPLOYMENT, "replica")
_METHOD = (*_REPLICA, "method")
_FUNCTION = (*_REPLICA, "function")
_ROUTE = ("route", "application", "method")
_GRPC = ("grpc_type", "grpc_service", "grpc_method")

_ALL = (
    # The document "Deploying Ray Serve".
    Metric("serve_backend_request_counter", _C, _BACKEND_REPLICA, "Queries that this replica has answered."),
    Metric(
        "serve_backend_error_counter",
        _C,
        (*_BACKEND_REPLICA, "exception"),
        "Exceptions that have occurred in the backend.",
    ),
    Metric(
        "serve_backend_replica_starts",
        _C,
        _BACKEND,
        "Times that replicas of the backend have been restarted due to failure.",
    ),
    Metric(
        "serve_backend_queuing_latency_ms",
        _H,
        _BACKEND_REPLICA,
        "Time that queries waited for a replica with room, in milliseconds.",
    ),
    Metric(
        "serve_backend_processing_latency_ms",
        _H,
        _BACKEND_REPLICA,
        "Time that queries took to be processed, in milliseconds.",
    ),
    Metric(
        "serve_replica_queued_queries",
        _G,
        _BACKEND_REPLICA,
        "Queries at the replica that wait until its thread is free.",
    ),
    Metric(
        "serve_replica_processing_queries",
        _G,
        (*_BACKEND_REPLICA, "deployment"),
        "Queries being processed.",
    ),
    Metric("serve_num_router_requests", _C, _DEPLOYMENT, "Requests that were to be assigned to a replica."),
    Metric("serve_handle_request_counter", _C, _DEPLOYMENT, "Requests made by handles."),
    Metric("serve_backend_queued_queries", _G, _BACKEND, "Queries that wait to be assigned to a replica."),
    # Proxies.
    Metric("serve_num_http_requests", _C, (*_ROUTE, "status_code"), "HTTP requests processed."),
    Metric("serve_num_grpc_requests", _C, (*_ROUTE, "status_code"), "gRPC calls processed."),
    Metric(
        "serve_num_http_error_requests",
        _C,
        (*_ROUTE, "error_code"),
        "HTTP requests answered with a status of 400 or more; 499: the client had left.",
    ),
    Metric(
        "serve_num_grpc_error_requests",
        _C,
        (*_ROUTE, "error_code"),
        "gRPC calls answered with another status than OK.",
    ),
    Metric(
        "serve_http_request_latency_ms",
        _H,
        _ROUTE,
        "Time from an HTTP request's head to the end of its answer, in milliseconds.",
    ),
    Metric(
        "serve_grpc_request_latency_ms",
        _H,
        _ROUTE,
        "Time from a gRPC call's head to its status, in milliseconds.",
    ),
    Metric("serve_num_ongoing_http_requests", _G, (), "HTTP requests without an answer yet."),
    Metric("serve_num_ongoing_grpc_requests", _G, (), "gRPC calls without an answer yet."),
    # Deployments.
    Metric("serve_deployment_request_counter", _C, _METHOD, "Calls that returned."),
    Metric("serve_deployment_error_counter", _C, (*_METHOD, "exception"), "Calls that raised."),
    Metric("serve_deployment_cancelled_counter", _C, _METHOD, "Calls that were cancelled at work."),
    Metric("serve_deployment_replica_starts", _C, _DEPLOYMENT, "Replicas made, also those that failed."),
    Metric("serve_deployment_replica_restarts", _C, _DEPLOYMENT, "Replicas that died and were replaced."),
    Metric(
        "serve_deployment_processing_latency_ms",
        _H,
        _METHOD,
        "Time that calls took at the replica, in milliseconds.",
    ),
    Metric(
        "serve_deployment_queuing_latency_ms",
        _H,
        _METHOD,
        "Time that calls waited for a replica with room, in milliseconds.",
    ),
    Metric("serve_deployment_queued_queries", _G, _DEPLOYMENT, "Calls that wait for a replica with room."),
    Metric("serve_deployment_refused_queries", _C, _DEPLOYMENT, "Calls refused because the queue was full."),
    Metric("serve_deployment_replica_healthy", _G, _REPLICA, "1: the replica takes calls; 0: it does not."),
    # Traffic policies.
    Metric(
        "serve_traffic_requests",
        _C,
        ("door", "target"),
        "Requests to an application or endpoint with a traffic policy, by who answers.",
    ),
    Metric(
        "serve_traffic_shadow_requests",
        _C,
        ("door", "result"),
        "Copies of requests for shadows: succeeded, failed, or dropped for want of room.",
    ),
    Metric("serve_traffic_ongoing_shadow_requests", _G, ("door",), "Copies for shadows under way."),
    # Batches.
    Metric("serve_batches_processed", _C, _FUNCTION, "Batches that were begun."),
    Metric("serve_actual_batch_size", _S, _FUNCTION, "Items in a batch."),
    Metric("serve_batch_wait_time_ms", _S, _FUNCTION, "Time that items waited for their batch to begin."),
    Metric("serve_batch_execution_time_ms", _S, _FUNCTION, "Time that batches took."),
    Metric("serve_batch_queue_length", _G, _FUNCTION, "Items in no batch yet."),
    Metric("serve_batch_errors", _C, _FUNCTION, "Batches that raised."),
    # Multiplexed models.
    Metric("serve_num_multiplexed_models", _G, _REPLICA, "Models loaded or being loaded."),
    Metric("serve_multiplexed_get_model_requests_counter", _C, _REPLICA, "Times that a model was asked for."),
    Metric("serve_multiplexed_models_load_counter", _C, _REPLICA, "Models loaded."),
    Metric("serve_multiplexed_models_unload_counter", _C, _REPLICA, "Models unloaded."),
    Metric("serve_multiplexed_model_load_errors", _C, _REPLICA, "Loads that raised."),
    Metric("serve_multiplexed_model_load_latency_ms", _S, _REPLICA, "Time that loads took."),
    Metric("serve_multiplexed_model_unload_latency_ms", _S, _REPLICA, "Time that unloads took."),
    # Autoscaling.
    Metric("serve_autoscaling_target_replicas", _G, _DEPLOYMENT, "Replicas that there should be."),
    Metric("serve_autoscaling_running_replicas", _G, _DEPLOYMENT, "Replicas that take calls."),
    Metric("serve_autoscaling_total_requests", _G, _DEPLOYMENT, "Calls queued and at work."),
    Metric("serve_autoscaling_decisions", _C, _DEPLOYMENT, "Decisions taken, most of which change nothing."),
    Metric("serve_autoscaling_upscales", _C, _DEPLOYMENT, "Decisions for more replicas."),
    Metric("serve_autoscaling_downscales", _C, _DEPLOYMENT, "Decisions for fewer replicas."),
    # gRPC's own.
    Metric("grpc_server_started_total", _C, _GRPC, "Calls begun."),
    Metric("grpc_server_handled_total", _C, (*_GRPC, "grpc_code"), "Calls ended, by their status."),
    Metric("grpc_server_msg_received_total", _C, _GRPC, "Request messages."),
    Metric("grpc_server_msg_sent_total", _C, _GRPC, "Reply messages."),
    Metric("grpc_server_handling_seconds", _H, _GRPC, "Time from a call's head to its status, in seconds."),
)

CATALOGUE: dict[str, Metric] = {metric.name: metric for metric in _ALL}
