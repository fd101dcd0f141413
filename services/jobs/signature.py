"""The key with which an installation signs its jobs, and the signature itself.

Whoever can write to Redis could order jobs, which read files, fetch URLs and launch clouds. So the web app and the
command sign what they submit (`services/jobs/jobs.py`), and the pipelines refuse what has no right signature
(`pipelines/celery/admission.py`). The pipelines sign where a fine-tuning runs, too. The key is not in Redis: all of
them share a state folder, or have the same CHATSERVER_JOB_KEY.
"""

import hashlib
import hmac

from services.errors import ConfigurationError
from services.machine.files import kept_key
from services.settings import Settings, variable_of


def job_key(settings: Settings) -> bytes:
    """The installation's key for jobs; made when there is none. Raises ConfigurationError."""
    path = settings.state_dir / "job_key"
    try:
        return (settings.job_key or kept_key(path)).encode()
    except OSError as error:
        raise ConfigurationError(
            f"the key that signs jobs, {path}, cannot be used: {error.strerror}",
            remedy=f"set {variable_of('job_key')} to the key of the pipelines, or run this as their user",
        ) from None


def signature(key: bytes, kind: str, jid: str, spec: bytes) -> str:
    """Of a job's kind, id and encoded spec. No kind or id has a line break."""
    return hmac.new(key, b"\n".join((kind.encode(), jid.encode(), spec)), hashlib.sha256).hexdigest()
