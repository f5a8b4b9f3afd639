"""The results of an undisturbed study, with which those after an accident are compared."""

from __future__ import annotations

from typing import Any

import pytest
from reference_study import N_TRIALS, assert_complete, run_study, write_study


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the JSON document of the reference study."""
    folder = tmp_path_factory.mktemp("reference")
    write_study(folder)
    content = run_study(folder)
    assert len(content["trials"]) == N_TRIALS
    assert_complete(f"sqlite:///{folder}/mlflow.db", content, content)
    return content
