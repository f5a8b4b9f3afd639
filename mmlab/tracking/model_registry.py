"""The MLflow model registry: registering, finding and loading the champion of a dataset."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

import mmlab
from mmlab.constraints.describe import describe_constraints, escape_markdown
from mmlab.errors import UserError
from mmlab.model import Model
from mmlab.spec.constraints import constraints_key
from mmlab.spec.trial import TrialSpec
from mmlab.tracking.spec_tags import spec_json, spec_tags
from mmlab.tracking.store import TrackingStore

#: Alias of the model version that is the best of its dataset, panel size and constraints.
CHAMPION = "champion"
#: Artifact folder of the MLflow model in a run, and name of the folder with mmlab's model in it.
_FOLDER, _MODEL_FILES = "model", "numbers"


@dataclass(frozen=True)
class Champion:
    """A registered model of a panel.

    Attributes
    ----------
    model_name, version
        Name and version in the registry.
    spec, digest
        The trial that chose the panel, evaluated on the held-out test set.
    fingerprint
        Fingerprint of the data.
    study
        Name of the search whose promotion registered the model.
    source
        Artifact URI of the model's files.
    sha256
        SHA-256 of the model's files.
    created_ms
        Time of registration, Unix time in milliseconds.
    """

    model_name: str
    version: str
    spec: TrialSpec
    digest: str
    fingerprint: str
    study: str
    source: str
    sha256: str
    created_ms: int


def model_name(dataset: str, spec: TrialSpec) -> str:
    """Return the name of a registered model: dataset, selector, panel size, key of constraints."""
    key = constraints_key(spec)
    name = f"{quote(dataset, safe=' ')}.{spec.selector}.{spec.n_markers}"
    return f"{name}.{key}" if key else name


def find_champion(
    store: TrackingStore, dataset: str, n_markers: int, constraints: str = ""
) -> Champion | None:
    """Return the champion of a dataset at a panel size, of any selector; None if there is none.

    ``constraints`` is the key from :func:`mmlab.spec.constraints.constraints_key`; each set of
    constraints has its own champion.
    """
    versions = _champion_versions(store, dataset, n_markers, constraints)
    champions = [_read_champion(version) for version in versions]
    return max(champions, key=lambda champion: champion.created_ms, default=None)


def load_model(store: TrackingStore, champion: Champion) -> Model:
    """Load the model of a champion.

    Raises
    ------
    UserError
        The model's files have changed since it was registered.
    """
    with tempfile.TemporaryDirectory(prefix="mmlab-") as folder:
        path = _download(store, champion.source, Path(folder)) / "artifacts" / _MODEL_FILES
        if _sha256(path) != champion.sha256:
            raise UserError(
                f"the files of model {champion.model_name} version {champion.version} have changed "
                f"since it was registered. Run `mmlab promote {champion.study}` again."
            )
        return Model.load(path)


def register_champion(
    store: TrackingStore, run_id: str, model: Model, spec: TrialSpec, digest: str, study: str
) -> Champion:
    """Log a model to a run, register it, and make it the champion.

    The previous champion of the dataset, panel size and constraints loses the alias ``champion``.
    """
    dataset = str(model.about["dataset"])
    name = model_name(dataset, spec)
    with tempfile.TemporaryDirectory(prefix="mmlab-") as folder:
        model_files = Path(folder) / _MODEL_FILES
        model_files.mkdir()
        model.save(model_files)
        sha256 = _sha256(model_files)
        _save_pyfunc(model, model_files, Path(folder) / _FOLDER)
        store.client.log_artifacts(run_id, str(Path(folder) / _FOLDER), _FOLDER)
    source = f"{store.client.get_run(run_id).info.artifact_uri}/{_FOLDER}"
    if not _is_registered(store, name):
        description = f"Panels of {spec.n_markers} genes for {dataset}, chosen by {spec.selector}."
        description = " ".join([description, *describe_constraints(spec, escape_markdown)])
        model_tags = {"mmlab.dataset": dataset, "mmlab.n_markers": str(spec.n_markers)}
        store.client.create_registered_model(name, model_tags, description)
    tags = {
        **spec_tags(spec),
        "mmlab.digest": digest,
        "mmlab.fingerprint": str(model.about["fingerprint"]),
        "mmlab.study": study,
        "mmlab.version": mmlab.__version__,
        "mmlab.sha256": sha256,
    }
    previous = list(_champion_versions(store, dataset, spec.n_markers, constraints_key(spec)))
    version = store.client.create_model_version(name, source, run_id, tags)
    store.client.set_registered_model_alias(name, CHAMPION, version.version)
    for old in previous:
        if old.name != name:
            store.client.delete_registered_model_alias(old.name, CHAMPION)
    return _read_champion(version)


def _is_registered(store: TrackingStore, name: str) -> bool:
    try:
        store.client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            return False
        raise
    return True


def _champion_versions(
    store: TrackingStore, dataset: str, n_markers: int, constraints: str
) -> Iterator[ModelVersion]:
    """Yield the champions of a dataset at a panel size and with constraints, of any selector."""
    wanted_tags = {"mmlab.dataset": dataset, "mmlab.n_markers": str(n_markers)}
    token: str | None = None
    while True:
        page = store.client.search_registered_models(page_token=token)
        for model in page:
            if wanted_tags.items() <= model.tags.items() and CHAMPION in model.aliases:
                version = store.client.get_model_version_by_alias(model.name, CHAMPION)
                if constraints_key(_read_champion(version).spec) == constraints:
                    yield version
        token = page.token
        if not token:
            return


def _read_champion(version: ModelVersion) -> Champion:
    tags = version.tags
    return Champion(
        model_name=version.name,
        version=str(version.version),
        spec=TrialSpec.model_validate_json(spec_json(tags)),
        digest=tags["mmlab.digest"],
        fingerprint=tags["mmlab.fingerprint"],
        study=tags["mmlab.study"],
        source=str(version.source),
        sha256=tags["mmlab.sha256"],
        created_ms=int(version.creation_timestamp),
    )


def _save_pyfunc(model: Model, model_files: Path, folder: Path) -> None:
    """Write an MLflow pyfunc model: code as a script, arrays as safetensors, no pickle."""
    from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.double, gene) for gene in model.markers]),
        outputs=Schema([ColSpec(DataType.string, "cell_type"), ColSpec(DataType.double, "share")]),
        params=ParamSchema([ParamSpec("output", DataType.string, "cell_type")]),
    )
    with _silence_mlflow():
        pyfunc.save_model(
            folder,
            python_model=str(Path(__file__).with_name("served_model.py")),
            artifacts={_MODEL_FILES: str(model_files)},
            signature=signature,
            pip_requirements=[f"mmlab=={mmlab.__version__}"],
            metadata={key: str(value) for key, value in model.about.items()},
        )


def _download(store: TrackingStore, source: str, folder: Path) -> Path:
    from mlflow.artifacts import download_artifacts

    path = download_artifacts(
        artifact_uri=source, dst_path=str(folder), tracking_uri=store.connection_uri
    )
    return Path(path)


def _sha256(folder: Path) -> str:
    """Return the SHA-256 of the names and contents of a folder's files."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@contextmanager
def _silence_mlflow() -> Iterator[None]:
    """Silence MLflow's advice to add type hints and input examples; the signature replaces both."""
    loggers = [logging.getLogger(name) for name in ("mlflow.pyfunc", "mlflow.models.model")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
