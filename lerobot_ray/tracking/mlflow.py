"""MLflow: one run per job, continued on resume. Its client only; nothing of the process's MLflow state is touched.

`<output_dir>/mlflow_run.json` remembers the run. Without a tracking server everything is in the output folder, in
`mlflow.db` and `mlartifacts/`. Checkpoints are referred to, never copied. Steps trained again after a restart are in
MLflow twice, because it takes nothing back; `metrics.jsonl` has them once.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lerobot_ray.tracking.mlflow_database import make_database
from lerobot_ray.tracking.protocol import Outcome, RunInfo
from lerobot_ray.tracking.redact import redacted_text

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
    from mlflow.tracking import MlflowClient

logger = logging.getLogger(__name__)

RUN_FILE = "mlflow_run.json"
DATABASE_FILE = "mlflow.db"
ARTIFACTS_DIR = "mlartifacts"
_SQLITE = "sqlite:///"
_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}

# MLflow's limits: mlflow/utils/validation.py
_MAX_PARAMS_PER_CALL = 100
_MAX_METRICS_PER_CALL = 1000
_MAX_NAME = 250
_MAX_PARAM_VALUE = 6000
_MAX_TAG_VALUE = 8000


def resolve_tracking_uri(tracking_uri: str | None, output_dir: Path, environment: Mapping[str, str]) -> str:
    """The store to use: the given one, else MLFLOW_TRACKING_URI, else a file in the output folder.

    A relative sqlite path is made absolute, so that a process elsewhere means the same file.
    """
    uri = tracking_uri or environment.get("MLFLOW_TRACKING_URI")
    if not uri:
        return f"{_SQLITE}{output_dir.absolute() / DATABASE_FILE}"
    if uri.startswith(_SQLITE) and uri != f"{_SQLITE}:memory:":
        return f"{_SQLITE}{Path(uri.removeprefix(_SQLITE)).absolute()}"
    return uri


class MlflowTracker:
    """A run in an MLflow store. `parent_run` makes it a child of that run, as the trials of a sweep are."""

    def __init__(
        self,
        tracking_uri: str,
        *,
        experiment: str,
        system_metrics: bool = True,
        tags: Mapping[str, str] | None = None,
        parent_run: str | None = None,
    ) -> None:
        self._uri, self._experiment = tracking_uri, experiment
        self._wants_system_metrics, self._tags, self._parent_run = system_metrics, dict(tags or {}), parent_run
        self._client: MlflowClient | None = None
        self._monitor: SystemMetricsMonitor | None = None
        self._run_id = ""
        self._checkpoints: list[dict[str, Any]] = []

    @property
    def run_id(self) -> str:
        """Empty before `start`."""
        return self._run_id

    def start(self, run: RunInfo) -> None:
        _quiet()
        from mlflow.tracking import MlflowClient

        if (database := _database_file(self._uri)) is not None:
            make_database(database, artifacts=database.parent / ARTIFACTS_DIR)
        self._client = client = MlflowClient(self._uri)
        found = self._continued(client, run.output_dir)
        stored = found or self._created(client, run)
        self._run_id = stored.info.run_id
        attempt = int(stored.data.tags.get("lerobot_ray.attempts", "0")) + 1
        client.set_tag(self._run_id, "lerobot_ray.attempts", str(attempt))
        try:
            self._log_params(client, run, dict(stored.data.params), attempt)
            self._log_documents(client, run, attempt)
        except Exception as error:  # a server without an artifact store still takes metrics
            logger.warning("mlflow: config or environment not recorded (%s: %s).", type(error).__name__, error)
        if self._wants_system_metrics:
            self._monitor = self._started_monitor()

    def log(self, values: Mapping[str, float], *, step: int, time_s: float | None = None) -> None:
        from mlflow.entities import Metric

        stamp_ms = round((time.time() if time_s is None else time_s) * 1000)
        metrics = [Metric(_valid_name(name), value, stamp_ms, step) for name, value in values.items()]
        for first in range(0, len(metrics), _MAX_METRICS_PER_CALL):
            self._opened().log_batch(self._run_id, metrics=metrics[first : first + _MAX_METRICS_PER_CALL])

    def log_checkpoint(self, checkpoint: Path, *, step: int) -> None:
        client = self._opened()
        client.set_tag(self._run_id, "lerobot_ray.last_checkpoint", str(checkpoint)[:_MAX_TAG_VALUE])
        client.set_tag(self._run_id, "lerobot_ray.last_checkpoint_step", str(step))
        self._checkpoints = [known for known in self._checkpoints if known["step"] < step]
        self._checkpoints.append({"step": step, "path": str(checkpoint)})
        client.log_dict(self._run_id, {"checkpoints": self._checkpoints}, "checkpoints.json")

    def log_file(self, path: Path, *, folder: str = "") -> None:
        self._opened().log_artifact(self._run_id, str(path), folder or None)

    def close(self, outcome: Outcome) -> None:
        client = self._opened()
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None
        if outcome.message:
            client.set_tag(self._run_id, "lerobot_ray.message", redacted_text(outcome.message)[:_MAX_TAG_VALUE])
        client.set_terminated(self._run_id, status=_STATUS[outcome.status])

    def _opened(self) -> MlflowClient:
        assert self._client is not None, "start comes first"
        return self._client

    def _continued(self, client: MlflowClient, output_dir: Path) -> Run | None:
        """The run that an earlier start of this job recorded, if this store has it."""
        from mlflow.exceptions import MlflowException

        try:
            remembered = _remembered(output_dir)
            run_id, uri = remembered["run_id"], remembered["tracking_uri"]
        except (FileNotFoundError, ValueError, KeyError):
            return None
        if uri != redacted_text(self._uri) and not self._uri.startswith(_SQLITE):  # a folder may have been moved
            return None
        try:
            stored = client.get_run(run_id)
            client.update_run(run_id, status="RUNNING")
            self._checkpoints = self._known_checkpoints(client, run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            logger.warning("mlflow: run %s is not in the store any more; a new one begins.", run_id)
            return None
        return stored

    def _created(self, client: MlflowClient, run: RunInfo) -> Run:
        tags = {**self._tags, "mlflow.source.name": "lerobot_ray", "mlflow.source.type": "LOCAL"}
        if self._parent_run:
            tags["mlflow.parentRunId"] = self._parent_run
        stored = client.create_run(self._experiment_id(client), run_name=run.name, tags=tags)
        content = {"run_id": stored.info.run_id, "tracking_uri": redacted_text(self._uri)}
        run.output_dir.mkdir(parents=True, exist_ok=True)
        fresh = run.output_dir / f".{RUN_FILE}.tmp"
        fresh.write_text(json.dumps(content, indent=1))
        os.replace(fresh, run.output_dir / RUN_FILE)
        return stored

    def _experiment_id(self, client: MlflowClient) -> str:
        from mlflow.exceptions import MlflowException

        known = client.get_experiment_by_name(self._experiment)
        if known is not None:
            return known.experiment_id
        database, location = _database_file(self._uri), None
        if database is not None:  # MLflow's own default is the working directory
            location = (database.parent / ARTIFACTS_DIR).as_uri()
        try:
            return client.create_experiment(self._experiment, artifact_location=location)
        except MlflowException:  # another run was faster
            known = client.get_experiment_by_name(self._experiment)
            if known is None:
                raise
            return known.experiment_id

    def _log_params(self, client: MlflowClient, run: RunInfo, stored: dict[str, str], attempt: int) -> None:
        """MLflow's parameters never change: those that do on a resume become tags of that attempt."""
        from mlflow.entities import Param, RunTag

        values = {**flat(run.config), "world_size": str(run.world_size), "global_batch": str(run.global_batch)}
        fresh = [Param(name, value) for name, value in values.items() if name not in stored]
        tags = [
            RunTag(_valid_name(f"attempt_{attempt}.{name}"), value)
            for name, value in values.items()
            if name in stored and stored[name] != value
        ]
        for first in range(0, len(fresh), _MAX_PARAMS_PER_CALL):
            client.log_batch(self._run_id, params=fresh[first : first + _MAX_PARAMS_PER_CALL])
        for first in range(0, len(tags), _MAX_PARAMS_PER_CALL):
            client.log_batch(self._run_id, tags=tags[first : first + _MAX_PARAMS_PER_CALL])

    def _log_documents(self, client: MlflowClient, run: RunInfo, attempt: int) -> None:
        folder = "" if attempt == 1 else f"attempt_{attempt}/"
        packages = run.environment.get("packages", {})
        client.log_dict(self._run_id, dict(run.config), f"{folder}config.json")
        client.log_dict(
            self._run_id,
            {**{key: value for key, value in run.environment.items() if key != "packages"}, **run.facts},
            f"{folder}environment.json",
        )
        frozen = "".join(f"{name}=={version}\n" for name, version in packages.items())
        client.log_text(self._run_id, frozen, f"{folder}requirements.txt")

    def _known_checkpoints(self, client: MlflowClient, run_id: str) -> list[dict[str, Any]]:
        """What earlier starts noted: the list is one document, so it is read before it is written again."""
        with TemporaryDirectory() as folder:
            try:
                path = client.download_artifacts(run_id, "checkpoints.json", folder)
                return list(json.loads(Path(path).read_text())["checkpoints"])
            except Exception:  # none yet, or unreadable: the list of references begins again
                return []

    def _started_monitor(self) -> SystemMetricsMonitor | None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor = SystemMetricsMonitor(self._run_id, resume_logging=True, tracking_uri=self._uri)
        monitor.start()
        return monitor


def log_to_ended_run(
    tracking_uri: str, output_dir: Path, entries: Iterable[tuple[int, Mapping[str, float], Iterable[Path]]]
) -> None:
    """Add (step, numbers, files) to the run that `output_dir` remembers; its status and end stay as they are."""
    _quiet()
    from mlflow.tracking import MlflowClient

    tracker = MlflowTracker(tracking_uri, experiment="", system_metrics=False)
    tracker._client, tracker._run_id = MlflowClient(tracking_uri), _remembered(output_dir)["run_id"]
    for step, values, files in entries:
        tracker.log(values, step=step)
        for file in files:
            tracker.log_file(file, folder=f"eval/step_{step}")


def _remembered(output_dir: Path) -> dict[str, str]:
    """The run that a start of this job recorded."""
    return json.loads((output_dir / RUN_FILE).read_text())


def _database_file(uri: str) -> Path | None:
    """The file of a store that is one."""
    if not uri.startswith(_SQLITE) or "?" in uri or uri == f"{_SQLITE}:memory:":
        return None
    return Path(uri.removeprefix(_SQLITE)).absolute()


def flat(config: Mapping[str, Any]) -> dict[str, str]:
    """A nested config as MLflow parameters: dotted names, values as text, cut where MLflow would refuse them."""
    found: dict[str, str] = {}

    def visit(name: str, value: Any) -> None:
        if isinstance(value, Mapping) and value:
            for key, item in value.items():
                visit(f"{name}.{key}" if name else str(key), item)
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            found[_valid_name(name)] = text if len(text) <= _MAX_PARAM_VALUE else text[: _MAX_PARAM_VALUE - 1] + "…"

    visit("", config)
    return found


def _valid_name(name: str) -> str:
    """MLflow takes letters, digits and a few marks in names."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:_MAX_NAME]


def _quiet() -> None:
    """Before MLflow is imported: no telemetry, no progress bars, and its database set-up is nobody's news."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_DISABLE_AGENT_HINT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.system_metrics.system_metrics_monitor"):
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(logging.WARNING)
