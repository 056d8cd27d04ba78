"""The application as a RayService or `serve deploy` asks for it: `import_path: serving.application:build`."""

from ray.serve import Application

from service.store import open_store
from serving import app
from serving.http.settings import load_settings


def build(args: dict[str, str]) -> Application:
    """args: `store`, and `config`, the path of a settings file. The address is in Serve's own options."""
    settings = load_settings(args.get("config"))
    return app.build(settings, open_store(args["store"]).uri)
