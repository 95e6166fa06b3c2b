"""gRPC's service config in JSON: what is read, what applies to a call, and every mistake at once."""

import json
import random

import pytest
from grpclib.const import Status

from trio_serve.grpc.service_config import (
    HedgingPolicy,
    MethodConfig,
    RetryPolicy,
    RetryThrottling,
    ServiceConfig,
    TokenBucket,
    read_service_config,
)

RETRY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE", "aborted", 8],
}


def test_the_documents_example_is_read() -> None:
    config = read_service_config(
        json.dumps(
            {
                "loadBalancingConfig": [{"xds_magic": {}}, {"round_robin": {}}],
                "methodConfig": [
                    {
                        "name": [{"service": "a.B", "method": "C"}, {"service": "a.B", "method": "D"}],
                        "timeout": "1.5s",
                        "waitForReady": True,
                        "maxRequestMessageBytes": "1024",
                        "maxResponseMessageBytes": 2048,
                        "retryPolicy": RETRY,
                    },
                    {
                        "name": [{"service": "a.B"}],
                        "hedgingPolicy": {
                            "maxAttempts": 9,
                            "hedgingDelay": "0.5s",
                            "nonFatalStatusCodes": ["INTERNAL"],
                        },
                    },
                    {"name": [{}], "timeout": "30s"},
                ],
                "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
            }
        )
    )
    retry = RetryPolicy(
        4, 0.1, 1.0, 2.0, frozenset({Status.UNAVAILABLE, Status.ABORTED, Status.RESOURCE_EXHAUSTED})
    )
    of_c = MethodConfig(1.5, True, 1024, 2048, retry)
    assert config.for_method("/a.B/C") == config.for_method("/a.B/D") == of_c
    hedging = HedgingPolicy(5, 0.5, frozenset({Status.INTERNAL}))  # 9 attempts count as 5
    assert config.for_method("/a.B/Other") == MethodConfig(hedging=hedging)
    assert config.for_method("/x.Y/Z") == MethodConfig(timeout_s=30.0)
    assert config.throttling == RetryThrottling(10, 0.1)
    assert config.balancing == "round_robin"


def test_no_config_leaves_everything_to_the_caller() -> None:
    assert read_service_config(None).for_method("/a.B/C") == MethodConfig()
    assert read_service_config("{}") == ServiceConfig()


def test_every_mistake_is_told_with_its_place() -> None:
    with pytest.raises(ValueError) as caught:
        read_service_config(
            {
                "loadBalancingPolicy": "GRPCLB",
                "methodConfig": [
                    {"name": [{"method": "C"}], "timeout": "1.5", "waitForReady": "yes"},
                    {
                        "name": [{"service": "a.B"}, {"service": "a.B"}],
                        "retryPolicy": {
                            "maxAttempts": 1,
                            "initialBackoff": "0s",
                            "maxBackoff": "-1s",
                            "retryableStatusCodes": [],
                        },
                        "hedgingPolicy": {"maxAttempts": 2, "nonFatalStatusCodes": ["NO_SUCH"]},
                    },
                    "junk",
                ],
                "retryThrottling": {"maxTokens": 0, "tokenRatio": "x"},
            }
        )
    told = str(caught.value).removeprefix("service config: ").splitlines()
    assert sorted(told) == sorted(
        [
            "loadBalancingConfig: ['grpclb'] has neither 'pick_first' nor 'round_robin'",
            "methodConfig[0].name[0].method: 'C' needs a service beside it",
            "methodConfig[0].timeout: must be seconds such as '1.5s', not '1.5'",
            "methodConfig[0].waitForReady: must be true or false, not 'yes'",
            "methodConfig[1].name[1]: 'a.B/' has an entry already",
            "methodConfig[1]: has a retryPolicy and a hedgingPolicy; keep one of them",
            "methodConfig[1].retryPolicy.maxAttempts: must be a whole number over 1, not 1",
            "methodConfig[1].retryPolicy.initialBackoff: must be seconds over zero such as '0.1s', not '0s'",
            "methodConfig[1].retryPolicy.maxBackoff: must be seconds over zero such as '0.1s', not '-1s'",
            "methodConfig[1].retryPolicy.backoffMultiplier: is missing; it must be a number over 0",
            "methodConfig[1].retryPolicy.retryableStatusCodes: is empty, so nothing would ever be retried",
            "methodConfig[1].hedgingPolicy.nonFatalStatusCodes: "
            "must be a list of status codes, not ['NO_SUCH']",
            "methodConfig[2]: must be an object, not 'junk'",
            "retryThrottling.maxTokens: must be a number over 0 and at most 1000, not 0",
            "retryThrottling.tokenRatio: must be a number over 0, not 'x'",
        ]
    )


@pytest.mark.parametrize("junk", ["{", "[]", "3", b"\xff".decode("latin-1")])
def test_junk_is_a_value_error(junk: str) -> None:
    with pytest.raises(ValueError, match="service config"):
        read_service_config(junk)


def test_backoff_grows_to_its_maximum_and_varies_by_a_fifth() -> None:
    policy = read_service_config({"methodConfig": [{"name": [{}], "retryPolicy": RETRY}]})
    retry = policy.for_method("/a/b").retry
    assert retry is not None
    rng = random.Random(7)
    for retries, steady in enumerate([0.1, 0.2, 0.4, 0.8, 1.0, 1.0]):
        drawn = [retry.backoff_s(retries, rng) for _ in range(500)]
        assert steady * 0.8 <= min(drawn) < steady * 0.85
        assert steady * 1.15 < max(drawn) <= steady * 1.2


def test_the_throttle_closes_at_half_and_opens_again_as_calls_succeed() -> None:
    bucket = TokenBucket(RetryThrottling(max_tokens=10, token_ratio=0.5))
    for _ in range(4):
        bucket.failed()
    assert bucket.allows
    bucket.failed()
    assert not bucket.allows
    bucket.succeeded()
    assert bucket.allows
    for _ in range(100):
        bucket.succeeded()
    assert bucket.tokens == 10
    for _ in range(100):
        bucket.failed()
    assert bucket.tokens == 0
