"""Where the folders of the checkout are: the only module that knows. An image copies the same folders side by side."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements.txt"
INFRA = ROOT / "infra"
RECIPES_DIR = INFRA / "recipes"
PRESETS_DIR = INFRA / "training"
SKY_DIR = INFRA / "sky"
SAMPLES_DIR = ROOT / "pipelines" / "samples"
REDIS_CONFIG = INFRA / "redis" / "redis.conf"
PAGE_SCRIPT = ROOT / "webapp" / "static" / "app.js"  # there when the pages were built
