"""One line for each command that a person can type: at the end of its help, and in what is said of a mistake."""

from __future__ import annotations

EXAMPLES = {
    "predict": "covseg predict images/ -o scored/",
    "score": "covseg score s3://radiographs/2026 s3://scored/2026",
    "publish": "covseg publish s3://scored/2026 --hide-keys",
    "verify": "covseg verify s3://scored/2026",
    "query": "covseg query s3://scored/2026 --by patient_sex",
    "send": "covseg send s3://scored/2026 https://pacs.example/dicom-web",
    "gc": "covseg gc s3://scored/2026 --dry-run",
    "diff": "covseg diff scored/before scored/after -o difference/",
    "serve": "covseg serve s3://scored/2026",
    "demo": "covseg demo -o demo/",
    "phantom": "covseg phantom 24 phantoms/ --format both --bad",
    "evaluate": "covseg evaluate default --data COVID-QU-Ex/ --split Val -o evaluation/",
    "calibrate": "covseg calibrate models/mine --data COVID-QU-Ex/ -o calibration/",
    "compare": "covseg compare evaluation/default evaluation/mine -o compared/",
    "models list": "covseg models list --registry s3://models",
    "models show": "covseg models show s3://models/fast@champion",
    "models pull": "covseg models pull s3://models/fast@v2 -o models/fast",
    "models push": "covseg models push models/mine mine --registry s3://models",
    "models promote": "covseg models promote s3://models/mine@v3 champion --note 'better on Val'",
    "models average": "covseg models average runs/one runs/other --data COVID-QU-Ex/ -o mean.safetensors",
    "models release": "covseg models release runs/mine -o models/mine --data COVID-QU-Ex/",
    "models combine": "covseg models combine models/one models/other -o models/both --name both",
    "models fit-filter": "covseg models fit-filter models/mine --data COVID-QU-Ex/",
    "models prove": "covseg models prove models/mine --data COVID-QU-Ex/",
    "models card": "covseg models card models/mine --evaluation evaluation/",
    "recipes": "covseg recipes fast",
    "train": "covseg train fast --data COVID-QU-Ex/ -o runs/mine",
    "search": "covseg search fast-space --data COVID-QU-Ex/ -o searches/fast --explain",
    "search show": "covseg search show searches/fast",
    "data labels": "covseg data labels my-set/",
    "data check": "covseg data check COVID-QU-Ex/ -o data-check/",
    "up": "covseg up --state /srv/covseg",
    "down": "covseg down",
    "deploy": "covseg deploy --source s3://radiographs/incoming --dest s3://scored/all --cron '0 2 * * *'",
    "doctor": "covseg doctor s3://scored/2026",
    "version": "covseg version",
}


def ending(command: str) -> str:
    """Return the last line of a command's help."""
    return f"Example: {EXAMPLES[command]}"
