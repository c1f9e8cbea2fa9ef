from pathlib import Path
from typing import get_args

import msgspec
import pytest

from service.engine.providers import PROVIDERS
from service.errors import InvalidSetting
from service.settings import OF_PLATFORMS, Settings, describe
from service.settings import machine as resources
from service.settings.machine import Resources
from service.settings.shadows import ShadowVersions
from service.settings.split import Split
from service.settings.verdicts import MissingValues, Verdicts
from service.settings.versions import Versions

A_PATH = "expected a path that begins with / and has no ?, #, % or blank"


def test_defaults_hold_when_nothing_is_set() -> None:
    assert Settings.from_env({"PATH": "/bin"}) == Settings()


def test_every_setting_is_read_from_its_variable() -> None:
    settings = Settings.from_env(
        {
            "TORCHLIT_HOST": "0.0.0.0",
            "TORCHLIT_PORT": "0",
            "TORCHLIT_MODELS_DIR": "/srv/models",
            "TORCHLIT_VERSIONS": "latest iris=1,2",
            "TORCHLIT_WATCH": "false",
            "TORCHLIT_SPLIT": "iris=1:9,2:1",
            "TORCHLIT_SPLIT_FILE": "/run/split",
            "TORCHLIT_SPLIT_HEADER": "X-User-Id",
            "TORCHLIT_GRPC": "off",
            "TORCHLIT_PINS": "Required",
            "TORCHLIT_PINS_FILE": "/etc/approved",
            "TORCHLIT_MODEL_CONTROL": "true",
            "TORCHLIT_DEVICE": "cpu",
            "TORCHLIT_PROVIDER": "none",
            "TORCHLIT_FALLBACK": "allow",
            "TORCHLIT_WORKERS": "3",
            "TORCHLIT_BATCHING": "iris=rows wine=requests",
            "TORCHLIT_MISSING": "iris=refuse wine=allow",
            "TORCHLIT_SHADOW": "iris/1=2:0.5",
            "TORCHLIT_SHADOW_KEEP": "3",
            "TORCHLIT_MAX_BATCH_SIZE": "8",
            "TORCHLIT_MAX_QUEUE_DELAY_MS": "1.5",
            "TORCHLIT_MAX_QUEUE_ROWS": "9",
            "TORCHLIT_MAX_REQUEST_ROWS": "7",
            "TORCHLIT_REQUEST_TIMEOUT_S": "0.5",
            "TORCHLIT_MAX_BODY_BYTES": "1000",
            "TORCHLIT_MAX_REPLY_BYTES": "5000",
            "TORCHLIT_MAX_HELD_BYTES": "9000",
            "TORCHLIT_MAX_IMAGE_PIXELS": "2000",
            "TORCHLIT_REUSE_PORT": "true",
            "TORCHLIT_RECEIVE_TIMEOUT_S": "2.5",
            "TORCHLIT_KEEP_ALIVE_S": "30",
            "TORCHLIT_MAX_CONNECTIONS": "100",
            "TORCHLIT_API_KEYS": "null",
            "TORCHLIT_API_KEYS_FILE": "/run/keys",
            "TORCHLIT_PROTECT_HEALTH": "1",
            "TORCHLIT_PROTECT_METRICS": "True",
            "TORCHLIT_CORS_ORIGINS": "https://a.example",
            "TORCHLIT_FRAME_ANCESTORS": "self",
            "TORCHLIT_LOG_LEVEL": "debug",
            "TORCHLIT_LOG_FORMAT": "json",
            "TORCHLIT_ACCESS_LOG": "true",
            "TORCHLIT_METRICS_DIR": "/run/metrics",
            "TORCHLIT_DRAIN_S": "2",
            "TORCHLIT_DEFAULT_MODEL": "iris",
            "TORCHLIT_PREDICT_ROUTE": "/v1/predict",
            "TORCHLIT_HEALTH_ROUTE": "/v1/health",
            "TORCHLIT_DATA_DIR": "training reads this one",
        }
    )
    assert msgspec.structs.asdict(settings) == {
        "host": "0.0.0.0",
        "port": 0,
        "models_dir": Path("/srv/models"),
        "versions": Versions("latest iris=1,2"),
        "watch": False,
        "split": Split("iris=1:9,2:1"),
        "split_file": Path("/run/split"),
        "split_header": "X-User-Id",
        "grpc": False,
        "pins": "required",
        "pins_file": Path("/etc/approved"),
        "model_control": True,
        "device": "cpu",
        "provider": "none",
        "fallback": "allow",
        "workers": 3,
        "batching": Verdicts("wine=requests iris=rows"),
        "missing": MissingValues("wine=allow iris=refuse"),
        "shadow": ShadowVersions("iris/1=2:0.5"),
        "shadow_keep": 3,
        "max_batch_size": 8,
        "max_queue_delay_ms": 1.5,
        "max_queue_rows": 9,
        "max_request_rows": 7,
        "request_timeout_s": 0.5,
        "max_body_bytes": 1000,
        "max_reply_bytes": 5000,
        "max_held_bytes": 9000,
        "max_image_pixels": 2000,
        "metrics_dir": Path("/run/metrics"),
        "drain_s": 2.0,
        "reuse_port": True,
        "receive_timeout_s": 2.5,
        "keep_alive_s": 30,
        "max_connections": 100,
        "api_keys": "null",  # a bad key, but not the absence of one
        "api_keys_file": Path("/run/keys"),
        "protect_health": True,
        "protect_metrics": True,
        "cors_origins": "https://a.example",
        "frame_ancestors": "self",
        "log_level": "debug",
        "log_format": "json",
        "access_log": True,
        "default_model": "iris",
        "predict_route": "/v1/predict",
        "health_route": "/v1/health",
    }


@pytest.mark.parametrize(
    ("variable", "text", "sentence"),
    [
        ("TORCHLIT_PROT", "1", "no such setting; did you mean TORCHLIT_PORT?"),
        ("TORCHLIT_port", "1", "no such setting; did you mean TORCHLIT_PORT?"),
        ("TORCHLIT_DATADIR", "1", "no such setting; did you mean TORCHLIT_DATA_DIR?"),
        ("TORCHLIT_PORT", "http", "expected a whole number from 0 to 65535, got 'http'"),
        ("TORCHLIT_PORT", "65536", "expected a whole number from 0 to 65535, got '65536'"),
        ("TORCHLIT_PROT", "", "no such setting; did you mean TORCHLIT_PORT?"),
        ("TORCHLIT_API_KEYS_FILE", "", "expected the path of a file, got ''"),
        ("TORCHLIT_DEVICE", "gpu", "expected one of auto, cpu, cuda, got 'gpu'"),
        (
            "TORCHLIT_FALLBACK",
            "refuse",
            "expected warn or allow where TORCHLIT_DEVICE is auto, which falls back to the CPU, "
            "got 'refuse': set TORCHLIT_DEVICE or TORCHLIT_PROVIDER too",
        ),
        (
            "TORCHLIT_VERSIONS",
            "newest",
            "expected `all`, `latest`, `latest:2` or `1,3`, also as `name=...`, "
            "each once for a model, got 'newest'",
        ),
        (
            "TORCHLIT_VERSIONS",
            "iris=1,002",
            "expected `all`, `latest`, `latest:2` or `1,3`, also as `name=...`, "
            "each once for a model, versions without zeros in front, got 'iris=1,002'",
        ),
        (
            "TORCHLIT_BATCHING",
            "iris=rows iris=requests",
            "expected `name=rows` or `name=requests`, each once for a model, got "
            "'iris=rows iris=requests'",
        ),
        (
            "TORCHLIT_BATCHING",
            "rows",
            "expected `name=rows` or `name=requests`, each once for a model, got 'rows'",
        ),
        ("TORCHLIT_WATCH", "maybe", "expected true or false, got 'maybe'"),
        ("TORCHLIT_WORKERS", "0", "expected a whole number from 1 to 256, or auto, got '0'"),
        ("TORCHLIT_WORKERS", "all", "expected a whole number from 1 to 256, or auto, got 'all'"),
        ("PORT", "8080/tcp", "expected a whole number from 0 to 65535, got '8080/tcp'"),
        ("AIP_HTTP_PORT", "-1", "expected a whole number from 0 to 65535, got '-1'"),
        ("AIP_PREDICT_ROUTE", "predict", f"{A_PATH}, got 'predict'"),
        ("TORCHLIT_HEALTH_ROUTE", "ping", f"{A_PATH}, got 'ping'"),
        ("TORCHLIT_SERVICE_HOTS", "1", "no such setting; did you mean TORCHLIT_DEVICE?"),
        ("TORCHLIT_REQUEST_TIMEOUT_S", "0", "expected a number above 0 to 3600, got '0'"),
        ("TORCHLIT_REQUEST_TIMEOUT_S", "nan", "expected a number above 0 to 3600, got 'nan'"),
        ("TORCHLIT_MAX_QUEUE_DELAY_MS", "nan", "expected a number from 0 to 60000, got 'nan'"),
        ("TORCHLIT_REUSE_PORT", "maybe", "expected true or false, got 'maybe'"),
        ("TORCHLIT_LOG_FORMAT", "XML", "expected one of text, json, got 'XML'"),
        ("TORCHLIT_ACCESS_LOG", "YEP", "expected true or false, got 'YEP'"),
        ("TORCHLIT_MAX_QUEUE_DELAY_MS", "-1", "expected a number from 0 to 60000, got '-1'"),
    ],
)
def test_a_wrong_variable_is_named_with_what_was_expected(
    variable: str, text: str, sentence: str
) -> None:
    with pytest.raises(InvalidSetting) as error:
        Settings.from_env({variable: text})
    assert str(error.value) == f"{variable}: {sentence}"


def test_every_setting_is_described() -> None:
    assert len(describe()) == len(Settings.__struct_fields__)
    assert all(description for _, _, description in describe())


def test_auto_takes_as_many_workers_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "available", lambda: Resources(8, 3.0, None))
    for auto in ("auto", "Auto"):
        assert Settings.from_env({"TORCHLIT_WORKERS": auto}).workers == 3


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_value_counts_as_unset(empty: str) -> None:
    """As `${VAR:-}` of a compose file, or a chart's value that nobody gave."""
    variables = {variable for variable, _, _ in describe()} - {
        "TORCHLIT_API_KEYS",
        "TORCHLIT_API_KEYS_FILE",
    }
    platforms = {name for names in OF_PLATFORMS.values() for name in names}
    assert Settings.from_env(dict.fromkeys(variables | platforms, empty)) == Settings()
    keys = Settings.from_env({"TORCHLIT_API_KEYS": empty})
    assert keys.has_api_keys  # which keys() refuses: a secret did not arrive


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["true", "TRUE", "True", "1", "yes", "on", "ON "], True),
        (["false", "FALSE", "0", "no", "No", "off"], False),
    ],
)
def test_yes_and_no_are_taken_as_people_write_them(texts: list[str], expected: bool) -> None:
    for text in texts:
        for variable in ("TORCHLIT_WATCH", "TORCHLIT_ACCESS_LOG"):
            settings = Settings.from_env({variable: text})
            assert getattr(settings, variable[9:].lower()) is expected


def test_words_are_taken_in_any_case() -> None:
    environ = {
        "TORCHLIT_LOG_LEVEL": "INFO",
        "TORCHLIT_LOG_FORMAT": "Json",
        "TORCHLIT_DEVICE": "CPU",
    }
    settings = Settings.from_env(environ)
    assert (settings.log_level, settings.log_format, settings.device) == ("info", "json", "cpu")


@pytest.mark.parametrize(
    ("environ", "port"),
    [
        ({"PORT": "1"}, 1),
        ({"PORT": ""}, 8000),
        ({"PORT": "1", "AIP_HTTP_PORT": "", "TORCHLIT_PORT": ""}, 1),
        ({"PORT": "1", "AIP_HTTP_PORT": "2"}, 2),
        ({"PORT": "1", "AIP_HTTP_PORT": "2", "SAGEMAKER_BIND_TO_PORT": "3"}, 3),
        ({"PORT": "1", "AIP_HTTP_PORT": "2", "TORCHLIT_PORT": "4"}, 4),
    ],
)
def test_a_platform_says_the_port_unless_torchlit_port_does(
    environ: dict[str, str], port: int
) -> None:
    assert Settings.from_env(environ).port == port


def test_vertex_ai_says_the_routes() -> None:
    environ = {"AIP_PREDICT_ROUTE": "/v1/a:predict", "AIP_HEALTH_ROUTE": "/v1/a"}
    settings = Settings.from_env(environ)
    assert (settings.predict_route, settings.health_route) == ("/v1/a:predict", "/v1/a")


def test_what_kubernetes_says_of_a_service_named_torchlit_is_no_setting() -> None:
    """As its documentation lists them, for Services named torchlit and torchlit-canary."""
    environ = {}
    for name in ("TORCHLIT", "TORCHLIT_CANARY"):
        environ |= {
            f"{name}_SERVICE_HOST": "10.0.0.11",
            f"{name}_SERVICE_PORT": "8080",
            f"{name}_SERVICE_PORT_HTTP": "8080",
            f"{name}_PORT": "tcp://10.0.0.11:8080",
            f"{name}_PORT_8080_TCP": "tcp://10.0.0.11:8080",
            f"{name}_PORT_8080_TCP_PROTO": "tcp",
            f"{name}_PORT_8080_TCP_PORT": "8080",
            f"{name}_PORT_8080_TCP_ADDR": "10.0.0.11",
        }
    assert Settings.from_env(environ) == Settings()
    assert Settings.from_env(environ | {"PORT": "9"}).port == 9


def test_a_device_and_a_plug_in_contradict_each_other() -> None:
    both = {"TORCHLIT_DEVICE": "cpu", "TORCHLIT_PROVIDER": "openvino"}
    with pytest.raises(InvalidSetting) as error:
        Settings.from_env(both)
    assert str(error.value) == (
        "TORCHLIT_PROVIDER: expected none where TORCHLIT_DEVICE is cpu, got 'openvino': set one of "
        "the two"
    )


@pytest.mark.parametrize(
    ("where", "runs_on"),
    [
        ({"TORCHLIT_DEVICE": "cuda"}, "cuda"),
        ({"TORCHLIT_DEVICE": "cpu"}, "cpu"),  # nothing falls back there
        ({"TORCHLIT_PROVIDER": "WebGPU"}, "webgpu"),
        ({"TORCHLIT_DEVICE": "auto", "TORCHLIT_PROVIDER": "tensorrt-rtx"}, "tensorrt-rtx"),
    ],
)
def test_falling_back_can_be_refused_where_a_device_is_asked_for(
    where: dict[str, str], runs_on: str
) -> None:
    settings = Settings.from_env({**where, "TORCHLIT_FALLBACK": "refuse"})
    assert settings.runs_on == runs_on


def test_every_device_of_the_table_of_providers_can_be_asked_for() -> None:
    kinds = {each.name: each.type for each in msgspec.structs.fields(Settings)}
    devices, plugins = (set(get_args(get_args(kinds[name])[0])) for name in ("device", "provider"))
    assert devices == {"auto", *(each.device for each in PROVIDERS if not each.package)}
    assert plugins == {"none", *(each.device for each in PROVIDERS if each.package)}
