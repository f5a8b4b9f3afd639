"""The MLflow model registry: registering, finding and loading the champion of a dataset."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
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
from mmlab.tracking.pyfunc_model import MODEL_FILES, save_pyfunc
from mmlab.tracking.spec_tags import spec_json, spec_tags
from mmlab.tracking.store import TrackingStore

#: Alias of the model version that is the best of its dataset, panel size and constraints.
CHAMPION = "champion"
#: Artifact folder of the MLflow model in a run.
_FOLDER = "model"


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
    run_id
        MLflow run of the promotion that registered the model.
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
    run_id: str


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
        path = _download(store, champion.source, Path(folder)) / "artifacts" / MODEL_FILES
        if _sha256(path) != champion.sha256:
            raise UserError(
                f"the files of model {champion.model_name} version {champion.version} have changed "
                f"since it was registered. Run `mmlab promote {champion.study}` again."
            )
        return Model.load(path)


def register_model(
    store: TrackingStore, run_id: str, model: Model, spec: TrialSpec, digest: str, study: str
) -> Champion:
    """Log a model to the run of a promotion and register it, unless that is done already.

    A version that an interrupted call registered for another trial is deleted.
    """
    for version in store.client.search_model_versions(f"run_id = '{run_id}'"):
        if version.tags["mmlab.digest"] == digest:
            return _read_champion(version)
        store.client.delete_model_version(version.name, str(version.version))
    dataset = str(model.about["dataset"])
    name = model_name(dataset, spec)
    sha256 = _log_model(store, run_id, model)
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
    return _read_champion(store.client.create_model_version(name, source, run_id, tags))


def set_champion(store: TrackingStore, dataset: str, champion: Champion) -> None:
    """Give a model the alias ``champion``; others of its panel size and constraints lose it."""
    spec = champion.spec
    # Until the others have lost it, the latest of them is the champion.
    store.client.set_registered_model_alias(champion.model_name, CHAMPION, champion.version)
    same_title = list(_champion_versions(store, dataset, spec.n_markers, constraints_key(spec)))
    for version in same_title:
        if version.name != champion.model_name:
            store.client.delete_registered_model_alias(version.name, CHAMPION)


def read_version(store: TrackingStore, name: str) -> Champion | None:
    """Return the model ``<name>/<version>`` of the registry; None if it is not there."""
    try:
        return _read_champion(store.client.get_model_version(*name.split("/")))
    except MlflowException as error:
        if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            return None
        raise


def _log_model(store: TrackingStore, run_id: str, model: Model) -> str:
    """Log a model to a run as an MLflow model, and return the SHA-256 of its files."""
    with tempfile.TemporaryDirectory(prefix="mmlab-") as folder:
        model_files = Path(folder) / MODEL_FILES
        model_files.mkdir()
        model.save(model_files)
        save_pyfunc(model, model_files, Path(folder) / _FOLDER)
        store.client.log_artifacts(run_id, str(Path(folder) / _FOLDER), _FOLDER)
        return _sha256(model_files)


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
        run_id=str(version.run_id),
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
