"""A fitted panel: predicts cell types and reconstructs expression from the panel's genes.

Models in an MLflow registry import ``mmlab.model.Model`` when they are loaded: do not rename it.
"""

from __future__ import annotations

from mmlab.model.panel_model import Model, fit_model

__all__ = ["Model", "fit_model"]
