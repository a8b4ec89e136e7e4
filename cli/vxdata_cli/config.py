"""`vxdata config show`: the settings that hold here, and where each comes from."""

import typer

from vxdata_cli.options import Debug, Json, Profile, Quiet
from vxdata_cli.out import out

app = typer.Typer(name="config", no_args_is_help=True, help="Look at the settings (docs/settings.md).")

_EXAMPLES = """Examples:

  $ vxdata config show
  $ vxdata config show --profile lab --json"""


@app.callback(epilog=_EXAMPLES)
def config() -> None:
    """Look at the settings: arguments, the environment (VXDATA_*), and vxdata.toml."""


@app.command("show", epilog=_EXAMPLES)
def show(profile: Profile = None, as_json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """Show each setting, its value, and where the value comes from.

    An argument wins over the environment, that over the project's vxdata.toml
    (in this folder or the nearest parent that has one), that over yours.
    Secrets are no settings: AWS profiles and the AWS environment hold them.
    """
    from vxdata.sdk import Client
    from vxdata.sdk.settings import KEYS, Setting, find_settings, user_file
    from vxdata_cli.tables import rows_table

    settings, client = find_settings(), Client()
    defaults = {"uri": client.uri, "author": client.author}
    found = {"profile": settings.profile, **{key: settings.values[key] for key in KEYS}}
    found = {key: Setting(s.value if s.value is not None else defaults.get(key), s.source) for key, s in found.items()}
    files = [str(file.path) for file in settings.files]
    document = {
        "settings": {key: {"value": s.value, "source": s.source} for key, s in found.items()},
        "files": files,
        "user_file": str(user_file()),
    }
    hint = f"No vxdata.toml was found here or above; yours would be {user_file()}." if not files else ""
    rows = [(key, s.value or "", s.source) for key, s in found.items()]
    out.result(document, rows_table(("setting", "value", "from"), rows), *([hint] if hint else []))
