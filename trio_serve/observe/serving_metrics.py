"""The metrics of deployments: read from the counters that replicas, batches, models and autoscalers keep.

A replica's series exist as long as the replica does, so there are never more of them than replicas and their
methods.
"""

from collections.abc import Iterable

from trio_serve.observe.families import Families
from trio_serve.serving.batch_queue import BatchQueue
from trio_serve.serving.controller import Controller
from trio_serve.serving.counters import LATENCY_BOUNDS_S, MethodCounters
from trio_serve.serving.fleet import Fleet
from trio_serve.serving.multiplexing import ModelCache
from trio_serve.serving.replica import Replica

MS_PER_S = 1000.0


def add_serving_metrics(controller: Controller, families: Families) -> None:
    """Add what all deployments of all applications have counted."""
    for application in controller.applications.values():
        for fleet in application.fleets.values():
            _add_deployment(fleet, families)
            for replica in fleet.replicas():
                _add_replica(replica, (application.name, fleet.state.name, replica.tag), families)
    _add_traffic(controller, families)


def _add_traffic(controller: Controller, families: Families) -> None:
    splits = {name: each.traffic for name, each in controller.applications.items()}
    splits |= {name: each.traffic for name, each in controller.endpoints.items()}
    for name, split in splits.items():
        if split is None:
            continue
        for target, count in split.chosen.items():
            families.add("serve_traffic_requests", (name, target), count)
        shadows = split.shadows
        for result in ("succeeded", "failed", "dropped"):
            families.add("serve_traffic_shadow_requests", (name, result), getattr(shadows, result))
        families.add("serve_traffic_ongoing_shadow_requests", (name,), shadows.ongoing)


def _add_deployment(fleet: Fleet, families: Families) -> None:
    state = fleet.state
    labels = (state.application, state.name)
    backend = (state.name, state.application)
    families.add("serve_backend_queued_queries", backend, state.queued)
    families.add("serve_backend_replica_starts", backend, fleet.replica_deaths)
    families.add("serve_deployment_queued_queries", labels, state.queued)
    families.add("serve_deployment_refused_queries", labels, state.refused)
    families.add("serve_deployment_replica_starts", labels, fleet.replica_starts)
    families.add("serve_deployment_replica_restarts", labels, fleet.replica_deaths)
    families.add("serve_num_router_requests", labels, state.routed)
    families.add("serve_handle_request_counter", labels, state.by_handles)
    autoscaler = state.autoscaler
    if autoscaler is not None:
        families.add("serve_autoscaling_target_replicas", labels, fleet.target)
        families.add("serve_autoscaling_running_replicas", labels, fleet.running_replicas())
        families.add("serve_autoscaling_total_requests", labels, fleet.load())
        families.add("serve_autoscaling_decisions", labels, autoscaler.decisions)
        families.add("serve_autoscaling_upscales", labels, autoscaler.upscales)
        families.add("serve_autoscaling_downscales", labels, autoscaler.downscales)


def _add_replica(replica: Replica, labels: tuple[str, str, str], families: Families) -> None:
    application, deployment, tag = labels
    backend = (deployment, application, tag)
    families.add("serve_replica_processing_queries", (*backend, deployment), replica.ongoing)
    families.add("serve_replica_queued_queries", backend, replica.waiting_for_thread)
    families.add("serve_deployment_replica_healthy", labels, replica.actor.receiving)
    for name, method in replica.methods.items():
        _add_method(method.counters, (*labels, name), families)
    _add_backend(_all_methods(replica), backend, families)
    _add_batches(replica, labels, families)
    _add_models(replica, labels, families)


def _add_method(counters: MethodCounters, labels: tuple[str, ...], families: Families) -> None:
    families.add("serve_deployment_request_counter", labels, counters.succeeded)
    families.add("serve_deployment_cancelled_counter", labels, counters.cancelled)
    for exception, count in counters.errors.items():
        families.add("serve_deployment_error_counter", (*labels, exception), count)
    _add_latencies("serve_deployment", counters, labels, families)


def _add_backend(counters: MethodCounters, labels: tuple[str, ...], families: Families) -> None:
    families.add("serve_backend_request_counter", labels, counters.succeeded)
    for exception, count in counters.errors.items():
        families.add("serve_backend_error_counter", (*labels, exception), count)
    _add_latencies("serve_backend", counters, labels, families)


def _add_latencies(
    prefix: str, counters: MethodCounters, labels: tuple[str, ...], families: Families
) -> None:
    families.add_histogram(
        f"{prefix}_processing_latency_ms",
        labels,
        LATENCY_BOUNDS_S,
        counters.latencies,
        counters.seconds,
        MS_PER_S,
    )
    # Who found a replica with room did not wait, and was not timed.
    at_once = counters.started - sum(counters.waits)
    waits = [counters.waits[0] + at_once, *counters.waits[1:]]
    families.add_histogram(
        f"{prefix}_queuing_latency_ms", labels, LATENCY_BOUNDS_S, waits, counters.wait_seconds, MS_PER_S
    )


def _all_methods(replica: Replica) -> MethodCounters:
    """The counters of a replica's methods, added up."""
    total = MethodCounters()
    for method in replica.methods.values():
        each = method.counters
        total.started += each.started
        total.succeeded += each.succeeded
        total.seconds += each.seconds
        total.wait_seconds += each.wait_seconds
        total.latencies = [a + b for a, b in zip(total.latencies, each.latencies, strict=True)]
        total.waits = [a + b for a, b in zip(total.waits, each.waits, strict=True)]
        for exception, count in each.errors.items():
            total.errors[exception] = total.errors.get(exception, 0) + count
    return total


def _add_batches(replica: Replica, labels: tuple[str, ...], families: Families) -> None:
    if replica.scope is None:
        return
    # Several instances in one replica may have the same decorated method.
    for function, queues in _by_function(replica.scope.states(BatchQueue)).items():
        counted = [queue.counters for queue in queues]
        batches = sum(each.batches for each in counted)
        items = sum(each.items for each in counted)
        named = (*labels, function)
        families.add("serve_batches_processed", named, batches)
        families.add("serve_batch_errors", named, sum(each.errors for each in counted))
        families.add("serve_batch_queue_length", named, sum(queue.waiting for queue in queues))
        families.add_summary("serve_actual_batch_size", named, batches, items)
        waited = sum(each.wait_s for each in counted) * MS_PER_S
        families.add_summary("serve_batch_wait_time_ms", named, items, waited)
        worked = sum(each.run_s for each in counted) * MS_PER_S
        families.add_summary("serve_batch_execution_time_ms", named, batches, worked)


def _by_function(queues: Iterable[BatchQueue]) -> dict[str, list[BatchQueue]]:
    by_function: dict[str, list[BatchQueue]] = {}
    for queue in queues:
        by_function.setdefault(queue.batched.__qualname__, []).append(queue)
    return by_function


def _add_models(replica: Replica, labels: tuple[str, ...], families: Families) -> None:
    caches = [] if replica.scope is None else list(replica.scope.states(ModelCache))
    if not caches:
        return
    counted = [cache.counters for cache in caches]
    loads = sum(each.loads for each in counted)
    unloads = sum(each.unloads for each in counted)
    families.add("serve_num_multiplexed_models", labels, sum(len(cache.model_ids()) for cache in caches))
    requests = sum(each.requests for each in counted)
    families.add("serve_multiplexed_get_model_requests_counter", labels, requests)
    families.add("serve_multiplexed_models_load_counter", labels, loads)
    families.add("serve_multiplexed_models_unload_counter", labels, unloads)
    errors = sum(each.load_errors for each in counted)
    families.add("serve_multiplexed_model_load_errors", labels, errors)
    loading = sum(each.load_s for each in counted) * MS_PER_S
    families.add_summary("serve_multiplexed_model_load_latency_ms", labels, loads, loading)
    unloading = sum(each.unload_s for each in counted) * MS_PER_S
    families.add_summary("serve_multiplexed_model_unload_latency_ms", labels, unloads, unloading)
