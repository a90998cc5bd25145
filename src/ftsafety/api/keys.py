"""The keys of endpoints. Light: looked at before any job starts."""

import os

from ftsafety.errors import UserError
from ftsafety.recipes import Endpoint


def api_key(name: str, endpoint: Endpoint) -> str:
    """The key from the environment, or a stand-in where the endpoint needs none.

    Raises UserError, which does not show it, where it is not set or cannot be one.
    """
    variable = endpoint.api_key_env
    if variable is None:
        return "none"
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise UserError(
            f"needs a key, but the environment variable {variable} is {'no key' if key else 'not set'}",
            file="config/endpoints.yaml",
            field=f"{name}.api_key_env",
            mend=f"export {variable}=… in the shell that starts Snakemake; keys belong in no file",
        )
    return key
