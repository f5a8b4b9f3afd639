"""The MLflow model of a panel, which tools other than mmlab can load."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mmlab
from mmlab.model import Model

#: Name of the folder with mmlab's model in the MLflow model.
MODEL_FILES = "numbers"


def save_pyfunc(model: Model, model_files: Path, folder: Path) -> None:
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
            artifacts={MODEL_FILES: str(model_files)},
            signature=signature,
            pip_requirements=[f"mmlab=={mmlab.__version__}"],
            metadata={key: str(value) for key, value in model.about.items()},
        )


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
