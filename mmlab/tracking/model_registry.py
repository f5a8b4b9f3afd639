"""The model registry: the champion of a dataset, and where it comes from."""

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

import mmlab
from mmlab.constraints.describe import describe_constraints, escape_markdown
from mmlab.errors import UserError
from mmlab.model import Model
from mmlab.spec.constraints import constraints_key
from mmlab.spec.trial import TrialSpec
from mmlab.tracking.spec_tags import spec_json, spec_tags
from mmlab.tracking.store import TrackingStore

#: Alias of the one model version that is a dataset's best.
CHAMPION = "champion"
#: Of an MLflow model in a run, and of the numbers inside it.
_FOLDER, _NUMBERS = "model", "numbers"


@dataclass(frozen=True)
class Champion:
    """A registered panel.

    Attributes
    ----------
    model_name, version
        In the registry.
    spec, digest
        The trial whose panel it holds: judged on the locked cells.
    fingerprint
        Of the data.
    study
        The search that found its configuration.
    source
        Where its files lie, an artifact URI.
    sha256
        Of its numbers.
    created_ms
        When it was registered, Unix time in milliseconds.
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
    """Name of a registered model: dataset, selector, panel size and, if any, constraints' key."""
    key = constraints_key(spec)
    name = f"{quote(dataset, safe=' ')}.{spec.selector}.{spec.n_markers}"
    return f"{name}.{key}" if key else name


def find_champion(
    store: TrackingStore, dataset: str, n_markers: int, constraints: str = ""
) -> Champion | None:
    """The champion of a dataset at a panel size, whatever its selector; None if there is none.

    ``constraints`` is the key of :func:`mmlab.spec.constraints.constraints_key`: panels that hold different
    constraints do not compete.
    """
    versions = _champions(store, dataset, n_markers, constraints)
    found = [_champion(version) for version in versions]
    return max(found, key=lambda champion: champion.created_ms, default=None)


def load_model(store: TrackingStore, champion: Champion) -> Model:
    """The model of a champion.

    Raises
    ------
    UserError
        Its numbers are not those that were registered.
    """
    with tempfile.TemporaryDirectory(prefix="mmlab-") as folder:
        path = _download(store, champion.source, Path(folder)) / "artifacts" / _NUMBERS
        if _sha256(path) != champion.sha256:
            raise UserError(
                f"model {champion.model_name} version {champion.version}: its numbers have "
                "changed since it was registered; promote the study again."
            )
        return Model.load(path)


def register_champion(
    store: TrackingStore, run_id: str, model: Model, spec: TrialSpec, digest: str, study: str
) -> Champion:
    """Register a model under a run and make it the champion of its dataset and panel size.

    The alias ``champion`` leaves the model that had it.
    """
    dataset = str(model.about["dataset"])
    name = model_name(dataset, spec)
    with tempfile.TemporaryDirectory(prefix="mmlab-") as folder:
        numbers = Path(folder) / _NUMBERS
        numbers.mkdir()
        model.save(numbers)
        sha256 = _sha256(numbers)
        _save_served(model, numbers, Path(folder) / _FOLDER)
        store.client.log_artifacts(run_id, str(Path(folder) / _FOLDER), _FOLDER)
    source = f"{store.client.get_run(run_id).info.artifact_uri}/{_FOLDER}"
    if not store.client.search_registered_models(f"name = '{name}'"):
        description = f"Panels of {spec.n_markers} genes for {dataset}, chosen by {spec.selector}."
        description = " ".join([description, *describe_constraints(spec, escape_markdown)])
        own = {"mmlab.dataset": dataset, "mmlab.n_markers": str(spec.n_markers)}
        store.client.create_registered_model(name, own, description)
    tags = {
        **spec_tags(spec),
        "mmlab.digest": digest,
        "mmlab.fingerprint": str(model.about["fingerprint"]),
        "mmlab.study": study,
        "mmlab.version": mmlab.__version__,
        "mmlab.sha256": sha256,
    }
    previous = list(_champions(store, dataset, spec.n_markers, constraints_key(spec)))
    version = store.client.create_model_version(name, source, run_id, tags)
    store.client.set_registered_model_alias(name, CHAMPION, version.version)
    for old in previous:
        if old.name != name:
            store.client.delete_registered_model_alias(old.name, CHAMPION)
    return _champion(version)


def _champions(
    store: TrackingStore, dataset: str, n_markers: int, constraints: str
) -> Iterator[ModelVersion]:
    of_interest = {"mmlab.dataset": dataset, "mmlab.n_markers": str(n_markers)}
    token: str | None = None
    while True:
        page = store.client.search_registered_models(page_token=token)
        for model in page:
            if of_interest.items() <= model.tags.items() and CHAMPION in model.aliases:
                version = store.client.get_model_version_by_alias(model.name, CHAMPION)
                if constraints_key(_champion(version).spec) == constraints:
                    yield version
        token = page.token
        if not token:
            return


def _champion(version: ModelVersion) -> Champion:
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


def _save_served(model: Model, numbers: Path, folder: Path) -> None:
    """Write an MLflow model: code by reference, numbers as safetensors, no pickle."""
    from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.double, gene) for gene in model.markers]),
        outputs=Schema([ColSpec(DataType.string, "cell_type"), ColSpec(DataType.double, "share")]),
        params=ParamSchema([ParamSpec("output", DataType.string, "cell_type")]),
    )
    with _quiet():
        pyfunc.save_model(
            folder,
            python_model=str(Path(__file__).with_name("served_model.py")),
            artifacts={_NUMBERS: str(numbers)},
            signature=signature,
            pip_requirements=[f"mmlab=={mmlab.__version__}"],
            metadata={key: str(value) for key, value in model.about.items()},
        )


def _download(store: TrackingStore, source: str, folder: Path) -> Path:
    from mlflow.artifacts import download_artifacts

    path = download_artifacts(artifact_uri=source, dst_path=str(folder), tracking_uri=store.uri)
    return Path(path)


def _sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@contextmanager
def _quiet() -> Iterator[None]:
    """MLflow advises type hints and input examples, which a signature makes needless."""
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
