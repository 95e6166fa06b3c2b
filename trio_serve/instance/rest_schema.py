"""What goes over the admin API: a configuration in, and how all fares out, in Ray's schemas.

    PUT body (JSON or YAML, ServeDeploySchema)  >  Submission: checked by the rules of a configuration file
    status of the instance                      >  ServeInstanceDetails, which Ray's own tools can read
    ServeInstanceDetails                        >  the YAML of `status`

Source: Ray Serve 2.60, "Serve REST API" and ray.serve.schema.
Knows nothing of HTTP, and of how a configuration comes into force.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import trio
import yaml

from trio_serve.instance.config_file import (
    LOCAL_FOLDER,
    ApplicationConfig,
    ServeConfig,
    read_config_data,
)
from trio_serve.instance.loading import environment_conflicts
from trio_serve.instance.positions import UnreadableText, read_yaml
from trio_serve.instance.settings import Mistakes, from_folder, wrong
from trio_serve.serving.application import DeploymentSpec
from trio_serve.serving.autoscaling import AutoscalingConfig
from trio_serve.serving.fleet import Fleet
from trio_serve.serving.running_application import RunningApplication, status_of
from trio_serve.serving.status import DeploymentStatus, ProxyStatus

RAY_VERSION = "2.60.0"
"""The version whose schemas these are, for clients that ask before they speak."""


# -- in ------------------------------------------------------------------------------------------------------


@attrs.frozen
class Submission:
    """A configuration that somebody sent, checked.

    ``folder`` is where its relative paths begin, and ``import_folders`` are looked in for modules first.
    ``applications`` are as they were sent, in the same order as those of ``config``.
    """

    data: Mapping[str, Any] = attrs.field(repr=False)
    config: ServeConfig
    folder: str
    import_folders: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def applications(self) -> list[Mapping[str, Any]]:
        return list(self.data["applications"])

    def without(self, name: str) -> "Submission | None":
        """The same without the application ``name``; None when nothing is left.

        Raises:
            Mistakes: what is left refers to it.
        """
        kept = [app for app in self.applications if app.get("name", "default") != name]
        if not kept:
            return None
        return read_submission({**self.data, "applications": kept}, self.folder, self.import_folders)

    def to_text(self) -> str:
        """What `submission_from_text` reads."""
        written = {"folder": self.folder, "import_folders": list(self.import_folders), "config": self.data}
        return yaml.safe_dump(written, sort_keys=False)


def submission_from_text(text: str) -> Submission:
    """What `Submission.to_text` wrote.

    Raises:
        ValueError: it did not write this.
    """
    try:
        written = yaml.safe_load(text)
        return read_submission(written["config"], written["folder"], tuple(written["import_folders"]))
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(f"this is no desired state: {type(error).__name__}: {error}") from None


def read_submission(data: Any, folder: str, import_folders: Sequence[str] = ()) -> Submission:
    """Check a configuration by the rules of a file.

    Raises:
        Mistakes: everything that is wrong with it.
    """
    config, left_out = read_config_data(data)
    conflicts = environment_conflicts(config.applications)
    if conflicts:
        raise Mistakes(conflicts)
    config = from_folder(config, folder)
    return Submission(data, config, folder, tuple(import_folders), tuple(str(each) for each in left_out))


def data_from_body(body: bytes, *, is_yaml: bool) -> Any:
    """The plain data in the body of a request.

    Raises:
        Mistakes: it is no JSON, or no YAML, and keys that are there twice.
    """
    return _from_yaml(body) if is_yaml else _from_json(body)


def _from_yaml(body: bytes) -> Any:
    try:
        document = read_yaml(body)
    except UnreadableText as error:
        raise wrong(f"{error.position}: {error.text}") from None
    if document.repeated_keys:
        raise Mistakes(
            attrs.evolve(each, text=f"{position}: {each.text}") for position, each in document.repeated_keys
        )
    return document.data


def _from_json(body: bytes) -> Any:
    try:
        data = json.loads(body, object_pairs_hook=_without_repeated_keys, parse_constant=_no_such_number)
        json.dumps(data, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except Mistakes:
        raise
    except RecursionError:
        raise wrong("the body nests too deeply to be read") from None
    except ValueError as error:
        raise wrong(f"the body is no JSON: {error}") from None
    return data


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key, value in pairs:
        if key in data:
            raise wrong(f"the key {key!r} is there twice")
        data[key] = value
    return data


def _no_such_number(name: str) -> Any:
    raise wrong(f"{name} is no number of JSON")


# -- out -----------------------------------------------------------------------------------------------------


_TRIGGERS = {
    DeploymentStatus.UPDATING: "CONFIG_UPDATE_STARTED",
    DeploymentStatus.HEALTHY: "CONFIG_UPDATE_COMPLETED",
    DeploymentStatus.UNHEALTHY: "HEALTH_CHECK_FAILED",
    DeploymentStatus.DEPLOY_FAILED: "REPLICA_STARTUP_FAILED",
    DeploymentStatus.UPSCALING: "AUTOSCALING",
    DeploymentStatus.DOWNSCALING: "AUTOSCALING",
}

_OPTIONS_SHOWN = (
    "num_replicas",
    "max_ongoing_requests",
    "max_queued_requests",
    "user_config",
    "autoscaling_config",
    "graceful_shutdown_wait_loop_s",
    "graceful_shutdown_timeout_s",
    "health_check_period_s",
    "health_check_timeout_s",
)


def actor_details(name: str) -> dict[str, Any]:
    """Ray tells where an actor is; here all are in one process."""
    return {
        "node_id": "local",
        "node_ip": "127.0.0.1",
        "node_instance_id": None,
        "actor_id": None,
        "actor_name": name,
        "worker_id": None,
        "log_file_path": None,
    }


def instance_details(
    submission: Submission | None,
    proxies: Mapping[str, ProxyStatus],
    applications: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """ServeInstanceDetails of ``applications``, each as `application_details` gives it."""
    data = {} if submission is None else submission.data
    return {
        "controller_info": actor_details("SERVE_CONTROLLER_ACTOR"),
        "proxy_location": data.get("proxy_location", "EveryNode"),
        "http_options": _chosen(data.get("http_options"), ("host", "port", "root_path", "request_timeout_s")),
        "grpc_options": _chosen(data.get("grpc_options"), ("port", "grpc_servicer_functions")),
        "proxies": {
            name: {**actor_details(f"SERVE_PROXY_ACTOR-{name}"), "status": status.value}
            for name, status in proxies.items()
        },
        "applications": dict(applications),
        "target_capacity": None,
    }


def application_details(
    name: str,
    status: str,
    message: str,
    running: RunningApplication | None,
    config: ApplicationConfig | None,
    submitted: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """ApplicationDetails of one application, as far as it runs."""
    prefix = running.route_prefix if running is not None else config.route_prefix if config else None
    return {
        "name": name,
        "route_prefix": prefix,
        "docs_path": None,
        "status": status,
        "message": message,
        "last_deployed_time_s": 0.0 if running is None else running.deployed_at,
        "deployed_app_config": None if submitted is None else _in_rays_words(submitted, config),
        "source": "imperative" if submitted is None else "declarative",
        "deployments": {}
        if running is None
        else {name: _deployment_details(fleet) for name, fleet in running.fleets.items()},
        "external_scaler_enabled": False,
    }


def _in_rays_words(submitted: Mapping[str, Any], config: ApplicationConfig | None) -> dict[str, Any]:
    """``submitted``, where it is ours, as Ray's schema can say it; it refuses a whole answer for one word."""
    words = {**submitted, **_with_rays_log_level(submitted)}
    if config is not None and config.runtime_env.working_dir is not None:
        words["runtime_env"] = {
            **submitted["runtime_env"],
            "working_dir": LOCAL_FOLDER + config.runtime_env.working_dir,
        }
    if "deployments" in submitted:
        words["deployments"] = [{**each, **_with_rays_log_level(each)} for each in submitted["deployments"]]
    return words


def _with_rays_log_level(options: Mapping[str, Any]) -> dict[str, Any]:
    """The ``logging_config`` of ``options``, if there is one, with the name of its level as Ray writes it."""
    logs = options.get("logging_config")
    if not isinstance(logs, Mapping) or not isinstance(logs.get("log_level"), str):
        return {}
    return {"logging_config": {**logs, "log_level": logs["log_level"].upper()}}


def _deployment_details(fleet: Fleet) -> dict[str, Any]:
    overview = status_of(fleet)
    return {
        "name": fleet.state.name,
        "status": overview.status.value,
        "status_trigger": _TRIGGERS[overview.status],
        "message": overview.message,
        "deployment_config": _deployment_config(fleet.state.spec),
        "target_num_replicas": fleet.target,
        "required_resources": {},
        "replicas": [
            {
                **actor_details(replica.context.replica_tag),
                "replica_id": replica.context.replica_tag,
                "state": replica.state.value,
                "pid": os.getpid(),
                "start_time_s": round(time.time() - (trio.current_time() - replica.made_at), 3),
            }
            for replica in fleet.replicas()
        ],
    }


def _deployment_config(spec: DeploymentSpec) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": spec.name}
    for name in _OPTIONS_SHOWN:
        value = getattr(spec.options, name)
        if isinstance(value, AutoscalingConfig):
            value = {key: each for key, each in attrs.asdict(value).items() if each is not None}
        if value is not None and not (name == "num_replicas" and spec.options.autoscaling_config is not None):
            shown[name] = value
    return shown


def _chosen(options: Any, names: Sequence[str]) -> dict[str, Any] | None:
    """Those of ``options`` that Ray's schema has too; it refuses others."""
    if not isinstance(options, Mapping):
        return None
    return {name: options[name] for name in names if name in options}


def json_text(details: Mapping[str, Any]) -> str:
    """JSON of whatever is in there: what JSON has no word for (a date of YAML) is written as a text."""
    return json.dumps(details, default=str)


# -- for people ----------------------------------------------------------------------------------------------


def status_text(details: Mapping[str, Any], name: str | None = None) -> str:
    """The YAML that `trio-serve status` prints: of all, or of the application ``name``."""
    applications = {each: _status_of(app) for each, app in details["applications"].items()}
    if name is not None:
        return yaml.safe_dump(applications[name], sort_keys=False)
    proxies = {each: proxy["status"] for each, proxy in details["proxies"].items()}
    whole = {"proxies": proxies, "applications": applications, "target_capacity": details["target_capacity"]}
    return yaml.safe_dump(whole, sort_keys=False)


def _status_of(app: Mapping[str, Any]) -> dict[str, Any]:
    deployments = {}
    for name, each in app["deployments"].items():
        states: dict[str, int] = {}
        for replica in each["replicas"]:
            states[replica["state"]] = states.get(replica["state"], 0) + 1
        deployments[name] = {
            "status": each["status"],
            "status_trigger": each["status_trigger"],
            "replica_states": states,
            "message": each["message"],
        }
    return {
        "status": app["status"],
        "message": app["message"],
        "last_deployed_time_s": app["last_deployed_time_s"],
        "deployments": deployments,
    }


def config_text(details: Mapping[str, Any], name: str | None = None) -> str:
    """The configurations that are wanted, each a document of YAML: of all applications, or of ``name``."""
    wanted = [
        app["deployed_app_config"]
        for each, app in details["applications"].items()
        if app["deployed_app_config"] is not None and name in (None, each)
    ]
    return "\n---\n\n".join(yaml.safe_dump(each, sort_keys=False) for each in wanted)
