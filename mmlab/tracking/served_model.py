"""The code that MLflow runs to load a registered panel; its numbers lie beside it."""

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
        """Read the numbers."""
        self.model = Model.load(Path(context.artifacts["numbers"]))

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Types of cells; all their genes with ``params={"output": "expression"}``.

        ``model_input`` has log1p-normalised expression, a column a gene of the panel.
        """
        output = (params or {}).get("output", "cell_type")
        if output == "expression":
            return self.model.reconstruct(model_input)
        return self.model.predict(model_input)


set_model(ServedModel())
