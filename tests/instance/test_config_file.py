"""The configuration file: what the documents show loads, and each mistake is told with its place."""

import pathlib
import textwrap

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from trio_serve.instance.config_file import ConfigFile, ConfigFileError, read_config_file
from trio_serve.instance.settings import Mistake, Mistakes

GUIDE = pathlib.Path(__file__).parent.parent.parent / "examples" / "grpc_guide" / "config.yaml"


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(content: str | bytes, name: str = "config.yaml") -> ConfigFile:
    encoded = textwrap.dedent(content).encode() if isinstance(content, str) else content
    pathlib.Path(name).write_bytes(encoded)
    return read_config_file(name)


def refusal_of(content: str | bytes) -> list[str]:
    with pytest.raises(ConfigFileError) as caught:
        read(content)
    assert str(caught.value) == "\n".join(caught.value.lines)
    return caught.value.lines


def test_the_guides_file_loads() -> None:
    file = read_config_file(str(GUIDE))

    app1, app2 = file.config.applications
    assert (app1.name, app1.route_prefix, app1.import_path) == ("app1", "/app1", "test_deployment_v2:g")
    assert (app2.name, app2.route_prefix, app2.import_path) == ("app2", "/app2", "test_deployment_v2:g2")
    assert file.config.grpc_options.port == 9000
    assert len(file.config.grpc_options.grpc_servicer_functions) == 2
    assert file.warnings == []


def test_every_mistake_is_told_at_once_with_its_place_in_the_order_of_the_file(folder: pathlib.Path) -> None:
    told = refusal_of(
        """\
        applications:
          - name: app1
            route_prefx: /one
            import_path: app
            name: app3
          - name: app2
            route_prefix: two/
            import_path: module:app
            deployments:
              - num_replicas: 2
          - {name: app2, route_prefix: null, args: [], runtime_env: {env_vars: {THREADS: 4}}}
        grpc_options:
          port: high
        proxy_location: Nowhere
        """
    )

    assert [line.split("; known are")[0].split(" known are")[0] for line in told] == [
        "config.yaml:3:5: applications[0].route_prefx: unknown key; did you mean 'route_prefix'?",
        "config.yaml:4:18: applications[0].import_path: 'app' names no attribute; write 'module:attribute'",
        "config.yaml:5:5: applications[0].name: is here for the second time, the first is in line 2",
        "config.yaml:7:19: applications[1].route_prefix: 'two/' does not begin with '/'; write '/two'",
        "config.yaml:10:9: applications[1].deployments[0]: 'name' is missing; it says which deployment of the"
        " application is meant",
        "config.yaml:11:5: applications[2]: 'import_path' is missing",
        "config.yaml:11:12: applications[2].name: 'app2' is the name of another application",
        "config.yaml:11:44: applications[2].args: [] is not a mapping",
        "config.yaml:11:82: applications[2].runtime_env.env_vars.THREADS: 4 is not a text; put it in quotes",
        "config.yaml:13:9: grpc_options.port: 'high' is not a whole number",
        "config.yaml:14:17: proxy_location: 'Nowhere' is not one of EveryNode, HeadOnly, Disabled",
    ]


def test_options_of_deployments_are_checked_where_they_stand(folder: pathlib.Path) -> None:
    told = refusal_of(
        """\
        applications:
          - import_path: m:a
            deployments:
              - name: One
                num_replicas: 0
                max_ongoing_request: 3
              - name: Two
                num_replicas: 2
                autoscaling_config: {max_replicas: 3}
        """
    )

    assert told == [
        "config.yaml:5:23: applications[0].deployments[0].num_replicas: "
        'num_replicas=0 must be a whole number of 1 or more, or "auto"',
        "config.yaml:6:9: applications[0].deployments[0].max_ongoing_request: "
        "there is no option 'max_ongoing_request'; did you mean 'max_ongoing_requests'?",
        "config.yaml:7:9: applications[0].deployments[1]: num_replicas=2 and autoscaling_config contradict "
        'each other; leave out one of them, or write num_replicas="auto"',
    ]


def test_two_applications_on_one_prefix_are_refused(folder: pathlib.Path) -> None:
    told = refusal_of("applications: [{name: a, import_path: m:a}, {name: b, import_path: m:b}]")

    assert told == [
        "config.yaml:1:45: applications[1].route_prefix: '/' is the prefix of 'a'; "
        "choose another, or null to have none over HTTP"
    ]


def test_what_only_a_cluster_can_do_is_a_warning_and_is_left_out(folder: pathlib.Path) -> None:
    file = read(
        """\
        proxy_location: EveryNode
        http_options: {location: EveryNode, port: 8001}
        applications:
          - import_path: m:a
            runtime_env: {pip: [torch], env_vars: {A: b}}
            deployments:
              - name: Model
                placement_group_strategy: PACK
                ray_actor_options: {num_cpus: 1, num_gpus: 1}
        """
    )

    assert file.warnings == [
        f"config.yaml:{place}: only a cluster can do this; it is left out here"
        for place in (
            "2:16: http_options.location",
            "5:19: applications[0].runtime_env.pip",
            "8:9: applications[0].deployments[0].placement_group_strategy",
            "9:42: applications[0].deployments[0].ray_actor_options.num_gpus",
        )
    ]
    (app,) = file.config.applications
    assert app.runtime_env.env_vars == {"A": "b"}
    assert app.deployments == [{"name": "Model", "ray_actor_options": {"num_cpus": 1}}]
    assert file.config.http_options.port == 8001


def test_files_are_named_relative_to_the_file(folder: pathlib.Path) -> None:
    (folder / "etc").mkdir()
    content = """\
        grpc_options: {protos: [a.proto, /b.proto], tls: {cert: c.pem, key: k.pem}}
        applications: [{import_path: m:a, runtime_env: {working_dir: ../src}}]
        """

    config = read(content, "etc/config.yaml").config

    assert config.grpc_options.protos == [str(folder / "etc" / "a.proto"), "/b.proto"]
    assert config.grpc_options.tls and config.grpc_options.tls.cert == str(folder / "etc" / "c.pem")
    assert config.applications[0].runtime_env.working_dir == str(folder / "etc" / "../src")


def test_anchors_and_merge_keys_work_and_what_is_written_wins(folder: pathlib.Path) -> None:
    config = read(
        """\
        applications:
          - &first {name: a, import_path: m:a, route_prefix: /a}
          - {<<: *first, name: b, route_prefix: /b}
          - {<<: *first, name: c, route_prefix: null}
        """
    ).config

    assert [(app.name, app.import_path) for app in config.applications] == [
        ("a", "m:a"),
        ("b", "m:a"),
        ("c", "m:a"),
    ]


def test_mistakes_that_the_file_leads_to_are_told_in_its_terms(folder: pathlib.Path) -> None:
    file = read("applications:\n  - import_path: m:a\n    deployments: [{name: Modle}]\n")
    found = Mistakes([Mistake(("applications", 0, "deployments", 0, "name"), "no such deployment")])

    assert file.error(found).lines == [
        "config.yaml:3:26: applications[0].deployments[0].name: no such deployment"
    ]


@pytest.mark.parametrize(
    "content, told",
    [
        (b"", "config.yaml:1:1: nothing is not a mapping; its keys would be applications, "),
        (b"[]", "config.yaml:1:1: [] is not a mapping"),
        (b"applications: []", "config.yaml:1:15: applications: is empty; there is nothing to serve"),
        (b"applications: {}", "config.yaml:1:15: applications: {} is not a list"),
        (b"a: [1\nb: 2", "config.yaml:2:2: while parsing a flow sequence, expected ',' or ']'"),
        (b"a:\n\t- 1", "config.yaml:2:1: while scanning for the next token, found character"),
        (b"a: 1\n---\nb: 2", "config.yaml:2:1: expected a single document in the stream, but found"),
        (b"a: \xff", "config.yaml:1:1: "),
        (b"a: &x [*x]", "config.yaml:1:4: refers to itself"),
        (b"a: *x", "config.yaml:1:4: found undefined alias"),
        (b"? [a]\n: 1", "config.yaml:1:3: a key must be a text"),
        (b"a: 2026-02-30", "config.yaml:1:4: '2026-02-30' cannot be read: day is out of range"),
        (
            b"a: !!python/object:os.system {}",
            "config.yaml:1:4: has the tag tag:yaml.org,2002:python/object:os.system",
        ),
        (b"a: !!python/name:os.system x", "config.yaml:1:4: could not determine a constructor for the tag"),
        (b"[" * 5000, "config.yaml:1:101: nests deeper than 100"),
        (
            b"a: &a [1,1,1,1,1,1,1,1,1,1]\n"
            + b"".join(
                b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 10)) for c in range(98, 106)
            ),
            "config.yaml:1:26: its aliases make more than 100000 values",
        ),
    ],
)
def test_what_is_no_config_at_all_is_one_clear_line(folder: pathlib.Path, content: bytes, told: str) -> None:
    first = refusal_of(content)[0]

    assert first.startswith(told)
    assert "\n" not in first


def test_a_file_that_is_not_there(folder: pathlib.Path) -> None:
    with pytest.raises(ConfigFileError, match=r"^nope.yaml: cannot be read: No such file or directory$"):
        read_config_file("nope.yaml")


def test_a_file_name_that_cannot_be_seen_is_told_with_escapes() -> None:
    with pytest.raises(ConfigFileError, match=r"^'\\ufeff': cannot be read: No such file or directory$"):
        read_config_file("\ufeff")


words = st.sampled_from(
    ["applications", "name", "import_path", "m:a", "runtime_env", "deployments", "grpc_options", "port"]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | words
data = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | scalars.map(str), inner, max_size=4),
    max_leaves=20,
)


@hypothesis_settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data)
def test_any_data_is_read_or_refused_with_a_place(folder: pathlib.Path, data: object) -> None:
    import yaml

    try:
        read(yaml.safe_dump(data, allow_unicode=True).encode())
    except ConfigFileError as refused:
        assert all(line.startswith("config.yaml:") for line in refused.lines)


@hypothesis_settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_mutated_file_is_read_or_refused_with_a_place(folder: pathlib.Path, data: st.DataObject) -> None:
    content = bytearray(GUIDE.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        read(bytes(content))
    except ConfigFileError as refused:
        assert all(line.startswith("config.yaml:") for line in refused.lines)


def test_a_working_dir_is_local_and_a_remote_one_is_left_out_with_a_warning(folder: pathlib.Path) -> None:
    file = read(
        """\
        applications:
          - {name: a, import_path: m:a, runtime_env: {working_dir: "local:///srv/a"}}
          - {name: b, import_path: m:b, route_prefix: /b, runtime_env: {working_dir: "https://x.example/b.zip"}}
        """
    )

    assert [app.runtime_env.working_dir for app in file.config.applications] == ["/srv/a", None]
    (warning,) = file.warnings
    assert warning.startswith(
        "config.yaml:3:78: applications[1].runtime_env.working_dir: only a cluster fetches 'https://x.example"
    )


@pytest.mark.parametrize("opening, column", [("[", 106), ("{a: ", 400)])
def test_what_nests_deeper_than_anything_sensible_is_refused_where_it_does(
    folder: pathlib.Path, opening: str, column: int
) -> None:
    """PyYAML alone takes seconds for it, and then as many frames as Python has."""
    (line,) = refusal_of("deep: " + opening * 20_000)

    assert line == f"config.yaml:1:{column}: nests deeper than 100"


def test_a_mistake_is_no_longer_than_a_person_reads(folder: pathlib.Path) -> None:
    (line,) = refusal_of(
        f"""\
        applications: [{{import_path: m:a, deployments: [{{name: D, num_replicas: {"x" * 10_000}}}]}}]
        """
    )

    assert "num_replicas='xxx" in line
    assert line.endswith('must be a whole number of 1 or more, or "auto"')
    assert len(line) < 1000
