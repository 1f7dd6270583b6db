"""Load a recipe with a wrong key as `kagflow train` does; succeed when it is refused."""

import sys
import tempfile
from pathlib import Path

from kagflow.config import load_recipe
from kagflow.errors import UsageError

with tempfile.TemporaryDirectory() as folder:
    recipe = Path(folder, "x.yaml")
    recipe.write_text("model: {target: smp}\n")
    try:
        load_recipe(recipe, ["optimiser.lrr=1"])
    except UsageError:
        sys.exit(0 if "torch" not in sys.modules else 2)
sys.exit(1)
