"""The code that MLflow runs to load and serve a registered panel.

MLflow copies this file into the model's artifacts, next to the folder with the model's files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from mmlab.model import Model


class ServedModel(PythonModel):
    """A :class:`mmlab.model.panel_model.Model` as MLflow serves it."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the model from the artifact ``numbers``."""
        self.model = Model.load(Path(context.artifacts["numbers"]))

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Predict cell types; with ``params={"output": "expression"}`` reconstruct all genes.

        ``model_input`` is log1p-normalised expression, one column per gene of the panel.
        """
        output = (params or {}).get("output", "cell_type")
        if output == "expression":
            return self.model.reconstruct(model_input)
        return self.model.predict(model_input)


set_model(ServedModel())
