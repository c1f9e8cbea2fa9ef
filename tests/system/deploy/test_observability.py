"""What deploy/observability says of the service, held against the service and a real Prometheus."""

import json
import math
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.settings import PREFIX, Settings
from tests.support.clients import counted
from tests.support.processes import running
from tests.support.toys import body, save_toy, toy_card

pytestmark = pytest.mark.promtool

FOLDER = Path(__file__).parents[3] / "deploy" / "observability"
PROMTOOL = shutil.which(os.environ.get("PROMTOOL", "promtool")) or "promtool"
DASHBOARD = json.loads((FOLDER / "grafana" / "torchlit.json").read_text())
DOCKERFILE = Path(__file__).parents[3] / "Dockerfile"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = {
    f"{panel['title']}, {target['refId']}": target["expr"]
    for panel in PANELS
    for target in panel["targets"]
} | {
    annotation["name"]: annotation["expr"]
    for annotation in DASHBOARD["annotations"]["list"]
    if "expr" in annotation
}
WITHOUT_DATA = {"Starts"}  # needs a process that is started anew under the same address

# Alerts have the labels of what they are about, too.
OF_ALERTS = ("alertname", "alertstate", "model", "version", "shadow", "feature")
OF_PROMETHEUS: dict[str, dict[str, set[str]]] = {
    "up": {},
    "ALERTS": {label: set() for label in OF_ALERTS},
}
OF_EVERY_TARGET = {"namespace", "job", "instance"}  # the first on Kubernetes
SELECTOR = re.compile(r"\b((?:torchlit|process)_\w+|up|ALERTS)\b(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
GROUPED = re.compile(r"\b(?:by|on|ignoring|without|group_left|group_right)\s*\(([^)]*)\)")

# So short that a test has all that was asked about a day.
VARIABLES = {
    "__rate_interval": "4s",
    "__range": "8s",
    "window": "2s",
    "before": "2s",
    "job": "torchlit",
    **dict.fromkeys(["namespace", "instance", "model", "version"], ".*"),
}


def promtool(*arguments: object, cwd: Path = FOLDER) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROMTOOL, *map(str, arguments)],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
    )


def filled_in(query: str) -> str:
    """Return a query of the dashboard with its variables replaced, as Grafana does."""
    return re.sub(r"\$(\w+)", lambda found: VARIABLES[found[1]], query)


@dataclass(frozen=True)
class Scraped:
    """A service under a short load, and the Prometheus that scraped it until `at`."""

    client: httpx.Client
    metrics: str
    sent: dict[str, int]
    at: float

    def ask(self, query: str) -> Any:
        """Return the series that a query gives at the end of the load."""
        return self._ask("query", query=query, time=self.at)

    def values(self, query: str) -> list[float]:
        """Return every number that a query gives during the load."""
        found = self._ask("query_range", query=query, start=self.at - 8, end=self.at, step=1)
        texts = [text for series in found for _, text in series["values"]]
        return [float(text) for text in texts if not math.isnan(float(text))]

    def value(self, query: str) -> float:
        (series,) = self.ask(query)
        return float(series["value"][1])

    def _ask(self, path: str, **parameters: Any) -> Any:
        reply = self.client.post(path, data=parameters)
        assert reply.status_code == 200, reply.text
        return reply.json()["data"]["result"]


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    folder = tmp_path_factory.mktemp("observability")
    model = save_toy(folder / "models", card=toy_card())
    save_toy(folder / "models", 2, card=toy_card())
    with running(models_dir=folder / "models", shadow="toy/1=2", split="toy=1:2,2:1") as service:
        process, url = start_prometheus(folder, service.url)
        try:
            with httpx.Client(base_url=f"{url}/api/v1") as client:
                wait_until(lambda: httpx.get(f"{url}/-/ready").is_success)  # first 503
                wait_until(lambda: client.get("query?query=up").json()["data"]["result"])
                sent = load(service.url, until=time.monotonic() + 6, model=model)
                metrics = httpx.get(f"{service.url}/metrics").text
                time.sleep(1)  # a scrape and an evaluation more
                yield Scraped(client, metrics, sent, at=time.time())
        finally:
            process.kill()
            process.wait()


def start_prometheus(folder: Path, target: str) -> tuple[subprocess.Popen[bytes], str]:
    """Start it with our configuration, but for the target and the times."""
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config["rule_files"] = [str(FOLDER / name) for name in config["rule_files"]]
    (scrape,) = config["scrape_configs"]
    targets = [target.removeprefix("http://")]
    scrape["static_configs"] = [{"targets": targets, "labels": {"namespace": "test"}}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = subprocess.Popen(
        [
            Path(PROMTOOL).with_name("prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address={address}",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return process, f"http://{address}"


def wait_until(holds: Any) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            if holds():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("it never held")


def load(url: str, *, until: float, model: Path) -> dict[str, int]:
    """Ask rightly and wrongly; reload the model, then break its file. Return what was sent."""
    sent: dict[str, int] = defaultdict(int)
    breaking = [
        threading.Timer(1.5, save_toy, [model.parents[2]], {"card": toy_card()}),
        threading.Timer(3.5, model.write_bytes, [b"no model"]),
    ]
    for timer in breaking:
        timer.start()
    with httpx.Client(base_url=url) as client:
        while time.monotonic() < until:
            for outcome, content in [
                ("ok", body("toy", [[1, 2, 3, 4], [1, 2, 3, 1000]])),
                ("invalid", body("toy", [[1]])),
                ("not_found", body("nobody", [[1]])),
            ]:
                client.post("/predict", content=content)
                sent[outcome] += 1
            time.sleep(0.02)
    for timer in breaking:
        timer.join()
    return sent


def test_promtool_accepts_the_configuration() -> None:
    done = promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", "alerts.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_when_they_should_and_no_others_do() -> None:
    done = promtool("test", "rules", "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("change", ["never", "at once"])
def test_alerts_that_are_wrong_are_found(change: str, tmp_path: Path) -> None:
    """Of each alert the tests hold that it fires, and that it waits if it should."""
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text())
    wrong = set()
    for rule in groups["groups"][0]["rules"]:
        if change == "never":
            rule["expr"] = f"({rule['expr']}) and on () (vector(1) > 2)"
            wrong.add(rule["alert"])
        elif rule.pop("for", None):
            wrong.add(rule["alert"])
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(groups))
    shutil.copy(FOLDER / "alerts_test.yml", tmp_path)
    done = promtool("test", "rules", "alerts_test.yml", cwd=tmp_path)
    found = set(re.findall(r'alertname=\\?"(\w+)', done.stdout + done.stderr))
    assert found == wrong


def test_a_version_that_was_born_with_its_first_reload_is_counted(tmp_path: Path) -> None:
    """It is opened within one scrape interval: Prometheus never sees its 0."""
    of_a = 'job="torchlit", instance="a"'
    reloads = f'torchlit_reloads_total{{model="toy", {of_a}, '
    series = {
        f"up{{{of_a}}}": "1x23 0 1x15",
        f'{reloads}version="1", outcome="ok"}}': "7x9 8x13 stale 8x15",
        f'{reloads}version="2", outcome="ok"}}': "_x10 1x13 stale 1x15",
        f'{reloads}version="2", outcome="failed"}}': "_x10 0x13 stale 0x15",
        f'{reloads}version="3", outcome="failed"}}': "_x10 1x13 stale 1x15",
    }

    def told(query: str, minute: int, **expected: int) -> dict[str, Any]:
        labels = [(f'{{outcome="{outcome}"}}', value) for outcome, value in expected.items()]
        samples = [{"labels": each, "value": value} for each, value in labels]
        query = query.replace("$__range", "20m")
        return {"expr": filled_in(query), "eval_time": f"{minute}m", "exp_samples": samples}

    counts = f"round({QUERIES['Reloads in this time range, A']})"
    marks = f"sum by (outcome) (({QUERIES['Reloads']}) > bool 0)"
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            told(counts, 9, ok=0),  # it was not scraped before
            told(counts, 20, ok=2, failed=1),
            told(counts, 39, ok=0, failed=0),
            told(marks, 9),
            told(marks, 10, ok=2, failed=1),
            told(marks, 11),
            told(marks, 25),  # it could not be scraped at 24
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"tests": [test]}))
    done = promtool("test", "rules", "test.yml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_says_what_to_do() -> None:
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert {"summary", "description"} == set(rule["annotations"]), name


def exported(text: str) -> dict[str, dict[str, set[str]]]:
    """Return the values of each label of each metric."""
    metrics: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            metrics[sample.name]  # even without labels
            for label, value in sample.labels.items():
                metrics[sample.name][label].add(value)
    return metrics


@pytest.mark.parametrize("name", [*QUERIES, *ALERTS])
def test_queries_use_only_what_the_service_exports(name: str, scraped: Scraped) -> None:
    query = QUERIES[name] if name in QUERIES else ALERTS[name]["expr"]
    known = exported(scraped.metrics) | OF_PROMETHEUS
    outside_of_text = re.sub(r'"[^"]*"', '""', query)
    labels = set(OF_EVERY_TARGET)
    for metric, matchers in SELECTOR.findall(query):
        if metric not in outside_of_text:
            continue  # it is part of a regular expression
        assert metric in known, metric
        labels |= set(known[metric])
        for label, _, expected in MATCHER.findall(matchers):
            assert label in OF_EVERY_TARGET | set(known[metric]), (metric, label)
            if label in ("outcome", "reason"):
                assert set(expected.split("|")) <= known[metric][label], (metric, expected)
    for grouped in GROUPED.findall(query):
        assert {label.strip() for label in grouped.split(",")} - {""} <= labels, grouped
    # Every counter is only ever seen as a rate.
    for counter in re.findall(r"\w+_total\b", outside_of_text):
        assert re.search(rf"(rate|increase|changes)\({counter}", query), counter


def test_legends_use_labels_that_their_queries_keep(scraped: Scraped) -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            for series in scraped.ask(filled_in(target["expr"])):
                assert wanted <= set(series["metric"]), (panel["title"], series["metric"])


@pytest.mark.parametrize("name", QUERIES)
def test_panels_show_something(name: str, scraped: Scraped) -> None:
    values = scraped.values(filled_in(QUERIES[name]))
    assert bool(values) == (name not in WITHOUT_DATA)
    assert all(map(math.isfinite, values))


def test_what_prometheus_counted_is_what_was_sent(scraped: Scraped) -> None:
    for outcome in ("ok", "invalid"):
        query = f'sum(torchlit_requests_total{{outcome="{outcome}"}})'
        assert scraped.value(query) == scraped.sent[outcome]
    unmatched = counted(scraped.metrics, "torchlit_unmatched_requests_total", "not_found")
    assert unmatched == scraped.sent["not_found"]
    # One value of eight is outside, in every second row.
    drift = filled_in(QUERIES["Most outside now, A"])
    assert scraped.value(f"max({drift})") == pytest.approx(0.5, abs=0.05)


def test_alerts_see_a_broken_file_and_drift(scraped: Scraped) -> None:
    assert scraped.value(filled_in(QUERIES["Stale versions, A"])) == 1
    alerts = scraped.client.get("alerts").json()["data"]["alerts"]
    names = {alert["labels"]["alertname"] for alert in alerts}
    assert names == {"TorchlitModelStale", "TorchlitDrift"}
    texts = [text for alert in alerts for text in alert["annotations"].values()]
    assert not [text for text in texts if "no value" in text or "error" in text]


def test_variables_of_the_dashboard_exist(scraped: Scraped) -> None:
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    builtin = {"__rate_interval", "__range"}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - {"__all"}
    assert used <= set(variables) | builtin
    assert set(variables) <= used
    for name, variable in variables.items():
        if variable["type"] == "query":
            selector, label = re.fullmatch(
                r"label_values\((.*), (\w+)\)", variable["query"]["query"]
            ).groups()
            found = scraped.ask(filled_in(selector))
            assert [series["metric"][label] for series in found], name


def test_panels_are_told_apart_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
    for panel in PANELS:
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
    assert [row["title"] for row in DASHBOARD["panels"] if row["type"] == "row"] == [
        "Is it healthy?",
        "Is it fast?",
        "Why is it slow?",
        "Is the data drifting?",
        "Is the next version as good?",
    ]


def test_compose_gives_the_service_settings_it_knows() -> None:
    environment = COMPOSE["services"]["torchlit"]["environment"]
    assert all(
        name.startswith(PREFIX) and isinstance(environment[name], str) for name in environment
    )
    in_image = dict(re.findall(r"^ +(PORT)=(\d+)", DOCKERFILE.read_text(), re.M))
    settings = Settings.from_env(in_image | environment)
    (published,) = COMPOSE["services"]["torchlit"]["ports"]
    assert published.endswith(f":{settings.port}")
    (scrape,) = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": [f"torchlit:{settings.port}"]}]


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_compose_confines_each_service(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "cpus", "pids_limit"} <= set(service)
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])


def mounts(name: str) -> dict[str, Path]:
    """Return the files and folders of ours that a service sees, by their path there."""
    found = {}
    for mount in COMPOSE["services"][name].get("volumes", []):
        source, target, *mode = mount.split(":")
        if source.startswith("."):
            assert mode == ["ro"], mount
            found[target] = FOLDER / source
        else:
            assert source in COMPOSE["volumes"], mount
    return found


def test_what_compose_mounts_exists_where_it_is_looked_for() -> None:
    assert all(path.exists() for name in COMPOSE["services"] for path in mounts(name).values())
    config = mounts("prometheus")["/etc/prometheus/prometheus.yml"]
    for rules in yaml.safe_load(config.read_text())["rule_files"]:
        assert f"/etc/prometheus/{rules}" in mounts("prometheus")
    assert (
        "--config.file=/etc/prometheus/prometheus.yml"
        in COMPOSE["services"]["prometheus"]["command"]
    )
    folder = mounts("grafana")["/etc/grafana/provisioning/dashboards"]
    assert "/etc/grafana/provisioning/datasources" in mounts("grafana")
    (provider,) = yaml.safe_load((folder / "torchlit.yml").read_text())["providers"]
    dashboard = f"{provider['options']['path']}/torchlit.json"
    assert mounts("grafana")[dashboard] == FOLDER / "grafana/torchlit.json"
    environment = COMPOSE["services"]["grafana"]["environment"]
    assert environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == dashboard


def test_grafana_knows_how_often_prometheus_scrapes() -> None:
    provisioned = FOLDER / "grafana/provisioning/datasources/prometheus.yml"
    (source,) = yaml.safe_load(provisioned.read_text())["datasources"]
    scrape = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scrape
    assert source["url"] == "http://prometheus:9090"
