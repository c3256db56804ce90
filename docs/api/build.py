"""Write the API pages, made from the docstrings: `python docs/api/build.py FOLDER`."""

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pdoc


def modules(name: str) -> Iterator[str]:
    """Modules to name to pdoc: below a package that has `__all__` it looks for nothing that is not in there."""
    yield name
    package = importlib.import_module(name)
    if hasattr(package, "__all__"):
        for child in pkgutil.iter_modules(getattr(package, "__path__", []), f"{name}."):
            if not child.name.endswith("__main__"):
                yield from modules(child.name)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    pdoc.render.configure(
        docformat="google", show_source=False, template_directory=Path(__file__).parent, footer_text="gaussianverse"
    )
    pdoc.pdoc(*modules("gaussianverse"), output_directory=folder)
    print(f"{folder / 'index.html'}")
